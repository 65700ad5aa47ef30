-- Reads Lua text of a stranger from standard input and writes what it says to standard output, as data.
-- Argument: "rockspec" (globals, or the table that is returned, as JSON) or "manifest" (the compact form of manifest.rs).
-- A mistake goes to standard error in one line, and the status is 1. For Lua 5.4, in a process that may do nothing and is ended after this.
-- The process has bounds of its own on time and memory; those in here make the refusal quick and clear.

local kind = ...
local type, next, pairs, error, tostring, pcall, load = type, next, pairs, error, tostring, pcall, load
local read, write, errors, exit = io.read, io.write, io.stderr, os.exit
local concat, sort = table.concat, table.sort
local format, rep, byte, gsub, match, find = string.format, string.rep, string.byte, string.gsub, string.match, string.find
local utf8len, utf8char = utf8.len, utf8.char
local mtype = math.type
local collectgarbage = collectgarbage
local sethook = debug and debug.sethook
-- A process whose libraries are held to what is granted has it to refuse it.
if sethook and not pcall(sethook) then sethook = nil end

local MANIFEST = kind == "manifest"
local MAX_STEPS = MANIFEST and 200000000 or 5000000
local MAX_KIB = (MANIFEST and 1024 or 64) * 1024
local MAX_ENTRIES = 200000
local MAX_DEPTH = 40
local MAX_BYTES = 8 * 1024 * 1024
local MAX_STRING = 1024 * 1024

local function fail(why)
  why = gsub(tostring(why), "[%c]", " ")
  errors:write(#why > 400 and why:sub(1, 400) or why, "\n")
  exit(1, true)
end

-- Nearly all that a manifest makes is kept: looking for garbage would only take time.
if MANIFEST then collectgarbage("stop") end
local text = read("a") or ""
text = gsub(text, "^\239\187\191", "", 1)
text = gsub(text, "^#[^\n]*", "", 1)

-- What the text can reach: no globals but its own, and those methods of strings that make little of much.
local methods = {}
for _, name in pairs({ "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "reverse", "sub", "upper" }) do
  methods[name] = string[name]
end
function methods.rep(s, n, between)
  if type(s) ~= "string" or type(n) ~= "number" or (#s + #tostring(between or "")) * n > MAX_STRING then error("the result of rep is too long", 2) end
  return rep(s, n, between)
end
local meta = getmetatable("")
local index = meta.__index
meta.__index = methods

local globals = {}
local chunk, why = load(text, "=" .. kind, "t", globals)
if not chunk then fail("it is not Lua: " .. tostring(why)) end

local step = MANIFEST and 10000 or 8
if sethook then
  local steps = 0
  sethook(function()
    steps = steps + step
    if steps > MAX_STEPS then error("it does not end", 0) end
    if collectgarbage("count") > MAX_KIB then error("it needs too much memory", 0) end
  end, "", step)
end
local ok, result = pcall(chunk)
if sethook then sethook() end
meta.__index = index
if not ok then fail("it fails: " .. (type(result) == "string" and result or type(result))) end

if MANIFEST then
  local out, n = { "vmoon manifest 1\n" }, 1
  local odd = 0
  -- Nearly all versions are there in one of a few short lists of forms: each of those is put together once.
  local after, ended = {}, {}
  local function longer(line, arch, keep)
    local known = after[line]
    if known and known[arch] then return known[arch] end
    local made = line .. " " .. arch
    if keep then
      if not known then
        known = {}
        after[line] = known
      end
      known[arch] = made
    end
    return made
  end
  local function forms(items)
    local line, count = "", #items
    for i = 1, count do
      local item = items[i]
      local arch = type(item) == "table" and item.arch
      if type(arch) == "string" then line = longer(line, arch, count < 5) else odd = odd + 1 end
    end
    local whole = ended[line] or line .. "\n"
    if count < 5 then ended[line] = whole end
    return whole
  end
  if type(globals.repository) ~= "table" then fail("it has no table called repository") end
  for name, versions in next, globals.repository do
    if type(name) == "string" and type(versions) == "table" then
      n = n + 1
      out[n] = "=" .. name .. "\n"
      for version, items in next, versions do
        if type(version) == "string" and type(items) == "table" then
          n = n + 2
          out[n - 1] = version
          out[n] = forms(items)
        else
          odd = odd + 1
        end
      end
    else
      odd = odd + 1
    end
  end
  if type(globals.modules) == "table" then
    for module, rocks in next, globals.modules do
      if type(module) == "string" and type(rocks) == "table" then
        for i = 1, #rocks do
          if type(rocks[i]) == "string" then
            n = n + 1
            out[n] = "@" .. module .. " " .. rocks[i] .. "\n"
          else
            odd = odd + 1
          end
        end
      else
        odd = odd + 1
      end
    end
  end
  out[n + 1] = "!" .. odd .. "\n"
  write(concat(out))
  -- The process ends with this: giving back each table before would only take time.
  exit(0, false)
end

local out, n, entries, bytes = {}, 0, 0, 0

local function put(piece)
  n = n + 1
  out[n] = piece
  bytes = bytes + #piece
  if bytes > MAX_BYTES then error("it says too much", 0) end
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quote(s)
  if #s > MAX_STRING then error("it has a text that is too long", 0) end
  -- Text that is not UTF-8 is taken for Latin-1, which it mostly is.
  if not utf8len(s) then s = gsub(s, "[\128-\255]", function(c) return utf8char(byte(c)) end) end
  put('"' .. gsub(s, '[%c"\\\127]', function(c) return escapes[c] or format("\\u%04x", byte(c)) end) .. '"')
end

local function key_text(key)
  if type(key) == "string" then return key end
  if mtype(key) == "integer" then return format("%d", key) end
  error("it has a table with a key that is a " .. type(key), 0)
end

local function encode(value, depth)
  entries = entries + 1
  if entries > MAX_ENTRIES then error("it has too many entries", 0) end
  if depth > MAX_DEPTH then error("its tables are too deep, or contain themselves", 0) end
  local kind = type(value)
  if kind == "string" then
    quote(value)
  elseif kind == "boolean" then
    put(tostring(value))
  elseif kind == "number" then
    if mtype(value) == "integer" then
      put(format("%d", value))
    elseif value ~= value or value == 1 / 0 or value == -1 / 0 then
      error("it has a number that is none", 0)
    else
      put(format("%.17g", value))
    end
  elseif kind == "table" then
    local length, count = #value, 0
    for _ in next, value do
      count = count + 1
      if count > MAX_ENTRIES then error("it has too many entries", 0) end
    end
    local list = count == length
    if list then
      put("[")
      for i = 1, length do
        if i > 1 then put(",") end
        encode(value[i], depth + 1)
      end
      put("]")
    else
      local keys, by_text = {}, {}
      for key in next, value do
        local shown = key_text(key)
        if by_text[shown] ~= nil then error("it has a table with two keys called " .. shown, 0) end
        by_text[shown] = key
        keys[#keys + 1] = shown
      end
      sort(keys)
      put("{")
      for i = 1, #keys do
        if i > 1 then put(",") end
        quote(keys[i])
        put(":")
        encode(value[by_text[keys[i]]], depth + 1)
      end
      put("}")
    end
  else
    error("it has a value that is a " .. kind, 0)
  end
end

local done, problem = pcall(encode, type(result) == "table" and result or globals, 1)
if not done then fail(problem) end
write(concat(out), "\n")
