#!/bin/sh
# Process 1 of the guest. The words of the kernel's command line are told in lib.rs.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
name=guest
for word in $(cat /proc/cmdline); do
  case $word in
    name=*) name=${word#name=} ;;
    deaf) deaf=yes ;;
    mute) mute=yes ;;
    nolua) nolua=yes ;;
    nossh) nossh=yes ;;
    noip) noip=yes ;;
    home) home=yes ;;
  esac
done
hostname "$name"
while read -r module; do insmod "/modules/$module"; done < /modules/order
for port in /sys/class/virtio-ports/*; do
  mkdir -p /dev/virtio-ports
  [ -e "$port/name" ] && ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
[ -z "$deaf" ] && touch /run/listens && acpid -c /etc/acpi -l /dev/null
ip link set lo up
if [ -z "$noip" ] && [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -s /etc/lease -n -q -t 5 -T 1 > /dev/null 2>&1 &
fi
[ -z "$nolua" ] && ln -s /libexec/lua /bin/lua5.4 && ln -s /libexec/lua /bin/lua
# A disk that may be written on keeps what is below the users' homes.
if [ -n "$home" ]; then
  for disk in /sys/block/vd?; do
    if [ "$(cat "$disk/ro")" = 0 ]; then
      disk=/dev/${disk##*/}
      mount -t ext2 "$disk" /home 2> /dev/null || { mke2fs "$disk" > /dev/null 2>&1 && mount -t ext2 "$disk" /home; }
      break
    fi
  done
fi
# A seed is the first disk with the files of one.
for disk in /dev/vd? /dev/sr?; do
  [ -b "$disk" ] && mount -r -t iso9660 "$disk" /seed 2> /dev/null || continue
  if [ -e /seed/user-data ] || [ -e /seed/meta-data ]; then
    /libexec/lua /libexec/seed.lua /seed
    umount /seed
    break
  fi
  umount /seed
done
[ -s /etc/hostname ] && hostname "$(cat /etc/hostname)"
if [ -z "$nossh" ]; then
  keys=
  for kind in rsa ecdsa ed25519; do
    key=/etc/ssh/ssh_host_${kind}_key
    [ -s $key ] && dropbearconvert openssh dropbear $key /run/$kind.key > /dev/null 2>&1 && keys="$keys -r /run/$kind.key"
  done
  [ -z "$keys" ] && dropbearkey -t ed25519 -f /run/ed25519.key > /dev/null 2>&1 && keys="-r /run/ed25519.key"
  # No passwords; $keys is words.
  dropbear -s $keys
fi
agent=/dev/virtio-ports/org.qemu.guest_agent.0
[ -z "$mute" ] && [ -e $agent ] && qemu-ga -d -m virtio-serial -p $agent -t /run -f /run/qemu-ga.pid
[ -x /run/runcmd ] && /run/runcmd
echo "GUEST READY $(hostname)"
while :; do setsid cttyhack sh; done
