--- Trees from distances: UPGMA and neighbour joining.
local M = {}

-- A copy of the matrix, checked: square, symmetric, zero on its diagonal, names that differ.
local function copy(distances, name)
  if type(distances) ~= "table" or type(distances.names) ~= "table" or type(distances.matrix) ~= "table" then
    error(name .. ": { names = .., matrix = .. } is wanted", 0)
  end
  local names, matrix = distances.names, distances.matrix
  local count, rows, seen = #names, {}, {}
  if count == 0 then error(name .. ": there are no names", 0) end
  for i = 1, count do
    if seen[names[i]] then error(("%s: the name '%s' occurs twice"):format(name, tostring(names[i])), 0) end
    seen[names[i]] = true
    rows[i] = {}
    for j = 1, count do
      local value = type(matrix[i]) == "table" and matrix[i][j]
      -- A lower triangle is enough.
      if value == nil and j > i then value = type(matrix[j]) == "table" and matrix[j][i] end
      if i == j and value == nil then value = 0 end
      if type(value) ~= "number" or value ~= value or value < 0 or value == math.huge then
        error(("%s: the distance of %s and %s is %s"):format(name, tostring(names[i]), tostring(names[j]), tostring(value)), 0)
      end
      rows[i][j] = value
    end
  end
  for i = 1, count do
    if rows[i][i] ~= 0 then error(("%s: %s has a distance from itself"):format(name, tostring(names[i])), 0) end
    for j = 1, i - 1 do
      if math.abs(rows[i][j] - rows[j][i]) > 1e-9 * math.max(1, rows[i][j]) then
        error(("%s: the matrix is not symmetric at %s and %s"):format(name, tostring(names[i]), tostring(names[j])), 0)
      end
    end
  end
  local nodes = {}
  for i = 1, count do nodes[i] = { name = names[i], children = {} } end
  return rows, nodes, count
end

--- UPGMA (Sokal and Michener 1958): a rooted tree in which all leaves are equally far from the root. Of equal distances the pair that comes
-- first is joined.
function M.upgma(distances)
  local rows, nodes, count = copy(distances, "upgma")
  local height, size, active = {}, {}, {}
  for i = 1, count do height[i], size[i], active[i] = 0, 1, i end
  while #active > 1 do
    local best, left, right = math.huge, nil, nil
    for a = 2, #active do
      local row = rows[active[a]]
      for b = 1, a - 1 do
        local value = row[active[b]]
        if value < best then best, left, right = value, b, a end
      end
    end
    local i, j = active[left], active[right]
    local middle = best / 2
    nodes[i].length, nodes[j].length = middle - height[i], middle - height[j]
    nodes[i] = { children = { nodes[i], nodes[j] } }
    for _, k in ipairs(active) do
      if k ~= i and k ~= j then
        local value = (rows[i][k] * size[i] + rows[j][k] * size[j]) / (size[i] + size[j])
        rows[i][k], rows[k][i] = value, value
      end
    end
    size[i], height[i] = size[i] + size[j], middle
    table.remove(active, right)
  end
  return nodes[active[1]]
end

--- Neighbour joining (Saitou and Nei, Mol. Biol. Evol. 4 (1987) 406; in the form of Studier and Keppler 1988): an unrooted tree, given with
-- three children at its root. A branch length that comes out negative is left so, unless `options.negative` is "zero": then it becomes 0
-- and its neighbour gets the difference.
function M.neighbour_joining(distances, options)
  local rows, nodes, count = copy(distances, "neighbour_joining")
  if options and options.negative ~= nil and options.negative ~= "zero" and options.negative ~= "keep" then
    error("neighbour_joining: negative is 'keep' or 'zero'", 0)
  end
  local zero = options and options.negative == "zero"
  if count == 1 then return nodes[1] end
  if count == 2 then
    nodes[1].length, nodes[2].length = rows[1][2] / 2, rows[1][2] / 2
    return { children = { nodes[1], nodes[2] } }
  end
  local active, sums = {}, {}
  for i = 1, count do
    active[i], sums[i] = i, 0
    for j = 1, count do sums[i] = sums[i] + rows[i][j] end
  end
  local function settle(a, b)
    if zero and a < 0 then return 0, a + b end
    if zero and b < 0 then return a + b, 0 end
    return a, b
  end
  while #active > 3 do
    local n = #active
    local best, left, right = math.huge, nil, nil
    for a = 2, n do
      local i = active[a]
      local row, sum = rows[i], sums[i]
      for b = 1, a - 1 do
        local j = active[b]
        local value = (n - 2) * row[j] - sum - sums[j]
        if value < best then best, left, right = value, b, a end
      end
    end
    local i, j = active[left], active[right]
    local d = rows[i][j]
    local first = d / 2 + (sums[i] - sums[j]) / (2 * (n - 2))
    nodes[i].length, nodes[j].length = settle(first, d - first)
    nodes[i] = { children = { nodes[i], nodes[j] } }
    sums[i] = 0
    for _, k in ipairs(active) do
      if k ~= i and k ~= j then
        local value = (rows[i][k] + rows[j][k] - d) / 2
        sums[k] = sums[k] - rows[i][k] - rows[j][k] + value
        sums[i] = sums[i] + value
        rows[i][k], rows[k][i] = value, value
      end
    end
    table.remove(active, right)
  end
  local a, b, c = active[1], active[2], active[3]
  local ab, ac, bc = rows[a][b], rows[a][c], rows[b][c]
  nodes[a].length, nodes[b].length, nodes[c].length = (ab + ac - bc) / 2, (ab + bc - ac) / 2, (ac + bc - ab) / 2
  if zero then
    for _, k in ipairs { a, b, c } do nodes[k].length = math.max(0, nodes[k].length) end
  end
  return { children = { nodes[a], nodes[b], nodes[c] } }
end

M.neighbor_joining = M.neighbour_joining

return M
