--- Files of sequences: FASTA, FASTQ and GenBank, read as streams and written.
--
-- Readers are iterators for `for`. They take a path, an open file, a function that returns pieces of text (nil at the end), or
-- `text(string)`; gzip is seen by its first bytes. Bad input raises an error that begins with the file's name and the line: `reads.fq:12:
-- ...`.
local M = { _VERSION = "1.0.0" }

for _, part in ipairs { "source", "fasta", "fastq", "genbank", "location" } do
  for name, value in pairs(require("bio.sequences." .. part)) do
    if not name:find("^_") then M[name] = value end
  end
end

return M
