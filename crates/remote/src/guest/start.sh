# Begins a session, as a function: $1 its base, $2 the number of this life, $3 the interpreter, $4 and $5 what it runs first and then over and over, $6 the
# size of the program, which comes on standard input and is read to its end whatever happens, $7 the lease whose bell is made with it. 72: that life is there
# already. Each program that is run here costs about a millisecond of somebody's first answer, so what can be is done by the shell itself, or while others start.
start() {
umask 077
[ -d "$1" ] || mkdir -p "$1" || return 71
dir=$1/$2
VMOON_SIZE=$6 VMOON_BASE=$1 VMOON_LIFE=$2 VMOON_BELL=$dir/bell.$7 VMOON_DIR=$dir VMOON_BOOT=unknown made=
if mkdir "$dir" 2>/dev/null; then
  mkfifo "$dir/in" "$dir/up" "$VMOON_BELL" &
  made=$!
fi
{ read -r VMOON_BOOT </proc/sys/kernel/random/boot_id; } 2>/dev/null
VMOON_MADE=$made
export VMOON_SIZE VMOON_BASE VMOON_LIFE VMOON_BELL VMOON_DIR VMOON_BOOT VMOON_MADE
# What is written last makes it the newest life. If the FIFOs are not there by then, the shell waits for them and writes it.
"$3" -e 'local env = os.getenv
local n, dir = tonumber(env("VMOON_SIZE")), env("VMOON_DIR")
local s = io.read(n) or ""
if #s ~= n or s:sub(-4) ~= "END\n" then os.exit(1) end
if env("VMOON_MADE") == "" then os.exit(0) end
local function write(name, text)
  local f = assert(io.open(name, "wb"))
  assert(f:write(text) and f:close())
end
write(dir .. "/prog", s)
write(dir .. "/boot", env("VMOON_BOOT") .. "\n")
write(dir .. "/s.1", "")
write(dir .. "/s.2", "")
local life = env("VMOON_BASE") .. "/life"
write(life .. ".new", env("VMOON_LIFE") .. "\n")
for _, name in ipairs { dir .. "/in", dir .. "/up", env("VMOON_BELL") } do
  local f = io.open(name, "r+b")
  if not f then os.exit(0) end
  f:close()
end
assert(os.rename(life .. ".new", life))' && { [ -z "$made" ] || wait $made; } || { [ -z "$made" ] || { wait $made; rm -rf "$dir" "$1/life.new"; }; return 73; }
[ -n "$made" ] || return 72
[ ! -e "$1/life.new" ] || mv -f "$1/life.new" "$1/life" || { rm -rf "$dir"; return 73; }
unset VMOON_SIZE VMOON_BASE VMOON_LIFE VMOON_BELL VMOON_BOOT VMOON_MADE
base=$1 life=$2 lua=$3 begin=$4 again=$5
set -- "$lua" -e "$begin"
i=0
while [ $i -lt 100 ]; do
  set -- "$@" -e "$again"
  i=$((i + 1))
done
cd "$HOME" 2>/dev/null || cd /
hold='own=$1; shift; trap "" HUP INT
"$@" </dev/null >>"$VMOON_DIR/s.1" 2>>"$VMOON_DIR/s.2" 4<&- &
lua=$!
stat=; { read -r stat <"/proc/$$/stat"; } 2>/dev/null
set -- ${stat##*) }
start=${20}
cd "$VMOON_DIR" || exit 1
# In one piece: who reads it sees all of it or nothing.
echo "$lua $$ $own $start" >pid
# Who is told that it has begun can also interrupt and end it: it says nothing before it has read this.
echo up >&4
wait $lua; how=$?
while kill -0 $lua 2>/dev/null; do wait $lua; how=$?; done
if [ -s why ]; then read -r how <why; elif [ -s z ]; then read -r how <z; elif [ $how -gt 128 ]; then how="signal $((how - 128))"; fi
echo "$how" >exit.new && mv -f exit.new exit
if read -r lease <lease && [ -p "bell.$lease" ]; then echo x 1<>"bell.$lease"; fi
[ "$own" = 0 ] || kill -s KILL -- -$$'
# Both ends, so that neither side ever waits for the other to open it, nor is what was written gone before it is read.
exec 4<>"$dir/up"
if command -v setsid >/dev/null 2>&1; then
  setsid sh -c "$hold" vmoon 1 "$@" </dev/null >/dev/null 2>&1 &
else
  sh -c "$hold" vmoon 0 "$@" </dev/null >/dev/null 2>&1 &
fi
exec 4<&-
[ "$life" -le 2 ] || (rm -rf "$base/$((life - 2))" </dev/null >/dev/null 2>&1 &)
return 0
}
