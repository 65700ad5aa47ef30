--- GenBank flat files: header, features, sequence. Format: release notes of GenBank (gbrel.txt), section 3.4, and the INSDC feature table
-- definition.
local source = require "bio.sequences.source"
local fasta = require "bio.sequences.fasta"
local location = require "bio.sequences.location"
local M = {}

local concat = table.concat

-- Keywords whose lines are joined to one text, and the fields that they become.
local TEXTS = {
  DEFINITION = "definition", ACCESSION = "accession", VERSION = "version", KEYWORDS = "keywords", DBLINK = "dblink", SEGMENT = "segment", SOURCE = "source",
}
local REFERENCE = { AUTHORS = "authors", CONSRTM = "consortium", TITLE = "title", JOURNAL = "journal", PUBMED = "pubmed", REMARK = "remark", MEDLINE = "medline" }
-- Values whose lines are joined without a blank: they are no prose.
local SEQUENCES = { translation = true, transl_except = true, db_xref = true }
-- How many lines may stand before the first record: files of a release have a header of their own.
local PREAMBLE = 20

local function locus(line, where)
  local name, length, unit, rest = line:match("^LOCUS%s+(%S+)%s+(%d+)%s+(%a%a)%s*(.-)%s*$")
  if not name or #length > 15 then where.fail("a LOCUS line has a name, a length and a unit") end
  local record = { name = name, length = tonumber(length), unit = unit, topology = "linear" }
  for word in rest:gmatch("%S+") do
    if word == "linear" or word == "circular" then
      record.topology = word
    elseif word:find("^%d%d?%-%u%u%u%-%d%d%d%d$") then
      record.date = word
    elseif not record.molecule then
      record.molecule = word
    else
      record.division = word
    end
  end
  return record
end

