-- Shows a value as Lua would write it. Loaded by repl.lua when the first table is shown; called with the functions it may use.
-- Calls no metamethod but __tostring, and survives one that fails.
local lib = ...
local type, next, rawget, byte, find, match, gsub, sub = lib.type, lib.next, lib.rawget, lib.byte, lib.find, lib.match, lib.gsub, lib.sub
local format, rep, concat, sort, floor, getmeta = lib.format, lib.rep, lib.concat, lib.sort, lib.floor, lib.getmeta
local text, KEYWORDS = lib.text, lib.keywords

local ESC = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }
local function escape(c) return ESC[c] or format("\\%03d", byte(c)) end
local function valid_utf8(s)
  s = gsub(s, "[\194-\223][\128-\191]", "")
  s = gsub(s, "\224[\160-\191][\128-\191]", "")
  s = gsub(s, "[\225-\239][\128-\191][\128-\191]", "")
  s = gsub(s, "\240[\144-\191][\128-\191][\128-\191]", "")
  s = gsub(s, "[\241-\244][\128-\191][\128-\191][\128-\191]", "")
  return not find(s, "[\128-\255]")
end
local function quote(s, limit)
  local cut = #s > limit
  if cut then s = sub(s, 1, limit > 0 and limit or 0) end
  local r = gsub(s, '[%c"\\]', escape)
  if find(r, "[\128-\255]") and not valid_utf8(r) then r = gsub(r, "[\128-\255]", escape) end
  return '"' .. r .. (cut and '"...' or '"')
end

local function by_key(a, b)
  local x, y = type(a), type(b)
  if x ~= y then return x < y end
  if x == "number" or x == "string" then return a < b end
  return false
end

local WALK = 20000 -- entries of one table looked at for its keys
local show
local function show_table(t, s, depth, column)
  if s.path[t] then return "<cycle>" end
  if depth >= s.depth then return next(t) == nil and "{}" or "{...}" end
  s.path[t] = true
  local parts, n, multi, cut, length = {}, 0, false, false, 0
  local function add(p)
    n = n + 1
    parts[n] = p
    length = length + #p + 2
    s.left = s.left - #p - 2
    if find(p, "\n", 1, true) then multi = true end
  end
  local count = 0
  while true do
    local v = rawget(t, count + 1)
    if v == nil then break end
    if s.left <= 0 then cut = true break end
    count = count + 1
    add(show(v, s, depth + 1, column + 2))
  end
  if not cut then
    local keys, k, seen = {}, 0, 0
    local key = next(t)
    while key ~= nil do
      local listed = type(key) == "number" and key >= 1 and key <= count and key == floor(key)
      if not listed then k = k + 1 keys[k] = key end
      seen = seen + 1
      if k >= 2000 or seen - count > WALK or seen > 200000 then cut = next(t, key) ~= nil break end
      key = next(t, key)
    end
    if not cut then sort(keys, by_key) end -- a cut table is shown in its own order: sorting a part would mislead
    for i = 1, k do
      if s.left <= 0 then cut = true break end
      local name = keys[i]
      local value = rawget(t, name)
      if type(name) == "string" and #name < 200 and match(name, "^[%a_][%w_]*$") and not KEYWORDS[name] then
        name = name .. " = "
      else
        name = "[" .. (type(name) == "string" and quote(name, s.left) or text(name)) .. "] = "
      end
      add(name .. show(value, s, depth + 1, column + 2 + #name))
    end
  end
  s.path[t] = nil
  if cut then n = n + 1 parts[n] = "..." end
  if n == 0 then return "{}" end
  if not multi and column + length + 2 <= s.width then return "{ " .. concat(parts, ", ") .. " }" end
  local pad = "\n" .. rep("  ", depth + 1)
  return "{" .. pad .. concat(parts, "," .. pad) .. "\n" .. rep("  ", depth) .. "}"
end

function show(v, s, depth, column)
  local k = type(v)
  if k == "string" then return quote(v, s.left) end
  if k ~= "table" then return text(v) end
  local meta = getmeta(v)
  if type(meta) == "table" then
    if rawget(meta, "__tostring") ~= nil then
      local r = text(v)
      if #r > s.left then r = sub(r, 1, s.left > 0 and s.left or 0) .. "..." end
      return r
    end
    local name = rawget(meta, "__name")
    if type(name) == "string" then return sub(name, 1, 80) .. " " .. show_table(v, s, depth, column) end
  end
  return show_table(v, s, depth, column)
end

-- A value as Lua would write it. Options: depth (levels of tables, default 6), width (columns a table may take on one
-- line, default 100), quota (bytes after which the rest is left out, default 65536). Calls no metamethod but __tostring.
return function(v, opts)
  opts = opts or {}
  return show(v, { path = {}, depth = opts.depth or 6, width = opts.width or 100, left = opts.quota or 65536 }, 0, 0)
end
