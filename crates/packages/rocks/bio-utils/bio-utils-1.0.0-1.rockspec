rockspec_format = "3.0"
package = "bio-utils"
version = "1.0.0-1"
source = { url = "builtin:bio-utils-1.0.0.zip", file = "bio-utils-1.0.0.zip", dir = "bio-utils-1.0.0" }
description = {
  summary = "Nucleotide sequences: complements, translation, GC content and skew, codon usage, melting temperatures.",
  detailed = "Pure Lua for 5.1 to 5.4 and LuaJIT, quick on whole genomes. Genetic codes 1, 4 and 11; every melting temperature names its method.",
  license = "MIT OR Apache-2.0",
  labels = { "bioinformatics", "biology", "dna" },
}
dependencies = { "lua >= 5.1, < 5.5" }
build = {
  type = "builtin",
  modules = {
    ["bio.utils"] = "src/bio/utils.lua",
    ["bio.utils.alphabet"] = "src/bio/utils/alphabet.lua",
    ["bio.utils.codons"] = "src/bio/utils/codons.lua",
    ["bio.utils.composition"] = "src/bio/utils/composition.lua",
    ["bio.utils.genetic_code"] = "src/bio/utils/genetic_code.lua",
    ["bio.utils.melting"] = "src/bio/utils/melting.lua",
    bio_utils = "src/bio_utils.lua",
  },
}
