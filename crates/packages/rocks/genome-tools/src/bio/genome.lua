--- Annotated genomes: GFF3, intervals, open reading frames, coding density.
--
-- Coordinates count from 1 and include both ends, as in GFF3 and GenBank. Bad input raises an error that says where.
local M = { _VERSION = "1.0.0" }

for _, part in ipairs { "gff3", "intervals", "orfs", "density" } do
  for name, value in pairs(require("bio.genome." .. part)) do
    if not name:find("^_") then M[name] = value end
  end
end

return M
