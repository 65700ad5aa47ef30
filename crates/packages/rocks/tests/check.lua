--- What the tests of the rocks use: cases, comparisons, a report. A failed case is told with its place; the program then ends with status
-- 1.
local M = {}

local passed, failed = 0, {}

--- Runs a case; what it raises makes it fail.
function M.case(name, body)
  local ok, problem = xpcall(body, debug.traceback)
  if ok then passed = passed + 1 else failed[#failed + 1] = name .. ": " .. tostring(problem) end
end

local function show(value)
  if type(value) == "string" then return ("%q"):format(value) end
  return tostring(value)
end

local function same(got, wanted, path)
  if type(got) == "table" and type(wanted) == "table" then
    for key, value in pairs(wanted) do same(got[key], value, path .. "." .. tostring(key)) end
    for key, value in pairs(got) do
      if wanted[key] == nil then error(("%s.%s: %s is not wanted"):format(path, tostring(key), show(value)), 0) end
    end
  elseif got ~= wanted then
    error(("%s: %s, wanted %s"):format(path, show(got), show(wanted)), 0)
  end
end

--- Both are the same, tables by what is in them.
function M.equal(got, wanted)
  local ok, problem = pcall(same, got, wanted, "value")
  if not ok then error(problem, 2) end
end

--- The number is that near to what is wanted.
function M.near(got, wanted, within)
  if type(got) ~= "number" or not (math.abs(got - wanted) <= within) then
    error(("%s, wanted %s within %s"):format(show(got), show(wanted), show(within)), 2)
  end
end

--- The function raises a sentence that has this text in it.
function M.fails(body, text)
  local ok, problem = pcall(body)
  if ok then error("nothing was raised", 2) end
  if type(problem) ~= "string" or not problem:find(text, 1, true) then
    error(("raised %s, wanted %s"):format(show(problem), show(text)), 2)
  end
end

--- Reads an iterator to its end.
function M.all(iterator)
  local list = {}
  for one in iterator do list[#list + 1] = one end
  return list
end

--- Random numbers that are the same everywhere: a function that gives a whole number from 1 to n.
function M.random(seed)
  local state = seed
  return function(n)
    -- Park and Miller's; all products stay below 2^53.
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

--- A random sequence of bases.
function M.bases(random, length)
  local letters, out = { "A", "C", "G", "T" }, {}
  for at = 1, length do out[at] = letters[random(4)] end
  return table.concat(out)
end

--- Feeds a reader spoilt input: every outcome must be an end or a sentence, never another error.
-- `read(text)` reads to the end; `samples` are good texts, which are cut, changed, and mixed with random bytes.
function M.spoil(read, samples, rounds)
  local random = M.random(20260101)
  local function bytes(length)
    local out = {}
    for at = 1, length do out[at] = string.char(random(256) - 1) end
    return table.concat(out)
  end
  for round = 1, rounds do
    local text = samples[random(#samples)]
    local kind = random(5)
    if kind == 1 then
      text = bytes(random(300))
    elseif kind == 2 then
      text = text:sub(1, random(#text))
    elseif kind == 3 then
      for _ = 1, random(8) do
        local at = random(#text)
        text = text:sub(1, at - 1) .. bytes(1) .. text:sub(at + 1)
      end
    elseif kind == 4 then
      local from = random(#text)
      text = text:sub(1, from) .. text:sub(random(#text))
    else
      local at = random(#text)
      text = text:sub(1, at) .. samples[random(#samples)]:sub(random(20)) .. bytes(random(10)) .. text:sub(at + 1)
    end
    local ok, problem = pcall(read, text)
    -- An error of ours is a sentence without a place in our own source.
    if not ok and (type(problem) ~= "string" or #problem < 10 or problem:find("%.lua:%d+:")) then
      error(("round %d: %s\ninput: %q"):format(round, tostring(problem), text), 2)
    end
  end
end

--- Tells how it went and ends the program.
function M.done()
  for _, one in ipairs(failed) do io.stderr:write("FAILED ", one, "\n") end
  io.stdout:write(("%s: %d passed, %d failed\n"):format(_VERSION, passed, #failed))
  os.exit(#failed == 0 and passed > 0 and 0 or 1)
end

return M
