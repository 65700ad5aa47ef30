rockspec_format = "3.0"
package = "genome-tools"
version = "1.0.0-1"
source = { url = "builtin:genome-tools-1.0.0.zip", file = "genome-tools-1.0.0.zip", dir = "genome-tools-1.0.0" }
description = {
  summary = "Annotated genomes: GFF3, interval sets and trees, open reading frames, coding density.",
  detailed = "Reads and writes GFF3 with its escapes, finds open reading frames on both strands in one pass, counts overlapping genes once.",
  license = "MIT OR Apache-2.0",
  labels = { "bioinformatics", "biology", "genomics", "gff3" },
}
dependencies = { "lua >= 5.1, < 5.5", "bio-utils >= 1.0, < 2", "sequence-parser >= 1.0, < 2" }
build = {
  type = "builtin",
  modules = {
    ["bio.genome"] = "src/bio/genome.lua",
    ["bio.genome.density"] = "src/bio/genome/density.lua",
    ["bio.genome.gff3"] = "src/bio/genome/gff3.lua",
    ["bio.genome.intervals"] = "src/bio/genome/intervals.lua",
    ["bio.genome.orfs"] = "src/bio/genome/orfs.lua",
    genome_tools = "src/genome_tools.lua",
  },
}
