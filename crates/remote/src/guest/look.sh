# Looks at a session: $1 its owner, $2 its name. Prints one fact a line.
base=${XDG_STATE_HOME:-$HOME/.local/state}/vmoon/guest/$1/$2
printf 'base %s\n' "$base"
boot=unknown
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
printf 'boot %s\n' "$boot"
for lua in lua5.4 lua lua5.3 lua5.2 lua5.1 luajit; do
  if found=$(command -v "$lua" 2>/dev/null); then
    printf 'lua %s\n' "$found"
    break
  fi
done
life=0
{ read -r life <"$base/life"; } 2>/dev/null
how=none
if [ -d "$base/$life" ]; then
  cd "$base/$life" || exit 1
  if [ ! -e exit ]; then
    born=
    { read -r born <boot; } 2>/dev/null
    if [ "$born" != "$boot" ]; then
      echo rebooted >exit.look && mv -f exit.look exit
    elif { read -r lua group own start <pid; } 2>/dev/null; then
      stat=
      { read -r stat <"/proc/$group/stat"; } 2>/dev/null
      stat=${stat##*) }
      set -- $stat
      if ! kill -0 "$group" 2>/dev/null || [ "$1" = Z ] || { [ -n "$stat" ] && [ -n "$start" ] && [ "${20}" != "$start" ]; }; then
        [ -e exit ] || { echo lost >exit.look && mv -f exit.look exit; }
      fi
    fi
  fi
  how=lives
  [ ! -e exit ] || how=ended
fi
printf 'life %s %s\n' "$life" "$how"
