-- Standard input of the program, as liolib.c of the running Lua version reads it. Loaded by repl.lua at the first read;
-- called with the functions it may use. Gives the functions `read(...)` and `lines(...)`.
local lib = ...
local type, select, tonumber, unpack = lib.type, lib.select, lib.tonumber, lib.unpack
local byte, find, match, sub, concat, floor = lib.byte, lib.find, lib.match, lib.sub, lib.concat, lib.floor
local ask, bad, blame, OLD, PUC51 = lib.ask, lib.bad, lib.blame, lib.old, lib.puc51

local buffer, at = "", 1 -- what was sent but not read yet, and where it begins

-- Gets more input; false at its end.
local function more()
  local s = ask()
  if not s then return false end
  buffer = at > #buffer and s or sub(buffer, at) .. s
  at = 1
  return true
end

local function read_line(keep)
  local from = at
  while true do
    local nl = find(buffer, "\n", from, true)
    if nl then
      local s = sub(buffer, at, keep and nl or nl - 1)
      at = nl + 1
      return s
    end
    local have = #buffer - at + 1
    if not more() then
      if have <= 0 then return nil end
      local s = sub(buffer, at)
      buffer, at = "", 1
      return s
    end
    from = at + (have > 0 and have or 0)
  end
end

local function read_all()
  local parts, n = { sub(buffer, at) }, 1
  buffer, at = "", 1
  while true do
    local s = ask()
    if not s then return concat(parts, "", 1, n) end
    n = n + 1
    parts[n] = s
  end
end

local function read_bytes(count)
  while #buffer - at + 1 < count or count == 0 do
    if count == 0 and at <= #buffer then return "" end
    if not more() then break end
  end
  if at > #buffer then return nil end
  local s = sub(buffer, at, at + count - 1)
  at = at + #s
  return s
end

-- As l_getn of liolib.c (Lua 5.3): reads the longest text that looks like a number, at most 200 bytes.
local function read_number()
  local ended = false
  local function peek()
    if at > #buffer then
      if ended or not more() then ended = true return "" end
    end
    return sub(buffer, at, at)
  end
  local got, n = {}, 0
  local function accept(set)
    local c = peek()
    if c == "" or n >= 200 or not find(c, set) then return false end
    n = n + 1
    got[n] = c
    at = at + 1
    return true
  end
  while find(peek(), "^%s") do at = at + 1 end
  accept("[+-]")
  local digit, exponent, count = "%d", "[eE]", 0
  if accept("0") then
    if accept("[xX]") then digit, exponent = "%x", "[pP]" else count = 1 end
  end
  while accept(digit) do count = count + 1 end
  if accept("%.") then
    while accept(digit) do count = count + 1 end
  end
  if count > 0 and accept(exponent) then
    accept("[+-]")
    while accept("%d") do end
  end
  return tonumber(concat(got, "", 1, n))
end

local function read_one(i, what)
  local k = type(what)
  if k == "number" then return read_bytes(floor(what)) end
  if k ~= "string" then bad(i, "read", "string", what) end
  local letter
  if OLD then
    if byte(what) ~= 42 then blame("bad argument #" .. i .. " to 'read' (invalid option)") end
    letter = sub(what, 2, 2)
  else
    letter = match(what, "^%*?(.?)")
  end
  if letter == "l" then return read_line(false) end
  if letter == "L" and not PUC51 then return read_line(true) end
  if letter == "a" then return read_all() end
  if letter == "n" then return read_number() end
  blame("bad argument #" .. i .. " to 'read' (invalid format)")
end

local function read(...)
  local n = select("#", ...)
  if n == 0 then return read_line(false) end
  local r = {}
  for i = 1, n do
    local v = read_one(i, (select(i, ...)))
    r[i] = v
    if v == nil then return unpack(r, 1, i) end
  end
  return unpack(r, 1, n)
end

local function lines(...)
  local n, formats = select("#", ...), { ... }
  return function()
    if n == 0 then return read_line(false) end
    return read(unpack(formats, 1, n))
  end
end

return read, lines
