--- Distances of aligned nucleotide sequences.
local M = {}

local byte, log = string.byte, math.log

-- Purines are odd, pyrimidines even, so that two bases of one kind differ by two.
local BASES = {}
for char, value in pairs { A = 1, G = 3, C = 2, T = 4, U = 4 } do
  BASES[byte(char)], BASES[byte(char:lower())] = value, value
end

--- Compares two aligned sequences: how many sites have a plain base in both (`sites`), and how many of those differ by a transition (A-G,
-- C-T) and by a transversion. Gaps and ambiguous codes leave a site out.
function M.differences(a, b)
  if type(a) ~= "string" or type(b) ~= "string" then error("differences: two sequences are wanted", 0) end
  if #a ~= #b then error(("differences: aligned sequences have one length, these %d and %d"):format(#a, #b), 0) end
  local sites, transitions, transversions = 0, 0, 0
  for at = 1, #a do
    local x, y = BASES[byte(a, at)], BASES[byte(b, at)]
    if x and y then
      sites = sites + 1
      if x ~= y then
        if (x - y) % 2 == 0 then transitions = transitions + 1 else transversions = transversions + 1 end
      end
    end
  end
  return sites, transitions, transversions
end

local MODELS = {
  -- The part of sites that differ.
  p = function(p, q) return p + q end,
  -- Jukes and Cantor, "Evolution of protein molecules" (1969).
  jc69 = function(p, q)
    local rest = 1 - 4 / 3 * (p + q)
    return rest > 0 and -3 / 4 * log(rest) or nil
  end,
  -- Kimura, J. Mol. Evol. 16 (1980) 111.
  k2p = function(p, q)
    local first, second = 1 - 2 * p - q, 1 - 2 * q
    return first > 0 and second > 0 and -1 / 2 * log(first) - 1 / 4 * log(second) or nil
  end,
}

--- The distance of two aligned sequences by a model: "p" (part of different sites), "jc69" or "k2p". Substitutions per site; nil if they
-- differ so much that the model has no answer, and if no site can be compared.
function M.distance(a, b, model)
  local formula = MODELS[model or "p"]
  if not formula then error(("distance: the model is 'p', 'jc69' or 'k2p', not %s"):format(tostring(model)), 0) end
  local sites, transitions, transversions = M.differences(a, b)
  if sites == 0 then return nil end
  local value = formula(transitions / sites, transversions / sites)
  -- Without a difference the logarithm gives a negative zero.
  return value and value + 0 == 0 and 0 or value
end

--- The distances of all pairs: `{ names, matrix }`. `records` is a list of `{ id, seq }`, as bio.sequences reads them. A pair without a
-- distance is an error that names it.
function M.distance_matrix(records, model)
  local names, matrix, seen = {}, {}, {}
  for i, record in ipairs(records) do
    local name = record.id or record.name
    if type(name) ~= "string" then error(("distance_matrix: record %d has no id"):format(i), 0) end
    if seen[name] then error(("distance_matrix: there are two records '%s'"):format(name), 0) end
    seen[name] = true
    names[i], matrix[i] = name, { [i] = 0 }
  end
  for i = 1, #names do
    for j = 1, i - 1 do
      local value = M.distance(records[i].seq, records[j].seq, model)
      if not value then
        error(("distance_matrix: %s and %s have no distance by the model %s: no common sites, or too many differences"):format(names[j], names[i], model or "p"), 0)
      end
      matrix[i][j], matrix[j][i] = value, value
    end
  end
  return { names = names, matrix = matrix }
end

return M
