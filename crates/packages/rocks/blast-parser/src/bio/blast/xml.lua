--- A small reader of XML: tags and text, one after the other, of a stream. Made for what it reads, so that nothing can be done with it that
-- is not needed.
--
-- It resolves the five entities of XML and numbers. It loads nothing, defines nothing: a DOCTYPE may name a DTD, which is not read, but
-- may not declare anything. Depth, names and texts have bounds. Not checked is what XML forbids and nobody is harmed by.
local source = require "bio.sequences.source"
local M = {}

local DEPTH, NAME, TEXT = 64, 256, 64 * 1024 * 1024
local NAMED = { lt = "<", gt = ">", amp = "&", quot = '"', apos = "'" }

local function utf8_of(code)
  local char = string.char
  local floor = math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64) end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

--- Iterates over events: `"open", name`, `"close", name` and `"text", text`; an empty element gives open and close. Text of nothing but
-- blanks between tags is given too. Returns the iterator and the object that knows the line (`fail`, `close`).
function M.events(input)
  local pieces, where = source.pieces(input)
  local buffer, at, ended = "", 1, false
  where.number = 1
  local stack, closing, finished, began = {}, nil, false, false

  local function more()
    if ended then return false end
    local piece = pieces()
    if not piece then
      ended = true
      return false
    end
    buffer, at = buffer:sub(at) .. piece, 1
    return true
  end
  -- Where `what` is next, reading on as needed; nil at the end. Pieces are joined once, so that a long text costs no more than its length.
  local function find(what, from, bound)
    local found = buffer:find(what, from, true)
    if found then return found end
    local parts, size = { buffer:sub(at) }, #buffer - at + 1
    -- What may be the beginning of `what`, cut in two.
    local tail = buffer:sub(math.max(from, #buffer - #what + 2))
    while not ended do
      local piece = pieces()
      if not piece then
        ended = true
        break
      end
      parts[#parts + 1] = piece
      local probe = tail .. piece
      local hit = probe:find(what, 1, true)
      if hit then
        buffer, at = table.concat(parts), 1
        return size - #tail + hit
      end
      size = size + #piece
      if size > bound then where.fail(("something longer than %d bytes"):format(bound)) end
      tail = #what > 1 and probe:sub(1 - #what) or ""
    end
    buffer, at = table.concat(parts), 1
    return nil
  end
  local function pass(to)
    local _, lines = buffer:sub(at, to - 1):gsub("\n", "")
    where.number = where.number + lines
    at = to
  end
  local function decode(text)
    if not text:find("&", 1, true) then return text end
    local decoded = text:gsub("&([^;&]*)(;?)", function(name, semicolon)
      if semicolon == "" then where.fail("an '&' that begins no entity") end
      if NAMED[name] then return NAMED[name] end
      local hexadecimal = name:match("^#x(%x+)$")
      local digits = name:match("^#(%d+)$")
      local code = hexadecimal and #hexadecimal <= 8 and tonumber(hexadecimal, 16) or digits and #digits <= 9 and tonumber(digits)
      if not code or code == 0 or code > 0x10FFFF or (code >= 0xD800 and code < 0xE000) then
        where.fail(("the entity '&%s;' is not known"):format(name:sub(1, 20):gsub("[^%w#]", "?")))
      end
      return utf8_of(code)
    end)
    return decoded
  end
  -- Comments, instructions, CDATA, DOCTYPE: returns text for CDATA, else nil.
  local function special()
    while #buffer - at < 9 and more() do end
    if buffer:sub(at, at + 3) == "<!--" then
      local stop = find("-->", at + 4, TEXT)
      if not stop then where.fail("a comment that is not closed") end
      pass(stop + 3)
    elseif buffer:sub(at, at + 8) == "<![CDATA[" then
      if #stack == 0 then where.fail("text outside of the document") end
      local stop = find("]]>", at + 9, TEXT)
      if not stop then where.fail("a CDATA section that is not closed") end
      local text = buffer:sub(at + 9, stop - 1)
      pass(stop + 3)
      return text
    elseif buffer:sub(at, at + 1) == "<?" then
      local stop = find("?>", at + 2, TEXT)
      if not stop then where.fail("an instruction that is not closed") end
      pass(stop + 2)
    elseif buffer:sub(at, at + 8) == "<!DOCTYPE" then
      if began then where.fail("a DOCTYPE after the document's first tag") end
      local stop = find(">", at + 9, 65536)
      if not stop then where.fail("a DOCTYPE that is not closed") end
      if buffer:sub(at, stop):find("[", 1, true) then where.fail("a DOCTYPE that declares something is refused") end
      pass(stop + 1)
    else
      where.fail("a declaration that is not known")
    end
    return nil
  end

  return function()
    if closing then
      local name = closing
      closing, stack[#stack] = nil, nil
      if #stack == 0 then finished = true end
      return "close", name
    end
    while true do
      local bracket = find("<", at, TEXT)
      if not bracket then
        local rest = buffer:sub(at)
        if #stack > 0 then where.fail(("the document is cut off: <%s> is not closed"):format(stack[#stack])) end
        if rest:find("%S") then where.fail(began and "text after the document" or "this is no XML") end
        where.close()
        if not began then where.fail("this is no XML: there is no tag in it") end
        return nil
      end
      if bracket > at then
        local text = buffer:sub(at, bracket - 1)
        if #stack > 0 then
          local decoded = decode(text)
          pass(bracket)
          return "text", decoded
        end
        if text:gsub("^\239\187\191", ""):find("%S") then where.fail("text outside of the document") end
        pass(bracket)
      end
      if #buffer - at < 2 then more() end
      local mark = buffer:sub(at + 1, at + 1)
      if mark == "!" or mark == "?" then
        local text = special()
        if text then return "text", text end
      else
        local stop = find(">", at + 1, 65536)
        if not stop then where.fail("a tag that is not closed") end
        local tag = buffer:sub(at + 1, stop - 1)
        if tag:find("<", 1, true) then where.fail("a '<' inside of a tag") end
        local slash, name, rest = tag:match("^(/?)([%a_:][%w_:%.%-]*)(.*)$")
        if not name or #name > NAME then where.fail("a tag without a name") end
        if slash == "/" then
          if rest:find("%S") then where.fail(("</%s> has more than its name"):format(name)) end
          if stack[#stack] ~= name then
            where.fail(#stack == 0 and ("</%s> closes nothing"):format(name) or ("</%s> where <%s> is open"):format(name, stack[#stack]))
          end
          stack[#stack] = nil
          if #stack == 0 then finished = true end
          pass(stop + 1)
          return "close", name
        end
        if finished then where.fail(("<%s> after the document"):format(name)) end
        if #stack >= DEPTH then where.fail(("more than %d tags inside of each other"):format(DEPTH)) end
        if rest ~= "" and not rest:find("^[%s/]") then where.fail("a tag without a name") end
        began = true
        stack[#stack + 1] = name
        if rest:sub(-1) == "/" then closing = name end
        pass(stop + 1)
        return "open", name
      end
    end
  end, where
end

return M
