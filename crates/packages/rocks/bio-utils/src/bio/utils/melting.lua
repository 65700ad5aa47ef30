--- Melting temperatures of short duplexes, in degrees Celsius. The method is always named by the caller.
--
-- Concentrations are millimolar for ions and nanomolar for strands. What each formula is good for, and from where it is, stands beside it.
local alphabet = require "bio.utils.alphabet"
local composition = require "bio.utils.composition"
local M = {}

local log, sqrt = math.log, math.sqrt
local function log10(x) return log(x) / log(10) end

local function bases(seq, name, allowed)
  alphabet._check(seq, name)
  local plain = seq:upper():gsub("U", "T")
  if #plain == 0 then error(name .. ": the sequence is empty", 0) end
  local wrong = "[^" .. allowed .. "]"
  if plain:find(wrong) then alphabet._refuse(plain, wrong, "one of " .. allowed) end
  return plain
end

local function known(options, names, name)
  options = options or {}
  for key in pairs(options) do
    if not names[key] then error(("%s: there is no option '%s'"):format(name, tostring(key)), 0) end
  end
  for _, ion in ipairs { "Na", "K", "Tris", "Mg", "dNTPs" } do
    local value = options[ion]
    if value ~= nil and (type(value) ~= "number" or not (value >= 0 and value < 1e6)) then
      error(("%s: %s is a concentration in mM, not %s"):format(name, ion, tostring(value)), 0)
    end
  end
  return options
end

