-- Runs on a host that was reached over SSH, inside the interpreter that runs the session's code: it stands between the driver program
-- (which reads and writes what it believes to be pipes) and the files of the session's directory. Called with the open program file, read
-- up to the driver's source, that directory, and the open FIFO of lines. Speaks every Lua from 5.1 to 5.4 and LuaJIT.
--
-- Files:
--   in        a FIFO of lines `LEASE TAG ID LEN BASE64 CRC`; the CRC-32 is over what stands before its blank. Also `Z LEASE ID SENT .`: the
--             interrupt of command ID is over; `H LEASE .`: say how things stand
--   o.BASE    the session's stream from offset BASE on, in frames of the daemon's kind; `segments` lists the bases
--   d.LEASE   answers that belong to nobody's stream, in the same frames
--   state     LAST RUNNING WAITS WAITING MODE DUE AT: it tells what the stream tells up to the offset AT
--   sleeper   LEASE N, in 40 bytes: whose follower goes to sleep for the N-th time unless it finds something then, and is to be woken through the FIFO
--             bell.LEASE; once, so nobody has to take that back
--   lease     whose lines are obeyed; acked: how much of the stream is stored elsewhere
--   int       the running command is being interrupted: ID KIND
--   s.1, s.2  what children and C code write; z: the code the program asked to end with; hello: the runtime
--
-- An interrupt (SIGINT) raises an error between any two instructions while a command runs, and until its interrupt is settled; never
-- otherwise, which is the sender's care. So what must be exact (the stream) is one table, W, that is replaced as a whole, and
-- writing it out can be repeated: the file's own position says how far it came.
local prog, dir, fifo = ...
local io, open, remove, rename, execute = io, io.open, os.remove, os.rename, os.execute
local cpu, now = os.clock, os.time
local match, sub, gsub, byte, char, format = string.match, string.sub, string.gsub, string.byte, string.char, string.format
local floor, concat, tonumber, assert, next, exit = math.floor, table.concat, tonumber, assert, next, os.exit
local load, pcall, jit = loadstring or load, pcall, jit
local read, write, flush, seek, close, setvbuf = prog.read, prog.write, prog.flush, prog.seek, prog.close, prog.setvbuf
local SEGMENT, CAP, PIECE, MESSAGE = 1048576, 268435456, 65536, 1048576
local path = dir .. "/"

local function slurp(name, what)
  local f = open(path .. name, "rb")
  if not f then return nil end
  local s = read(f, what or "*l")
  close(f)
  return s
end
local function spill(name, s)
  local f = open(path .. name .. ".new", "wb")
  if not f then return end
  write(f, s)
  close(f)
  rename(path .. name .. ".new", path .. name)
end

------------------------------------------------------------------------------------------------------------ the stream

