return require "bio.phylo"
