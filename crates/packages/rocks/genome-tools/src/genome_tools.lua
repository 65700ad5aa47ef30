return require "bio.genome"
