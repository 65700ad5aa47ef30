-- What a NoCloud seed asks for, done as cloud-init does it: https://cloudinit.readthedocs.io/en/latest/reference/modules.html
--
-- Known are hostname and local-hostname, users and ssh_authorized_keys (of the default user, debian), ssh_keys, write_files without encodings, and
-- runcmd. The rest is told on the console and left alone. User data has the last word over vendor data. Only JSON is read.

local folder = arg[1]
local said = function(...) io.stderr:write("seed: ", string.format(...), "\n") end

-- JSON --------------------------------------------------------------------------------------------------------------------------------------------

local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function decode(text)
  local at, value = 1, nil
  local function wrong(what) error(string.format("%s at byte %d", what, at), 0) end
  local function blank() at = text:find("[^ \t\r\n]", at) or #text + 1 end
  local function take(char)
    blank()
    if text:sub(at, at) ~= char then return false end
    at = at + 1
    return true
  end
  local function quoted()
    local parts = {}
    if not take('"') then wrong("no string") end
    while true do
      local stop = text:find('["\\]', at) or wrong("a string without end")
      parts[#parts + 1] = text:sub(at, stop - 1)
      at = stop + 1
      if text:sub(stop, stop) == '"' then return table.concat(parts) end
      local letter = text:sub(at, at)
      at = at + 1
      if letter == "u" then
        local function unit()
          local hex = text:match("^%x%x%x%x", at) or wrong("no code point")
          at = at + 4
          return tonumber(hex, 16)
        end
        local code = unit()
        if code >= 0xD800 and code < 0xDC00 and text:sub(at, at + 1) == "\\u" then
          at = at + 2
          code = 0x10000 + (code - 0xD800) * 0x400 + (unit() - 0xDC00)
        end
        parts[#parts + 1] = utf8.char(code)
      else
        parts[#parts + 1] = escapes[letter] or wrong("an unknown escape")
      end
    end
  end
  local function list(last, one)
    if take(last) then return end
    repeat one() until not take(",")
    if not take(last) then wrong("no " .. last) end
  end
  function value()
    blank()
    local first = text:sub(at, at)
    if first == '"' then return quoted() end
    local found = {}
    if take("{") then
      list("}", function()
        local name = quoted()
        if not take(":") then wrong("no :") end
        found[name] = value()
      end)
      return found
    end
    if take("[") then
      list("]", function() found[#found + 1] = value() end)
      return found
    end
    local word = text:match("^[%w%.%+%-]+", at) or wrong("no value")
    at = at + #word
    if word == "true" then return true elseif word == "false" then return false elseif word == "null" then return nil end
    return tonumber(word) or wrong("no value")
  end
  local all = value()
  blank()
  if at <= #text then wrong("more after the end") end
  return all
end

-- Files -------------------------------------------------------------------------------------------------------------------------------------------

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function run(...)
  local words = {}
  for n = 1, select("#", ...) do words[n] = quote(select(n, ...)) end
  return os.execute(table.concat(words, " "))
end

local function write(path, text, mode, how)
  local file, why = io.open(path, how or "wb")
  if not file then return said("%s", why) end
  file:write(text)
  file:close()
  if mode then run("chmod", mode, path) end
end

-- What is asked for -------------------------------------------------------------------------------------------------------------------------------

local wanted = {}

local function take(name)
  local text = read(folder .. "/" .. name)
  if not text or text == "" then return end
  local config = text:match("^#cloud%-config[^\n]*\n(.*)$") or (name == "meta-data" and text)
  if not config then return said("%s is of a kind that this guest does not know", name) end
  local good, found = pcall(decode, config)
  if not good then return said("%s is not JSON: %s", name, found) end
  for key, value in pairs(found) do wanted[key] = value end
end

take("meta-data")
take("vendor-data")
take("user-data")

local known = "hostname local-hostname instance-id users ssh_authorized_keys ssh_keys write_files runcmd ssh_deletekeys ssh_pwauth disable_root " ..
  "manage_etc_hosts preserve_hostname fqdn "
for key in pairs(wanted) do
  if not known:find(key .. " ", 1, true) then said("%s is left alone", key) end
end

local name = wanted.hostname or wanted["local-hostname"]
if name then
  write("/etc/hostname", name .. "\n", "644")
  write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 " .. name .. "\n", "644")
end

local number = 1000

local function keys_of(user, home, id, keys)
  if not keys or #keys == 0 then return end
  run("mkdir", "-p", home .. "/.ssh")
  write(home .. "/.ssh/authorized_keys", table.concat(keys, "\n") .. "\n", "600")
  run("chmod", "700", home .. "/.ssh")
  run("chown", "-R", id .. ":" .. id, home)
end

local function user(given)
  local login = given.name
  if type(login) ~= "string" or not login:match("^[a-z_][a-z0-9_-]*$") or #login > 32 then
    return said("that is no name for a user: %s", tostring(login))
  end
  local keys = {}
  for _, key in ipairs(given.ssh_authorized_keys or {}) do
    if key:find("\n") then said("a key of several lines is left alone") else keys[#keys + 1] = key end
  end
  if login == "root" then return keys_of("root", "/root", 0, keys) end
  local home, id = given.homedir or table.concat({ "", "home", login }, "/"), number
  number = number + 1
  -- The shell of other systems may not be here.
  local shell = given.shell and read(given.shell) and given.shell or "/bin/sh"
  write("/etc/passwd", string.format("%s:x:%d:%d:%s:%s:%s\n", login, id, id, (given.gecos or ""):gsub("[:\n]", " "), home, shell), nil, "ab")
  write("/etc/shadow", string.format("%s:*:19000:0:99999:7:::\n", login), nil, "ab")
  write("/etc/group", string.format("%s:x:%d:\n", login, id), nil, "ab")
  run("mkdir", "-p", home)
  run("chmod", "755", home)
  run("chown", id .. ":" .. id, home)
  keys_of(login, home, id, keys)
end

for _, given in ipairs(wanted.users or { "default" }) do
  if given == "default" then
    user { name = "debian", ssh_authorized_keys = wanted.ssh_authorized_keys }
  elseif type(given) == "string" then
    user { name = given }
  else
    user(given)
  end
end

for key, text in pairs(wanted.ssh_keys or {}) do
  local kind, half = key:match("^(%l[%l%d]*)_(%l+)$")
  if half == "private" then
    write("/etc/ssh/ssh_host_" .. kind .. "_key", text:gsub("\n*$", "\n"), "600")
  elseif half == "public" then
    write("/etc/ssh/ssh_host_" .. kind .. "_key.pub", text:gsub("\n*$", "\n"), "644")
  else
    said("ssh_keys: %s is left alone", key)
  end
end

for _, file in ipairs(wanted.write_files or {}) do
  if file.encoding then
    said("%s: encodings are not known here", tostring(file.path))
  elseif type(file.path) == "string" and file.path:sub(1, 1) == "/" then
    run("mkdir", "-p", (file.path:gsub("[^/]*$", "")))
    write(file.path, file.content or "", file.permissions or "644", file.append and "ab" or "wb")
    if file.owner then run("chown", file.owner, file.path) end
  end
end

if wanted.runcmd then
  local lines = { "#!/bin/sh" }
  for _, command in ipairs(wanted.runcmd) do
    if type(command) == "table" then
      local words = {}
      for n, word in ipairs(command) do words[n] = quote(tostring(word)) end
      command = table.concat(words, " ")
    end
    lines[#lines + 1] = command
  end
  write("/run/runcmd", table.concat(lines, "\n") .. "\n", "700")
end