local function u32(n) return char(n % 256, floor(n / 256) % 256, floor(n / 65536) % 256, floor(n / 16777216) % 256) end
local function u64(n) return u32(n % 4294967296) .. u32(floor(n / 4294967296)) end
local idn, idt = 0, u64(0)
local heads = {} -- of that command's short lines
local function frame(tag, id, payload)
  if id ~= idn then idn, idt, heads = id, u64(id), {} end
  return u32(#payload + 9) .. tag .. idt .. payload
end
local function line(id, payload)
  local size = #payload
  local head = id == idn and heads[size]
  if head then return head .. payload end
  local whole = frame("O", id, payload)
  if size < 256 then heads[size] = sub(whole, 1, 13) end
  return whole
end

local first = assert(open(path .. "o.0", "wb"))
setvbuf(first, "no")
-- base, pos: the segment and how much of it is written; parts, size: what is not written yet; num: the driver's last frame; c: how the commands stand
local W = { file = first, base = 0, pos = 0, size = 0, num = 0, c = { s1 = 0, s2 = 0, last = 0, running = 0, waits = 0, waiting = 0, due = 0 } }
local function add(bytes, num, changes)
  local w, c = W, W.c
  if changes then
    c = {}
    for k, v in next, w.c do c[k] = v end
    for k, v in next, changes do c[k] = v end
  end
  local parts, size = w.parts, w.size
  if bytes then parts, size = { before = parts, bytes = bytes }, size + #bytes end
  W = { file = w.file, base = w.base, pos = w.pos, parts = parts, size = size, num = num or w.num, c = c }
end
local function note(num, changes) add(nil, num, changes) end

local tried -- the W that was to be written: if it is so still, an interrupt came, and the file says how much was
local function put_out()
  while true do
    local w = W
    local p, data = w.parts, nil
    if not p then return end
    if p.before then
      local list, n = {}, 0
      while p do
        n = n + 1
        list[n] = p.bytes
        p = p.before
      end
      for i = 1, floor(n / 2) do list[i], list[n + 1 - i] = list[n + 1 - i], list[i] end
      data = concat(list)
    else
      data = p.bytes
    end
    local done = tried == w and seek(w.file) - w.pos or 0
    tried = w
    if done >= #data or write(w.file, done == 0 and data or sub(data, done + 1)) then
      W = { file = w.file, base = w.base, pos = w.pos + #data, size = 0, num = w.num, c = w.c }
    elseif seek(w.file) - w.pos == done then
      execute("sleep 1") -- the disk is full: the session waits
    end
  end
end

local segments = { 0 }
local function rotate()
  put_out()
  local base = W.base + W.pos
  local file = open(path .. "o." .. format("%.0f", base), "wb")
  if not file then return end
  setvbuf(file, "no")
  local acked, list, gone = tonumber(slurp("acked") or "") or 0, {}, {}
  for i = 1, #segments do
    local after = segments[i + 1] or base
    if segments[i] ~= base then
      if after <= acked or base - after >= CAP then gone[#gone + 1] = segments[i] else list[#list + 1] = segments[i] end
    end
  end
  list[#list + 1] = base
  local text = {}
  for i = 1, #list do text[i] = format("%.0f\n", list[i]) end
  spill("segments", concat(text))
  segments = list
  local old = W.file
  W = { file = file, base = base, pos = 0, size = 0, num = W.num, c = W.c }
  close(old)
  for i = 1, #gone do remove(path .. "o." .. format("%.0f", gone[i])) end
end

local board = assert(open(path .. "state", "wb"))
setvbuf(board, "no")
local mode, shown = "sig", ""
local lease, letters = "", nil
local sleeper = assert(open(path .. "sleeper", "rb"))
setvbuf(sleeper, "no") -- else what it had said before would be read
local woken
local function wake()
  seek(sleeper, "set", 0)
  local who = read(sleeper, 40)
  if not who or who == woken then return end
  -- Whoever takes the lease over removes the bell of the one before, who may still say for a moment that it sleeps.
  local bell = open(path .. "bell." .. (match(who, "^%x+") or ""), "r+b")
  if not bell then
    local now_its = slurp("lease")
    bell = now_its and open(path .. "bell." .. now_its, "r+b")
  end
  if bell then
    write(bell, "x")
    close(bell)
  end
  woken = who
end
local shown_of, shown_mode
local function show()
  local w = W
  local c = w.c
  if c == shown_of and mode == shown_mode then return end
  local s = format("%.0f %.0f %.0f %d %s %.0f", c.last, c.running, c.waits, c.waiting, mode, c.due)
  if s ~= shown then
    seek(board, "set", 0)
    write(board, format("%-99s%-40s\n", s .. " " .. format("%.0f", w.base + w.pos), ""))
    shown = s
  end
  shown_of, shown_mode = c, mode
end
local function publish()
  put_out()
  show()
  wake()
  if W.pos >= SEGMENT then rotate() end
end

local function direct(tag, id, payload)
  letters = letters or open(path .. "d." .. lease, "ab")
  if not letters then return end
  write(letters, frame(tag, id, payload))
  flush(letters)
  wake()
end
local function status()
  publish()
  direct("s", 0, format("%.0f %.0f %.0f %d %s", W.c.last, W.c.running, W.c.waits, W.c.waiting, format("%.0f", W.base + W.pos)))
end

local stray = { assert(open(path .. "s.1", "a+b")), assert(open(path .. "s.2", "a+b")) }
local function collect(id)
  for i = 1, 2 do
    local key = "s" .. i
    seek(stray[i], "set", W.c[key])
    while true do
      local s = read(stray[i], PIECE)
      if not s then break end
      add(frame(i == 1 and "O" or "R", id, s), nil, { [key] = W.c[key] + #s })
    end
  end
end

---------------------------------------------------------------------------------------------- what the driver writes

local uptime = open("/proc/uptime", "rb")
if uptime then setvbuf(uptime, "no") end -- else it would stand still
local function age()
  if not uptime then return now() end
  seek(uptime, "set", 0)
  return tonumber(match(read(uptime, 16) or "", "^[%d.]+")) or 0
end
local began, aged = 0, 0
local function took()
  local used, passed = cpu() - began, age() - aged
  -- The wall clock of plain Lua counts hundredths of a second: below two of them the processor's is closer.
  return floor((passed >= 0.02 and passed > used and passed or used) * 1000000)
end
local function why(kind)
  return kind == "i" and match(slurp("int") or "", "^%d+ (%a)") or kind
end
local resync, starting, check
local function one(tag, id, payload, num)
  if tag == "O" or tag == "R" then
    add(frame(tag, id, payload), num)
  elseif tag == "T" or tag == "V" or tag == "N" then
    collect(id)
    add(frame(tag, id, payload), num)
  elseif tag == "X" then
    collect(id)
    local kind, len, at = match(payload, "^(%a)(%d+)\n()")
    local message, trace = sub(payload, at, at + len - 1), sub(payload, at + len)
    message, trace = sub(message, 1, MESSAGE), sub(trace, 1, MESSAGE)
    add(frame(tag, id, why(kind) .. u32(#message) .. message .. trace), num)
  elseif tag == "D" then
    collect(id)
    check = true
    add(frame(tag, id, u64(took())), num, { running = 0, waiting = 0, due = 0 })
  elseif tag == "W" then
    collect(id)
    add(frame(tag, id, ""), num, { waits = W.c.waits + 1, waiting = 1 })
  elseif tag == "Z" then
    collect(id)
    local code = floor(tonumber(payload) or 0) % 256
    spill("z", code .. "\n")
    add(frame(tag, id, u32(code)), num)
  elseif tag == "b" then
    starting = true
    note(num)
  elseif tag == "B" then
    collect(id)
    note(num)
  elseif tag == "y" then
    if W.c.running ~= 0 then
      local cut = W.c.running
      local message = "interrupted!"
      local over = frame("X", cut, why("i") .. u32(#message) .. message) .. frame("D", cut, u64(took()))
      check = true
      add(over, num, { running = 0, waiting = 0, due = 0 })
    else
      note(num)
    end
    resync, mode = id, payload
  elseif tag == "c" or tag == "k" then
    direct(tag, id, payload)
    note(num)
  elseif tag == "h" then
    spill("hello", payload)
    mode = match(payload, "mode=(%a+)") or mode
    note(num)
  end
end
local pipe = { close = close, flush = publish }
-- What the program prints, without the driver's own framing.
function pipe.put(_, fd, id, payload, num)
  if num <= W.num then return end
  add(fd == 1 and line(id, payload) or frame("R", id, payload), num)
  if W.size >= PIECE then put_out() end
end
function pipe.write(_, text)
  local p, size = 1, #text
  while p <= size do
    local tag, id, len, num, at = match(text, "^(%a) (%d+) (%d+) (%d+)\n()", p)
    p, num = at + tonumber(len), tonumber(num)
    if num > W.num then one(tag, tonumber(id), sub(text, at, p - 1), num) end
  end
  if W.size >= PIECE then put_out() end
end

----------------------------------------------------------------------------------------------- what the driver reads

-- CRC-32 as in zlib. Where Lua has bit operations, they are compiled from text that older versions could not read.
local crc
do
  local xor, shift8
  local ok, made = pcall(load, "return function(a, b) return a ~ b end, function(a) return a >> 8 end")
  if ok and made then
    xor, shift8 = made()
  elseif bit32 then
    xor = bit32.bxor
  elseif bit then
    local bxor = bit.bxor
    xor = function(a, b) return bxor(a, b) % 4294967296 end
  else
    local rows = {}
    local function row(a)
      local r = {}
      for b = 0, 255 do
        local x, y, v, p = a, b, 0, 1
        while x > 0 or y > 0 do
          if x % 2 ~= y % 2 then v = v + p end
          x, y, p = floor(x / 2), floor(y / 2), p * 2
        end
        r[b] = v
      end
      rows[a] = r
      return r
    end
    xor = function(a, b)
      local v, p = 0, 1
      while a > 0 or b > 0 do
        local x = a % 256
        v = v + (rows[x] or row(x))[b % 256] * p
        a, b, p = floor(a / 256), floor(b / 256), p * 256
      end
      return v
    end
  end
  shift8 = shift8 or function(a) return floor(a / 256) end
  local T = {}
  for i = 0, 255 do
    local c = i
    for _ = 1, 8 do
      if c % 2 == 1 then c = xor(3988292384, floor(c / 2)) else c = floor(c / 2) end
    end
    T[i] = c
  end
  function crc(s)
    local c = 4294967295
    for i = 1, #s do c = xor(T[xor(c % 256, byte(s, i))], shift8(c)) end
    return xor(c, 4294967295)
  end
  if ok and made then
    crc = load([[local T, byte = ... return function(s)
      local c = 4294967295
      for i = 1, #s do c = T[(c ~ byte(s, i)) & 255] ~ (c >> 8) end
      return c ~ 4294967295
    end]])(T, byte)
  end
end
-- Base64, sixteen letters at a time: what each letter adds to the byte that it begins and to the next, by its place among four.
local A, B, C, D, E, F = {}, {}, {}, {}, {}, {}
do
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
  for i = 1, 65 do
    local letter, v = byte(alphabet, i), (i - 1) % 64
    A[letter], B[letter], C[letter] = v * 4, floor(v / 16), v % 16 * 16
    D[letter], E[letter], F[letter] = floor(v / 4), v % 4 * 64, v
  end
end
local function unbase64(s)
  local out, n, size = {}, 0, #s
  local most = size - size % 16
  for at = 1, most, 16 do
    local a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q = byte(s, at, at + 15)
    n = n + 1
    out[n] = char(A[a] + B[b], C[b] + D[c], E[c] + F[d], A[e] + B[f], C[f] + D[g], E[g] + F[h],
      A[i] + B[j], C[j] + D[k], E[k] + F[l], A[m] + B[o], C[o] + D[p], E[p] + F[q])
  end
  for at = most + 1, size, 4 do
    local a, b, c, d = byte(s, at, at + 3)
    n = n + 1
    out[n] = char(A[a] + B[b], C[b] + D[c], E[c] + F[d])
  end
  return sub(concat(out), 1, size / 4 * 3 - #match(s, "=*$"))
end
local function number(s, at)
  local a, b, c, d = byte(s, at, at + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

local rewritten -- the settings were
local reading = false -- a line was being read or obeyed; if so on entry, an interrupt has thrown it away
local settled -- the interrupt of this command is over
local later, take = {}, 1 -- commands that came while another one ran
local stash = ""
local function whole(s)
  local front, sum = match(s, "^(.*) (%x+)$")
  if not front or #sum ~= 8 or format("%08x", crc(front)) ~= sum then return nil end
  local tag, id, len, data = match(front, "^%x+ (%a) (%d+) (%d+) ([%w+/=]*)$")
  if not tag or #data % 4 ~= 0 then return nil end
  data = unbase64(data)
  if #data ~= tonumber(len) then return nil end
  return tag, tonumber(id), data
end
local function accept(tag, id, payload)
  if tag == "U" then -- it was interrupted before its turn
    local cut = frame("X", id, "i" .. u32(12) .. "interrupted!")
    add(frame("E", id, payload) .. cut .. frame("D", id, u64(0)), nil, { last = id })
    publish()
    return nil
  end
  local eval = payload
  local text
  if tag == "J" then
    local size = number(payload, 2)
    eval = sub(payload, 6 + size)
    local code = sub(eval, 6 + byte(eval, 5))
    text = (byte(payload, 1) % 2) .. " " .. format("%.0f", size) .. "\n" .. sub(payload, 6, 5 + size) .. code
  else
    text = sub(eval, 6 + byte(eval, 5))
  end
  local limit = number(eval, 1)
  began, aged = cpu(), age()
  collect(0)
  stash = text
  add(frame("E", id, eval), nil, { running = id, last = id, due = limit > 0 and now() + floor(limit / 1000) + 1 or 0 })
  -- Most often its end comes so soon that both are told together; who waits longer asks.
  put_out()
  show()
  return tag .. " " .. format("%.0f", id) .. " " .. #text
end
-- Obeys the next line; gives a header for the driver if it concerns it.
local function obey()
  reading = true
  local s = read(fifo, "*l")
  local whose = match(s or "", "^%u? ?(%x+) ")
  if whose and whose == slurp("lease") then
    if whose ~= lease then
      if letters then close(letters) end
      if lease ~= "" then remove(path .. "d." .. lease) end
      lease, letters = whose, nil
    end
    local id, sent = match(s, "^Z %x+ (%d+) (%d) %.$")
    if id then
      settled = { id = tonumber(id), sent = sent }
      check = true
      -- A program that waits for input is told by the driver.
      if W.c.running == settled.id then return "I 0 0" end
      return nil
    end
    local tag, payload
    tag, id, payload = whole(s)
    if tag == "E" or tag == "J" or tag == "U" then
      local last = later[#later]
      if id <= W.c.last or (last and id <= last[2]) then
        status()
      elseif W.c.running ~= 0 or resync then
        later[#later + 1] = { tag, id, payload }
      else
        return accept(tag, id, payload)
      end
    elseif tag == "S" or tag == "F" then
      if W.c.waiting == 1 and id == W.c.waits then
        stash = payload
        note(nil, { waiting = 0 })
        return tag .. " 0 " .. #payload
      end
    elseif tag == "C" or tag == "K" then
      if W.c.running == 0 and not resync then
        stash = payload
        return tag .. " " .. format("%.0f", id) .. " " .. #payload
      end
      direct(tag == "C" and "c" or "k", id, tag == "C" and "b" or "busy")
    elseif tag == "Q" then
      return "Q 0 0"
    else
      status() -- it was asked for, or the line is damaged: either way the other side is to know what we have
    end
  elseif not s then
    exit(0)
  end
end

local header
function header()
  if prog then
    local s = read(prog, "*l")
    if s ~= "END" then
      local len = jit and not rewritten and match(s, "^G 0 (%d+)$")
      if len then
        -- A signal that meets LuaJIT in compiled code may crash it. So there a hook looks for the file instead.
        rewritten = true
        stash = gsub(read(prog, tonumber(len)), "\nmode=sig\n", "\nmode=hook\n")
        return "G 0 " .. #stash
      end
      return s
    end
    close(prog)
    prog = nil
    publish()
  end
  if starting then
    publish()
    starting = false
    return "A 0 0"
  end
  if W.c.running == 0 then
    if check then
      local id = tonumber(match(slurp("int") or "", "^(%d+)"))
      if id then
        -- Its end must be known before the driver may go on: a signal that came later would meet the wrong command.
        while not reading and not (settled and settled.id == id) do
          obey()
          reading = false
        end
        remove(path .. "int")
      end
      local sent = settled and settled.sent or "1"
      settled, reading, check = nil, false, false
      if id and not resync then return mode == "sig" and "P " .. sent .. " 0" or "P 0 0" end
    end
    reading = false
    if resync then
      local id = resync
      resync = nil
      status()
      return "T " .. id .. " 0"
    end
    local next_one = later[take]
    if next_one then
      later[take] = nil
      take = take + 1
      if not later[take] then later, take = {}, 1 end
      return accept(next_one[1], next_one[2], next_one[3]) or header()
    end
  end
  while true do
    local h = obey()
    reading = false
    if h then return h end
    if check and W.c.running == 0 then return header() end
  end
end
function pipe.read(_, what)
  if what == "*l" then return header() end
  if prog and stash == "" then return read(prog, what) end
  local s = stash
  stash = ""
  return s
end

----------------------------------------------------------------------------------------------------------- the driver

local OUT = "/dev/fd/4"
local source = read(prog, tonumber((read(prog, "*l"))))
local out = { setvbuf = function() end }
io.open = function(name, how)
  if name == OUT and io.open ~= open then
    io.open = open
    return out
  end
  return open(name, how)
end
assert(load(source, "=[vmoon]"))(pipe)
