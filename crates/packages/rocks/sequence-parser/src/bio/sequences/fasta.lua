--- FASTA: a line with `>`, a name and a description, then lines of letters.
local source = require "bio.sequences.source"
local M = {}

local concat = table.concat

--- Iterates over the records of a FASTA source: `{ id, description, seq }`. The id is what stands before the first blank, the description
-- the rest. Letters, `*`, `-` and `.` make sequences; blanks inside are dropped.
function M.fasta(input)
  local next_line, where = source.lines(input)
  local header
  local function step()
    local parts, count = {}, 0
    for line in next_line do
      local first = line:sub(1, 1)
      if first == ">" then
        local id, description = line:match("^>%s*(%S*)%s*(.-)%s*$")
        if id == "" then where.fail("a record without a name") end
        if header then
          local done = header
          done.seq = concat(parts)
          header = { id = id, description = description }
          return done
        end
        header = { id = id, description = description }
      elseif not line:find("^%s*$") then
        if not header then where.fail("a FASTA file begins with '>'") end
        if line:find("[^%a%*%-%.]") then
          line = line:gsub("%s+", "")
          local at = line:find("[^%a%*%-%.]")
          if at then
            local char = line:sub(at, at)
            where.fail((char:find("[%w%p]") and ("'%s'"):format(char) or ("byte %d"):format(char:byte())) .. " in the sequence of " .. header.id)
          end
        end
        count = count + 1
        parts[count] = line
      end
    end
    where.close()
    if not header then return nil end
    local done = header
    done.seq = concat(parts)
    header = nil
    return done
  end
  local ended = false
  return function()
    if ended then return nil end
    local record = step()
    if record == nil or header == nil then ended = true end
    return record
  end
end

-- Records as an iterator, whether they came as one or as a list.
local function each(records)
  if type(records) == "function" then return records end
  if type(records) ~= "table" then error("a list of records or an iterator is wanted, not a " .. type(records), 0) end
  if records.seq then records = { records } end
  local at = 0
  return function()
    at = at + 1
    return records[at]
  end
end
M._each = each

-- What goes into a header: one line.
local function header(record)
  local id, description = record.id, record.description
  if type(id) ~= "string" or not id:find("^%S+$") then error(("a record's id is a word without blanks, not %q"):format(tostring(id)), 0) end
  if type(record.seq) ~= "string" then error(id .. ": the record has no sequence", 0) end
  if description ~= nil and description ~= "" then
    if description:find("[\r\n]") then error(id .. ": the description has more than one line", 0) end
    return id .. " " .. description
  end
  return id
end
M._header = header

--- Writes records as FASTA and returns how many. `records` is one record, a list or an iterator; `options`: `width` (letters a line, 60; 0
-- for one line), `gzip`.
function M.write_fasta(target, records, options)
  local width = options and options.width or 60
  if type(width) ~= "number" or width < 0 or width % 1 ~= 0 then error("write_fasta: the width is a whole number", 0) end
  local put, finish = source.sink(target, options)
  local written = 0
  for record in each(records) do
    local lines = { ">" .. header(record) }
    local seq = record.seq
    if seq:find("[^%a%*%-%.]") then error(record.id .. ": the sequence has characters that FASTA does not know", 0) end
    if width == 0 then
      lines[2] = seq
    else
      for at = 1, #seq, width do lines[#lines + 1] = seq:sub(at, at + width - 1) end
    end
    lines[#lines + 1] = ""
    put(concat(lines, "\n"))
    written = written + 1
  end
  finish()
  return written
end

return M
