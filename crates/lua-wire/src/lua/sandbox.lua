-- Holds the libraries of a program to what is granted to it, in every Lua version. Called once, after the session's program
-- and before any code of the user, with the grants: lines `NAME LENGTH` LF and so many bytes, LF.
--
-- What is not granted refuses with a sentence that says what, why and how to grant it, in the way its function fails:
-- functions that return nil and a message do that (io.open, os.remove, load), the others raise. Which path may be used is for
-- the kernel to decide; here its refusal is explained.
--
-- The functions of the libraries that are replaced stay reachable from here alone. So nothing that a program can call may
-- show it a function by its place on the stack (debug.getinfo), a local or an upvalue of another function (the rest of
-- debug), or load bytecode, which could do all of that; and nothing of the program is called while one of them runs, but
-- finalizers. The functions that programs call all the time are left alone.
local settings = ...
local G, jit, VERSION = _G, jit, _VERSION
local type, select, pcall, error, next, rawget, tostring, tonumber = type, select, pcall, error, next, rawget, tostring, tonumber
local getmetatable = getmetatable
local byte, find, sub, gsub, gmatch, concat = string.byte, string.find, string.sub, string.gsub, string.gmatch, table.concat
local string, io, os, debug, package = string, io, os, debug, package
local getinfo, getmeta, setmeta = debug.getinfo, debug.getmetatable, debug.setmetatable
local open, popen, lines, read, input, output, tmpfile = io.open, io.popen, io.lines, io.read, io.input, io.output, io.tmpfile
local execute, remove, rename, tmpname, getenv, setlocale = os.execute, os.remove, os.rename, os.tmpname, os.getenv, os.setlocale
local load, loadstring, searchpath, loadlib = load, loadstring, package.searchpath, package.loadlib
local time = os.time
local methods = getmeta(io.stdout).__index
local read_file, close_file = methods.read, methods.close
local OLD = VERSION == "Lua 5.1" -- LuaJIT says so, too
local PUC51 = OLD and not jit
local SELF = getinfo(1, "S").source
-- LuaJIT 2.1.0-beta3 crashes now and then in traces through these functions, which nothing gains from compiling.
if jit then jit.off(true, true) end

---------------------------------------------------------------------------------------------------------- what is granted

