# Looks at a session and prints one fact a line; then, unless it lives, begins its next life: $1 its owner, $2 its name, $3 the program that follows the
# stream, $4 what the one that relays lines begins with, $5 and $6 what the interpreter runs first and then over and over, $7 the lease, $8 the
# interpreter or nothing for the one that is found, $9 `wait` to be told first by a line. What begins has no effect before its program has come.
base=${XDG_STATE_HOME:-$HOME/.local/state}/vmoon/guest/$1/$2
printf 'base %s\n' "$base"
boot=unknown
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
printf 'boot %s\n' "$boot"
now=$boot
lua=
set -f
IFS=:
for name in lua5.4 lua lua5.3 lua5.2 lua5.1 luajit; do
  for path in $PATH; do
    if [ -f "$path/$name" ] && [ -x "$path/$name" ]; then
      lua=$path/$name
      break 2
    fi
  done
done
unset IFS
set +f
case $lua in /*) printf 'lua %s\n' "$lua" ;; *) lua= ;; esac
found=$lua
if [ -f "$base/environment" ]; then
  while read -r line; do printf 'env %s\n' "$line"; done <"$base/environment"
fi 2>/dev/null
life=0
{ read -r life <"$base/life"; } 2>/dev/null
how=none
if [ -d "$base/$life" ]; then
  how=lives
  cd "$base/$life" && note || exit 1
  [ ! -e exit ] || how=ended
fi
printf 'life %s %s\n' "$life" "$how"
[ $how != lives ] || exit 0
case $life in '' | *[!0-9]*) exit 0 ;; esac
echo ready
[ -z "$9" ] || read -r go || exit 0
fail() {
  echo f
  exit 0
}
lua=${8:-$found} n=$((life + 1))
command -v "$lua" >/dev/null || { echo "$lua cannot be run" >&2; fail; }
umask 077
if [ -d "$base/$n" ]; then
  # An attempt that was cut off.
  (cd "$base/$n" && note && [ ! -e exit ] && read -r main hold <pid && kill -s KILL $main) 2>/dev/null
  rm -rf "$base/$n" || fail
fi
# Each program that is run here costs about a millisecond of somebody's first answer. So what can be is done by the shell itself, the rest at the same time
# or afterwards, and a directory with FIFOs that an earlier life has left is taken by the first who writes its name into it.
dir=
set -C
for new in "$base"/new.*; do
  if [ -p "$new/bell" ] && echo $$ >"$new/claim"; then
    dir=$new
    break
  fi
done 2>/dev/null
set +C
if [ -z "$dir" ]; then
  dir=$base/new.$7
  { mkdir -p "$dir" && echo $$ >"$dir/claim" && mkfifo "$dir/in" "$dir/bell"; } || { rm -rf "$dir"; fail; }
fi
{ cd "$dir" && echo "$7" >lease && echo "$now" >boot && : >sleeper; } || { rm -rf "$dir"; fail; }
exec 3<&0 </dev/null
{
  trap '' HUP INT
  follow=$3 read=$4 begin=$5 lease=$7
  set -- -e "$6"
  set -- "$@" "$@" "$@" "$@" "$@"
  set -- "$@" "$@" "$@" "$@" "$@"
  set -- "$lua" -e "$begin" "$@" "$@" "$@" "$@"
  own=0
  if command -v setsid; then
    own=2
    set -- setsid "$@"
  fi
  {
    exec >>s.1 2>>s.2 3<&-
    cd "$HOME" || cd /
    VMOON_DIR=$base/$n VMOON_NEW=$dir exec "$@"
  } &
  main=$!
  stat= start=
  read -r stat </proc/self/stat
  if [ -n "$stat" ]; then
    hold=${stat%% *}
    set -- ${stat##*) }
    start=${20}
  else
    hold=$(exec sh -c 'echo $PPID')
  fi
  # Before the program can get there: who is told that it has begun can also interrupt and end it.
  echo "$main $hold $own $start" >pid
  {
    VMOON_DIR=. VMOON_LEASE=$lease VMOON_LIFE=$n VMOON_NEW=$dir "$lua" -e "$read" <&3 3<&-
    life=0
    read -r life <../life
    [ "$life" -ge $n ] || kill -s KILL $main
    for bell in bell bell.$lease; do
      if [ -p $bell ]; then echo q 1<>$bell; fi
    done
    cd "$base" || exit
    for old in [0-9]*; do
      [ "$old" -ge $((n - 1)) ] || rm -rf "$old"
    done
    left=
    for new in new.*; do
      { read -r claim <"$new/claim" && ! kill -0 "$claim" && rm -rf "$new"; } || left=$left$new
    done
    [ "$left" != 'new.*' ] || { mkdir "new.$lease" && mkfifo "new.$lease/in" "new.$lease/bell"; }
  } &
  exec 3<&-
  wait $main
  how=$?
  while kill -0 $main; do
    wait $main
    how=$?
  done
  life=0
  read -r life <../life
  if [ "$life" -lt $n ]; then
    # It never got its program.
    echo q 1<>bell
    rm -rf "$dir"
    exit
  fi
  if [ -s why ]; then read -r how <why; elif [ -s z ]; then read -r how <z; elif [ $how -gt 128 ]; then how="signal $((how - 128))"; fi
  echo "$how" >exit.new && mv -f exit.new exit
  if read -r lease <lease && [ -p "bell.$lease" ]; then echo x 1<>"bell.$lease"; fi
  [ $own = 0 ] || kill -s KILL -- -$main
} >/dev/null 2>&1 &
VMOON_DIR=. VMOON_LEASE=$7 VMOON_FROM=0
export VMOON_DIR VMOON_LEASE VMOON_FROM
exec "$lua" -e "$3" 3<&-
