--- GFF3, read and written. Specification: Sequence Ontology, "Generic Feature Format Version 3", 1.26 (L. Stein, 2020).
local source = require "bio.sequences.source"
local M = {}

local concat = table.concat

-- Attributes that may have several values are always lists.
local LISTS = { Parent = true, Alias = true, Note = true, Dbxref = true, Ontology_term = true }
local PHASES = { ["0"] = 0, ["1"] = 1, ["2"] = 2 }
local STRANDS = { ["+"] = true, ["-"] = true, ["?"] = true, ["."] = true }

-- A per cent sign that escapes nothing is taken as it is: files have them.
local function unescape(text)
  if not text:find("%", 1, true) then return text end
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function hexadecimal(char) return ("%%%02X"):format(char:byte()) end

local function attributes(text, where)
  local values, order = {}, {}
  if text == "." or text == "" then return values, order end
  for pair in text:gmatch("[^;]+") do
    if pair:find("%S") then
      local name, value = pair:match("^%s*([^=]-)%s*=(.*)$")
      if not name or name == "" then where.fail(("the attribute '%s' is not of the form name=value"):format(pair:sub(1, 40))) end
      name = unescape(name)
      local list = {}
      for one in (value .. ","):gmatch("(.-),") do list[#list + 1] = unescape(one) end
      if values[name] ~= nil then
        if not LISTS[name] then where.fail(("the attribute '%s' occurs twice"):format(name)) end
        for _, one in ipairs(list) do table.insert(values[name], one) end
      else
        order[#order + 1] = name
        values[name] = (LISTS[name] or #list > 1) and list or list[1]
      end
    end
  end
  return values, order
end

local function position(text, what, where)
  if not text:find("^%d+$") or #text > 15 then where.fail(("%s is a whole number, not '%s'"):format(what, text:sub(1, 30))) end
  return tonumber(text)
end

local function feature_of(line, where)
  local fields, count = {}, 0
  for field in (line .. "\t"):gmatch("(.-)\t") do
    count = count + 1
    fields[count] = field
    if count > 9 then break end
  end
  if count ~= 9 then where.fail(("a feature has 9 columns with tabs between, not %s"):format(count > 9 and "more" or tostring(count))) end
  local feature = { seqid = unescape(fields[1]), source = unescape(fields[2]), type = unescape(fields[3]), line = where.number }
  if feature.seqid == "" or feature.seqid == "." then where.fail("a feature has no sequence") end
  if feature.source == "." then feature.source = nil end
  feature.start, feature.stop = position(fields[4], "the start", where), position(fields[5], "the end", where)
  if feature.start < 1 then where.fail("positions count from 1") end
  if feature.stop < feature.start then where.fail(("the end %d is before the start %d"):format(feature.stop, feature.start)) end
  if fields[6] ~= "." then
    feature.score = fields[6]:find("^[%+%-]?[%d%.]") and tonumber(fields[6])
    if not feature.score then where.fail(("the score '%s' is no number"):format(fields[6]:sub(1, 30))) end
  end
  if not STRANDS[fields[7]] then where.fail(("the strand is + - ? or ., not '%s'"):format(fields[7]:sub(1, 30))) end
  feature.strand = fields[7]
  if fields[8] ~= "." then
    feature.phase = PHASES[fields[8]]
    if not feature.phase then where.fail(("the phase is 0, 1, 2 or ., not '%s'"):format(fields[8]:sub(1, 30))) end
  elseif feature.type == "CDS" then
    where.fail("a CDS has a phase")
  end
  feature.attributes, feature.order = attributes(fields[9], where)
  return feature
end

--- Iterates over the features of a GFF3 source (a path, file, function or `text(..)` of bio.sequences; gzip too).
--
-- A feature is `{ seqid, source, type, start, stop, score, strand, phase, attributes, order, line }`; absent values are nil, the strand is
-- one of + - ? .; `attributes` maps names to text, or to lists where there are several values and for Parent, Alias, Note, Dbxref and
-- Ontology_term; `order` has the names as written. `options.directive(name, text)` is called for each `##` line,
-- `options.sequence(record)` for each sequence after `##FASTA`.
function M.gff3(input, options)
  local next_line, where = source.lines(input)
  local directive, sequence = options and options.directive, options and options.sequence
  local first = true
  local function fasta(line)
    local id, description, parts
    local function finish()
      if id and sequence then sequence { id = id, description = description, seq = concat(parts) } end
    end
    while line do
      if line:sub(1, 1) == ">" then
        finish()
        id, description = line:match("^>%s*(%S*)%s*(.-)%s*$")
        if id == "" then where.fail("a sequence without a name") end
        parts = {}
      elseif line:find("%S") then
        if not id then where.fail("after ##FASTA a line with '>' is wanted") end
        if line:find("[^%a%*%-%.%s]") then where.fail("a character that is no base, in " .. id) end
        parts[#parts + 1] = line:gsub("%s+", "")
      end
      line = next_line()
    end
    finish()
  end
  return function()
    for line in next_line do
      local mark = line:sub(1, 1)
      if first and line:find("%S") then
        first = false
        local version = line:match("^##gff%-version%s+(%d+)")
        if version and version ~= "3" then where.fail("this is GFF version " .. version .. ", not 3") end
      end
      if line:sub(1, 7) == "##FASTA" then
        fasta(next_line())
      elseif mark == ">" then
        fasta(line)
      elseif line:sub(1, 2) == "##" then
        if directive then
          local name, text = line:match("^##%s*(%S*)%s*(.-)%s*$")
          if line:sub(1, 3) == "###" then name, text = "#", "" end
          directive(name, text)
        end
      elseif mark ~= "#" and line:find("%S") then
        return feature_of(line, where)
      end
    end
    where.close()
    return nil
  end
end

--- Reads a whole GFF3 source: `{ features, by_id, children, regions, sequences, orphans }`.
--
-- `by_id[id]` is a list, for features that go over several lines share their id; `children[id]` lists the features whose Parent it is;
-- `regions[seqid]` is `{ start, stop }` of ##sequence-region; `sequences[id]` the bases after ##FASTA; `orphans` the features with a
-- Parent that is not in the file. A feature that is its own ancestor is an error.
function M.read_gff3(input)
  local result = { features = {}, by_id = {}, children = {}, regions = {}, sequences = {}, orphans = {} }
  local options = {
    directive = function(name, text)
      local seqid, start, stop = text:match("^(%S+)%s+(%d+)%s+(%d+)$")
      if name == "sequence-region" and seqid then result.regions[unescape(seqid)] = { start = tonumber(start), stop = tonumber(stop) } end
    end,
    sequence = function(record) result.sequences[record.id] = record.seq end,
  }
  for feature in M.gff3(input, options) do
    table.insert(result.features, feature)
    local id = feature.attributes.ID
    if type(id) == "table" then error(("line %d: a feature has one ID"):format(feature.line), 0) end
    if id then
      result.by_id[id] = result.by_id[id] or {}
      table.insert(result.by_id[id], feature)
    end
  end
  for _, feature in ipairs(result.features) do
    local known = true
    for _, parent in ipairs(feature.attributes.Parent or {}) do
      result.children[parent] = result.children[parent] or {}
      table.insert(result.children[parent], feature)
      known = known and result.by_id[parent] ~= nil
    end
    if not known then table.insert(result.orphans, feature) end
  end
  -- Cycles: walk the ids depth first with a stack of our own.
  local state = {}
  for root in pairs(result.by_id) do
    local stack = { { root, 0 } }
    while #stack > 0 do
      local top = stack[#stack]
      local id = top[1]
      if top[2] == 0 then
        if state[id] == "done" then
          stack[#stack] = nil
        else
          state[id] = "open"
          top[2] = 1
        end
      else
        local child = (result.children[id] or {})[top[2]]
        top[2] = top[2] + 1
        if not child then
          state[id] = "done"
          stack[#stack] = nil
        else
          local below = child.attributes.ID
          if below and state[below] == "open" then error(("line %d: the feature %s is its own ancestor"):format(child.line, below), 0) end
          if below and state[below] ~= "done" then stack[#stack + 1] = { below, 0 } end
        end
      end
    end
  end
  return result
end

-- What must be escaped in columns, and what besides in attributes.
local function column(text) return (tostring(text):gsub("[%c%%]", hexadecimal)) end
local function seqid_column(text) return (tostring(text):gsub("[^%w%.:%^%*%$@!%+_%?%-|]", hexadecimal)) end
local function attribute(text) return (tostring(text):gsub("[%c%%;=&,]", hexadecimal)) end

local function whole(value, what)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 then error(("write_gff3: %s is a whole number from 1, not %s"):format(what, tostring(value)), 0) end
  return ("%d"):format(value)
end

local function line_of(feature)
  if not feature.seqid or not feature.type then error("write_gff3: a feature has a seqid and a type", 0) end
  local pairs_of = {}
  local values = feature.attributes or {}
  local done = {}
  local function add(name)
    local value = values[name]
    if value == nil or done[name] then return end
    done[name] = true
    local list = {}
    for at, one in ipairs(type(value) == "table" and value or { value }) do list[at] = attribute(one) end
    pairs_of[#pairs_of + 1] = attribute(name) .. "=" .. concat(list, ",")
  end
  for _, name in ipairs(feature.order or {}) do add(name) end
  local rest = {}
  for name in pairs(values) do rest[#rest + 1] = name end
  -- ID and Parent first, then by name.
  table.sort(rest, function(a, b)
    local x, y = a == "ID" and 1 or a == "Parent" and 2 or 3, b == "ID" and 1 or b == "Parent" and 2 or 3
    if x ~= y then return x < y end
    return a < b
  end)
  for _, name in ipairs(rest) do add(name) end
  local strand = feature.strand
  if strand == 1 then strand = "+" elseif strand == -1 then strand = "-" elseif strand == nil then strand = "." end
  if not STRANDS[strand] then error("write_gff3: the strand is + - ? or .", 0) end
  local start, stop = whole(feature.start, "the start"), whole(feature.stop, "the end")
  if feature.stop < feature.start then error("write_gff3: the end is before the start", 0) end
  if feature.type == "CDS" and feature.phase == nil then error("write_gff3: a CDS has a phase", 0) end
  return concat({
    seqid_column(feature.seqid), column(feature.source or "."), column(feature.type), start, stop,
    feature.score and ("%.15g"):format(feature.score) or ".", strand, feature.phase and ("%d"):format(feature.phase) or ".",
    #pairs_of > 0 and concat(pairs_of, ";") or ".",
  }, "\t")
end

--- Writes features as GFF3 and returns how many. `features` is a list or an iterator; `options`: `regions` and `sequences` as `read_gff3`
-- gives them, `gzip`.
function M.write_gff3(target, features, options)
  local put, finish = source.sink(target, options)
  put("##gff-version 3\n")
  local function sorted(map)
    local names = {}
    for name in pairs(map or {}) do names[#names + 1] = name end
    table.sort(names)
    return ipairs(names)
  end
  for _, name in sorted(options and options.regions) do
    local region = options.regions[name]
    put(("##sequence-region %s %d %d\n"):format(seqid_column(name), region.start, region.stop))
  end
  local written, at = 0, 0
  local function each()
    if type(features) == "function" then return features() end
    at = at + 1
    return features[at]
  end
  for feature in each do
    put(line_of(feature) .. "\n")
    written = written + 1
  end
  if options and options.sequences and next(options.sequences) then
    put("##FASTA\n")
    for _, name in sorted(options.sequences) do
      put((">%s\n%s\n"):format(name, (options.sequences[name]:gsub(("."):rep(60), "%0\n"):gsub("\n$", ""))))
    end
  end
  finish()
  return written
end

return M