local profile, work, modules = "sealed", nil, false
local readable, writable, executable = {}, {}, {}
do
  local lists, at = { read = readable, write = writable, execute = executable }, 1
  while at <= #settings do
    local _, last, name, size = find(settings, "^(%a+) (%d+)\n", at)
    local value = sub(settings, last + 1, last + tonumber(size))
    at = last + tonumber(size) + 2
    local list = lists[name]
    if list then list[#list + 1] = value end
    if name == "profile" then profile = value end
    if name == "work" then work = value end
    if name == "load" then modules = true end
  end
end
local open_profile = profile ~= "sealed"
local can_write = open_profile or writable[1] ~= nil
local can_read = can_write or readable[1] ~= nil
local can_execute = executable[1] ~= nil
local can_load = open_profile or can_execute or modules -- C modules

local TRUST = "--profile trusted"
local function refusal(what, how)
  return what .. " is not granted to this VM (profile " .. profile .. "); create it with " .. how
end

-- Raises at the first caller that is not ours (how many frames lie between depends on tail calls).
local function blame(message)
  local level = 2
  while true do
    local info = getinfo(level, "S")
    if not info then level = 0 break end
    if info.source ~= SELF and info.what ~= "tail" then break end
    level = level + 1
  end
  error(message, level)
end
local function refuse(what, how)
  local message = refusal(what, how or TRUST)
  return function() blame(message) end
end
-- The argument of that number as a string, as the libraries take it.
local function text(i, name, value)
  local k = type(value)
  if k == "string" then return value end
  if k == "number" then return "" .. value end
  blame("bad argument #" .. i .. " to '" .. name .. "' (string expected, got " .. (value == nil and "no value" or k) .. ")")
end

-- What the kernel's refusal leaves unsaid.
local granted
local function explain(message)
  if type(message) ~= "string" then return message end
  if not find(message, "Permission denied", 1, true) and not find(message, "Operation not permitted", 1, true) then return message end
  if not granted then
    local function listed(verb, list, first)
      local all = { first }
      for i = 1, #list do
        if #all == 4 then all[5] = "..." break end
        all[#all + 1] = list[i]
      end
      return all[1] and " " .. verb .. " " .. concat(all, ", ") or ""
    end
    local reads = listed("read", readable, open_profile and "packages" or nil)
    local writes = listed("write", writable, open_profile and work or nil)
    local between = reads ~= "" and writes ~= "" and " and" or ""
    granted = " (not granted: profile " .. profile .. " may" .. reads .. between .. writes .. "; --read PATH and --write PATH grant more)"
  end
  return message .. granted
end
local function explained(result, ...)
  if result ~= nil then return result, ... end
  local message, code = ...
  return nil, explain(message), code
end

------------------------------------------------------------------------------------------------------------------- files

-- Why a file may not be opened in this mode, whatever its name; nil if the kernel is to say.
local function closed(what, mode)
  if not can_read then return refusal(what, "--read PATH, --write PATH or --profile files") end
  if not can_write and find(mode, "[wa+]") then return refusal("writing files", "--write PATH or --profile files") end
end
local function try_open(what, name, mode)
  local why = closed(what, mode)
  if why then return nil, name .. ": " .. why, 13 end
  return explained(open(name, mode))
end

io.open = function(name, mode)
  name, mode = text(1, "open", name), mode == nil and "r" or text(2, "open", mode)
  if not OLD and not find(mode, "^[rwa]%+?b?$") then blame("bad argument #2 to 'open' (invalid mode)") end
  return try_open("io.open", name, mode)
end
io.lines = function(name, ...)
  if name == nil then return lines(nil, ...) end
  name = text(1, "lines", name)
  local f, message = try_open("io.lines", name, "r")
  if not f then blame(message) end
  close_file(f)
  return lines(name, ...)
end
local function redirect(name, mode, raw)
  return function(...)
    local file = ...
    if type(file) ~= "string" then return raw(...) end
    local f, message = try_open("io." .. name, file, mode)
    if not f then blame(message) end
    return raw(f)
  end
end
io.input, io.output = redirect("input", "r", input), redirect("output", "w", output)

local temporaries = 0
local function temporary()
  while true do
    temporaries = temporaries + 1
    local name = work .. "/lua_" .. time() .. "_" .. gsub(tostring({}), "[^%w]", "") .. temporaries
    local f = open(name, "rb")
    if not f then
      local message
      f, message = open(name, "w+b")
      if not f then blame(explain(message)) end
      return f, name
    end
    close_file(f)
  end
end
if profile == "sealed" or not work then
  io.tmpfile, os.tmpname = refuse("io.tmpfile", "--profile files"), refuse("os.tmpname", "--profile files")
else
  io.tmpfile = function()
    local f, name = temporary()
    remove(name)
    return f
  end
  os.tmpname = function()
    local f, name = temporary()
    close_file(f)
    return name
  end
end

local function changes(name, raw)
  return function(from, to)
    from = text(1, name, from)
    if name == "rename" then to = text(2, name, to) end
    if not can_write then return nil, from .. ": " .. refusal("os." .. name, "--write PATH or --profile files"), 13 end
    return explained(raw(from, to))
  end
end
os.remove, os.rename = changes("remove", remove), changes("rename", rename)

------------------------------------------------------------------------------------------------- processes, environment

if not can_execute then
  os.execute = function(command)
    if command == nil then return PUC51 and 0 or false end -- there is no shell
    blame(refusal("os.execute", TRUST))
  end
  io.popen = refuse("io.popen")
end

local SHOWN = { LANG = true, LANGUAGE = true, TZ = true, TERM = true }
os.getenv = function(name)
  name = text(1, "getenv", name)
  if name == "HOME" or name == "TMPDIR" then return work end
  if SHOWN[name] or find(name, "^LC_%u+$") then return getenv(name) end
  return nil
end
-- The locale is the whole process's: our own numbers go by it.
os.setlocale = function(locale, ...)
  if locale ~= nil and locale ~= "C" and locale ~= "POSIX" then return nil end
  return setlocale(locale, ...)
end

----------------------------------------------------------------------------------------------------------- loading of code

local BYTECODE = refusal("loading bytecode", TRUST)
-- Compiles text; the arguments behind the name are the environment, where there is one.
local function compile(code, name, ...)
  if byte(code) == 27 then return nil, BYTECODE end
  if name == SELF then name = "=?" end -- only our own functions are passed over by interrupts and tracebacks
  if PUC51 then return loadstring(code, name) end
  if select("#", ...) > 0 then return load(code, name, "t", (...)) end
  return load(code, name, "t")
end
local function gather(reader)
  local parts, n = {}, 0
  while true do
    local part = reader()
    if part == nil or part == "" then return concat(parts, "", 1, n) end
    if type(part) ~= "string" then error("reader function must return a string", 0) end
    n = n + 1
    parts[n] = part
  end
end
local function load_any(what, chunk, name, mode, ...)
  if name ~= nil then name = text(2, what, name) end
  if mode ~= nil and not find(text(3, what, mode), "t", 1, true) then
    return nil, "attempt to load a text chunk (mode is '" .. mode .. "')"
  end
  local k = type(chunk)
  if k == "string" or k == "number" then
    chunk = "" .. chunk
    return compile(chunk, name or chunk, ...)
  end
  if k ~= "function" then blame("bad argument #1 to '" .. what .. "' (function expected, got " .. k .. ")") end
  local ok, code = pcall(gather, chunk)
  if not ok then return nil, code end
  return compile(code, name or "=(load)", ...)
end
G.load = function(chunk, name, mode, ...)
  if PUC51 then
    if type(chunk) ~= "function" then blame("bad argument #1 to 'load' (function expected, got " .. type(chunk) .. ")") end
    return load_any("load", chunk, name)
  end
  return load_any("load", chunk, name, mode, ...)
end
if loadstring then G.loadstring = function(chunk, name) return load_any("loadstring", text(1, "loadstring", chunk), name) end end
string.dump = refuse("string.dump")

-- The text of a file without a first line that begins with `#`, and the name of its chunk.
local function source(what, name)
  if name == nil then return read("*a"), "=stdin" end
  local f, message = try_open(what, name, "rb")
  if not f then return nil, "cannot open " .. message end
  local code, failed = read_file(f, "*a")
  close_file(f)
  if not code then return nil, "cannot read " .. name .. ": " .. tostring(failed) end
  if not PUC51 and sub(code, 1, 3) == "\239\187\191" then code = sub(code, 4) end
  if byte(code) == 35 then
    code = sub(code, find(code, "\n", 1, true) or #code + 1)
    if byte(code, 2) == 27 then return nil, BYTECODE end
  end
  return code, "@" .. name
end
local function load_file(what, name, mode, ...)
  if name ~= nil then name = text(1, what, name) end
  local code, chunk = source(what, name)
  if not code then return nil, chunk end
  return load_any(what, code, chunk, mode, ...)
end
G.loadfile = function(name, mode, ...)
  if PUC51 then return load_file("loadfile", name) end
  return load_file("loadfile", name, mode, ...)
end
G.dofile = function(name)
  local f, message = load_file("dofile", name)
  if not f then error(message, 0) end
  return f()
end

local function search(name, path, separator, replacement)
  if not can_read then return nil, "\n\tno file: " .. refusal("reading files", "--read PATH or --profile files") end
  separator, replacement = separator or ".", replacement or "/"
  if separator ~= "" then
    name = gsub(name, gsub(separator, "%W", "%%%0"), (gsub(replacement, "%%", "%%%%")))
  end
  name = gsub(name, "%%", "%%%%")
  local tried, n = {}, 0
  for template in gmatch(path, "[^;]+") do
    local candidate = gsub(template, "%?", name)
    local f = open(candidate, "r")
    if f then
      close_file(f)
      return candidate
    end
    n = n + 1
    tried[n] = "\n\tno file '" .. candidate .. "'"
  end
  return nil, concat(tried, "", 1, n)
end
local NEWER = VERSION ~= "Lua 5.1" and VERSION ~= "Lua 5.2" and VERSION ~= "Lua 5.3" -- messages without their line feed
local function told(message) return NEWER and sub(message, 3) or message end

if searchpath then
  package.searchpath = function(name, path, ...)
    local found, message = search(text(1, "searchpath", name), text(2, "searchpath", path), ...)
    if found then return found end
    return nil, told(message)
  end
end
local searchers = package.searchers or package.loaders
searchers[2] = function(name)
  local path = rawget(package, "path")
  if type(path) ~= "string" then error("'package.path' must be a string", 0) end
  local file, message = search(name, path)
  if not file then return told(message) end
  local f
  f, message = load_file("require", file)
  if not f then error("error loading module '" .. name .. "' from file '" .. file .. "':\n\t" .. message, 0) end
  return f, file
end
if not can_load then
  local message = refusal("loading C modules", "--profile files or --env NAME")
  package.loadlib = function() return nil, message, "absent" end
  searchers[3] = function() return told("\n\tno C module: " .. message) end
  searchers[4] = nil
end

--------------------------------------------------------------------------------------------------------- debug and LuaJIT

for name, value in next, debug do
  if type(value) == "function" and name ~= "traceback" then debug[name] = refuse("debug." .. name) end
end
debug.getmetatable = function(value)
  local k = type(value)
  if k == "table" or k == "userdata" or k == "string" then return getmeta(value) end
  return getmetatable(value)
end
debug.setmetatable = function(value, meta)
  if type(value) ~= "table" then blame(refusal("debug.setmetatable of a " .. type(value), TRUST)) end
  return setmeta(value, meta)
end
-- Functions of C and of the session are not shown by their place on the stack.
local OPTIONS = OLD and "nSluf" or (VERSION == "Lua 5.2" or VERSION == "Lua 5.3") and "nSltuf" or "nSltufr"
debug.getinfo = function(...)
  local of, what, more = ...
  local thread
  if type(of) == "thread" then thread, of, what = of, what, more end
  what = what == nil and OPTIONS or text(thread and 3 or 2, "getinfo", what)
  if find(what, "[^" .. OPTIONS .. "L]") then blame("bad argument #" .. (thread and 3 or 2) .. " to 'getinfo' (invalid option)") end
  local k, info = type(of), nil
  if k ~= "number" and k ~= "function" then blame("bad argument #" .. (thread and 2 or 1) .. " to 'getinfo' (function or level expected)") end
  if k == "number" and of < 0 then blame("bad argument #" .. (thread and 2 or 1) .. " to 'getinfo' (level out of range)") end
  if thread then
    info = getinfo(thread, of, what)
  else
    info = getinfo(k == "number" and of + 1 or of, what) -- this function is a level, too
  end
  if info and info.func and info.func ~= of then
    local about = getinfo(info.func, "S")
    if about.what == "C" or about.source == SELF then info.func = nil end
  end
  return info
end

if jit then
  local kept = { version = 1, version_num = 1, os = 1, arch = 1, on = 1, off = 1, flush = 1, status = 1 }
  for name in next, jit do
    if not kept[name] then jit[name] = nil end
  end
  local loaded, preload = package.loaded, package.preload
  local gone = { "ffi", "jit.opt", "jit.util", "jit.profile" }
  for i = 1, #gone do
    loaded[gone[i]] = nil
    preload[gone[i]] = function() blame(refusal("the module " .. gone[i], TRUST)) end
  end
end

-- For a copy of the process, which works in another directory.
return function(directory) work, granted = work and directory, nil end
