-- Says where modules are looked for from now on, and gives the names of those that are loaded already: path, cpath, and the templates that were
-- searched before. `require` and `package` may have been replaced by the program: the table that the searchers use is the one in `package.loaded`.
local path, cpath, templates = ...
local package = package
if type(package) ~= 'table' or type(package.loaded) ~= 'table' then package = require('package') end
package = package.loaded.package or package
package.path, package.cpath = path, cpath
local names = {}
for name in next, package.loaded do if type(name) == 'string' then names[#names + 1] = name end end
table.sort(names)
local found, at = {}, 0
for _, name in ipairs(names) do
  local file = name:gsub('%.', '/')
  for template in (path .. ';' .. cpath .. ';' .. templates):gmatch('[^;]+') do
    if template:sub(1, 2) ~= './' then
      local f = io.open((template:gsub('%?', (file:gsub('%%', '%%%%')))), 'r')
      if f then f:close() at = at + 1 found[at] = name break end
    end
  end
end
return found
