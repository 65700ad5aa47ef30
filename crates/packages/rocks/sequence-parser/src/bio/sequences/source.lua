--- Where lines come from: files, handles, functions, text; plain or gzip. Memory is bounded by the longest line.
local M = {}

local PIECE, BITE = 65536, 16384

--- Wraps a string so that readers take it as content and not as a path.
function M.text(content, name)
  if type(content) ~= "string" then error("text: a string is wanted, not a " .. type(content), 0) end
  return { text = content, name = name or "text" }
end

-- Unpacked pieces of a gzip stream. Several members one after the other, as bgzip writes them, are one file.
local function gunzip(pieces, name)
  local found, zlib = pcall(require, "zlib")
  if not found or type(zlib) ~= "table" or not zlib.inflate then
    error(name .. ": this is gzip, and the module 'zlib' is not there; install the rock lua-zlib", 0)
  end
  local stream, waiting, consumed, inside = zlib.inflate(), "", 0, false
  return function()
    while true do
      if waiting == "" then
        waiting = pieces()
        if waiting == nil then
          waiting = ""
          if inside then error(name .. ": the gzip stream is cut off", 0) end
          return nil
        end
      end
      -- Zeros may follow the last member, as tape archivers pad.
      if not inside then waiting = waiting:gsub("^%z+", "") end
      if waiting ~= "" then
        -- Small bites: what comes out may be a thousand times as long.
        local bite = waiting:sub(1, BITE)
        inside = true
        local ok, out, eof, used = pcall(stream, bite)
        if not ok then error(name .. ": not a valid gzip stream, or damaged", 0) end
        if eof then
          -- `used` counts from the beginning of the member.
          waiting = waiting:sub(used - consumed + 1)
          stream, consumed, inside = zlib.inflate(), 0, false
        else
          waiting = waiting:sub(BITE + 1)
          consumed = consumed + #bite
        end
        if out and out ~= "" then return out end
      end
    end
  end
end

-- A function that gives piece after piece, a name for messages, and what to close at the end.
local function pieces_of(source)
  if type(source) == "string" then
    if not io then error(source .. ": this runtime opens no files; give text(..) or a function", 0) end
    local file, problem = io.open(source, "rb")
    if not file then error(tostring(problem), 0) end
    return function() return file:read(PIECE) end, source, file
  elseif type(source) == "function" then
    return source, "input", nil
  elseif type(source) == "table" and type(source.text) == "string" then
    local done = false
    return function()
      if done then return nil end
      done = true
      return source.text
    end, source.name or "text", nil
  elseif (type(source) == "userdata" or type(source) == "table") and source.read then
    return function() return source:read(PIECE) end, "file", nil
  end
  error("a path, an open file, a function or text(..) is wanted, not a " .. type(source), 0)
end

--- The pieces of a source as they come, unpacked, and an object with `name`, `number` (a line, kept by who reads), `fail(message, line)`
-- and `close()`.
function M.pieces(source)
  local pieces, name, file = pieces_of(source)
  local where = { name = name, number = 0 }
  function where.close()
    if file then
      file:close()
      file = nil
    end
  end
  function where.fail(message, number)
    where.close()
    error(("%s:%d: %s"):format(name, number or where.number, message), 0)
  end
  local function guarded(read)
    return function()
      local ok, piece = pcall(read)
      if not ok then
        where.close()
        error(piece, 0)
      end
      if piece ~= nil and type(piece) ~= "string" then where.fail("the source gave a " .. type(piece) .. " instead of text") end
      return piece
    end
  end
  pieces = guarded(pieces)
  -- Two bytes tell gzip; a function may give less than that at once.
  local head = pieces()
  while head and #head < 2 do
    local more = pieces()
    if not more then break end
    head = head .. more
  end
  if head and head:find("^\031\139") then
    local compressed, first = pieces, head
    pieces = guarded(gunzip(function()
      local piece = first
      if piece then
        first = nil
        return piece
      end
      return compressed()
    end, name))
    head = pieces()
  end
  -- A byte order mark says nothing that is not known.
  while head and #head < 3 and ("\239\187\191"):sub(1, #head) == head do
    local more = pieces()
    if not more then break end
    head = head .. more
  end
  if head and head:sub(1, 3) == "\239\187\191" then head = head:sub(4) end
  return function()
    local piece = head
    if piece then
      head = nil
      return piece
    end
    return pieces()
  end, where
end

--- Iterates over the lines of a source, without their ends (`\n` or `\r\n`). Returns the iterator, which gives a line or nil, and an object
-- with `name`, `number` (of the line given last), `fail(message)` and `close()`.
function M.lines(source)
  local pieces, where = M.pieces(source)
  local buffer, at, ended = "", 1, false
  return function()
    local stop = buffer:find("\n", at, true)
    if not stop and not ended then
      -- A line over many pieces: they are joined once.
      local parts = { buffer:sub(at) }
      repeat
        local piece = pieces()
        if not piece then
          ended = true
          break
        end
        parts[#parts + 1] = piece
      until piece:find("\n", 1, true)
      buffer, at = table.concat(parts), 1
      stop = buffer:find("\n", 1, true)
    end
    local line
    if stop then
      line = buffer:sub(at, stop - 1)
      at = stop + 1
    else
      if at > #buffer then
        where.close()
        return nil
      end
      line = buffer:sub(at)
      buffer, at = "", 1
    end
    where.number = where.number + 1
    if line:sub(-1) == "\r" then line = line:sub(1, -2) end
    return line
  end, where
end

--- Where text goes to: a path, an open file, or a function that takes pieces. Returns `write(text)` and `close()`.
-- `options.gzip` packs what is written to a path or a function.
function M.sink(target, options)
  local put, finish
  if type(target) == "string" then
    if not io then error(target .. ": this runtime opens no files; give a function", 0) end
    local file, problem = io.open(target, "wb")
    if not file then error(tostring(problem), 0) end
    put = function(text)
      local ok, why = file:write(text)
      if not ok then error(("%s: %s"):format(target, tostring(why)), 0) end
    end
    finish = function()
      local ok, why = file:close()
      if not ok then error(("%s: %s"):format(target, tostring(why)), 0) end
    end
  elseif type(target) == "function" then
    put, finish = target, function() end
  elseif (type(target) == "userdata" or type(target) == "table") and target.write then
    put, finish = function(text) target:write(text) end, function() end
  else
    error("a path, an open file or a function is wanted, not a " .. type(target), 0)
  end
  if not (options and options.gzip) then return put, finish end
  local found, zlib = pcall(require, "zlib")
  if not found or type(zlib) ~= "table" or not zlib.deflate then
    error("gzip is wanted, and the module 'zlib' is not there; install the rock lua-zlib", 0)
  end
  -- 15 bits of window, 16 more for a gzip header.
  local stream = zlib.deflate(6, 31)
  local function send(text, how)
    local out = stream(text, how)
    if out and out ~= "" then put(out) end
  end
  return function(text) send(text) end, function()
    send("", "finish")
    finish()
  end
end

return M
