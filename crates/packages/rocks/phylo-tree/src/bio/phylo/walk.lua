--- Walking over trees: nodes, leaves, lengths, depths.
local M = {}

--- Iterates over all nodes, parents before children, giving node, parent and the number of branches to the root.
function M.nodes(tree)
  local stack, top = { { tree, nil, 0 } }, 1
  return function()
    if top == 0 then return nil end
    local entry = stack[top]
    stack[top], top = nil, top - 1
    local node, depth = entry[1], entry[3]
    for at = #node.children, 1, -1 do
      top = top + 1
      stack[top] = { node.children[at], node, depth + 1 }
    end
    return node, entry[2], depth
  end
end

--- The leaves, from left to right.
function M.leaves(tree)
  local result = {}
  for node in M.nodes(tree) do
    if #node.children == 0 then result[#result + 1] = node end
  end
  return result
end

--- The sum of all branch lengths; branches without one count nothing.
function M.total_length(tree)
  local sum = 0
  for node in M.nodes(tree) do
    if node ~= tree then sum = sum + (node.length or 0) end
  end
  return sum
end

--- The distance of each leaf from the root: a table from name to length.
function M.root_distances(tree)
  local at, result = { [tree] = 0 }, {}
  for node, parent in M.nodes(tree) do
    if parent then at[node] = at[parent] + (node.length or 0) end
    if #node.children == 0 and node.name then result[node.name] = at[node] end
  end
  return result
end

--- The distances between leaves along the branches: `{ names, matrix }`, as `distance_matrix` gives them, so that it can be clustered
-- again.
function M.leaf_distances(tree)
  local names, at, index = {}, { [tree] = 0 }, {}
  local parents = {}
  for node, parent in M.nodes(tree) do
    parents[node] = parent
    if parent then at[node] = at[parent] + (node.length or 0) end
    if #node.children == 0 then
      if not node.name then error("leaf_distances: a leaf has no name", 0) end
      if index[node.name] then error(("leaf_distances: there are two leaves '%s'"):format(node.name), 0) end
      names[#names + 1] = node.name
      index[node.name] = node
    end
  end
  local matrix = {}
  for i, name in ipairs(names) do
    matrix[i] = {}
    local above, node = {}, index[name]
    while node do
      above[node] = true
      node = parents[node]
    end
    for j, other in ipairs(names) do
      node = index[other]
      while not above[node] do node = parents[node] end
      matrix[i][j] = at[index[name]] + at[index[other]] - 2 * at[node]
    end
  end
  return { names = names, matrix = matrix }
end

return M
