--- Phylogenetic trees: Newick, distances of sequences, UPGMA, neighbour joining, comparison.
--
-- A tree is its root. A node is `{ name, length, support, comment, children }`: the length is of the branch to its parent, `children` is a
-- list (empty for a leaf), what is unknown is nil. Bad input raises an error that says where. Nothing here recurses, so trees may be as
-- deep as they like.
local M = { _VERSION = "1.0.0" }

for _, part in ipairs { "newick", "walk", "distance", "cluster", "compare" } do
  for name, value in pairs(require("bio.phylo." .. part)) do
    if not name:find("^_") then M[name] = value end
  end
end

return M
