return require "bio.sequences"
