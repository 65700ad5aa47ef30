# Notes that the life in the current directory is over, if its processes are gone or the host was started anew since. Runs in a function so
# that it has arguments of its own.
note() {
  [ ! -e exit ] || return 0
  boot=unknown born=
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
  { read -r born <boot; } 2>/dev/null
  if [ "$born" != "$boot" ]; then
    echo rebooted >exit.look && mv -f exit.look exit
  elif { read -r lua group own start <pid; } 2>/dev/null; then
    stat=
    { read -r stat <"/proc/$group/stat"; } 2>/dev/null
    set -- ${stat##*) }
    if ! kill -0 "$group" 2>/dev/null || [ "$1" = Z ] || { [ -n "$stat" ] && [ -n "$start" ] && [ "${20}" != "$start" ]; }; then
      [ -e exit ] || { echo lost >exit.look && mv -f exit.look exit; }
    fi
  fi
}
