-- JSON in and out of a program. Loaded by repl.lua when a command has arguments or is asked for data, or when the program
-- requires "vmoon"; called with the functions it may use. Calls no metamethod and survives any input.
--
-- Decoding: objects become tables with string keys, arrays sequences, null the value `null`. A number without fraction and
-- exponent is an integer where Lua has them and 64 bits hold it, else a float. An empty object is a marked table, so that it
-- stays one.
-- Encoding: a table with the keys 1 to n is an array, one with string keys only an object with its keys sorted, an empty one an
-- array unless it is marked. What has no form in JSON becomes null and is told: its path, as Lua would write it, and why.
local lib = ...
local type, next, rawget, tonumber, select, error = lib.type, lib.next, lib.rawget, lib.tonumber, lib.select, lib.error
local byte, char, find, gsub, match, sub, format, concat, sort = lib.byte, lib.char, lib.find, lib.gsub, lib.match, lib.sub, lib.format, lib.concat, lib.sort
local floor, huge, mathtype, getmeta, setmeta = lib.floor, lib.huge, lib.mathtype, lib.getmeta, lib.setmeta

local DEEPEST, LARGEST, MOST, TOLD = 100, 8388608, 1000000, 100 -- levels, bytes, values, places told of
local null = setmeta({}, { __tostring = function() return "null" end, __metatable = "null" })
local OBJECT = { __metatable = "object" }

--------------------------------------------------------------------------------------------------------------- encoding

local ESC = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f", ["\\"] = "\\\\", ['"'] = '\\"' }
local function escape(c) return ESC[c] or format("\\u%04x", byte(c)) end
local function is_utf8(s)
  if not find(s, "[\128-\255]") then return true end
  s = gsub(s, "[\194-\223][\128-\191]", "")
  s = gsub(s, "\224[\160-\191][\128-\191]", "")
  s = gsub(s, "\237[\128-\159][\128-\191]", "") -- no surrogates
  s = gsub(s, "[\225-\236\238\239][\128-\191][\128-\191]", "")
  s = gsub(s, "\240[\144-\191][\128-\191][\128-\191]", "")
  s = gsub(s, "[\241-\243][\128-\191][\128-\191][\128-\191]", "")
  s = gsub(s, "\244[\128-\143][\128-\191][\128-\191]", "")
  return not find(s, "[\128-\255]")
end
local function quote(s)
  if find(s, '[%c"\\]') then s = gsub(s, '[%c"\\]', escape) end
  return '"' .. s .. '"'
end
local function number(v)
  if mathtype and mathtype(v) == "integer" then return format("%d", v) end
  if v ~= v or v == huge or v == -huge then return nil end
  if not mathtype and v == floor(v) and v > -9007199254740992 and v < 9007199254740992 and (v ~= 0 or 1 / v > 0) then
    return format("%.0f", v)
  end
  local s = format("%.14g", v)
  if tonumber(s) ~= v then
    s = format("%.16g", v)
    if tonumber(s) ~= v then s = format("%.17g", v) end
  end
  s = gsub(s, ",", ".") -- some locales write it so
  return find(s, "^%-?%d+$") and mathtype and s .. ".0" or s
end

-- Where a value is, from the links `{ parent, key }` that lead to it.
local function path_of(place)
  local parts, n = {}, 0
  while place do
    n = n + 1
    local key = place[2]
    if type(key) == "number" then
      parts[n] = "[" .. format("%d", key) .. "]"
    elseif #key > 60 then
      parts[n] = "[...]"
    elseif find(key, "^[%a_][%w_]*$") then
      parts[n] = "." .. key
    else
      parts[n] = "[" .. (is_utf8(key) and quote(key) or "...") .. "]"
    end
    place = place[1]
  end
  for i = 1, floor(n / 2) do parts[i], parts[n - i + 1] = parts[n - i + 1], parts[i] end
  return concat(parts, "", 1, n)
end

local encode
local function unfit(state, place, why)
  local n = state.told
  if n <= TOLD then
    state.told = n + 1
    state.first = state.first or { path_of(place), why }
    state.unfit[n] = '{"path":' .. quote(n < TOLD and path_of(place) or "") .. ',"why":' .. quote(n < TOLD and why or "more of them") .. "}"
  end
  return state.put("null")
end

