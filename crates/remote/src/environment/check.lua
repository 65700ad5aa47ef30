-- Whether the C modules whose paths come on standard input can be loaded by this interpreter: a line `PATH<tab>WHY` for each that cannot. Nothing of
-- them is called: no function has that name, and how that is said tells whether the file itself was opened.
for path in io.lines() do
  local _, why, where = package.loadlib(path, "vmoon_no_such_function")
  if where ~= "init" then io.write(path, "\t", (tostring(why):gsub("%s+", " ")), "\n") end
end
