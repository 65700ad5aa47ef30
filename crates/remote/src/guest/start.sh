# Begins a session, as a function: $1 its base, $2 the number of this life, $3 the interpreter, $4 and $5 what it runs first and then over and over, $6 the
# size of the program, which comes on standard input and is read to its end whatever happens, $7 the lease whose bell is made with it. 72: that life is there
# already. Each program that is run here costs about a millisecond of somebody's first answer, so what can be is done by the shell itself, or while others start.
start() {
umask 077
[ -d "$1" ] || mkdir -p "$1" || return 71
dir=$1/$2
VMOON_SIZE=$6 VMOON_PROG=$dir/prog
mkdir "$dir" 2>/dev/null || VMOON_PROG=
export VMOON_SIZE VMOON_PROG
"$3" -e 'local n, to = tonumber(os.getenv("VMOON_SIZE")), os.getenv("VMOON_PROG")
local s = io.read(n) or ""
if #s ~= n or s:sub(-4) ~= "END\n" then os.exit(1) end
if to ~= "" then
  local f = assert(io.open(to, "wb"))
  assert(f:write(s) and f:close())
end' && { [ -z "$VMOON_PROG" ] || mkfifo "$dir/in" "$dir/up" "$dir/bell.$7"; } || { [ -z "$VMOON_PROG" ] || rm -rf "$dir"; return 73; }
[ -n "$VMOON_PROG" ] || return 72
unset VMOON_SIZE VMOON_PROG
boot=unknown
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
echo "$boot" >"$dir/boot" && : >"$dir/s.1" && : >"$dir/s.2" || { rm -rf "$dir"; return 73; }
echo "$2" >"$1/life.new" && mv -f "$1/life.new" "$1/life" || { rm -rf "$dir"; return 73; }
VMOON_DIR=$dir
export VMOON_DIR
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
[ "$life" -le 2 ] || rm -rf "$base/$((life - 2))"
return 0
}
