--- The genetic codes 1, 4 and 11, and translation.
--
-- Tables as NCBI prints them (https://www.ncbi.nlm.nih.gov/Taxonomy/Utils/wprintgc.cgi, file gc.prt): 64 letters, the bases in the order T
-- C A G, the third base running fastest; in the second line an M marks a codon that may begin a protein.
local alphabet = require "bio.utils.alphabet"
local M = {}

local sub = string.sub

local SOURCE = {
  [1] = {
    "Standard",
    "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    "---M------**--*----M---------------M----------------------------",
  },
  [4] = {
    "Mold, Protozoan and Coelenterate Mitochondrial; Mycoplasma and Spiroplasma",
    "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    "--MM------**-------M------------MMMM---------------M------------",
  },
  [11] = {
    "Bacterial, Archaeal and Plant Plastid",
    "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    "---M------**--*----M------------MMMM---------------M------------",
  },
}

local BASES = { "T", "C", "A", "G" }
-- Amino acids that have a letter for "one of these two" (IUPAC-IUB 1983; J is in use in mass spectrometry and in Biopython).
local EITHER = { DN = "B", EQ = "Z", IL = "J" }

-- Codons that stand for a set of others: the letter that is true for each of them, X if there is none. Any of them a stop and another not:
-- X.
local function ambiguous(forward, a, b, c)
  local seen, letters = {}, {}
  local first, second, third = alphabet.iupac[a], alphabet.iupac[b], alphabet.iupac[c]
  for x in first:gmatch(".") do
    for y in second:gmatch(".") do
      for z in third:gmatch(".") do
        local letter = forward[x .. y .. z]
        if not seen[letter] then
          seen[letter] = true
          letters[#letters + 1] = letter
        end
      end
    end
  end
  if #letters == 1 then return letters[1] end
  table.sort(letters)
  return EITHER[table.concat(letters)] or "X"
end

local function build(id)
  local name, amino, starts = SOURCE[id][1], SOURCE[id][2], SOURCE[id][3]
  local code = { id = id, name = name, forward = {}, starts = {}, stops = {} }
  local at = 0
  for _, a in ipairs(BASES) do
    for _, b in ipairs(BASES) do
      for _, c in ipairs(BASES) do
        at = at + 1
        local codon, letter = a .. b .. c, sub(amino, at, at)
        code.forward[codon] = letter
        if sub(starts, at, at) == "M" then code.starts[codon] = true end
        if letter == "*" then code.stops[codon] = true end
      end
    end
  end
  -- Any spelling of a codon, kept once found: at most 33^3 of them, for what is no code is not kept.
  local forward = code.forward
  code.lookup = setmetatable({ ["---"] = "-" }, {
    __index = function(t, codon)
      local plain = codon:upper():gsub("U", "T")
      local letter = forward[plain]
      if not letter and #plain == 3 then
        local x, y, z = sub(plain, 1, 1), sub(plain, 2, 2), sub(plain, 3, 3)
        if alphabet.iupac[x] and alphabet.iupac[y] and alphabet.iupac[z] then letter = ambiguous(forward, x, y, z) end
      end
      t[codon] = letter
      return letter
    end,
  })
  return code
end

local built = {}

--- The genetic code with this NCBI number: `{ id, name, forward = { ATG = "M", .. }, starts = { ATG = true, .. }, stops = { .. } }`, codons
-- in upper-case DNA, "*" for a stop. Known are 1, 4 (Mycoplasma, where UGA is tryptophan) and 11 (bacteria, archaea, plastids). Not to be
-- changed by who gets it.
function M.genetic_code(id)
  id = id == nil and 1 or id
  if not SOURCE[id] then error(("genetic code %s is not known; there are 1, 4 and 11"):format(tostring(id)), 0) end
  built[id] = built[id] or build(id)
  return built[id]
end

local OPTIONS = { table = true, to_stop = true, cds = true, stop = true }

local function coding(seq, code, protein)
  if #seq % 3 ~= 0 then error(("translate: a coding sequence has a length divisible by three, not %d"):format(#seq), 0) end
  local first = seq:sub(1, 3):upper():gsub("U", "T")
  if not code.starts[first] then error(("translate: '%s' is no start codon of genetic code %d"):format(first, code.id), 0) end
  if protein:sub(-1) ~= "*" then error("translate: the coding sequence does not end with a stop codon", 0) end
  local inside = protein:find("*", 1, true)
  if inside < #protein then error(("translate: stop codon inside the coding sequence, at position %d"):format(inside * 3 - 2), 0) end
  return "M" .. protein:sub(2, -2)
end

--- Translates nucleotides to amino acids, from the first base on. Returns the protein and how many bases (0 to 2) at the end made no codon.
--
-- `options`: `table` (NCBI number, 1), `to_stop` (end before the first stop codon), `cds` (insist on a whole coding sequence: start codon,
-- length, one stop at its end; the first amino acid is then M and the stop is left out), `stop` (letter for stop codons, "*"). Ambiguous
-- codons give the amino acid that all their readings have, B, Z or J for the pairs D/N, E/Q, I/L, else X. The codon `---` gives `-`.
function M.translate(seq, options)
  alphabet._check(seq, "translate")
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error(("translate: there is no option '%s'"):format(tostring(name)), 0) end
  end
  local code = M.genetic_code(options.table)
  local left = #seq % 3
  local whole = left == 0 and seq or seq:sub(1, -1 - left)
  local protein = whole:gsub("...", code.lookup)
  if #protein * 3 ~= #whole then
    -- What has no letter is left as it was, so the lengths differ: find it.
    for at = 1, #whole, 3 do
      local codon = whole:sub(at, at + 2)
      if not code.lookup[codon] then
        local shown = codon:gsub("[^%w%p ]", "?")
        error(("translate: '%s' at position %d is not a codon"):format(shown, at), 0)
      end
    end
  end
  if options.cds then
    protein = coding(seq, code, protein)
  elseif options.to_stop then
    local at = protein:find("*", 1, true)
    if at then protein = protein:sub(1, at - 1) end
  end
  if options.stop and options.stop ~= "*" then protein = protein:gsub("%*", (options.stop:gsub("%%", "%%%%"))) end
  return protein, left
end

return M
