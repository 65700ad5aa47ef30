--- Codon usage.
local alphabet = require "bio.utils.alphabet"
local genetic_code = require "bio.utils.genetic_code".genetic_code
local M = {}

--- How often each codon is used: `counts` (all 64 codons in DNA letters), `total`, `others` (codons with ambiguous bases, which are in
-- neither), `left` (bases at the end that make no codon). `seq` is one coding sequence, or a list of them.
function M.codon_usage(seq)
  local list = type(seq) == "table" and seq or { seq }
  local usage = { counts = {}, total = 0, others = 0, left = 0 }
  local counts = usage.counts
  for codon in pairs(genetic_code(1).forward) do counts[codon] = 0 end
  for _, one in ipairs(list) do
    alphabet._check(one, "codon_usage")
    local raw = {}
    for codon in one:gmatch("...") do raw[codon] = (raw[codon] or 0) + 1 end
    for codon, count in pairs(raw) do
      local plain = codon:upper():gsub("U", "T")
      if counts[plain] then
        counts[plain] = counts[plain] + count
        usage.total = usage.total + count
      else
        usage.others = usage.others + count
      end
    end
    usage.left = usage.left + #one % 3
  end
  return usage
end

-- Codons by the amino acid they stand for.
local function families(code)
  local result = {}
  for codon, letter in pairs(code.forward) do
    result[letter] = result[letter] or {}
    table.insert(result[letter], codon)
  end
  return result
end

--- Relative synonymous codon usage: how often a codon is used, divided by the mean of all codons of its amino acid (Sharp and Li, Nucleic
-- Acids Res. 15 (1987) 1281). 1 is no preference, 0 never; amino acids that do not occur are left out, stop codons too.
function M.rscu(seq, options)
  local code = genetic_code(options and options.table)
  local counts = M.codon_usage(seq).counts
  local result = {}
  for letter, codons in pairs(families(code)) do
    local sum = 0
    for _, codon in ipairs(codons) do sum = sum + counts[codon] end
    if letter ~= "*" and sum > 0 then
      for _, codon in ipairs(codons) do result[codon] = counts[codon] * #codons / sum end
    end
  end
  return result
end

--- The usage as rows for printing, sorted by codon: `{ { codon, amino, count, per_thousand, fraction }, .. }`; `fraction` is among the
-- codons of the same amino acid, 0 where it does not occur.
function M.codon_table(seq, options)
  local code = genetic_code(options and options.table)
  local usage = M.codon_usage(seq)
  local rows = {}
  for letter, codons in pairs(families(code)) do
    local sum = 0
    for _, codon in ipairs(codons) do sum = sum + usage.counts[codon] end
    for _, codon in ipairs(codons) do
      local count = usage.counts[codon]
      rows[#rows + 1] = {
        codon = codon, amino = letter, count = count,
        per_thousand = usage.total > 0 and count * 1000 / usage.total or 0,
        fraction = sum > 0 and count / sum or 0,
      }
    end
  end
  table.sort(rows, function(a, b) return a.codon < b.codon end)
  return rows
end

return M
