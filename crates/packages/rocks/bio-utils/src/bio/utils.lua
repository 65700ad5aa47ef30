--- Nucleotide sequences: everything of the rock bio-utils in one table.
--
-- Sequences are plain Lua strings. Upper and lower case, DNA and RNA are understood. A wrong argument or a character that is no nucleotide
-- raises an error that says where it stands. Positions count from 1, ranges include both ends.
local M = { _VERSION = "1.0.0" }

for _, part in ipairs { "alphabet", "genetic_code", "composition", "codons", "melting" } do
  for name, value in pairs(require("bio.utils." .. part)) do
    if not name:find("^_") then M[name] = value end
  end
end

return M
