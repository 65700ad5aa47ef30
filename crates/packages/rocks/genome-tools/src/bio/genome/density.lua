--- Coding density: which part of a genome codes, each base counted once however many genes share it.
local intervals = require "bio.genome.intervals"
local M = {}

-- The ranges of a feature, of GFF3 or GenBank, or of a plain interval.
local function ranges(feature, out)
  local parts = feature.location and feature.location.parts
  if parts then
    for _, part in ipairs(parts) do
      if not part.accession and not part.between then out[#out + 1] = { start = part.start, stop = part.stop, strand = part.strand } end
    end
  else
    local strand = feature.strand
    if strand == "+" then strand = 1 elseif strand == "-" then strand = -1 end
    out[#out + 1] = { start = feature.start, stop = feature.stop, strand = strand }
  end
end

--- The coding density of a sequence of `length` bases.
--
-- `features` is a list of features (of `read_gff3`, of a GenBank record, or plain `{ start, stop, strand }`). `options`: `types` (which
-- count, a list; { "CDS" } for those with a type or key, plain intervals count always), `seqid` (only those of this sequence).
--
-- Returns `{ density, covered, length, sum, plain, plus, minus, both, features, merged }`: `covered` bases are in at least one feature and
-- `density` is covered / length; `sum` adds lengths, so overlaps twice, and `plain` = sum / length is what is wrong to report; `plus` and
-- `minus` are covered bases by strand, `both` those that code on both; `merged` the joined intervals. What lies beyond the length is an
-- error.
function M.coding_density(features, length, options)
  if type(length) ~= "number" or length < 1 then error("coding_density: the length is a number of bases", 0) end
  local wanted = {}
  for _, kind in ipairs(options and options.types or { "CDS" }) do wanted[kind] = true end
  local seqid = options and options.seqid
  local all, plus, minus, count, sum = {}, {}, {}, 0, 0
  for _, feature in ipairs(features) do
    local kind = feature.type or feature.key
    if (kind == nil or wanted[kind]) and (not seqid or feature.seqid == seqid) then
      count = count + 1
      local parts = {}
      ranges(feature, parts)
      for _, part in ipairs(parts) do
        if type(part.start) ~= "number" or type(part.stop) ~= "number" or part.start < 1 or part.stop > length then
          error(("coding_density: %s..%s is outside of 1..%d"):format(tostring(part.start), tostring(part.stop), length), 0)
        end
        all[#all + 1] = part
        sum = sum + part.stop - part.start + 1
        if part.strand == 1 then plus[#plus + 1] = part elseif part.strand == -1 then minus[#minus + 1] = part end
      end
    end
  end
  local merged = intervals.merge(all)
  local covered = intervals.covered(merged)
  return {
    density = covered / length, covered = covered, length = length, sum = sum, plain = sum / length, plus = intervals.covered(plus),
    minus = intervals.covered(minus), both = intervals.covered(intervals.intersect(plus, minus)), features = count, merged = merged,
  }
end

return M
