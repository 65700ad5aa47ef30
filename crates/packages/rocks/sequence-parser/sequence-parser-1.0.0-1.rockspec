rockspec_format = "3.0"
package = "sequence-parser"
version = "1.0.0-1"
source = { url = "builtin:sequence-parser-1.0.0.zip", file = "sequence-parser-1.0.0.zip", dir = "sequence-parser-1.0.0" }
description = {
  summary = "Files of sequences: FASTA, FASTQ and GenBank, streamed, plain or gzip, read and written.",
  detailed = "Iterators over records with errors that name file and line. Encodings of FASTQ are found out or asked for, never guessed.",
  license = "MIT OR Apache-2.0",
  labels = { "bioinformatics", "biology", "fasta", "fastq", "genbank", "parser" },
}
dependencies = { "lua >= 5.1, < 5.5", "bio-utils >= 1.0, < 2", "lua-zlib >= 0.2" }
build = {
  type = "builtin",
  modules = {
    ["bio.sequences"] = "src/bio/sequences.lua",
    ["bio.sequences.fasta"] = "src/bio/sequences/fasta.lua",
    ["bio.sequences.fastq"] = "src/bio/sequences/fastq.lua",
    ["bio.sequences.genbank"] = "src/bio/sequences/genbank.lua",
    ["bio.sequences.location"] = "src/bio/sequences/location.lua",
    ["bio.sequences.source"] = "src/bio/sequences/source.lua",
    sequence_parser = "src/sequence_parser.lua",
  },
}
