rockspec_format = "3.0"
package = "phylo-tree"
version = "1.0.0-1"
source = { url = "builtin:phylo-tree-1.0.0.zip", file = "phylo-tree-1.0.0.zip", dir = "phylo-tree-1.0.0" }
description = {
  summary = "Phylogenetic trees: Newick, distance matrices, UPGMA, neighbour joining, Robinson-Foulds.",
  detailed = "Reads and writes Newick of any depth, computes p, Jukes-Cantor and Kimura distances, clusters, and compares trees in linear time.",
  license = "MIT OR Apache-2.0",
  labels = { "bioinformatics", "biology", "phylogenetics", "newick" },
}
dependencies = { "lua >= 5.1, < 5.5" }
build = {
  type = "builtin",
  modules = {
    ["bio.phylo"] = "src/bio/phylo.lua",
    ["bio.phylo.cluster"] = "src/bio/phylo/cluster.lua",
    ["bio.phylo.compare"] = "src/bio/phylo/compare.lua",
    ["bio.phylo.distance"] = "src/bio/phylo/distance.lua",
    ["bio.phylo.newick"] = "src/bio/phylo/newick.lua",
    ["bio.phylo.walk"] = "src/bio/phylo/walk.lua",
    phylo_tree = "src/phylo_tree.lua",
  },
}
