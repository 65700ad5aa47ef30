-- The session's Lua side, the same for the embedded Lua 5.4 and for lua5.1 to lua5.4 and LuaJIT: evaluates chunks, prints
-- values, completes names, and sends what the program prints and reads through the host.
--
-- Called with one argument `host`:
--   host.emit(fd, s)  output of the program, fd 1 or 2; buffered by the host
--   host.flush()      sends what is buffered
--   host.ask()        more input as a string, or nil at its end; blocks; may raise "interrupted!"
--   host.exit(code)   ends the program; does not return
--   host.part(k)      the compiled part k, where it is not its source that comes before this one; optional
-- Returns a table of functions. It opens nothing and knows nothing of frames. The parts that not every session needs stand
-- in pretty.lua, complete.lua, input.lua and json.lua; their sources come before this one as the locals PRETTY, COMPLETE,
-- INPUT and JSON and are compiled when they are first used, because this file is loaded at every start of a VM.
--
-- Everything used after loading is captured here, so that a program that sets `print`, `error`, `string` or whatever else
-- to nil breaks only itself. For the same reason no method is called on a string below.
local host = ...
local G, VERSION, jit = _G, _VERSION, jit
local type, tostring, tonumber, select, next, rawget, rawset = type, tostring, tonumber, select, next, rawget, rawset
local error, pcall, xpcall, load = error, pcall, xpcall, loadstring or load -- 5.1 has both, and load is another there
local sub, byte, find, match, gsub, format, rep = string.sub, string.byte, string.find, string.match, string.gsub, string.format, string.rep
local concat, sort, unpack = table.concat, table.sort, table.unpack or unpack
local traceback, getinfo, getmeta = debug.traceback, debug.getinfo, debug.getmetatable
local clock, huge, mathtype, floor = os.clock, math.huge, math.type, math.floor
local char, setmetatable, preload = string.char, setmetatable, package.preload
local io = io
local stdin, stdout, stderr = io.stdin, io.stdout, io.stderr
local emit, flush, ask, exit = host.emit, host.flush, host.ask, host.exit
local OLD = VERSION == "Lua 5.1" or VERSION == "Lua 5.2" -- formats need their asterisk
local PUC51 = VERSION == "Lua 5.1" and not jit
local NAME = getinfo(1, "S").source
local OURS = "\n\t" .. getinfo(1, "S").short_src .. ":"
local M = {}

---------------------------------------------------------------------------------------------------- values as text

-- tostring that cannot fail and always gives a string.
local function text(v)
  local k = type(v)
  if k == "string" then return v end
  local ok, s = pcall(tostring, v)
  if ok then
    local t = type(s)
    if t == "string" then return s end
    if t == "number" then return "" .. s end
    return "<" .. k .. " whose __tostring gives no string>"
  end
  local t = type(s)
  return "<" .. k .. " whose __tostring fails: " .. ((t == "string" or t == "number") and s or t) .. ">"
end

local pretty = M.pretty

-- The error of a wrong argument, blamed on the first caller that is not ours (how many frames lie between depends on tail calls).
local function blame(message)
  local level = 2
  while true do
    local info = getinfo(level, "S")
    if not info then level = 0 break end
    if info.source ~= NAME and info.what ~= "tail" then break end
    level = level + 1
  end
  error(message, level)
end
local function bad(i, name, what, ...)
  local got = select("#", ...) > 0 and type((...)) or "no value"
  blame("bad argument #" .. i .. " to '" .. name .. "' (" .. what .. " expected, got " .. got .. ")")
end

local given = host.part
-- What the parts compiled later may use. Made at their first use, from the functions captured above.
local lib
local function part(source)
  lib = lib or {
    G = G, type = type, next = next, rawget = rawget, select = select, error = error, tonumber = tonumber, unpack = unpack,
    byte = byte, find = find, match = match, gsub = gsub, sub = sub, format = format, rep = rep, concat = concat, sort = sort,
    floor = floor, huge = huge, mathtype = mathtype, clock = clock, char = char, getmeta = getmeta, setmeta = setmetatable, pcall = pcall, text = text, ask = ask, bad = bad, blame = blame, old = OLD, puc51 = PUC51,
    keywords = {
      ["and"] = 1, ["break"] = 1, ["do"] = 1, ["else"] = 1, ["elseif"] = 1, ["end"] = 1, ["false"] = 1, ["for"] = 1, ["function"] = 1,
      ["goto"] = not PUC51 or nil, ["if"] = 1, ["in"] = 1, ["local"] = 1, ["nil"] = 1, ["not"] = 1, ["or"] = 1, ["repeat"] = 1,
      ["return"] = 1, ["then"] = 1, ["true"] = 1, ["until"] = 1, ["while"] = 1,
    },
  }
  local f, message
  if given then f, message = given(source) else f, message = load(source, NAME) end
  if not f then error(message, 0) end
  return f(lib)
end

-- A value as Lua would write it; for the options see pretty.lua.
local show
local function pretty(value, opts)
  show = show or part(PRETTY)
  return show(value, opts)
