# Attaches to a session: $1 its directory, $2 the lease, $3 the offset, $4 the interpreter, $5 and $6 the programs that relay and follow.
if [ ! -p "$1/in" ]; then
  echo none
  exit 0
fi
cd "$1" && note
umask 077
[ -p "$1/bell.$2" ] || mkfifo "$1/bell.$2" || exit 1
VMOON_DIR=$1 VMOON_LEASE=$2 VMOON_FROM=$3
export VMOON_DIR VMOON_LEASE VMOON_FROM
cd /
exec 3<&0
{
  "$4" -e "$5" <&3 >/dev/null 2>&1 3<&-
  if [ -p "$1/bell.$2" ]; then echo q 1<>"$1/bell.$2"; else kill $$; fi
} 3<&3 >/dev/null 2>&1 &
exec "$4" -e "$6" 3<&- </dev/null
