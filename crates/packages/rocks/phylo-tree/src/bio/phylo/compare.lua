--- How much two trees differ: Robinson and Foulds, Math. Biosci. 53 (1981) 131. Splits are compared as W. H. E. Day (J. Classif. 2 (1985)
-- 7) does, in linear time.
local walk = require "bio.phylo.walk"
local M = {}

-- The tree as lists of neighbours. Nodes that are only a point on a branch are left out, an unrooted tree's root among them: they are no
-- split of their own.
local function neighbours(tree, rooted)
  local list, leaves, count, queue = {}, {}, 0, {}
  for node, parent in walk.nodes(tree) do
    list[node] = list[node] or {}
    if parent then
      table.insert(list[node], parent)
      table.insert(list[parent], node)
    end
    if #node.children == 0 then
      if not node.name then error("robinson_foulds: a leaf has no name", 0) end
      if leaves[node.name] then error(("robinson_foulds: there are two leaves '%s'"):format(node.name), 0) end
      leaves[node.name] = node
      count = count + 1
    elseif not (rooted and node == tree) then
      queue[#queue + 1] = node
    end
  end
  local function replace(node, old, new)
    local ways = list[node]
    for at = 1, #ways do
      if ways[at] == old then
        if new then ways[at] = new else table.remove(ways, at) end
        return
      end
    end
  end
  while #queue > 0 do
    local node = table.remove(queue)
    local ways = list[node]
    if ways and #ways == 2 then
      replace(ways[1], node, ways[2])
      replace(ways[2], node, ways[1])
      list[node] = nil
    elseif ways and #ways == 1 then
      local other = ways[1]
      replace(other, node, nil)
      list[node] = nil
      if #other.children > 0 and not (rooted and other == tree) then queue[#queue + 1] = other end
    end
  end
  return list, leaves, count
end

-- Visits the tree from `root` and calls `visit(node, low, high, size)` for every node after all below it: the lowest and highest number of
-- its leaves, and how many.
local function clusters(list, root, number, visit)
  local stack = { { root, nil, 0, math.huge, -math.huge, 0 } }
  while #stack > 0 do
    local top = stack[#stack]
    local node, from = top[1], top[2]
    top[3] = top[3] + 1
    local next_node = list[node][top[3]]
    -- Not back to where we came from.
    if next_node and next_node ~= from then
      stack[#stack + 1] = { next_node, node, 0, math.huge, -math.huge, 0 }
    elseif not next_node then
      if #node.children == 0 and node ~= root then
        local own = number(node)
        top[4], top[5], top[6] = own, own, 1
      end
      visit(node, top[4], top[5], top[6])
      stack[#stack] = nil
      local above = stack[#stack]
      if above then
        above[4], above[5], above[6] = math.min(above[4], top[4]), math.max(above[5], top[5]), above[6] + top[6]
      end
    end
  end
end

-- The root from which both trees are seen: a leaf for unrooted trees, the root itself for rooted ones.
local function splits(first, second, rooted)
  local list1, leaves1, count1 = neighbours(first, rooted)
  local list2, leaves2 = neighbours(second, rooted)
  for name in pairs(leaves1) do
    if not leaves2[name] then error(("robinson_foulds: the second tree has no leaf '%s'"):format(name), 0) end
  end
  for name in pairs(leaves2) do
    if not leaves1[name] then error(("robinson_foulds: the first tree has no leaf '%s'"):format(name), 0) end
  end
  local root1, root2 = first, second
  if not rooted then
    local reference
    for name in pairs(leaves1) do
      if not reference or name < reference then reference = name end
    end
    root1, root2 = leaves1[reference], leaves2[reference]
  end
  local numbers, given = {}, 0
  local total = rooted and count1 or count1 - 1
  local known, in_first, in_second, shared = {}, 0, 0, 0
  local function trivial(size) return size < 2 or size >= total end
  clusters(list1, root1, function(node)
    given = given + 1
    numbers[node.name] = given
    return given
  end, function(_, low, high, size)
    if trivial(size) then return end
    known[low] = known[low] or {}
    known[low][high] = true
    in_first = in_first + 1
  end)
  clusters(list2, root2, function(node) return numbers[node.name] end, function(_, low, high, size)
    if trivial(size) then return end
    in_second = in_second + 1
    if high - low + 1 == size and known[low] and known[low][high] then shared = shared + 1 end
  end)
  return in_first, in_second, shared
end

--- The Robinson-Foulds distance of two trees with the same leaves: how many splits are in one of them only.
--
-- Trees count as unrooted unless `options.rooted`. Returns the distance, and the distance divided by the number of splits that are not
-- trivial in both trees together (0 to 1; 0 if there are none), and how many they share.
function M.robinson_foulds(first, second, options)
  local in_first, in_second, shared = splits(first, second, options and options.rooted)
  local distance = in_first + in_second - 2 * shared
  local most = in_first + in_second
  return distance, most > 0 and distance / most or 0, shared
end

return M
