--- Sets of intervals, and a tree that finds those that overlap. An interval is any table with `start` and `stop`; both ends belong to it.
local M = {}

local floor, max, min = math.floor, math.max, math.min

local function check(list, name)
  if type(list) ~= "table" then error(("%s: a list of intervals is wanted, not a %s"):format(name, type(list)), 0) end
  for at = 1, #list do
    local one = list[at]
    local start, stop = type(one) == "table" and one.start, type(one) == "table" and one.stop
    if type(start) ~= "number" or type(stop) ~= "number" or not (start <= stop) then
      error(("%s: interval %d is not { start = .., stop = .. } with start <= stop"):format(name, at), 0)
    end
  end
  return list
end

local function by_start(a, b)
  if a.start ~= b.start then return a.start < b.start end
  return a.stop < b.stop
end

local function sorted(list, name)
  local copy = {}
  for at, one in ipairs(check(list, name)) do copy[at] = one end
  table.sort(copy, by_start)
  return copy
end

--- The intervals joined where they overlap or touch (1..3 and 4..6 touch), sorted. With `gap`, those at most so many positions apart are
-- joined too.
function M.merge(list, gap)
  gap = gap or 0
  local result, last = {}, nil
  for _, one in ipairs(sorted(list, "merge")) do
    if last and one.start <= last.stop + 1 + gap then
      if one.stop > last.stop then last.stop = one.stop end
    else
      last = { start = one.start, stop = one.stop }
      result[#result + 1] = last
    end
  end
  return result
end

--- What is in both sets.
function M.intersect(a, b)
  a, b = M.merge(a), M.merge(b)
  local result, i, j = {}, 1, 1
  while a[i] and b[j] do
    local start, stop = max(a[i].start, b[j].start), min(a[i].stop, b[j].stop)
    if start <= stop then result[#result + 1] = { start = start, stop = stop } end
    if a[i].stop < b[j].stop then i = i + 1 else j = j + 1 end
  end
  return result
end

--- What is in the first set and not in the second.
function M.subtract(a, b)
  a, b = M.merge(a), M.merge(b)
  local result, j = {}, 1
  for _, one in ipairs(a) do
    local start = one.start
    while b[j] and b[j].stop < start do j = j + 1 end
    local k = j
    while b[k] and b[k].start <= one.stop do
      if b[k].start > start then result[#result + 1] = { start = start, stop = b[k].start - 1 } end
      start = max(start, b[k].stop + 1)
      k = k + 1
    end
    if start <= one.stop then result[#result + 1] = { start = start, stop = one.stop } end
  end
  return result
end

--- What is in either set.
function M.union(a, b)
  local all = {}
  for _, one in ipairs(check(a, "union")) do all[#all + 1] = one end
  for _, one in ipairs(check(b, "union")) do all[#all + 1] = one end
  return M.merge(all)
end

--- What of start..stop is in none of the intervals.
function M.gaps(list, start, stop)
  return M.subtract({ { start = start, stop = stop } }, list)
end

--- How many positions the intervals cover, each counted once.
function M.covered(list)
  local sum = 0
  for _, one in ipairs(M.merge(list)) do sum = sum + one.stop - one.start + 1 end
  return sum
end

--- How deep the intervals lie on each other: `{ { start, stop, depth }, .. }`, sorted; where nothing lies there is no entry.
function M.coverage(list)
  local events = {}
  for _, one in ipairs(check(list, "coverage")) do
    events[#events + 1] = { one.start, 1 }
    events[#events + 1] = { one.stop + 1, -1 }
  end
  table.sort(events, function(a, b) return a[1] < b[1] end)
  local result, depth, from = {}, 0, nil
  local at = 1
  while events[at] do
    local place, change = events[at][1], 0
    while events[at] and events[at][1] == place do
      change = change + events[at][2]
      at = at + 1
    end
    if change ~= 0 then
      if depth > 0 then result[#result + 1] = { start = from, stop = place - 1, depth = depth } end
      depth, from = depth + change, place
    end
  end
  return result
end

local Tree = {}
Tree.__index = Tree

--- A tree over intervals, which does not change any more; building takes n log n steps, a question log n and as many as are found.
-- The intervals themselves are given back, with whatever other fields they have.
function M.tree(list)
  local items = sorted(list, "tree")
  -- The array is a balanced search tree: the root of items[low..high] is its middle. `reach` has the highest stop of each subtree, at its
  -- root's index.
  local reach = {}
  local function build(low, high)
    if low > high then return -math.huge end
    local middle = floor((low + high) / 2)
    local most = max(items[middle].stop, build(low, middle - 1), build(middle + 1, high))
    reach[middle] = most
    return most
  end
  build(1, #items)
  return setmetatable({ items = items, reach = reach }, Tree)
end

--- The intervals that overlap start..stop (stop is start if not given), sorted by start.
function Tree:overlapping(start, stop)
  stop = stop or start
  if type(start) ~= "number" or type(stop) ~= "number" or not (start <= stop) then error("overlapping: start and stop are numbers, start <= stop", 0) end
  local items, reach, found = self.items, self.reach, {}
  local function visit(low, high)
    if low > high then return end
    local middle = floor((low + high) / 2)
    if reach[middle] < start then return end
    visit(low, middle - 1)
    local one = items[middle]
    if one.start <= stop then
      if one.stop >= start then found[#found + 1] = one end
      visit(middle + 1, high)
    end
  end
  visit(1, #items)
  return found
end

--- How many intervals the tree has.
function Tree:size() return #self.items end

return M
