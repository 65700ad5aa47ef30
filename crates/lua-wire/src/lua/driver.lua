-- Runs the session inside an external interpreter (lua5.1 to lua5.4, LuaJIT): reads frames from one private pipe, answers on
-- another, and lets itself be interrupted. Called by the first `-e` of the command line with the open input pipe.
--
-- A frame is `TAG ID LEN` LF and LEN bytes; the other way `TAG ID LEN NUMBER` LF and LEN bytes.
--   in:  G settings, L source of repl.lua (then, where not everything is granted, L source of sandbox.lua and G grants), E run, J run
--        with arguments (`WANT LEN` LF, LEN bytes of them as JSON, the chunk; WANT is 1 if the values are wanted as JSON),
--        C complete?, K names, S input, F end of input, I interrupt while waiting for input, A start the child, P the interrupt
--        is over (id 1: SIGINT was sent), T go on (answers y), Q quit
--   out: h hello, O R output, b a child is about to start (A is awaited), B it has ended, W wants input, T values as JSON,
--        V values, N incomplete, X error (kind, length of the message, LF, message, traceback), D done, c k answers, Z exit,
--        y input up to T is thrown away (payload: sig or hook)
--
-- Interrupts. The standalone interpreters turn the first SIGINT into an error raised from a hook, and die of the second, but
-- each `-e` of the command line arms the handler anew. So the command line ends with many `-e _VMOON()`, and after every
-- SIGINT we return from one to be called by the next; when they are used up, a count hook looks for the flag file ("hook" mode).
-- SIGINT can raise its error between any two instructions of this file too. Therefore every state change is one
-- assignment, outgoing frames are numbered so that writing one twice does no harm, and after an interrupt all input up to
-- the frame T is thrown away, since a half-read frame cannot be told from its rest.
-- SIGINT does not reach a running coroutine (except in LuaJIT), so coroutines always carry the count hook.
local inp = ...
local G, jit, coroutine, VERSION = _G, jit, coroutine, _VERSION
local pcall, xpcall, error, type, select, tonumber, rawset = pcall, xpcall, error, type, select, tonumber, rawset
local match, find, sub, byte, gsub, concat = string.match, string.find, string.sub, string.byte, string.gsub, table.concat
local open, sethook, getinfo, load = io.open, debug.sethook, debug.getinfo, loadstring or load
local exit, execute, popen = os.exit, os.execute, io.popen
local read, write, flush_file, close_file = inp.read, inp.write, inp.flush, inp.close
local SELF = getinfo(1, "S").source
local RESUME = "_VMOON"
local PIECE, BLOCK, COUNT = 1048576, 4096, 1000000

local function header()
  local line = read(inp, "*l")
  if not line then return nil end
  local tag, id, len = match(line, "^(%a) (%d+) (%d+)$")
  if not tag then return "", 0, 0 end
  return tag, tonumber(id), tonumber(len)
end
-- True while this file is in the middle of reading or writing. A finalizer of the program can run at any allocation, even
-- then: what it prints is put aside, and it can neither read nor start a child in step.
local busy = false
local function frame()
  busy = true
  local tag, id, len = header()
  if not tag then return nil end
  local payload = len > 0 and read(inp, len) or ""
  busy = false
  return tag, id, payload
end

local _, _, settings = frame()
local out_path, flag = match(settings, "out=([^\n]*)\n"), match(settings, "flag=([^\n]*)\n")
local mode, left = match(settings, "mode=([^\n]*)\n"), tonumber(match(settings, "resumes=(%d+)\n"))
local out = assert(open(out_path, "wb"))
out:setvbuf("full", 65536)
local put = inp.put -- of one who takes what is printed without a frame of ours

-------------------------------------------------------------------------------------------------------------- output

-- What is not written yet. Replaced as a whole: `pending` is the encoded frame being written, `done` the command whose
-- last frame that is.
local state = { n = 0, size = 0, fd = 1 }
local number = 0 -- of the last frame
local id = 0 -- of the command that runs

local function settle()
  local s = state
  local f = s.pending
  if f then
    if s.num then put(out, s.fd, s.of, f, s.num) else write(out, f) end
    s.pending = nil
  end
