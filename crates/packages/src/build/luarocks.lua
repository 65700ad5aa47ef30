-- The C library makes temporary names in /tmp, where a builder may not write.
local count = 0
function os.tmpname()
  count = count + 1
  local name = ("%s/lua-%s-%d"):format(os.getenv("TMPDIR"), tostring({}):match("%x+$"), count)
  assert(io.open(name, "w")):close()
  return name
end