local function encode_table(v, state, place, depth)
  if v == null then return state.put("null") end
  if state.path[v] then return unfit(state, place, "a table that contains itself") end
  if depth >= DEEPEST then return unfit(state, place, "nested too deeply") end
  local put, n = state.put, 0
  while rawget(v, n + 1) ~= nil do n = n + 1 end
  local keys, k = {}, 0
  for key in next, v do
    if type(key) == "string" and n == 0 then
      k = k + 1
      keys[k] = key
      if not is_utf8(key) then return unfit(state, place, "a key that is not UTF-8") end
    elseif not (type(key) == "number" and key >= 1 and key <= n and key == floor(key)) then
      return unfit(state, place, n == 0 and "keys that are neither strings nor 1 to n" or "keys of both an array and an object")
    end
    if k > MOST then return unfit(state, place, "too large") end
  end
  if n > 0 and k > 0 then return unfit(state, place, "keys of both an array and an object") end
  state.path[v] = true
  if k > 0 then
    sort(keys)
    for i = 1, k do
      put((i == 1 and "{" or ",") .. quote(keys[i]) .. ":")
      encode(rawget(v, keys[i]), state, { place, keys[i] }, depth + 1)
    end
    put("}")
  elseif n > 0 then
    for i = 1, n do
      put(i == 1 and "[" or ",")
      encode(rawget(v, i), state, { place, i }, depth + 1)
    end
    put("]")
  else
    put(getmeta(v) == OBJECT and "{}" or "[]")
  end
  state.path[v] = nil
end

function encode(v, state, place, depth)
  if state.over then return end
  local k = type(v)
  if k == "string" then
    if #v > LARGEST then return unfit(state, place, "too large") end
    if not is_utf8(v) then return unfit(state, place, "a string that is not UTF-8") end
    return state.put(quote(v))
  elseif k == "number" then
    local s = number(v)
    if not s then return unfit(state, place, v ~= v and "not a number" or "an infinite number") end
    return state.put(s)
  elseif k == "nil" then
    return state.put("null")
  elseif k == "boolean" then
    return state.put(v and "true" or "false")
  elseif k == "table" then
    return encode_table(v, state, place, depth)
  end
  return unfit(state, place, k)
end

local function begin()
  local parts, n, left = {}, 0, LARGEST
  local state = { path = {}, unfit = {}, told = 1, over = false }
  function state.put(s)
    n = n + 1
    parts[n] = s
    left = left - #s
    if left < 0 or n > MOST then state.over = true end
  end
  function state.text() return concat(parts, "", 1, n) end
  return state
end

local M = { null = null }

-- The values r[1] to r[n] as one JSON text, `{"values": [...] or null, "unfit": [{"path": ..., "why": ...}, ...]}`.
function M.results(n, r)
  local state = begin()
  for i = 1, n do
    state.put(i == 1 and "[" or ",")
    encode(r[i], state, { nil, i }, 0)
    if state.over then return '{"values":null,"unfit":[{"path":"[' .. i .. ']","why":"too large"}]}' end
  end
  local values = n == 0 and "[]" or state.text() .. "]"
  return '{"values":' .. values .. ',"unfit":[' .. concat(state.unfit, ",") .. "]}"
end

-- The value as JSON; raises where it has no form there.
function M.encode(v)
  local state = begin()
  encode(v, state, nil, 0)
  if state.over then error("the value is too large for JSON", 2) end
  local first = state.first
  if first then
    error("the value " .. (first[1] ~= "" and "at " .. first[1] .. " " or "") .. "has no form in JSON (" .. first[2] .. ")", 2)
  end
  return state.text()
end

-- A table that is an object also while it is empty: a new one, or the one given.
function M.object(t) return setmeta(t or {}, OBJECT) end

--------------------------------------------------------------------------------------------------------------- decoding

local UNESC = { ["\\"] = "\\", ["/"] = "/", ['"'] = '"', n = "\n", r = "\r", t = "\t", b = "\b", f = "\f" }
local function utf8_of(c)
  if c < 128 then return char(c) end
  local function low(shift) return 128 + floor(c / shift) % 64 end
  if c < 2048 then return char(192 + floor(c / 64), low(1)) end
  if c < 65536 then return char(224 + floor(c / 4096), low(64), low(1)) end
  return char(240 + floor(c / 262144), low(4096), low(64), low(1))
end

local function fail(at, what) error({ at, what }, 0) end
local function space(s, at) return (find(s, "[^ \t\r\n]", at)) or #s + 1 end