end
M.pretty = pretty

-- Completes the expression at the end of a line: the position (1-based, bytes) where the completed word begins, and the
-- names that fit, sorted, at most 200.
local names
function M.complete(line)
  names = names or part(COMPLETE)
  return names(line)
end

-- Arguments and results as data: see json.lua. Programs have a part of it as the module "vmoon".
local json
local function data()
  json = json or part(JSON)
  return json
end
preload.vmoon = function()
  local j = data()
  return { null = j.null, object = j.object, encode = j.encode, decode = j.decode }
end

----------------------------------------------------------------------------------------------------------- chunks

local function compile(code)
  -- Bytecode can crash the interpreter; Lua 5.1 has no mode argument to refuse it.
  if byte(code) == 27 then return nil, "attempt to load a binary chunk (mode is 't')" end
  if PUC51 then return load(code, "=stdin") end
  return load(code, "=stdin", "t")
end
-- Only the end of the message counts: the text before it may quote the program.
local function at_end(message) return find(message, " near <eof>", -11, true) or find(message, " near '<eof>'", -13, true) end

local function compile_any(code)
  local f = compile("return " .. code)
  if f and byte(code) ~= 27 then return f end
  local message
  f, message = compile(code)
  if f then return f end
  message = text(message)
  -- A short string cannot go on in the next line although it "ends at <eof>": ask again with a line feed.
  if at_end(message) then
    local again, other = compile(code .. "\n")
    if again or at_end(text(other)) then return nil, message, true end
    message = text(other)
  end
  return nil, message, false
end

-- "c" complete, "i" incomplete, "x" invalid; then the compiler's message.
function M.is_complete(code)
  local f, message, incomplete = compile_any(code)
  if f then return "c", "" end
  return incomplete and "i" or "x", message
end

local function error_text(e)
  local k = type(e)
  if k == "string" then return e end
  if k == "number" then return "" .. e end
  local meta = getmeta(e)
  if type(meta) == "table" and rawget(meta, "__tostring") ~= nil then return text(e) end
  return "(error object is a " .. k .. " value)"
end

local LONGEST_ERROR, LONGEST_ANSWER = 1048576, 8388608 -- bytes; a frame holds 16 MiB
local trace -- of the last error; set by the handler, which cannot return two values
local function handler(e)
  local message = error_text(e)
  trace = traceback("", 2)
  if #message > LONGEST_ERROR then message = sub(message, 1, LONGEST_ERROR) .. "..." end
  return message
end

-- Takes our own frames off a traceback: the `drop` outermost levels, and every level of this source.
local function trim(s, drop)
  if not s then return "" end
  local lines, n, from = {}, 0, 1
  if byte(s) == 10 then from = 2 end
  while from do
    local at = find(s, "\n", from, true)
    n = n + 1
    lines[n] = sub(s, from, at and at - 1)
    from = at and at + 1
  end
  n = n - drop
  if n < 2 then return "" end
  local kept, k, skip_c = {}, 0, false
  for i = 1, n do
    local line = lines[i]
    if find("\n" .. line, OURS, 1, true) ~= 1 then
      k = k + 1
      kept[k] = line
    elseif k > 0 and match(kept[k], "^\t%[C%]: in ") and match(kept[k], "'error'$") then
      kept[k] = nil -- our own call of error, as in a wrong argument to print
      k = k - 1
    end
  end
  for i = 2, k do -- nothing but "(...tail calls...)" tells nothing
    if not match(kept[i], "^\t%(%.*tail call") then return concat(kept, "\n", 1, k) end
  end
  return ""
end

local function pack(ok, ...) return ok, select("#", ...), { ... } end

-- Runs a chunk. Gives "values", text (all results: tables pretty-printed, the rest as print shows them, TABs between
-- them, or line feeds when a table takes several lines) | "none" | "incomplete", message
-- | "error", message, traceback, "s" (does not compile) or "r". Sets the global `_` to the last value.
-- `args`, a JSON array, becomes the chunk's arguments. If `want` is true, the values also come as JSON, the fifth result.
local function results(n, r, want)
  if not want then return nil end
  local ok, all = pcall(data().results, n, r)
  return ok and all or '{"values":null,"unfit":[{"path":"","why":"out of memory, or interrupted"}]}'
end
local function pass(...) return ... end -- so that the call before it is no tail call, which a traceback would show
function M.eval(code, args, want)
  local f, message, incomplete = compile_any(code)
  if not f then
    if incomplete then return "incomplete", message end
    return "error", message, "", "s"
  end
  trace = nil
  local body = f
  if args then
    local count, list = data().arguments(args)
    if not count then return "error", list, "", "r" end
    body = function() return pass(f(unpack(list, 1, count))) end
  end
  local ok, n, r = pack(xpcall(body, handler))
  if not ok then
    local drop = 1 -- xpcall itself
    while getinfo(drop, "l") do drop = drop + 1 end
    local t = trace
    trace = nil
    return "error", error_text(r[1]), trim(t, drop), "r"
  end
  if n == 0 then return "none", nil, nil, nil, results(n, r, want) end
  rawset(G, "_", r[n])
  local parts, lines, quota, left = {}, false, 65536, LONGEST_ANSWER
  for i = 1, n do
    local v, p = r[i], nil
    if type(v) == "table" then
      p = pretty(v, { quota = quota })
      quota = quota - #p
      if find(p, "\n", 1, true) then lines = true end
    else
      p = text(v)
    end
    if #p > left then p = sub(p, 1, left > 0 and left or 0) .. "... (" .. #p .. " bytes in all)" end
    left = left - #p
    parts[i] = p
  end
  return "values", concat(parts, lines and "\n" or "\t", 1, n), nil, nil, results(n, r, want)
