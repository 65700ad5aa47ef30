--- Results of BLAST: tables (outfmt 6 and 7) and XML (outfmt 5), read as streams; filters and best hits.
--
-- Bad input raises an error that begins with the file's name and the line. Sources are those of bio.sequences: a path, an open file, a
-- function, `text(..)`; gzip too.
local M = { _VERSION = "1.0.0" }

for _, part in ipairs { "tabular", "report", "hits" } do
  for name, value in pairs(require("bio.blast." .. part)) do
    if not name:find("^_") then M[name] = value end
  end
end
M.text = require "bio.sequences.source".text

return M
