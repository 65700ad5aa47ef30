--- Newick, read and written. Format: J. Felsenstein, "The Newick tree format", and G. Olsen, "Interpretation of the Newick's 8:45 tree
-- format standard".
local M = {}

local concat = table.concat

-- The line and column of a position, for messages.
local function place(text, at)
  local line, from = 1, 1
  while true do
    local stop = text:find("\n", from, true)
    if not stop or stop >= at then break end
    line, from = line + 1, stop + 1
  end
  return line, at - from + 1
end

local function fail(text, at, message)
  local line, column = place(text, at)
  error(("newick:%d:%d: %s"):format(line, column, message), 0)
end

-- Past blanks and comments. Returns the next place and the comment's text, if there was one.
local function skip(text, at)
  local comment
  while true do
    at = text:match("^%s*()", at)
    if text:sub(at, at) ~= "[" then return at, comment end
    local began, depth = at, 0
    repeat
      local bracket = text:find("[%[%]]", at)
      if not bracket then fail(text, began, "a comment that is not closed") end
      depth = depth + (text:sub(bracket, bracket) == "[" and 1 or -1)
      at = bracket + 1
    until depth == 0
    comment = comment or text:sub(began + 1, at - 2)
  end
end

local function quoted(text, at)
  local began, parts = at, {}
  at = at + 1
  while true do
    local quote = text:find("'", at, true)
    if not quote then fail(text, began, "a quoted name that is not closed") end
    parts[#parts + 1] = text:sub(at, quote - 1)
    at = quote + 1
    if text:sub(at, at) ~= "'" then return concat(parts, "'"), at end
    at = at + 1
  end
end

-- Name, length and comment after a leaf or a closing bracket.
local function label(text, at, node, underscores)
  local comment
  at, comment = skip(text, at)
  node.comment = comment
  if text:sub(at, at) == "'" then
    node.name, at = quoted(text, at)
    node.quoted = true
  else
    local name, after = text:match("^([^%s%(%)%[%]':;,]+)()", at)
    if name then
      node.name, at = underscores and name:gsub("_", " ") or name, after
    end
  end
  at, comment = skip(text, at)
  node.comment = node.comment or comment
  if text:sub(at, at) == ":" then
    at, comment = skip(text, at + 1)
    node.comment = node.comment or comment
    local digits, after = text:match("^([%+%-]?[%d%.]+[eE]?[%+%-]?%d*)()", at)
    local length = digits and tonumber(digits)
    if not length then fail(text, at, "a branch length is wanted after ':'") end
    node.length, at = length, after
    at, comment = skip(text, at)
    node.comment = node.comment or comment
  end
  return at
end

-- Names of inner nodes that are numbers are supports, as nearly every program writes them; quoted ones stay names.
local function settle(node)
  local support = not node.quoted and node.name and node.name:find("^[%d%.][%d%.eE%+%-]*$") and tonumber(node.name)
  if support and #node.children > 0 then node.support, node.name = support, nil end
  node.quoted = nil
end

-- One tree from `at` on. Returns it and the place after its semicolon, or nil if there is only blank space.
local function parse(text, at, underscores)
  at = skip(text, at)
  if at > #text then return nil end
  local root = { children = {} }
  local node, stack = root, {}
  while true do
    at = skip(text, at)
    local sign = text:sub(at, at)
    if sign == "(" then
      local child = { children = {} }
      node.children[1] = child
      stack[#stack + 1] = node
      node, at = child, at + 1
    else
      at = label(text, at, node, underscores)
      settle(node)
      sign = text:sub(at, at)
      while sign == ")" do
        node = stack[#stack]
        if not node then fail(text, at, "a closing bracket without an opening one") end
        stack[#stack] = nil
        at = label(text, at + 1, node, underscores)
        settle(node)
        sign = text:sub(at, at)
      end
      if sign == "," then
        local parent = stack[#stack]
        if not parent then fail(text, at, "a comma outside of all brackets") end
        node, at = { children = {} }, at + 1
        parent.children[#parent.children + 1] = node
      elseif sign == ";" then
        if #stack > 0 then fail(text, at, ("%d brackets are not closed"):format(#stack)) end
        return root, at + 1
      elseif sign == "" then
        fail(text, at, #stack > 0 and "the tree is cut off" or "a tree ends with ';'")
      else
        fail(text, at, ("unexpected '%s'"):format(sign:find("[%w%p]") and sign or "?"))
      end
    end
  end
end

-- Where the text begins: behind a byte order mark, if it has one.
local function first(text) return text:sub(1, 3) == "\239\187\191" and 4 or 1 end

--- Parses one tree. `options.underscores = "blank"` turns underscores in unquoted names into blanks, as the standard says and few programs
-- do; without it they stay. An inner node's unquoted name that is a number becomes its `support`. Of several comments at a node the first
-- is kept, as it stands in the brackets.
function M.parse(text, options)
  if type(text) ~= "string" then error("newick: a string is wanted, not a " .. type(text), 0) end
  local underscores = options and options.underscores == "blank"
  local tree, at = parse(text, first(text), underscores)
  if not tree then fail(text, 1, "there is no tree") end
  at = skip(text, at)
  if at <= #text then fail(text, at, "something follows the tree; trees() reads several") end
  return tree
end

--- Iterates over all trees of a text.
function M.trees(text, options)
  if type(text) ~= "string" then error("newick: a string is wanted, not a " .. type(text), 0) end
  local underscores, at = options and options.underscores == "blank", first(text)
  return function()
    local tree, after = parse(text, at, underscores)
    at = after or #text + 1
    return tree
  end
end

local function name_text(name)
  name = tostring(name)
  if name == "" then return "" end
  if name:find("[%s%(%)%[%]':;,]") then return "'" .. name:gsub("'", "''") .. "'" end
  return name
end

local function number_text(value, digits)
  if value ~= value or value == math.huge or value == -math.huge then error("newick: a length that is no number", 0) end
  return (("%." .. digits .. "g"):format(value))
end

--- The tree as Newick, with its semicolon. `options`: `lengths`, `supports`, `comments` (false leaves them out), `digits` (significant ones
-- of numbers, 10).
function M.write(tree, options)
  options = options or {}
  local digits = options.digits or 10
  local out, stack = {}, { { tree, 0 } }
  local function finish(node)
    local name = node.name and name_text(node.name) or ""
    if #node.children > 0 then
      -- A name that looks like a support is quoted, so that it is read as a name again.
      if name ~= "" and name:find("^[%d%.][%d%.eE%+%-]*$") and tonumber(name) then name = "'" .. name .. "'" end
      if name == "" and node.support and options.supports ~= false then name = number_text(node.support, digits) end
    end
    out[#out + 1] = name
    if node.length and options.lengths ~= false then out[#out + 1] = ":" .. number_text(node.length, digits) end
    if node.comment and options.comments ~= false then
      local _, opening = node.comment:gsub("%[", "")
      local _, closing = node.comment:gsub("%]", "")
      if opening ~= closing then error("newick: a comment whose brackets do not match", 0) end
      out[#out + 1] = "[" .. node.comment .. "]"
    end
  end
  while #stack > 0 do
    local top = stack[#stack]
    local node, at = top[1], top[2] + 1
    top[2] = at
    local child = node.children[at]
    if child then
      out[#out + 1] = at == 1 and "(" or ","
      stack[#stack + 1] = { child, 0 }
    else
      if #node.children > 0 then out[#out + 1] = ")" end
      finish(node)
      stack[#stack] = nil
    end
  end
  out[#out + 1] = ";"
  return concat(out)
end

return M
