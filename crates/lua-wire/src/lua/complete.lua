-- Completes names from the live program. Loaded by repl.lua at the first question; called with the functions it may use.
-- Runs no code of the program: raw access and tables behind __index only.
local lib = ...
local type, next, rawget, byte, find, match, sub = lib.type, lib.next, lib.rawget, lib.byte, lib.find, lib.match, lib.sub
local sort, clock, getmeta, G, KEYWORDS = lib.sort, lib.clock, lib.getmeta, lib.G, lib.keywords

-- What a field leads to, without metamethods: the table itself, then the tables behind __index.
local function index_of(v)
  local meta = getmeta(v)
  if type(meta) ~= "table" then return nil end
  local i = rawget(meta, "__index")
  return type(i) == "table" and i or nil
end
local function field(v, key)
  local t = type(v) == "table" and v or index_of(v)
  for _ = 1, 20 do
    if not t then return nil end
    local r = rawget(t, key)
    if r ~= nil then return r end
    t = index_of(t)
  end
end

local MOST, ENOUGH, SLICE = 200, 2000, 0.012 -- names answered, names collected, CPU seconds spent walking

local function first(names, n)
  sort(names)
  for i = n, MOST + 1, -1 do names[i] = nil end
  return names
end

-- Completes the expression at the end of `line`. Gives the position (1-based, bytes) where the completed word begins and
-- the names that fit, sorted, at most 200. Runs no code of the program and stops walking a huge table after 12 ms.
return function(line)
  local names, n, seen = {}, 0, {}
  local tail = match(line, "[%w_%.:]*$")
  local skip = find(tail, "%.%.[^%.]*$") -- the operator ..: only what stands behind it counts
  if skip then tail = sub(tail, skip + 2) end
  local word = match(tail, "[%w_]*$")
  local from = #line - #word + 1
  local path = sub(tail, 1, #tail - #word)
  local value, method = G, false
  if path == "" then
    if find(word, "^%d") then return from, names end
    for k in next, KEYWORDS do
      if sub(k, 1, #word) == word then n = n + 1 names[n] = k seen[k] = true end
    end
  else
    local before = sub(line, #line - #tail, #line - #tail)
    local step = sub(path, 1, 1)
    if step == "." or step == ":" then
      if before ~= '"' and before ~= "'" then return from, names end -- behind ) or ]: unknown without running it
      value = ""
      if step == "." or #path > 1 then return from, names end
      method = true
    else
      local at = 1
      while at <= #path do
        local a, b, name, sep = find(path, "^([%a_][%w_]*)([%.:])", at)
        if not a then return from, names end
        value = field(value, name)
        if value == nil then return from, names end
        method = sep == ":"
        at = b + 1
        if method and at <= #path then return from, names end
      end
    end
  end
  local t = type(value) == "table" and value or index_of(value)
  local size, initial = #word, byte(word)
  local stop = clock() + SLICE
  local visited, level = 0, 0
  while t and level < 20 and n < ENOUGH do
    level = level + 1
    for k, v in next, t do
      if type(k) == "string" and (not initial or byte(k) == initial) and #k < 200 and sub(k, 1, size) == word and not seen[k] then
        if (not method or type(v) == "function" or type(v) == "table") and match(k, "^[%a_][%w_]*$") then
          seen[k] = true
          n = n + 1
          names[n] = k
          if n >= ENOUGH then break end
        end
      end
      visited = visited + 1
      if visited % 512 == 0 and clock() > stop then return from, first(names, n) end
    end
    t = index_of(t)
  end
  return from, first(names, n)
end
