-- Reads a session's files from an offset on and writes them to standard output, for ever; one runs for each connection to a session.
-- Written lines: `h LAST RUNNING WAITS WAITING MODE LEFT AT END` once (LEFT: seconds to the deadline, -1 for
-- none; AT: up to which offset of the stream that is so), `g OLDEST` (what is
-- before that offset is gone), `x` (no such offset), `o LEN` and `d LEN` with that many bytes of stream or answers, `e HOW` when the session
-- is over and everything was told.
local getenv, open, remove, rename = os.getenv, io.open, os.remove, os.rename
local path, lease, from = getenv("VMOON_DIR") .. "/", getenv("VMOON_LEASE"), tonumber(getenv("VMOON_FROM"))
local out = io.stdout
out:setvbuf("full", 131072)
local function slurp(name, what)
  local f = open(path .. name, "rb")
  if not f then return nil end
  local s = f:read(what or "*l")
  f:close()
  return s
end
local before = slurp("lease")
local f = assert(open(path .. "lease." .. lease, "wb"))
f:write(lease, "\n")
f:close()
assert(rename(path .. "lease." .. lease, path .. "lease"))
if before and before ~= lease then
  local old = open(path .. "bell." .. before, "r+b")
  if old then
    old:write("q")
    old:close()
  end
  remove(path .. "bell." .. before)
end
-- It has its name when the session has begun.
local bell = open(path .. "bell", "r+b") or assert(open(path .. "bell." .. lease, "r+b"))
bell:setvbuf("no")
-- Sessions that earlier versions have begun look for a file.
local sleeper, naps = open(path .. "sleeper", "r+b"), 0
if sleeper then sleeper:setvbuf("no") end
local function arm()
  if not sleeper then return open(path .. "want", "wb"):close() end
  naps = naps + 1
  sleeper:seek("set", 0)
  sleeper:write(("%-40s"):format(lease .. " " .. naps))
end
local function sleep()
  if bell:read(1) == "q" then os.exit(0) end
end
local function over() return slurp("exit") end

local state = slurp("state")
while not state and not over() do
  arm()
  state = slurp("state")
  if not state and not over() then
    sleep()
    state = slurp("state")
  end
end
local last, running, waits, waiting, mode, due, known = (state or ""):match("^(%d+) (%d+) (%d+) (%d) (%a+) (%d+) (%d+)")
local bases = {}
for n in (slurp("segments", "*a") or "0"):gmatch("%d+") do bases[#bases + 1] = tonumber(n) end
local function segment(base) return open(path .. "o." .. ("%.0f"):format(base), "rb") end
local finish = bases[#bases]
while true do -- segments may have been added since
  local s = segment(finish)
  if not s then break end
  local size = s:seek("end")
  s:close()
  local more = size > 0 and segment(finish + size)
  finish = finish + size
  if not more then break end
  more:close()
  bases[#bases + 1] = finish
end
local left = due and tonumber(due) > 0 and math.max(0, due - os.time()) or -1
out:write(("h %s %s %s %s %s %d %s %.0f\n"):format(last or 0, running or 0, waits or 0, waiting or 0, mode or "sig", left, known or 0, finish))
if from < bases[1] then
  out:write(("g %.0f\n"):format(bases[1]))
  from = bases[1]
end
local base = bases[1]
for i = 1, #bases do
  if bases[i] <= from then base = bases[i] end
end
local file = segment(base)
local fine = file and from <= finish
if fine and from ~= base and from ~= finish then
  local s, p, goal = file:read(from - base) or "", 0, from - base
  while p < goal do
    local a, b, c, d = s:byte(p + 1, p + 4)
    if not d then break end
    p = p + 4 + a + b * 256 + c * 65536 + d * 16777216
  end
  fine = p == goal
end
if not fine then
  -- A host that lost its power has lost the end of what it had told; that the session is over is true all the same.
  local how = over()
  out:write(how and "e " .. how .. "\n" or "x\n")
  out:flush()
  os.exit(0)
end
file:seek("set", from - base)
out:flush()
local letters
local at = from
local function pour(kind, s)
  out:write(kind, " ", #s, "\n", s)
  out:flush()
end
local function answers()
  letters = letters or open(path .. "d." .. lease, "rb")
  local s = letters and letters:read(65536)
  if s then pour("d", s) end
  return s
end
local function some()
  local any, size = false, 4096 -- most often there is little, and so much room is made for it each time
  while true do
    local s = file:read(size)
    if s then
      if #s == size then size = 65536 end
      any, at = true, at + #s
      pour("o", s)
      answers() -- they must not wait behind a long stream
    else
      local more = at > base and segment(at)
      if not more then break end
      -- This one was finished before the next was begun: one more look finds its end.
      s = file:read(65536)
      if s then
        at = at + #s
        pour("o", s)
        more:close()
      else
        file:close()
        file, base = more, at
      end
      any = true
    end
  end
  while answers() do any = true end
  return any
end
while true do
  if not some() then
    local how = over()
    arm()
    if not some() then
      if how then
        out:write("e ", how, "\n")
        out:flush()
        os.exit(0)
      end
      if not over() then sleep() end
    end
  end
end
