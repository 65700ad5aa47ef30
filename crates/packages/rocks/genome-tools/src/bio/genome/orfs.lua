--- Open reading frames on both strands, in one pass over the sequence.
local alphabet = require "bio.utils.alphabet"
local genetic_code = require "bio.utils.genetic_code"
local M = {}

local byte = string.byte

local OPTIONS = { table = true, min = true, starts = true, partial = true, strand = true, protein = true }
local VALUES = { T = 0, C = 1, A = 2, G = 3 }

-- What codons mean, by number (first base times 16, second times 4, third), as they stand on the given strand and read from the other.
local function meanings(id, starts)
  local code = genetic_code.genetic_code(id)
  local begins
  if starts == "table" then begins = code.starts
  elseif starts == "ATG" then begins = { ATG = true }
  elseif starts == "any" then begins = nil
  else error(("orfs: starts is 'ATG', 'table' or 'any', not %s"):format(tostring(starts)), 0) end
  local start, stop, other_start, other_stop = {}, {}, {}, {}
  for codon, letter in pairs(code.forward) do
    local function number(text) return VALUES[text:sub(1, 1)] * 16 + VALUES[text:sub(2, 2)] * 4 + VALUES[text:sub(3, 3)] end
    local here, there = number(codon), number(alphabet.reverse_complement(codon, "dna"))
    local is_stop = letter == "*"
    stop[here], other_stop[there] = is_stop, is_stop
    local is_start = not is_stop and (not begins or begins[codon] or false)
    start[here], other_start[there] = is_start, is_start
  end
  return start, stop, other_start, other_stop
end

--- Finds open reading frames: from a start codon to the next stop codon of its frame, the longest for each stop.
--
-- `options`: `table` (genetic code 1, 4 or 11; 1), `min` (bases, stop codon included; 75, as NCBI's ORFfinder), `starts` ("ATG", the
-- default; "table" for all start codons of the code; "any" for every codon, so from stop to stop), `partial` (also those that run off an
-- end), `strand` (1 or -1 for only one), `protein` (translate).
--
-- Returns a list sorted by start: `{ start, stop, strand, frame, length, partial, protein }`, start and stop on the given strand and with
-- the stop codon, the frame 1 to 3 counted from the first base of the strand that is read, `partial` "5'", "3'" or "both". Codons with
-- other letters than A C G T U neither begin nor end one.
function M.orfs(seq, options)
  alphabet._check(seq, "orfs")
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error(("orfs: there is no option '%s'"):format(tostring(name)), 0) end
  end
  local least = options.min or 75
  if type(least) ~= "number" or least < 0 then error("orfs: min is a number of bases", 0) end
  local strand = options.strand
  if strand ~= nil and strand ~= 1 and strand ~= -1 then error("orfs: the strand is 1 or -1", 0) end
  if not alphabet.is_nucleotide(seq) then alphabet._refuse(seq, alphabet._UNKNOWN, "a nucleotide code") end
  local partial = options.partial
  local start, stop, other_start, other_stop = meanings(options.table, options.starts or "ATG")
  local forward, backward = strand ~= -1, strand ~= 1
  local length = #seq
  local found = {}

  local function add(from, to, direction, cut)
    local size = to - from + 1
    if size < least or size < 3 then return end
    local frame = direction == 1 and (from - 1) % 3 + 1 or (length - to) % 3 + 1
    found[#found + 1] = { start = from, stop = to, strand = direction, frame = frame, length = size, partial = cut }
  end

  -- By frame (position of the codon's first base modulo three): where the reading frame of this strand began, and of the other strand,
  -- where the last stop codon is and the furthest start codon since. `false` is nowhere.
  local open, open_cut = { [0] = false, false, false }, { [0] = false, false, false }
  local closed, furthest = { [0] = false, false, false }, { [0] = false, false, false }
  local lead = { [0] = false, false, false }
  if partial then
    for first = 1, math.min(3, length) do
      open[first % 3], open_cut[first % 3] = first, true
      -- The other strand's frames may have lost their stop codon at this end.
      closed[first % 3], lead[first % 3] = first, true
    end
  end

  local values = {}
  for value = 0, 255 do values[value] = VALUES[string.char(value):upper()] or false end
  values[85], values[117] = 0, 0
  local number, known = 0, 0
  for at = 1, length do
    local value = values[byte(seq, at)]
    if value then
      number, known = number % 16 * 4 + value, known + 1
    else
      number, known = 0, 0
    end
    if at >= 3 and known >= 3 then
      local first = at - 2
      local frame = first % 3
      if forward then
        if stop[number] then
          local from = open[frame]
          if from then
            add(from, at, 1, open_cut[frame] and "5'" or nil)
            open[frame], open_cut[frame] = false, false
          end
        elseif start[number] and not open[frame] then
          open[frame] = first
        end
      end
      if backward then
        if other_stop[number] then
          local from = closed[frame]
          if from and furthest[frame] then add(from, furthest[frame], -1, lead[frame] and "3'" or nil) end
          closed[frame], furthest[frame], lead[frame] = first, false, false
        elseif other_start[number] and closed[frame] then
          furthest[frame] = at
        end
      end
    end
  end
  -- The last whole codon of a frame ends here.
  for frame = 0, 2 do
    local last = length - (length - frame + 1) % 3
    if forward and partial and open[frame] and last > open[frame] then
      add(open[frame], last, 1, open_cut[frame] and "both" or "3'")
    end
    if backward and closed[frame] then
      if partial and last > closed[frame] then
        add(closed[frame], last, -1, lead[frame] and "both" or "5'")
      elseif furthest[frame] then
        add(closed[frame], furthest[frame], -1, lead[frame] and "3'" or nil)
      end
    end
  end
  table.sort(found, function(a, b)
    if a.start ~= b.start then return a.start < b.start end
    if a.stop ~= b.stop then return a.stop < b.stop end
    return a.strand > b.strand
  end)
  if options.protein then
    for _, orf in ipairs(found) do
      local bases = seq:sub(orf.start, orf.stop)
      if orf.strand == -1 then bases = alphabet.reverse_complement(bases) end
      local protein = genetic_code.translate(bases, { table = options.table, to_stop = true })
      -- What begins with a start codon begins with methionine, whatever that codon means elsewhere.
      if options.starts ~= "any" and orf.partial ~= "5'" and orf.partial ~= "both" then protein = "M" .. protein:sub(2) end
      orf.protein = protein
    end
  end
  return found
end

return M