--- The term that corrects a melting temperature for salt.
--
-- Methods: 1 (Schildkraut and Lifson 1965), 2 (Wetmur 1991), 3 (SantaLucia 1996), 4 (SantaLucia 1998) are added to the temperature; 5
-- (SantaLucia 1998) is added to the entropy; 6 (Owczarzy 2004) and 7 (Owczarzy 2008, with magnesium) to the inverse temperature in 1/K.
-- Other ions than sodium are taken in as sodium equivalents after von Ahsen et al., Clin. Chem. 47 (2001) 1956, except by method 7.
function M.salt_correction(method, seq, ions)
  ions = known(ions, { Na = true, K = true, Tris = true, Mg = true, dNTPs = true }, "salt_correction")
  local K, Tris, Mg, dNTPs = ions.K or 0, ions.Tris or 0, ions.Mg or 0, ions.dNTPs or 0
  local millimolar = (ions.Na or 0) + K + Tris / 2
  if method ~= 7 and dNTPs < Mg then millimolar = millimolar + 120 * sqrt(Mg - dNTPs) end
  local mon = millimolar / 1000
  if type(method) ~= "number" or method % 1 ~= 0 or method < 1 or method > 7 then
    error(("salt_correction: the method is 1 to 7, not %s"):format(tostring(method)), 0)
  end
  if mon == 0 and (method ~= 7 or Mg == 0) then error("salt_correction: there are no ions", 0) end
  if method >= 5 and (type(seq) ~= "string" or seq == "") then error("salt_correction: methods 5 to 7 need the sequence", 0) end
  if method == 1 then return 16.6 * log10(mon) end
  if method == 2 then return 16.6 * log10(mon / (1 + 0.7 * mon)) end
  if method == 3 then return 12.5 * log10(mon) end
  if method == 4 then return 11.7 * log10(mon) end
  if method == 5 then return 0.368 * (#seq - 1) * log(mon) end
  local gc = composition.gc(seq, "ignore")
  local sodium = mon > 0 and (4.29 * gc - 3.95) * 1e-5 * log(mon) + 9.40e-6 * log(mon) ^ 2
  if method == 6 then return sodium end
  local free = Mg / 1000
  if dNTPs > 0 then
    -- Magnesium bound to dNTPs, with the association constant 3e4 of the paper.
    local ka, bound = 3e4, dNTPs / 1000
    local term = ka * bound - ka * free + 1
    free = (-term + sqrt(term ^ 2 + 4 * ka * free)) / (2 * ka)
  end
  local a, d, g = 3.92, 1.42, 8.31
  if mon > 0 then
    local ratio = sqrt(free) / mon
    if ratio < 0.22 then return sodium end
    if ratio < 6 then
      local ln = log(mon)
      a = 3.92 * (0.843 - 0.352 * sqrt(mon) * ln)
      d = 1.42 * (1.279 - 4.03e-3 * ln - 8.03e-3 * ln ^ 2)
      g = 8.31 * (0.486 - 0.258 * ln + 5.25e-3 * ln ^ 3)
    end
  end
  if #seq < 2 then error("salt_correction: method 7 needs two bases or more", 0) end
  local ln = log(free)
  return (a - 0.911 * ln + gc * (6.26 + d * ln) + (-48.2 + 52.5 * ln + g * ln ^ 2) / (2 * (#seq - 1))) * 1e-5
end

--- Wallace's rule, 2(A+T) + 4(G+C): a rule of thumb for oligonucleotides of 14 to 20 bases (Thein and Wallace 1986).
function M.tm_wallace(seq)
  local plain = bases(seq, "tm_wallace", "ACGTSW")
  local counts = alphabet.count(plain)
  return 2 * ((counts.A or 0) + (counts.T or 0) + (counts.W or 0)) + 4 * ((counts.G or 0) + (counts.C or 0) + (counts.S or 0))
end

-- A + B * %GC - C / length, and the salt correction that belongs to it.
local GC_FORMULAS = {
  ["marmur-doty"] = { 69.3, 0.41, 650, nil },
  quikchange = { 81.5, 0.41, 675, nil },
  schildkraut = { 81.5, 0.41, 675, 1 },
  wetmur = { 81.5, 0.41, 500, 2 },
  ["wetmur-rna"] = { 78.0, 0.7, 500, 2 },
  ["wetmur-hybrid"] = { 67.0, 0.8, 500, 2 },
  primer3plus = { 81.5, 0.41, 600, 1 },
  ["von-ahsen"] = { 77.1, 0.41, 528, 4 },
}
local GC_OPTIONS = { formula = true, Na = true, K = true, Tris = true, Mg = true, dNTPs = true }

--- By GC content: A + B (%GC) - C / length + salt. `options.formula` is one of `marmur-doty` (1962), `quikchange`, `schildkraut`
-- (Schildkraut and Lifson 1965), `wetmur`, `wetmur-rna`, `wetmur-hybrid` (1991), `primer3plus` (default), `von-ahsen` (2001): the value
-- sets 1 to 8 of Biopython, in this order. Ions in mM: `Na` (50), `K`, `Tris`, `Mg`, `dNTPs` (0).
function M.tm_gc(seq, options)
  options = known(options, GC_OPTIONS, "tm_gc")
  local plain = bases(seq, "tm_gc", "ACGTSW")
  local name = options.formula or "primer3plus"
  local formula = GC_FORMULAS[name]
  if not formula then error(("tm_gc: there is no formula '%s'"):format(tostring(name)), 0) end
  local tm = formula[1] + formula[2] * 100 * composition.gc(plain) - formula[3] / #plain
  if formula[4] then
    local ions = { Na = options.Na or 50, K = options.K, Tris = options.Tris, Mg = options.Mg, dNTPs = options.dNTPs }
    tm = tm + M.salt_correction(formula[4], plain, ions)
  end
  return tm
end

-- Enthalpy in kcal/mol and entropy in cal/(mol K) of a pair of neighbours with its partner; the name is the 5'-3' strand's. SantaLucia,
-- Proc. Natl. Acad. Sci. USA 95 (1998) 1460, table 2: the unified parameters (also Allawi and SantaLucia, Biochemistry 36 (1997) 10581).
local NEIGHBOURS = {
  AA = { -7.9, -22.2 }, AT = { -7.2, -20.4 }, TA = { -7.2, -21.3 }, CA = { -8.5, -22.7 }, GT = { -8.4, -22.4 },
  CT = { -7.8, -21.0 }, GA = { -8.2, -22.2 }, CG = { -10.6, -27.2 }, GC = { -9.8, -24.4 }, GG = { -8.0, -19.9 },
}
local AT_END, GC_END, SYMMETRY = { 2.3, 4.1 }, { 0.1, -2.8 }, { 0, -1.4 }
do
  local partner = { A = "T", C = "G", G = "C", T = "A" }
  local other = {}
  for pair, value in pairs(NEIGHBOURS) do other[partner[pair:sub(2, 2)] .. partner[pair:sub(1, 1)]] = value end
  for pair, value in pairs(other) do NEIGHBOURS[pair] = value end
end

local NN_OPTIONS = {
  strand = true, template = true, self_complementary = true, salt = true, Na = true, K = true, Tris = true, Mg = true, dNTPs = true,
}

--- By nearest neighbours (SantaLucia 1998): enthalpy over entropy of the perfect DNA duplex. Returns the temperature, the enthalpy
-- (kcal/mol) and the entropy (cal/(mol K), salt included if its method corrects the entropy).
--
-- `options`: `strand` and `template` (nM of the strand with more and with less of it, 25 each), `self_complementary` (by default found out
-- from the sequence), `salt` (method 1 to 7 of `salt_correction`, 5 by default; 0 for 1 M NaCl as measured), and the ions in mM: `Na`
-- (50), `K`, `Tris`, `Mg`, `dNTPs` (0).
function M.tm_nn(seq, options)
  options = known(options, NN_OPTIONS, "tm_nn")
  local plain = bases(seq, "tm_nn", "ACGT")
  if #plain < 2 then error("tm_nn: two bases or more are needed", 0) end
  local strand, template = options.strand or 25, options.template or 25
  for name, value in pairs { strand = strand, template = template } do
    if type(value) ~= "number" or not (value >= 0 and value < 1e9) then error(("tm_nn: %s is a concentration in nM"):format(name), 0) end
  end
  local h, s = 0, 0
  local function add(value)
    h, s = h + value[1], s + value[2]
  end
  for _, base in ipairs { plain:sub(1, 1), plain:sub(-1) } do
    add((base == "A" or base == "T") and AT_END or GC_END)
  end
  for at = 1, #plain - 1 do add(NEIGHBOURS[plain:sub(at, at + 1)]) end
  local own = options.self_complementary
  if own == nil then own = alphabet.reverse_complement(plain, "dna") == plain end
  local k = (strand - template / 2) * 1e-9
  if own then
    k = strand * 1e-9
    add(SYMMETRY)
  end
  if not (k > 0) then error("tm_nn: strand must be more than half of template", 0) end
  local method = options.salt or 5
  local correction = 0
  if method ~= 0 then
    local ions = { Na = options.Na or 50, K = options.K, Tris = options.Tris, Mg = options.Mg, dNTPs = options.dNTPs }
    correction = M.salt_correction(method, plain, ions)
  end
  if method == 5 then s = s + correction end
  -- Gas constant in cal/(mol K), as in the tables' papers.
  local tm = 1000 * h / (s + 1.987 * log(k)) - 273.15
  if method >= 1 and method <= 4 then tm = tm + correction end
  if method >= 6 then tm = 1 / (1 / (tm + 273.15) + correction) - 273.15 end
  return tm, h, s
end

return M