-- Collects lines for a field and joins them once, so that a long field costs no more than its length.
local function collector(open, target, name, separator)
  local parts = {}
  open[#open + 1] = function()
    if target[name] == nil and #parts > 0 then target[name] = concat(parts, separator) end
  end
  return function(text)
    if text ~= "" or separator == "\n" then parts[#parts + 1] = text end
  end
end

local function value_of(qualifier, where)
  if qualifier.parts == nil then return true, nil end
  local value = concat(qualifier.parts, qualifier.quoted and not SEQUENCES[qualifier.name] and " " or "")
  if not qualifier.quoted then return value, true end
  if qualifier.quotes % 2 == 1 or value:sub(-1) ~= '"' then
    where.fail(("the value of /%s has no closing quote"):format(qualifier.name), qualifier.number)
  end
  -- Two quotes stand for one.
  value = value:sub(2, -2):gsub('""', '"')
  return value, nil
end

local function count_quotes(text)
  local _, count = text:gsub('"', "")
  return count
end

-- Reads the feature table into the record and returns the line after it.
local function features(next_line, where, record)
  local list, feature, pending = record.features, nil, nil
  local function finish_qualifier()
    if not pending then return end
    local value, bare = value_of(pending, where)
    feature.qualifiers[#feature.qualifiers + 1] = { name = pending.name, value = value, bare = bare }
    if feature[pending.name] == nil then feature[pending.name] = value end
    pending = nil
  end
  local text, number
  local function finish_feature()
    if not feature then return end
    finish_qualifier()
    local ok, parsed = pcall(location.parse_location, concat(text), record.topology == "circular" and record.length or nil)
    if not ok then where.fail(parsed, number) end
    feature.location = parsed
    list[#list + 1] = feature
    feature = nil
  end
  for line in next_line do
    if line:find("^%S") then
      finish_feature()
      return line
    end
    local key, place = line:match("^     (%S+)%s+(%S.-)%s*$")
    local more = line:match("^                     (.-)%s*$")
    if key then
      finish_feature()
      feature, text, number = { key = key, qualifiers = {} }, { place }, where.number
    elseif more and pending and pending.quoted and pending.quotes % 2 == 1 then
      pending.quotes = pending.quotes + count_quotes(more)
      pending.parts[#pending.parts + 1] = more
    elseif more and feature then
      local name, equals, value = more:match("^/([%w_%-'*]+)(=?)(.*)$")
      if name then
        finish_qualifier()
        pending = { name = name, number = where.number }
        if equals == "=" then
          pending.parts, pending.quoted = { value }, value:sub(1, 1) == '"'
          pending.quotes = pending.quoted and count_quotes(value) or 0
        end
      elseif not pending then
        text[#text + 1] = more
      elseif pending.parts and not pending.quoted then
        pending.parts[#pending.parts + 1] = more
      elseif more ~= "" then
        where.fail("a line that belongs to no qualifier")
      end
    elseif not line:find("^%s*$") then
      where.fail("a line that is neither feature nor qualifier")
    end
  end
  where.fail("the record is cut off in its features")
end

local function origin(next_line, where, record)
  local parts, length = {}, 0
  for line in next_line do
    if line:sub(1, 2) == "//" then
      record.seq = concat(parts):upper()
      if record.length ~= #record.seq and #record.seq > 0 then
        where.fail(("LOCUS says %d, there are %d"):format(record.length, #record.seq))
      end
      return
    end
    local number, text = line:match("^%s*(%d+)%s(.*)$")
    if not number then
      if not line:find("^%s*$") then where.fail("a line of sequence begins with its position") end
    else
      if tonumber(number) ~= length + 1 then where.fail(("the position is %s where %d is wanted"):format(number:sub(1, 20), length + 1)) end
      local letters = text:gsub("%s+", "")
      if letters:find("[^%a%*%-]") then where.fail("a character that is no base") end
      parts[#parts + 1] = letters
      length = length + #letters
    end
  end
  where.fail("the record is cut off in its sequence")
end

-- The name of the organism may go over two lines; the lineage after it has semicolons, or ends with a full stop.
local function organism(open, record, first)
  local names, lineage = { first }, {}
  open[#open + 1] = function()
    record.organism = concat(names, " ")
    for taxon in concat(lineage, " "):gmatch("[^;]+") do
      local name = taxon:match("^%s*(.-)%.?%s*$")
      if name ~= "" then record.taxonomy[#record.taxonomy + 1] = name end
    end
  end
  return function(text)
    if #lineage == 0 and #names < 3 and not text:find(";", 1, true) and not text:find("%.$") then
      names[#names + 1] = text
    else
      lineage[#lineage + 1] = text
    end
  end
end

-- The collector of a line with a keyword in its first twelve columns; nil if there is no such keyword.
local function main_keyword(open, record, keyword, text)
  if keyword == "REFERENCE" then
    record.references[#record.references + 1] = { number = tonumber(text:match("^%d+")), bases = text:match("%((.-)%)") }
    return function() end
  elseif keyword == "COMMENT" then
    return collector(open, record, "comment", "\n")
  elseif keyword == "CONTIG" then
    return collector(open, record, "contig", "")
  elseif TEXTS[keyword] then
    return collector(open, record, TEXTS[keyword], " ")
  elseif keyword:find("^%u[%u_ ]*$") then
    -- BASE COUNT, WGS and others: kept as they are.
    record.others = record.others or {}
    return collector(open, record.others, keyword, " ")
  end
  return nil
end

-- One record, from its LOCUS line to `//`.
local function record_of(line, next_line, where, circular)
  local record = locus(line, where)
  if circular then record.topology = "circular" end
  record.references, record.features, record.taxonomy, record.seq = {}, {}, {}, ""
  local open = {}
  local add
  line = next_line()
  while line and line:sub(1, 2) ~= "//" do
    local keyword = line:sub(1, 12):match("^%s*(.-)%s*$")
    local text = line:sub(13):match("^%s*(.-)%s*$")
    local again = false
    if not line:find("^%S") then
      if keyword == "ORGANISM" then
        add = organism(open, record, text)
      elseif REFERENCE[keyword] and #record.references > 0 then
        add = collector(open, record.references[#record.references], REFERENCE[keyword], " ")
        add(text)
      elseif add and (keyword == "" or keyword:find("^%u+$")) then
        add(text)
      elseif not line:find("^%s*$") then
        where.fail("a line that belongs to no keyword")
      end
    elseif line:find("^FEATURES") then
      line, again, add = features(next_line, where, record), true, nil
    elseif line:find("^ORIGIN") then
      origin(next_line, where, record)
      line = "//"
      break
    elseif line:find("^LOCUS") then
      where.fail("a new record begins before the last one ends with //")
    else
      add = main_keyword(open, record, keyword, text)
      if not add then where.fail("a line that begins with no keyword") end
      add(text)
    end
    if not again then line = next_line() end
  end
  if not line then where.fail(("the record %s is cut off: it has no //"):format(record.name)) end
  for _, close in ipairs(open) do close() end
  record.id = record.version and record.version:match("^%S+") or record.accession and record.accession:match("^%S+") or record.name
  record.description = record.definition and record.definition:gsub("%.$", "") or ""
  return record
end

--- Iterates over the records of a GenBank source.
--
-- A record has `id` (version, else accession, else name), `description`, `name`, `length`, `unit`, `molecule`, `topology`, `division`,
-- `date`, `definition`, `accession`, `version`, `keywords`, `source`, `organism`, `taxonomy`, `references`, `comment`, `contig`, `seq`
-- (upper case; empty if the file has none) and `features`: `{ key, location, qualifiers }` with the qualifiers in their order as `{ name,
-- value }`, and the first of each name as a field (`feature.gene`); a qualifier without a value is `true`. `options.circular` takes every
-- record as a circle, for programs that write features over the origin of what they call linear.
function M.genbank(input, options)
  local next_line, where = source.lines(input)
  local circular = options and options.circular
  local records, before = 0, false
  return function()
    for line in next_line do
      if line:sub(1, 5) == "LOCUS" then
        records = records + 1
        return record_of(line, next_line, where, circular)
      elseif not line:find("^%s*$") then
        before = true
        if records > 0 or where.number > PREAMBLE then where.fail("a record begins with LOCUS") end
      end
    end
    where.close()
    if records == 0 and before then where.fail("there is no LOCUS line: this is no GenBank file") end
    return nil
  end
end

-- Text in lines of 80 characters, all but the first indented.
local function wrap(prefix, text, indent, width)
  local lines, line = {}, prefix
  local room = width - indent
  for word in text:gmatch("%S+") do
    while #word > room do
      if #line > indent then lines[#lines + 1], line = line, (" "):rep(indent) end
      lines[#lines + 1], word = line .. word:sub(1, room), word:sub(room + 1)
      line = (" "):rep(indent)
    end
    if #line > indent and #line + 1 + #word > width then
      lines[#lines + 1], line = line, (" "):rep(indent)
    end
    line = line .. (#line > indent and " " or "") .. word
  end
  lines[#lines + 1] = line
  return lines
end

local function cut(prefix, text, indent, width)
  local lines, at = {}, 1
  local room = width - indent
  repeat
    lines[#lines + 1] = (at == 1 and prefix or (" "):rep(indent)) .. text:sub(at, at + room - 1)
    at = at + room
  until at > #text
  return lines
end

local function add(out, lines)
  for _, line in ipairs(lines) do out[#out + 1] = line end
end

local function keyword(out, name, text)
  if text and text ~= "" then add(out, wrap(("%-12s"):format(name), text, 12, 79)) end
end

local function feature_lines(out, feature, circular)
  local text = feature.location and feature.location.text or feature.location
  if type(text) ~= "string" then error("write_genbank: a feature has no location", 0) end
  location.parse_location(text, circular)
  add(out, cut(("     %-16s"):format(feature.key), text, 21, 79))
  for _, qualifier in ipairs(feature.qualifiers or {}) do
    local indent = (" "):rep(21)
    if qualifier.value == true then
      out[#out + 1] = indent .. "/" .. qualifier.name
    elseif qualifier.bare then
      add(out, cut(indent, ("/%s=%s"):format(qualifier.name, qualifier.value), 21, 79))
    else
      local whole = ('/%s="%s"'):format(qualifier.name, (tostring(qualifier.value):gsub('"', '""')))
      if SEQUENCES[qualifier.name] then
        add(out, cut(indent, whole, 21, 79))
      else
        add(out, wrap(indent, whole, 21, 79))
      end
    end
  end
end

local function record_text(record)
  local name = record.name or record.id
  if type(name) ~= "string" or not name:find("^%S+$") then error("write_genbank: a record has no name", 0) end
  local seq = record.seq or ""
  local out = {
    ("LOCUS       %-16s %11d %s    %-6s  %-8s %s %s"):format(name, #seq > 0 and #seq or record.length or 0, record.unit or "bp", record.molecule or "DNA",
      record.topology or "linear", record.division or "UNK", record.date or "01-JAN-1980"),
  }
  keyword(out, "DEFINITION", record.definition or record.description)
  keyword(out, "ACCESSION", record.accession or record.id)
  keyword(out, "VERSION", record.version)
  keyword(out, "DBLINK", record.dblink)
  keyword(out, "KEYWORDS", record.keywords or ".")
  keyword(out, "SOURCE", record.source or record.organism)
  if record.organism then
    keyword(out, "  ORGANISM", record.organism)
    if record.taxonomy and #record.taxonomy > 0 then keyword(out, "", concat(record.taxonomy, "; ") .. ".") end
  end
  for at, reference in ipairs(record.references or {}) do
    keyword(out, "REFERENCE", ("%d%s"):format(reference.number or at, reference.bases and ("  (" .. reference.bases .. ")") or ""))
    for _, field in ipairs { "AUTHORS", "CONSRTM", "TITLE", "JOURNAL", "MEDLINE", "PUBMED", "REMARK" } do
      keyword(out, (field == "PUBMED" and "   " or "  ") .. field, reference[REFERENCE[field]])
    end
  end
  if record.comment then
    local first = "COMMENT     "
    for line in (record.comment .. "\n"):gmatch("(.-)\n") do
      out[#out + 1] = first .. line
      first = (" "):rep(12)
    end
  end
  if record.features and #record.features > 0 then
    out[#out + 1] = "FEATURES             Location/Qualifiers"
    for _, feature in ipairs(record.features) do feature_lines(out, feature, record.topology == "circular" and (#seq > 0 and #seq or record.length) or nil) end
  end
  if record.contig then add(out, cut("CONTIG      ", record.contig, 12, 79)) end
  out[#out + 1] = "ORIGIN"
  local lower = seq:lower()
  for at = 1, #lower, 60 do
    out[#out + 1] = ("%9d %s"):format(at, (lower:sub(at, at + 59):gsub("..........", "%0 "):gsub(" $", "")))
  end
  out[#out + 1] = "//\n"
  return concat(out, "\n")
end

--- Writes records in GenBank form and returns how many. What a reader of ours read is written so that it reads the same again.
function M.write_genbank(target, records, options)
  local put, finish = source.sink(target, options)
  local written = 0
  for record in fasta._each(records) do
    put(record_text(record))
    written = written + 1
  end
  finish()
  return written
end

return M
