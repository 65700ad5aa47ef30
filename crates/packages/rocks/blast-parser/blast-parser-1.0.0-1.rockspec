rockspec_format = "3.0"
package = "blast-parser"
version = "1.0.0-1"
source = { url = "builtin:blast-parser-1.0.0.zip", file = "blast-parser-1.0.0.zip", dir = "blast-parser-1.0.0" }
description = {
  summary = "Results of BLAST: tables (outfmt 6, 7) and XML (outfmt 5) as streams, filters, best hits.",
  detailed = "Reads reports of any size query by query with a small XML reader that loads and defines nothing.",
  license = "MIT OR Apache-2.0",
  labels = { "bioinformatics", "biology", "blast", "parser" },
}
dependencies = { "lua >= 5.1, < 5.5", "sequence-parser >= 1.0, < 2" }
build = {
  type = "builtin",
  modules = {
    ["bio.blast"] = "src/bio/blast.lua",
    ["bio.blast.hits"] = "src/bio/blast/hits.lua",
    ["bio.blast.report"] = "src/bio/blast/report.lua",
    ["bio.blast.tabular"] = "src/bio/blast/tabular.lua",
    ["bio.blast.xml"] = "src/bio/blast/xml.lua",
    blast_parser = "src/blast_parser.lua",
  },
}
