#!/bin/bash
# PID 1 of a guest. What to do comes on the kernel's command line (guest.NAME=VALUE) and on the disk "job", a plain tar
# with job/run, the command, and opt/snaplib, what it works on. Its output goes to the port "output"; the port "status" hears that we
# are up, a beat every few seconds, and its exit status; what it leaves in /out goes to the disk "out", as a tar.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
shopt -s nullglob

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=0666,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr

declare -A option=()
read -r -a words </proc/cmdline
for word in "${words[@]}"; do
    [[ $word == guest.*=* ]] && word=${word#guest.} && option[${word%%=*}]=${word#*=}
done

modprobe -aq virtio_pci virtio_blk virtio_console virtio_net
hostname "${option[name]:-guest}"
ip link set lo up
[[ -z ${option[now]:-} ]] || date -s "@${option[now]}" >/dev/null

wait_for() { # COMMAND...: until it is true, 10 s at most
    local -i left=100
    until "$@"; do ((left-- > 0)) && sleep 0.1 || return; done
}

port() { # NAME
    local at
    for at in /sys/class/virtio-ports/*; do
        [[ $(<"$at/name") == "$1" ]] && REPLY=/dev/${at##*/} && [[ -c $REPLY ]] && return
    done
    return 1
}

disk() { # SERIAL
    local at
    for at in /sys/block/vd*; do
        [[ $(<"$at/serial") == "$1" ]] && REPLY=/dev/${at##*/} && return
    done
    return 1
}

wait_for port output; output=$REPLY
wait_for port status; status=$REPLY
wait_for disk job; job=$REPLY
wait_for disk out; out=$REPLY
exec 3>"$status"
mkdir -p /in /out
# What was compiled stays: it is good for what has not changed.
find /opt/snaplib -path /opt/snaplib/.venv -prune -o -type f ! -name '*.pyc' -exec rm -f {} +
tar -C / -xf "$job"

if [[ -n ${option[address]:-} ]]; then
    wait_for test -e /sys/class/net/eth0
    ip link set eth0 up
    ip address add "${option[address]}" dev eth0
fi

echo "up $(uname -r)" >&3
while sleep 2; do echo beat >&3; done &

# In a session of its own: a command that ends its own process group must not end us.
cd /opt/snaplib || exit
setsid --wait bash /job/run >"$output" 2>&1 </dev/null
result=$?
tar -C /out -cf "$out" .
sync
echo "exit $result" >&3
echo o >/proc/sysrq-trigger
sleep 30
