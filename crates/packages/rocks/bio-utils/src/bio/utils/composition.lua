--- Composition: GC content and GC skew.
local alphabet = require "bio.utils.alphabet"
local M = {}

local byte = string.byte

-- The part of G and C that each code stands for.
local WEIGHT = {
  A = 0, T = 0, U = 0, W = 0, G = 1, C = 1, S = 1, R = 0.5, Y = 0.5, K = 0.5, M = 0.5, N = 0.5, X = 0.5,
  B = 2 / 3, V = 2 / 3, D = 1 / 3, H = 1 / 3,
}

--- The part of G and C (and S) in the sequence, 0 to 1; 0 for an empty one.
--
-- `ambiguous` says what is done with other codes, as in Biopython's `gc_fraction`: "remove" (default) counts only A C G T U S W; "ignore"
-- divides by the whole length; "weighted" counts each code with its mean, N as a half, V as two thirds.
function M.gc(seq, ambiguous)
  local counts = alphabet.count(seq)
  local strong = (counts.G or 0) + (counts.C or 0) + (counts.S or 0)
  local length
  if ambiguous == nil or ambiguous == "remove" then
    length = strong + (counts.A or 0) + (counts.T or 0) + (counts.U or 0) + (counts.W or 0)
  elseif ambiguous == "ignore" then
    length = #seq
  elseif ambiguous == "weighted" then
    strong, length = 0, #seq
    for code, count in pairs(counts) do
      strong = strong + (WEIGHT[code] or 0) * count
    end
  else
    error(("gc: 'remove', 'ignore' or 'weighted', not %s"):format(tostring(ambiguous)), 0)
  end
  if length == 0 then return 0 end
  return strong / length
end

--- GC content of the first, second and third positions of codons, and of all of them: four numbers between 0 and 1.
function M.gc_by_position(seq)
  alphabet._check(seq, "gc_by_position")
  local strong, known = { 0, 0, 0 }, { 0, 0, 0 }
  local classes = {}
  for value = 0, 255 do
    local char = string.char(value):upper()
    classes[value] = char:find("[GCS]") and 1 or char:find("[ATUW]") and 0 or false
  end
  for at = 1, #seq do
    local class = classes[byte(seq, at)]
    if class then
      local place = (at - 1) % 3 + 1
      strong[place] = strong[place] + class
      known[place] = known[place] + 1
    end
  end
  local function part(place) return known[place] > 0 and strong[place] / known[place] or 0 end
  local all = known[1] + known[2] + known[3]
  return part(1), part(2), part(3), all > 0 and (strong[1] + strong[2] + strong[3]) / all or 0
end

local function whole(number, name)
  if type(number) ~= "number" or number < 1 or number % 1 ~= 0 then
    error(("gc_skew: %s is a whole number from 1, not %s"):format(name, tostring(number)), 0)
  end
  return number
end

--- GC skew, (G-C)/(G+C), window by window: `{ { start, stop, skew }, .. }`, 0 where a window has neither.
-- `window` is in bases (100), windows begin every `step` bases (as many as a window has). The last one may be shorter.
function M.gc_skew(seq, window, step)
  alphabet._check(seq, "gc_skew")
  window = whole(window or 100, "the window")
  step = whole(step or window, "the step")
  local result = {}
  local length = #seq
  if length == 0 then return result end
  -- Sums up to each window's edges, so that overlapping windows cost nothing more.
  local edges = {}
  for start = 1, length, step do
    edges[start - 1] = true
    edges[math.min(start + window - 1, length)] = true
  end
  local guanine, cytosine = {}, {}
  local g, c = 0, 0
  if edges[0] then guanine[0], cytosine[0] = 0, 0 end
  for at = 1, length do
    local value = byte(seq, at)
    if value == 71 or value == 103 then g = g + 1 elseif value == 67 or value == 99 then c = c + 1 end
    if edges[at] then guanine[at], cytosine[at] = g, c end
  end
  for start = 1, length, step do
    local stop = math.min(start + window - 1, length)
    local gs, cs = guanine[stop] - guanine[start - 1], cytosine[stop] - cytosine[start - 1]
    result[#result + 1] = { start = start, stop = stop, skew = gs + cs > 0 and (gs - cs) / (gs + cs) or 0 }
  end
  return result
end

--- The running sum of G (+1) and C (-1) along the sequence.
--
-- Returns `{ minimum, minimum_at, maximum, maximum_at, last, points }`. In many bacterial chromosomes the minimum is near the origin of
-- replication and the maximum near the terminus (Grigoriev, Nucleic Acids Res. 26 (1998) 2286). Positions are those after which the
-- extreme is first reached, 0 for the beginning. `points` has the sum after every `step` bases and after the last one, `{ { at, sum }, ..
-- }`, if `step` is given.
function M.cumulative_gc_skew(seq, step)
  alphabet._check(seq, "cumulative_gc_skew")
  if step ~= nil then whole(step, "the step") end
  local sum, low, low_at, high, high_at = 0, 0, 0, 0, 0
  local points = {}
  local length = #seq
  for at = 1, length do
    local value = byte(seq, at)
    if value == 71 or value == 103 then
      sum = sum + 1
      if sum > high then high, high_at = sum, at end
    elseif value == 67 or value == 99 then
      sum = sum - 1
      if sum < low then low, low_at = sum, at end
    end
    if step and (at % step == 0 or at == length) then points[#points + 1] = { at = at, sum = sum } end
  end
  return { minimum = low, minimum_at = low_at, maximum = high, maximum_at = high_at, last = sum, points = points }
end

return M