local function unescape(s, at, stop)
  local parts, n = {}, 0
  while at < stop do
    local back = find(s, "\\", at, true)
    if not back or back >= stop then back = stop end
    n = n + 1
    parts[n] = sub(s, at, back - 1)
    at = back
    if at < stop then
      local c = sub(s, at + 1, at + 1)
      n = n + 1
      if c == "u" then
        local code = tonumber(match(s, "^%x%x%x%x", at + 2) or "", 16)
        if not code then fail(at, "a \\u without four digits") end
        at = at + 6
        if code >= 55296 and code < 56320 then
          local low = tonumber(match(s, "^\\u(%x%x%x%x)", at) or "", 16)
          if not low or low < 56320 or low > 57343 then fail(at, "half of a surrogate pair") end
          code = 65536 + (code - 55296) * 1024 + low - 56320
          at = at + 6
        elseif code >= 56320 and code < 57344 then
          fail(at, "half of a surrogate pair")
        end
        parts[n] = utf8_of(code)
      else
        parts[n] = UNESC[c] or fail(at, "an escape that JSON has not")
        at = at + 2
      end
    end
  end
  return concat(parts, "", 1, n)
end
-- The string that begins behind the quote at `at`, and where it ends.
local function string_at(s, at)
  local from, escaped = at + 1, false
  at = from
  while true do
    local stop = find(s, '[%c"\\]', at)
    local c = stop and byte(s, stop)
    if c == 34 then
      return escaped and unescape(s, from, stop) or sub(s, from, stop - 1), stop + 1
    elseif c == 92 then
      escaped = true
      at = stop + 2
    elseif c == 127 then
      at = stop + 1
    else
      fail(stop or #s + 1, stop and "a control character in a string" or "a string without an end")
    end
  end
end
local function number_at(s, at)
  local _, last = find(s, "^%-?%d+", at)
  if not last or find(s, "^%-?0%d", at) then fail(at, "there is no value") end
  local _, fraction = find(s, "^%.%d+", last + 1)
  last = fraction or last
  local _, exponent = find(s, "^[eE][+-]?%d+", last + 1)
  last = exponent or last
  local text = sub(s, at, last)
  local value = tonumber(text) or tonumber((gsub(text, "%.", ",")))
  if value == huge or value == -huge then fail(at, "a number out of range") end
  return value, last + 1
end

local value_at
local function array_at(s, at, depth)
  local t, n = {}, 0
  at = space(s, at + 1)
  if byte(s, at) == 93 then return t, at + 1 end
  while true do
    n = n + 1
    t[n], at = value_at(s, at, depth + 1)
    at = space(s, at)
    local c = byte(s, at)
    if c == 93 then return t, at + 1 end
    if c ~= 44 then fail(at, "an array without an end") end
    at = space(s, at + 1)
  end
end
local function object_at(s, at, depth)
  local t = {}
  at = space(s, at + 1)
  if byte(s, at) == 125 then return setmeta(t, OBJECT), at + 1 end
  while true do
    if byte(s, at) ~= 34 then fail(at, "an object whose key is no string") end
    local key
    key, at = string_at(s, at)
    at = space(s, at)
    if byte(s, at) ~= 58 then fail(at, "a key without a colon") end
    t[key], at = value_at(s, space(s, at + 1), depth + 1)
    at = space(s, at)
    local c = byte(s, at)
    if c == 125 then return t, at + 1 end
    if c ~= 44 then fail(at, "an object without an end") end
    at = space(s, at + 1)
  end
end
function value_at(s, at, depth)
  if depth > DEEPEST then fail(at, "values nested too deeply") end
  local c = byte(s, at)
  if c == 34 then return string_at(s, at) end
  if c == 123 then return object_at(s, at, depth) end
  if c == 91 then return array_at(s, at, depth) end
  if sub(s, at, at + 3) == "true" then return true, at + 4 end
  if sub(s, at, at + 4) == "false" then return false, at + 5 end
  if sub(s, at, at + 3) == "null" then return null, at + 4 end
  return number_at(s, at)
end

-- The value of a JSON text, or nil and a sentence.
function M.decode(s)
  if type(s) ~= "string" then error("bad argument #1 to 'decode' (string expected, got " .. type(s) .. ")", 2) end
  local function whole()
    local value, at = value_at(s, space(s, 1), 0)
    at = space(s, at)
    if at <= #s then fail(at, "more behind the value") end
    return value
  end
  local ok, value = lib.pcall(whole)
  if ok then return value end
  if type(value) ~= "table" then error(value, 0) end -- an interrupt, or no memory
  return nil, "not JSON: " .. value[2] .. " at byte " .. format("%d", value[1])
end

-- The elements of a JSON array as arguments: how many, and a table of them in which null is nil.
function M.arguments(s)
  local all, message = M.decode(s)
  if type(all) ~= "table" or getmeta(all) == OBJECT then return nil, message or "the arguments are no array" end
  local n = 0
  while all[n + 1] ~= nil do
    n = n + 1
  end
  for i = 1, n do
    if all[i] == null then all[i] = nil end
  end
  return n, all
end

return M
