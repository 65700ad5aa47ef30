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
if [ -f "$base/environment" ]; then
  while read -r line; do printf 'env %s\n' "$line"; done <"$base/environment"
fi 2>/dev/null
life=0
{ read -r life <"$base/life"; } 2>/dev/null
how=none
if [ -d "$base/$life" ]; then
  cd "$base/$life" || exit 1
  note
  how=lives
  [ ! -e exit ] || how=ended
fi
printf 'life %s %s\n' "$life" "$how"
