# Looks at what runs a host's Lua: $1 the interpreter. Prints one fact a line.
if found=$(command -v "$1" 2>/dev/null); then printf 'path %s\n' "$found"; fi
"$1" -e 'io.write("lua ", (_VERSION:gsub("^Lua ", "")), "\n")' 2>/dev/null </dev/null
printf 'machine %s\n' "$(uname -m 2>/dev/null)"
printf 'libc %s\n' "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
for cc in cc gcc clang; do
  if found=$(command -v "$cc" 2>/dev/null); then
    printf 'cc %s\n' "$found"
    break
  fi
done