end
local function drain() -- while busy
  settle()
  local s = state
  if s.n == 0 then return end
  local data, n = s.n == 1 and s[1] or concat(s, "", 1, s.n), number + 1
  number = n
  if put then
    state = { n = 0, size = 0, fd = s.fd, pending = data, num = n, of = id }
    return settle()
  end
  state = { n = 0, size = 0, fd = s.fd, pending = (s.fd == 2 and "R " or "O ") .. id .. " " .. #data .. " " .. n .. "\n" .. data }
  settle()
end

local emit
local late -- what finalizers have printed meanwhile, the newest first
local function unbusy()
  busy = false
  while late do
    local first, before = late, nil
    while first.next do before, first = first, first.next end
    if before then before.next = nil else late = nil end
    emit(first.fd, first.text)
  end
end
local function flush()
  if busy then return end
  busy = true
  drain()
  flush_file(out)
  unbusy()
end
local function post(tag, cmd, payload)
  busy = true
  drain()
  local n = number + 1
  number = n
  state = { n = 0, size = 0, fd = 1, pending = tag .. " " .. cmd .. " " .. #payload .. " " .. n .. "\n" .. payload }
  settle()
  flush_file(out)
  unbusy()
end
function emit(fd, s)
  local size = #s
  if size > PIECE then
    for i = 1, size, PIECE do emit(fd, sub(s, i, i + PIECE - 1)) end
    return
  end
  if busy then
    late = { fd = fd, text = s, next = late }
    return
  end
  busy = true
  local b = state
  if b.fd ~= fd then
    drain()
    b = state
    b.fd = fd
  end
  local n = b.n + 1
  b[n] = s
  b.n = n
  size = b.size + size
  b.size = size
  if byte(s, -1) == 10 or size >= BLOCK or n >= 1000 then
    drain()
    flush_file(out)
  end
  unbusy()
end

---------------------------------------------------------------------------------------------------------- interrupts

local running = false -- the program's code runs, not ours
local cut = false -- it is being interrupted

local function flagged()
  if flag == "" then return false end
  local f = open(flag, "rb")
  if not f then return false end
  close_file(f)
  return true
end

-- Once an interrupt is seen, it is raised again at every instruction of the program until the command is over, so that a
-- pcall cannot swallow it.
local function hook()
  if not cut then
    if not running or not flagged() then return end
    cut = true
    sethook(hook, "", 1)
  end
  if not running then return end
  local i = getinfo(2, "S")
  if i and i.what ~= "C" and i.source ~= SELF then error("interrupted!", 0) end
end
local function arm()
  cut = true
  sethook(hook, "", 1)
end
local function hook_mode()
  mode = "hook"
  if jit then
    jit.off()
    jit.flush()
  end
end

local function again()
  busy = false -- the interrupt may have left print or io.write in the middle
  arm()
end
local function after(ok, ...)
  if not ok and running then
    local e = ...
    if cut or (type(e) == "string" and find(e, "interrupted!", -12, true) and flagged()) then again() end
  end
  return ok, ...
end
local function after_handler(ok, ...)
  if not ok and running and (cut or flagged()) then again() end -- the handler may have turned the message into anything
  return ok, ...
end
----------------------------------------------------------------------------------------------------------- the loop

local host = { emit = emit, flush = flush }
function host.ask()
  if busy then return nil end
  post("W", id, "")
  while true do
    local tag, _, payload = frame()
    if tag == nil then exit(0) end
    if tag == "S" then return payload end
    if tag == "F" then return nil end
    if tag == "I" then
      arm()
      error("interrupted!", 0)
    end
  end
end
function host.exit(code)
  post("Z", id, "" .. code)
  exit(code)
end

local _, _, source = frame()
local M = assert(load(source, SELF))(host)
source = nil

-- Only now are the functions replaced that must not hide an interrupt: repl.lua keeps the true ones.
local raw_resume, raw_create, raw_wrap = coroutine.resume, coroutine.create, coroutine.wrap
G.pcall = function(...) return after(pcall(...)) end
G.xpcall = function(...) return after_handler(xpcall(...)) end
coroutine.resume = function(...) return after(raw_resume(...)) end
local function hooked(f)
  if type(f) ~= "function" or jit then return f end -- LuaJIT has one hook for all coroutines, and setting it restarts its count
  return function(...)
    sethook(hook, "", COUNT)
    return f(...)
  end
end
coroutine.create = function(f) return raw_create(hooked(f)) end
coroutine.wrap = function(f) return raw_wrap(hooked(f)) end

-- What a child writes goes to the standard descriptors: it may only start once all that was printed before has arrived.
local function before_child()
  if busy then return end
  post("b", id, "")
  repeat
    local tag = frame()
    if not tag then exit(0) end
  until tag == "A"
end
local function after_child(...)
  if not busy then post("B", id, "") end
  if running and flagged() then arm() end -- while a child runs, SIGINT goes to the child alone
  return ...
end
os.execute = function(...)
  before_child()
  return after_child(execute(...))
end
io.popen = popen and function(...)
  before_child()
  return popen(...)
end

-- The outcome of the command and its end, in one piece of output.
local function answer(what, a, b, kind, data)
  unbusy()
  busy = true
  drain()
  local tag, payload = nil, a
  if what == "values" then
    tag = "V"
  elseif what == "incomplete" then
    tag = "N"
  elseif what == "error" then
    tag = "X"
    if kind == "r" and (cut or (find(a, "interrupted!", -12, true) and flagged())) then kind = "i" end
    payload = kind .. #a .. "\n" .. a .. b
  end
  local n, text = number + 1, ""
  if data then
    text = "T " .. id .. " " .. #data .. " " .. n .. "\n" .. data
    n = n + 1
  end
  if tag then
    text = text .. tag .. " " .. id .. " " .. #payload .. " " .. n .. "\n" .. payload
    n = n + 1
  end
  number = n
  state = { n = 0, size = 0, fd = 1, done = id, pending = text .. "D " .. id .. " 0 " .. n .. "\n" }
  settle()
  flush_file(out)
  unbusy()
end

local function evaluate(code, args, want)
  running = true
  if mode == "hook" then sethook(hook, "", COUNT) end
  local what, a, b, kind, data = M.eval(code, args, want)
  running = false
  if cut or mode == "hook" then sethook() end
  answer(what, a, b, kind, data)
end

local function resync(k)
  post("y", k, mode)
  while true do
    local tag, cmd = frame()
    if tag == nil then exit(0) end
    if tag == "T" and cmd == k then break end
  end
  cut = false
end

local entered = 0
local function loop()
  while true do
    local tag, cmd, payload = frame()
    if tag == "E" then
      id = cmd
      evaluate(payload)
      id = 0
    elseif tag == "J" then
      id = cmd
      local _, last, want, size = find(payload, "^(%d) (%d+)\n")
      size = last + tonumber(size)
      evaluate(sub(payload, size + 1), size > last and sub(payload, last + 1, size) or nil, want == "1")
      id = 0
    elseif tag == "C" then
      local what, message = M.is_complete(payload)
      post("c", cmd, what .. message)
    elseif tag == "K" then
      local from, names = M.complete(payload)
      post("k", cmd, from .. "\n" .. concat(names, "\n"))
    elseif tag == "P" then
      if cmd == 1 and mode == "sig" then return end
      entered = entered + 1
      resync(entered)
    elseif tag == nil or tag == "Q" then
      flush()
      exit(0)
    end
  end
end

-- Brings everything in order after the loop was left: by P, by an interrupt, or by an error of ours (no memory).
local function recover(why)
  running = false
  sethook()
  busy = true
  settle()
  if id ~= 0 and state.done ~= id then
    local interrupted = find(why or "interrupted!", "interrupted!", -12, true)
    answer("error", interrupted and "interrupted!" or why, "", interrupted and "i" or "r")
  end
  id = 0
  unbusy()
  entered = entered + 1
  resync(entered)
end

local broken, failure = false, nil -- the loop was left, and by which error
local function body()
  if broken then
    recover(failure)
  else
    post("h", 0, "runtime=" .. (jit and jit.version or VERSION) .. "\nmode=" .. mode .. "\n")
  end
  broken, failure = true, nil
  loop()
end
local function enter()
  rawset(G, RESUME, nil)
  repeat
    if left <= 0 and mode == "sig" then hook_mode() end
    left = left - 1
    -- An interrupt can only come after the hello was sent or T was read, that is, inside this pcall.
    local ok, e = pcall(body)
    broken, failure = true, not ok and (type(e) == "string" and e or "error in the session's driver") or nil
  until mode == "sig"
  rawset(G, RESUME, enter)
end

do
  local path, cpath = match(settings, "\npath=([^\n]*)\n"), match(settings, "\ncpath=([^\n]*)\n")
  if path then package.path, package.cpath = path, cpath end
end
if match(settings, "\nconfined=1\n") then
  -- Last, so that it holds what the session itself has put in the place of the libraries' functions, too.
  local _, _, sandbox = frame()
  local _, _, grants = frame()
  assert(load(sandbox, SELF))(grants)
end
if type(G.arg) == "table" then G.arg = { [0] = G.arg[0] } end
if mode == "hook" then hook_mode() end
enter()
