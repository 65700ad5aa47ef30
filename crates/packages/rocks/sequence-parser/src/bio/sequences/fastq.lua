--- FASTQ: reads with qualities. Format and its variants: Cock et al., Nucleic Acids Res. 38 (2010) 1767.
local source = require "bio.sequences.source"
local fasta = require "bio.sequences.fasta"
local M = {}

local byte, concat = string.byte, table.concat

local OFFSETS = { phred33 = 33, phred64 = 64 }
-- Of how many records at most an encoding is concluded.
local SAMPLE = 10000

-- What the lowest and highest quality byte say. Below ';' (59) only Phred+33 goes. Phred+64 goes from '@' (64) and Illumina wrote up to
-- 'i' (105); reads in Phred+33 of that time end at 'K' (75). In between both are possible, and so nothing is concluded.
local function conclude(low, high)
  if low < 59 then return "phred33" end
  if low >= 64 and high > 75 and high <= 105 then return "phred64" end
  return nil
end

local function ambiguous(where, low, high, records)
  local seen = records == 0 and "there are no qualities" or ("qualities from '%s' to '%s' in %d records fit both"):format(string.char(low), string.char(high), records)
  where.fail(("is this Phred+33 or Phred+64? %s; say encoding = \"phred33\" or \"phred64\""):format(seen))
end

-- Reads one record; nil at the end. Sequences and qualities may go over several lines.
local function reader(next_line, where)
  return function()
    local line = next_line()
    while line and line:find("^%s*$") do line = next_line() end
    if not line then return nil end
    if line:sub(1, 1) ~= "@" then where.fail("a record begins with '@'") end
    local id, description = line:match("^@(%S*)%s*(.-)%s*$")
    if id == "" then where.fail("a record without a name") end
    local began = where.number
    local parts = {}
    line = next_line()
    while line and line:sub(1, 1) ~= "+" do
      if line:find("[^%a%*%-%.]") then where.fail("a character that is no base, in the sequence of " .. id) end
      parts[#parts + 1] = line
      line = next_line()
    end
    if not line then where.fail(("the record %s of line %d is cut off"):format(id, began)) end
    local repeated = line:match("^%+(%S*)")
    if repeated ~= "" and repeated ~= id then where.fail(("the second name is '%s', the first was '%s'"):format(repeated, id)) end
    local seq = concat(parts)
    local wanted, got = #seq, 0
    parts = {}
    repeat
      line = next_line()
      if not line then
        -- A record without bases may end without the empty line of its qualities.
        if wanted == 0 then break end
        where.fail(("the record %s of line %d is cut off"):format(id, began))
      end
      if line:find("[^!-~]") then where.fail("a character that is no quality, in " .. id) end
      parts[#parts + 1] = line
      got = got + #line
    until got >= wanted
    if got > wanted then where.fail(("%d qualities for %d bases in %s"):format(got, wanted, id)) end
    return { id = id, description = description, seq = seq, quality = concat(parts) }
  end
end

local function bounds(quality, low, high)
  local length = #quality
  for at = 1, length, 4 do
    local a, b, c, d = byte(quality, at, at + 3)
    b, c, d = b or a, c or a, d or a
    if a < low then low = a end
    if a > high then high = a end
    if b < low then low = b end
    if b > high then high = b end
    if c < low then low = c end
    if c > high then high = c end
    if d < low then low = d end
    if d > high then high = d end
  end
  return low, high
end

local function check(record, offset, where)
  -- Below the offset there is no Phred score.
  local wrong = offset == 64 and record.quality:find("[!-?]")
  if wrong then where.fail(("the quality '%s' of %s is below 0 in Phred+64"):format(record.quality:sub(wrong, wrong), record.id)) end
  record.offset = offset
  return record
end

--- Iterates over the records of a FASTQ source: `{ id, description, seq, quality, offset }`; `quality` as it stands in the file, `offset`
-- 33 or 64.
--
-- `options.encoding`: "phred33", "phred64", or "detect" (the default). Detection reads ahead until it is certain, 10 000 records at most,
-- and refuses to guess: qualities that fit both are an error that asks for the encoding.
function M.fastq(input, options)
  local encoding = options and options.encoding or "detect"
  if encoding ~= "detect" and not OFFSETS[encoding] then
    error(("fastq: the encoding is 'phred33', 'phred64' or 'detect', not %s"):format(tostring(encoding)), 0)
  end
  local next_line, where = source.lines(input)
  local read = reader(next_line, where)
  local ahead, at = {}, 0
  local offset = OFFSETS[encoding]
  local function detect()
    local low, high = 127, 0
    while #ahead < SAMPLE do
      local record = read()
      if not record then break end
      ahead[#ahead + 1] = record
      low, high = bounds(record.quality, low, high)
      -- A low byte is certain at once; a high one may be followed by a low one.
      if low < 59 then break end
    end
    if #ahead == 0 then return 33 end
    local found = conclude(low, high)
    if not found then ambiguous(where, low, high, high == 0 and 0 or #ahead) end
    return OFFSETS[found]
  end
  local ended = false
  return function()
    if ended then return nil end
    offset = offset or detect()
    local record
    if at < #ahead then
      at = at + 1
      record, ahead[at] = ahead[at], false
    else
      record = read()
    end
    if not record then
      ended = true
      return nil
    end
    return check(record, offset, where)
  end
end

--- Which encoding a FASTQ source has: "phred33" or "phred64", or nil and why it cannot be told. Reads 10 000 records at most.
function M.detect_encoding(input)
  local next_line, where = source.lines(input)
  local read = reader(next_line, where)
  local low, high, records = 127, 0, 0
  while records < SAMPLE do
    local record = read()
    if not record then break end
    records = records + 1
    low, high = bounds(record.quality, low, high)
    if low < 59 then break end
  end
  where.close()
  if high == 0 then return nil, where.name .. ": there are no qualities" end
  local found = conclude(low, high)
  if found then return found end
  return nil, ("%s: qualities from '%s' to '%s' in %d records fit Phred+33 and Phred+64"):format(where.name, string.char(low), string.char(high), records)
end

--- The Phred scores of a record, a list of whole numbers.
function M.scores(record)
  local offset, quality = record.offset or 33, record.quality
  local result = {}
  for at = 1, #quality do result[at] = byte(quality, at) - offset end
  return result
end

--- The mean probability of error of a record's bases, 0 to 1: the mean of 10^(-Q/10), which is not what the mean of Q says.
function M.mean_error(record)
  local scores = M.scores(record)
  if #scores == 0 then return 0 end
  local sum = 0
  for _, score in ipairs(scores) do sum = sum + 10 ^ (-score / 10) end
  return sum / #scores
end

--- Writes records as FASTQ with Phred+33, whatever they had, and returns how many. `options.gzip` packs.
function M.write_fastq(target, records, options)
  local put, finish = source.sink(target, options)
  local written = 0
  for record in fasta._each(records) do
    local header = fasta._header(record)
    local quality = record.quality
    if type(quality) ~= "string" or #quality ~= #record.seq then error(record.id .. ": as many qualities as bases are wanted", 0) end
    if record.offset == 64 then
      quality = quality:gsub(".", function(char)
        local score = byte(char) - 64
        if score < 0 then error(record.id .. ": a quality below 0", 0) end
        return string.char(score + 33)
      end)
    end
    if quality:find("[^!-~]") then error(record.id .. ": a quality that has no character", 0) end
    put(("@%s\n%s\n+\n%s\n"):format(header, record.seq, quality))
    written = written + 1
  end
  finish()
  return written
end

return M
