-- Runs one script on one item inside an installed interpreter (lua5.1 to lua5.4, LuaJIT), for `vmoon run --map`, as oneshot/map/child.rs does
-- inside the embedded one. Called by the `-e` of the command line with the open input: parts, each `LEN` LF and LEN bytes.
--
-- Writes messages to descriptor 4: a tag, a length of four bytes (the lowest first) and so many bytes. Tags: p it has printed, r the result as
-- JSON, e an error, i the item is no JSON, x it has called os.exit (the code, four bytes).
local inp = ...
local G, type, tonumber, tostring, pcall, xpcall, error = _G, type, tonumber, tostring, pcall, xpcall, error
local load, getmeta, exit, floor, char, concat = loadstring or load, debug.getmetatable, os.exit, math.floor, string.char, table.concat
local sub = string.sub
local SELF = debug.getinfo(1, "S").source
local LONGEST_ERROR, KEPT = 65536, 8192

local out = assert(io.open("/dev/fd/4", "wb"))
out:setvbuf("full", 65536)
-- The session's program replaces the methods of files.
local write, flush_file, read = out.write, out.flush, inp.read
local function part()
  local n = tonumber(read(inp, "*l"))
  return n > 0 and read(inp, n) or ""
end

local function length(n)
  return char(n % 256, floor(n / 256) % 256, floor(n / 65536) % 256, floor(n / 16777216) % 256)
end
local printed, count, size = {}, 0, 0
local function settle()
  if count == 0 then return end
  local text = concat(printed, "", 1, count)
  printed, count, size = {}, 0, 0
  write(out, "p", length(#text), text)
end
local function send(tag, text)
  settle()
  write(out, tag, length(#text), text)
  flush_file(out)
end

local host = {}
function host.emit(_, s)
  -- In pieces, none of them longer than a message may be.
  for from = 1, #s, 1048576 do
    local piece = sub(s, from, from + 1048575)
    count = count + 1
    printed[count], size = piece, size + #piece
    if size >= KEPT or count >= 1000 then
      settle()
      flush_file(out)
    end
  end
end
function host.flush() end
function host.ask() end -- there is no input
function host.exit(code)
  send("x", length(code % 4294967296))
  exit(code)
end

local function message(e)
  if type(e) == "string" then return e end
  local meta = getmeta(e)
  if type(meta) == "table" and meta.__tostring ~= nil then
    local ok, text = pcall(tostring, e)
    if ok and type(text) == "string" then return text end
  end
  return type(e) == "number" and "" .. e or "(error object is a " .. type(e) .. " value)"
end

local function run()
  local seed, path, cpath, beside = tonumber(part()), part(), part(), part()
  local repl, sandbox, grants = part(), part(), part()
  local name, code, item, args = part(), part(), part(), {}
  for i = 0, tonumber(part()) - 1 do args[i] = part() end
  -- A numeral in a string of digits would be rounded: the seed has 31 bits.
  math.randomseed(seed)
  if path ~= "" then package.path, package.cpath = path, cpath end
  package.path = package.path .. beside
  assert(load(repl, SELF))(host)
  -- Taken before the program can replace it.
  local data = package.preload.vmoon()
  local decode, encode, null = data.decode, data.encode, data.null
  if sandbox ~= "" then assert(load(sandbox, SELF))(grants) end
  G.arg = args
  local script, why = load(code, name)
  if not script then error(why, 0) end
  if item == "" then return send("r", "null") end -- nothing but a look at the script
  local value, bad = decode(item)
  if value == nil then return send("i", bad) end
  if value == null then value = nil end
  local result = script(value)
  -- By pcall, so that the error names no line of ours.
  local fits, text = pcall(encode, result)
  if not fits then error(text, 0) end
  send("r", text)
end

local ok, e = xpcall(run, message)
if not ok then
  if type(e) ~= "string" then e = "the error is not a string" end
  send("e", sub(e, 1, LONGEST_ERROR))
end
exit(0)