end

---------------------------------------------------------------------------------------------------- standard output

-- The real file handles stay what io.stdout and its fellows are, so that io.type, type and C modules know them; their
-- methods look whether the handle is one of the session's.
local function piece(v, i)
  local k = type(v)
  if k == "string" then return v end
  if k ~= "number" then bad(i, "write", "string", v) end
  if mathtype and mathtype(v) == "integer" then return format("%d", v) end
  return format("%.14g", v)
end
local function write(fd, file, ...)
  local n = select("#", ...)
  if n == 1 then
    emit(fd, piece((...), 1))
    return file
  end
  for i = 1, n do emit(fd, piece((select(i, ...)), i)) end
  return file
end

G.print = function(...)
  local n = select("#", ...)
  local first = ...
  if n == 1 and type(first) == "string" then return emit(1, first .. "\n") end
  local p = { ... }
  for i = 1, n do
    local v = p[i]
    if type(v) ~= "string" then
      v = tostring(v)
      local k = type(v)
      if k ~= "string" and k ~= "number" then blame("'tostring' must return a string to 'print'") end
      p[i] = v
    end
  end
  emit(1, concat(p, "\t", 1, n) .. "\n")
end

--------------------------------------------------------------------------------------- the names programs use for them

local reader, liner
local function read(...)
  if not reader then reader, liner = part(INPUT) end
  return reader(...)
end
local function lines(...)
  if not reader then reader, liner = part(INPUT) end
  return liner(...)
end

local raw_input, raw_output = io.input, io.output
local raw_read, raw_write, raw_lines, raw_flush = io.read, io.write, io.lines, io.flush

io.write = function(...)
  local f = raw_output()
  if f == stdout then return write(1, f, ...) end
  if f == stderr then return write(2, f, ...) end
  return raw_write(...)
end
io.flush = function(...)
  local f = raw_output()
  if f ~= stdout and f ~= stderr then return raw_flush(...) end
  flush()
  return f
end
io.read = function(...)
  if raw_input() ~= stdin then return raw_read(...) end
  return read(...)
end
io.lines = function(name, ...)
  if name == nil and raw_input() == stdin then return lines(...) end
  return raw_lines(name, ...)
end

local meta = getmeta(stdout)
local methods = type(meta) == "table" and rawget(meta, "__index")
if type(methods) == "table" then
  local file_write, file_read, file_lines = methods.write, methods.read, methods.lines
  local file_flush, file_seek, file_setvbuf = methods.flush, methods.seek, methods.setvbuf
  local file_close = methods.close
  methods.write = function(f, ...)
    if f == stdout then return write(1, f, ...) end
    if f == stderr then return write(2, f, ...) end
    return file_write(f, ...)
  end
  methods.read = function(f, ...)
    if f ~= stdin then return file_read(f, ...) end
    return read(...)
  end
  methods.lines = function(f, ...)
    if f ~= stdin then return file_lines(f, ...) end
    return lines(...)
  end
  methods.flush = function(f)
    if f ~= stdout and f ~= stderr then return file_flush(f) end
    flush()
    return f
  end
  methods.seek = function(f, ...)
    if f == stdout or f == stderr or f == stdin then return nil, "Illegal seek", 29 end
    return file_seek(f, ...)
  end
  methods.setvbuf = function(f, ...)
    if f == stdout or f == stderr or f == stdin then return true end
    return file_setvbuf(f, ...)
  end
  methods.close = function(f, ...)
    if f == stdout or f == stderr or f == stdin then return nil, "cannot close standard file" end
    return file_close(f, ...)
  end
end

-- Lua 5.1 takes a number only; the others a boolean too; 5.3 and 5.4 refuse a fraction.
os.exit = function(code)
  local n
  if code == nil then
    n = 0
  elseif code == true and not PUC51 then
    n = 0
  elseif code == false and not PUC51 then
    n = 1
  else
    local k = type(code)
    n = (k == "number" or k == "string") and tonumber(code) or nil
    if not n then blame("bad argument #1 to 'exit' (number expected, got " .. k .. ")") end
    if n ~= floor(n) or n == huge or n == -huge then
      if mathtype then blame("bad argument #1 to 'exit' (number has no integer representation)") end
      n = n == n and n ~= huge and n ~= -huge and (n < 0 and -floor(-n) or floor(n)) or 0
    end
  end
  exit(n)
end

return M
