return require "bio.blast"
