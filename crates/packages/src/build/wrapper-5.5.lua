#!/usr/bin/env lua5.5
-- Runs the command of the same name in libexec, with the modules of the tree that both are in.
local tree, name = arg[0]:match("^(.*)/bin/([^/]+)$")
if not tree then
  name = arg[0]:match("([^/]+)$")
  tree = arg[0]:match("^bin/") and "." or ".."
end
package.path = tree .. "/share/lua/5.5/?.lua;" .. tree .. "/share/lua/5.5/?/init.lua;" .. package.path
package.cpath = tree .. "/lib/lua/5.5/?.so;" .. package.cpath
arg[0] = tree .. "/libexec/" .. name
local command, problem = loadfile(arg[0])
if not command then
  error(problem, 0)
end
return command(...)
