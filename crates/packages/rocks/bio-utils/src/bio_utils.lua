return require "bio.utils"
