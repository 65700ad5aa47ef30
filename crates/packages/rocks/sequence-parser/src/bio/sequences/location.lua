--- Locations of the INSDC feature table: `complement(join(12..78,<134..>202))`. Grammar: "The DDBJ/ENA/GenBank Feature Table Definition",
-- section 3.4.
local alphabet = require "bio.utils.alphabet"
local M = {}

-- How deep operators may nest; real files have two levels.
local DEPTH = 20

-- One end: `12`, `<12`, `>12`, `(12.14)`, `one-of(12,14)`. Returns position, mark, next place.
local function edge(text, at)
  local choices, behind = text:match("^one%-of%(([%d,]+)%)()", at)
  if choices then
    -- Not in use since 2008, but in old records: the lowest.
    local low
    for digits in choices:gmatch("%d+") do
      local one = #digits <= 15 and tonumber(digits)
      if one and (not low or one < low) then low = one end
    end
    if low then return low, "?", behind end
  end
  local mark, digits, next_at = text:match("^([<>]?)(%d+)()", at)
  if digits then
    if #digits > 15 then error("a position with more than 15 digits", 0) end
    return tonumber(digits), mark ~= "" and mark or nil, next_at
  end
  local low, _, after = text:match("^%((%d+)%.(%d+)%)()", at)
  if low then return tonumber(low), "?", after end
  error(("a position is wanted at '%s'"):format(text:sub(at, at + 19)), 0)
end

local parse

local function list(text, at, depth, circular)
  local parts = {}
  while true do
    local part
    part, at = parse(text, at, depth, circular)
    parts[#parts + 1] = part
    local sign = text:sub(at, at)
    if sign == ")" then return parts, at + 1 end
    if sign ~= "," then error(("',' or ')' is wanted at '%s'"):format(text:sub(at, at + 19)), 0) end
    at = at + 1
  end
end

function parse(text, at, depth, circular)
  if depth > DEPTH then error("operators nest too deeply", 0) end
  local operator, inside = text:match("^(%a+)%(()", at)
  if operator == "complement" then
    local part, after = parse(text, inside, depth + 1, circular)
    if text:sub(after, after) ~= ")" then error(("')' is wanted at '%s'"):format(text:sub(after, after + 19)), 0) end
    return { kind = "complement", part }, after + 1
  elseif operator == "join" or operator == "order" or operator == "bond" or operator == "one" then
    local parts, after = list(text, inside, depth + 1, circular)
    parts.kind = operator
    return parts, after
  elseif operator then
    error(("there is no operator '%s'"):format(operator), 0)
  end
  local accession, after = text:match("^([%w_%.%-]+):()", at)
  local node = { kind = "range", accession = accession }
  at = after or at
  node.start, node.start_mark, at = edge(text, at)
  node.stop, node.stop_mark = node.start, node.start_mark
  if text:sub(at, at + 1) == ".." then
    node.stop, node.stop_mark, at = edge(text, at + 2)
  elseif text:sub(at, at) == "^" then
    node.stop, node.stop_mark, at = edge(text, at + 1)
    node.kind = "between"
  elseif text:sub(at, at) == "." then
    node.stop, node.stop_mark, at = edge(text, at + 1)
    node.kind = "within"
  end
  if node.stop < node.start and node.kind == "range" and circular and node.start <= circular and not accession then
    -- Some programs write so what goes over the origin of a circle; the standard wants a join.
    return {
      kind = "join", { kind = "range", start = node.start, stop = circular, start_mark = node.start_mark },
      { kind = "range", start = 1, stop = node.stop, stop_mark = node.stop_mark },
    }, at
  elseif node.stop < node.start and node.kind ~= "between" then
    error(("the range %d..%d runs backwards, and the sequence is no circle"):format(node.start, node.stop), 0)
  end
  return node, at
end

-- The ranges in the order in which they are read, each with its strand.
local function flatten(node, strand, out)
  if node.kind == "complement" then
    flatten(node[1], -strand, out)
  elseif node.kind == "join" or node.kind == "order" or node.kind == "bond" or node.kind == "one" then
    local first, last, by = 1, #node, 1
    if strand < 0 then first, last, by = #node, 1, -1 end
    for at = first, last, by do flatten(node[at], strand, out) end
  else
    out[#out + 1] = {
      start = node.start, stop = node.stop, strand = strand, between = node.kind == "between" or nil, accession = node.accession,
      start_mark = node.start_mark, stop_mark = node.stop_mark,
    }
  end
  return out
end

--- Parses a location; `circular` is the length of a circular sequence, on which ranges may go over the origin. Returns `{ text, tree,
-- parts, start, stop, strand, partial }`: `parts` in reading order (`{ start, stop, strand, accession, .. }`), `start` and `stop` of the
-- whole, `strand` 1, -1 or nil when mixed, `partial` if an end has `<` or `>`. Raises a sentence if it is none.
function M.parse_location(text, circular)
  if type(text) ~= "string" then error("a location is a string, not a " .. type(text), 0) end
  local plain = text:gsub("%s+", "")
  local ok, tree, at = pcall(parse, plain, 1, 1, circular)
  if not ok then error(("location '%s': %s"):format(plain:sub(1, 60), tostring(tree)), 0) end
  if at <= #plain then error(("location '%s': '%s' is left over"):format(plain:sub(1, 60), plain:sub(at, at + 19)), 0) end
  local location = { text = plain, tree = tree, parts = flatten(tree, 1, {}) }
  for _, part in ipairs(location.parts) do
    if not part.accession then
      location.start = math.min(location.start or part.start, part.start)
      location.stop = math.max(location.stop or part.stop, part.stop)
    end
    if part.start_mark == "<" or part.start_mark == ">" or part.stop_mark == "<" or part.stop_mark == ">" then location.partial = true end
  end
  location.strand = location.parts[1].strand
  for _, part in ipairs(location.parts) do
    if part.strand ~= location.strand then location.strand = nil end
  end
  return location
end

--- The bases of a location (parsed or text) in a sequence, joined and on its strand. `fetch(accession)` gives the sequence of other
-- entries.
function M.extract(seq, location, fetch)
  if type(location) == "string" then location = M.parse_location(location) end
  if location.location then location = location.location end
  local pieces = {}
  for _, part in ipairs(location.parts) do
    local from = seq
    if part.accession then
      from = fetch and fetch(part.accession)
      if not from then error(("location '%s': the sequence of %s is not here"):format(location.text, part.accession), 0) end
    end
    if not part.between then
      if part.start < 1 or part.stop > #from then
        error(("location '%s': %d..%d is outside of the sequence, which has %d bases"):format(location.text, part.start, part.stop, #from), 0)
      end
      local piece = from:sub(part.start, part.stop)
      if part.strand < 0 then piece = alphabet.reverse_complement(piece) end
      pieces[#pieces + 1] = piece
    end
  end
  return table.concat(pieces)
end

return M
