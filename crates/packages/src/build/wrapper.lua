-- Runs the command of the same name in libexec, with the modules of the tree that both are in.
local tree, name = arg[0]:match("^(.*)/bin/([^/]+)$")
if not tree then
  name = arg[0]:match("([^/]+)$")
  tree = arg[0]:match("^bin/") and "." or ".."
end
local version = _VERSION:match("%d+%.%d+")
local modules = tree .. "/share/lua/" .. version
package.path = modules .. "/?.lua;" .. modules .. "/?/init.lua;" .. package.path
package.cpath = tree .. "/lib/lua/" .. version .. "/?.so;" .. package.cpath
arg[0] = tree .. "/libexec/" .. name
local command, problem = loadfile(arg[0])
if not command then
  error(problem, 0)
end
return command(...)
