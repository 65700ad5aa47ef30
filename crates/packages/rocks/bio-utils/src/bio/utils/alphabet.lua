--- The alphabet: complements, transcription, counting.
--
-- One-letter codes: NC-IUB, "Nomenclature for incompletely specified bases in nucleic acid sequences", Nucleic Acids Res. 13 (1985) 3021.
local M = {}

local byte, sub, gsub = string.byte, string.sub, string.gsub

local PAIRS = { A = "T", C = "G", G = "C", T = "A", U = "A", R = "Y", Y = "R", S = "S", W = "W", K = "M", M = "K", B = "V", V = "B", D = "H", H = "D", N = "N" }

--- What each code stands for, in DNA letters, in the order A C G T.
M.iupac = {
  A = "A", C = "C", G = "G", T = "T", U = "T", R = "AG", Y = "CT", S = "CG", W = "AT", K = "GT", M = "AC",
  B = "CGT", D = "AGT", H = "ACT", V = "ACG", N = "ACGT",
}

--- The offending character and its place, as an error.
local function refuse(seq, pattern, what)
  local at = seq:find(pattern)
  local char = seq:sub(at, at)
  local shown = char:find("^[%w%p ]$") and ("'" .. char .. "'") or ("byte " .. byte(char))
  error(("%s at position %d is not %s"):format(shown, at, what), 0)
end
M._refuse = refuse

local function check(seq, name)
  if type(seq) ~= "string" then
    error(("%s: a string is wanted, not a %s"):format(name, type(seq)), 0)
  end
  return seq
end
M._check = check

-- Maps of single characters for DNA and for RNA, both cases, gaps kept.
local function complements(rna)
  local map = { ["-"] = "-", ["."] = "." }
  for code, other in pairs(PAIRS) do
    if rna and other == "T" then other = "U" end
    map[code], map[code:lower()] = other, other:lower()
  end
  return map
end
local DNA, RNA = complements(false), complements(true)

-- Three characters at once: a third of the calls. At most 32^3 entries, for only known characters get in.
local function triples(map)
  return setmetatable({}, {
    __index = function(t, key)
      local a, b, c = map[sub(key, 1, 1)], map[sub(key, 2, 2)], map[sub(key, 3, 3)]
      if not a or (#key > 1 and not b) or (#key > 2 and not c) then return nil end
      local value = a .. (b or "") .. (c or "")
      t[key] = value
      return value
    end,
  })
end
local DNA3, RNA3 = triples(DNA), triples(RNA)

local CODES = "ACGTURYSWKMBDHVNacgturyswkmbdhvn.%-"
local UNKNOWN = "[^" .. CODES .. "]"
M._UNKNOWN = UNKNOWN

local function complement(seq, kind)
  if kind ~= nil and kind ~= "dna" and kind ~= "rna" then
    error(("complement: the kind is 'dna' or 'rna', not %s"):format(tostring(kind)), 0)
  end
  if seq:find(UNKNOWN) then refuse(seq, UNKNOWN, "a nucleotide code") end
  local rna = kind == "rna"
  if kind == nil and seq:find("[Uu]") then
    if seq:find("[Tt]") then error("complement: the sequence has both T and U; say 'dna' or 'rna'", 0) end
    rna = true
  end
  return (gsub(seq, "..?.?", rna and RNA3 or DNA3))
end

--- The complement, base by base, in the same direction. Case is kept, gaps (`-`, `.`) stay.
-- RNA in, RNA out: a sequence with U and without T counts as RNA unless `kind` ("dna" or "rna") says what comes out.
function M.complement(seq, kind)
  return complement(check(seq, "complement"), kind)
end

--- The other strand, read in its own direction.
function M.reverse_complement(seq, kind)
  return complement(check(seq, "reverse_complement"), kind):reverse()
end

--- DNA to RNA: T becomes U. The strand given is the coding one, so nothing is complemented.
function M.transcribe(seq)
  return (check(seq, "transcribe"):gsub("[Tt]", { T = "U", t = "u" }))
end

--- RNA to DNA: U becomes T.
function M.back_transcribe(seq)
  return (check(seq, "back_transcribe"):gsub("[Uu]", { U = "T", u = "t" }))
end

--- How often each character stands in the sequence: a table from upper-case character to count.
function M.count(seq)
  check(seq, "count")
  local counts = {}
  for value = 0, 255 do counts[value] = 0 end
  local length = #seq
  local whole = length - length % 8
  for at = 1, whole, 8 do
    local a, b, c, d, e, f, g, h = byte(seq, at, at + 7)
    counts[a] = counts[a] + 1
    counts[b] = counts[b] + 1
    counts[c] = counts[c] + 1
    counts[d] = counts[d] + 1
    counts[e] = counts[e] + 1
    counts[f] = counts[f] + 1
    counts[g] = counts[g] + 1
    counts[h] = counts[h] + 1
  end
  for at = whole + 1, length do
    local value = byte(seq, at)
    counts[value] = counts[value] + 1
  end
  local named = {}
  for value = 0, 255 do
    if counts[value] > 0 then
      local char = string.char(value):upper()
      named[char] = (named[char] or 0) + counts[value]
    end
  end
  return named
end

--- Whether every character is a nucleotide code; else false and the position of the first that is not.
-- With `strict`, only A, C, G, T and U pass.
function M.is_nucleotide(seq, strict)
  local at = check(seq, "is_nucleotide"):find(strict and "[^ACGTUacgtu]" or UNKNOWN)
  if at then return false, at end
  return true
end

return M
