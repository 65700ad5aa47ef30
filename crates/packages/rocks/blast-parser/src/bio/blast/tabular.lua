--- Tables of BLAST+: outfmt 6, and 7 with its comments. Columns: BLAST Command Line Applications User Manual, appendix "Options for the
-- command-line applications".
local source = require "bio.sequences.source"
local M = {}

--- The columns of a table when none are named.
M.columns = { "qseqid", "sseqid", "pident", "length", "mismatch", "gapopen", "qstart", "qend", "sstart", "send", "evalue", "bitscore" }

-- Columns that hold numbers; all others are text.
local NUMBERS = {}
for name in ([[qlen slen qstart qend sstart send evalue bitscore score length pident nident mismatch positive gapopen gaps ppos qframe sframe
  qcovs qcovhsp qcovus staxid]]):gmatch("%S+") do NUMBERS[name] = true end

-- What the comment "# Fields:" of outfmt 7 calls them.
local TITLES = {
  ["query id"] = "qseqid", ["query acc."] = "qacc", ["query acc.ver"] = "qaccver", ["query gi"] = "qgi", ["query length"] = "qlen", ["subject id"] = "sseqid", ["subject ids"] = "sallseqid",
  ["subject gi"] = "sgi", ["subject gis"] = "sallgi", ["subject acc."] = "sacc", ["subject acc.ver"] = "saccver", ["subject accs."] = "sallacc", ["subject length"] = "slen",
  ["q. start"] = "qstart", ["q. end"] = "qend", ["s. start"] = "sstart", ["s. end"] = "send", ["query seq"] = "qseq", ["subject seq"] = "sseq", ["evalue"] = "evalue",
  ["bit score"] = "bitscore", ["score"] = "score", ["alignment length"] = "length", ["% identity"] = "pident", ["identical"] = "nident", ["mismatches"] = "mismatch",
  ["positives"] = "positive", ["gap opens"] = "gapopen", ["gaps"] = "gaps", ["% positives"] = "ppos", ["query/sbjct frames"] = "frames", ["query frame"] = "qframe",
  ["sbjct frame"] = "sframe", ["BTOP"] = "btop", ["subject tax ids"] = "staxids", ["subject tax id"] = "staxid", ["subject sci names"] = "sscinames", ["subject sci name"] = "ssciname",
  ["subject com names"] = "scomnames", ["subject com name"] = "scomname", ["subject blast names"] = "sblastnames", ["subject super kingdoms"] = "sskingdoms",
  ["subject title"] = "stitle", ["subject titles"] = "salltitles", ["subject strand"] = "sstrand", ["% subject coverage"] = "scovs", ["% query coverage per subject"] = "qcovs",
  ["% query coverage per hsp"] = "qcovhsp", ["% hsp coverage"] = "qcovhsp", ["% query coverage per uniq subject"] = "qcovus",
}

local function names_of(columns)
  if columns == nil then return M.columns end
  local names = {}
  if type(columns) == "string" then
    for word in columns:gmatch("%S+") do
      -- As it is given to blastn: "6 std qlen".
      if word == "std" then
        for _, name in ipairs(M.columns) do names[#names + 1] = name end
      elseif not (#names == 0 and word:find("^%d+$")) then
        names[#names + 1] = word
      end
    end
  elseif type(columns) == "table" then
    for at, name in ipairs(columns) do names[at] = name end
  end
  if #names == 0 then error("blast: the columns are a list or a string of names", 0) end
  return names
end

local function fields_of(text, where)
  local names = {}
  for title in (text .. ","):gmatch("%s*(.-)%s*,") do
    local name = TITLES[title]
    if not name then where.fail(("the column '%s' is not known; give the columns by name"):format(title:sub(1, 60))) end
    names[#names + 1] = name
  end
  return names
end

-- A number as BLAST writes it; old ones leave the mantissa out of small e-values ("e-100").
local function number(text)
  local trimmed = text:match("^%s*(%S+)%s*$")
  if not trimmed then return nil end
  if trimmed:find("^[eE][%+%-]%d+$") then trimmed = "1" .. trimmed end
  if not trimmed:find("^[%+%-]?%d*%.?%d*[eE]?[%+%-]?%d*$") then return nil end
  return tonumber(trimmed)
end

--- Iterates over the lines of a table, one hit (HSP) each: a table with the columns' names as keys, numbers as numbers (nil for `N/A`), and
-- `line`.
--
-- `options.columns` names the columns, as a list or as given to BLAST ("6 qseqid sseqid std"); outfmt 7 brings them along.
-- `options.query(query)` is called for each query of outfmt 7 once its comments are read, with `{ query, database, program, hits, line }`;
-- so queries without hits are seen as well. `hits` is nil if the comment is missing.
function M.tabular(input, options)
  local next_line, where = source.lines(input)
  local names = names_of(options and options.columns)
  local fixed = options ~= nil and options.columns ~= nil
  local on_query = options and options.query
  local block
  local function comment(line)
    if line:find("^# BLAST processed") then return end
    local program = line:match("^# (%u*BLAST%u* .-)%s*$")
    if program then
      if block and on_query then on_query(block) end
      block = { program = program, line = where.number }
      return
    end
    local query = line:match("^# Query: ?(.-)%s*$")
    if query then
      if block and block.query and on_query then
        on_query(block)
        block = nil
      end
      block = block or { line = where.number }
      block.query = query
      return
    end
    local database = line:match("^# Database: ?(.-)%s*$")
    if database and block then block.database = database end
    local fields = line:match("^# Fields: ?(.-)%s*$")
    if fields and not fixed then names = fields_of(fields, where) end
    local hits = line:match("^# (%d+) hits found")
    if hits and block then
      block.hits = tonumber(hits)
      if on_query then on_query(block) end
      block = nil
    end
  end
  return function()
    for line in next_line do
      if line:sub(1, 1) == "#" then
        comment(line)
      elseif line:find("%S") then
        local hit, count = { line = where.number }, 0
        for field in (line .. "\t"):gmatch("(.-)\t") do
          count = count + 1
          local name = names[count]
          if not name then where.fail(("a line has more than the %d columns"):format(#names)) end
          if NUMBERS[name] then
            local value = number(field)
            if not value and field ~= "N/A" then where.fail(("%s is a number, not '%s'"):format(name, field:sub(1, 30))) end
            hit[name] = value
          else
            hit[name] = field
          end
        end
        if count ~= #names then where.fail(("%d columns are wanted, there are %d"):format(#names, count)) end
        return hit
      end
    end
    where.close()
    if block and on_query then
      on_query(block)
      block = nil
    end
    return nil
  end
end

return M
