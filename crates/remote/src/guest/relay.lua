-- Passes lines from standard input to a session, for as long as its connection holds the lease; one runs for each connection. Where VMOON_LIFE says so, it
-- begins that life first: the length of the program and a line feed, and the program, come before the lines. Lines that
-- begin with a dot are for itself: `. I ID KIND .` interrupts the command ID, `. J ID KIND .` does so again where that is safe, `. A OFFSET .` notes that the stream is stored up to there,
-- `. K WHY .` ends the session by force, `. R .` wakes who sends the stream, `. P .` looks whether it lives.
local getenv, open, rename, remove, execute = os.getenv, io.open, os.rename, os.remove, os.execute
local path, lease = getenv("VMOON_DIR") .. "/", getenv("VMOON_LEASE")
local fifo = assert(open(path .. "in", "r+b"))
fifo:setvbuf("no")
local function slurp(name)
  local f = open(path .. name, "rb")
  if not f then return nil end
  local s = f:read("*l")
  f:close()
  return s
end
local function spill(name, s)
  local f = open(path .. name .. "." .. lease, "wb")
  if not f then return end
  f:write(s, "\n")
  f:close()
  rename(path .. name .. "." .. lease, path .. name)
end
-- A session that begins gets its program from us: it waits for one line, which it gets when all has come. Only then does its directory get its name, and is
-- it the newest life.
local life = getenv("VMOON_LIFE")
if life then
  local n = tonumber(io.read("*l") or "")
  local s = n and io.read(n)
  if not s or #s ~= n or s:sub(-4) ~= "END\n" then os.exit(1) end
  local function put(name, text)
    local f = assert(open(name, "wb"))
    assert(f:write(text) and f:close())
  end
  put("prog", s)
  assert(rename("bell", "bell." .. lease))
  assert(rename(getenv("VMOON_NEW"), "../" .. life))
  put("../life.new", life .. "\n")
  assert(rename("../life.new", "../life"))
  fifo:write("go\n")
end
local function state() return (slurp("state") or ""):match("^%d+ (%d+) %d+ %d (%a+)") end
local function settle(id, sent) fifo:write("Z ", lease, " ", id, " ", sent, " .\n") end
local function pids() return (slurp("pid") or ""):match("^(%d+) (%d+) (%d)") end
local function signal(name)
  local lua, group, own = pids()
  -- As Ctrl-C on a terminal, the children the program waits for get it, too, where the session has a group of its own: that of the interpreter (2), or of
  -- the shell that waits for it (1, so begun by earlier versions).
  local target = own == "2" and "-" .. lua or own == "1" and "-" .. group or lua
  if lua then execute("kill -s " .. name .. " -- " .. target .. " 2>/dev/null") end
end
local function ring()
  local bell = open(path .. "bell." .. lease, "r+b")
  if bell then
    bell:write("x")
    bell:close()
  end
end
-- Whether the interpreter waits for a child: it ignores the signal then, and only then.
local function waits()
  local lua = pids()
  local f = lua and open("/proc/" .. lua .. "/status", "rb")
  if not f then return false end
  local ignored = f:read("*a"):match("SigIgn:%s*%x*(%x)")
  f:close()
  return ignored and tonumber(ignored, 16) % 4 >= 2
end
local function interrupt(id, kind)
  spill("int", id .. " " .. kind)
  local running, mode = state()
  local sent = running == id and mode == "sig"
  if sent or (running == id and waits()) then signal("INT") end
  settle(id, sent and 1 or 0)
end
-- What a cut has left of a line ends here, and an interrupt that was left half done.
fifo:write("\n")
local int = (slurp("int") or ""):match("^(%d+) ")
local first = true
while true do
  local s = io.read("*l")
  if not s then break end
  -- Whose lease is over has lines that nobody obeys, so a line need not wait for that question.
  local plain = not first and s:sub(1, 1) ~= "."
  if plain then fifo:write(s .. "\n") end
  if slurp("lease") ~= lease then break end
  if first and int then settle(int, 1) end
  if first and s:sub(1, 1) ~= "." then fifo:write(s .. "\n") end
  first = false
  if not plain and s:sub(1, 1) == "." then
    local id, kind = s:match("^%. I (%d+) (%a) %.$")
    local again, what = s:match("^%. J (%d+) (%a) %.$")
    local stored = s:match("^%. A (%d+) %.$")
    local why = s:match("^%. K ([%l_]+) %.$")
    if id and state() == id and not slurp("int") then
      interrupt(id, kind)
    elseif again and state() == again then
      -- That it runs is told in the stream a moment before it is told in the state: then the first one found nothing to interrupt. Or a program that was
      -- just starting a child ignored the signal, and the child did not live yet. At any other time a second one would kill it.
      if not slurp("int") then interrupt(again, what) elseif waits() then signal("INT") end
    elseif s == ". R ." then
      ring()
    elseif stored then
      spill("acked", stored)
    elseif why then
      spill("why", why)
      local lua = pids()
      if lua then execute("kill -s KILL " .. lua .. " 2>/dev/null") end
    elseif s == ". P ." then
      local _, holder = pids()
      local lives = holder and execute("kill -0 " .. holder .. " 2>/dev/null")
      local stat = open("/proc/" .. (holder or 0) .. "/stat", "rb")
      if stat then
        if stat:read("*a"):match(".*%) Z") then lives = false end -- nobody has waited for it
        stat:close()
      end
      if holder and lives ~= true and lives ~= 0 and not slurp("exit") then
        spill("exit", "lost")
        ring()
      end
    end
  end
end
