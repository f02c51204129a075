# Second part of the machine's first program, inside the final root directory: mounts what a system mounts, runs the
# command, reports its exit status. Ports (see machine.rs): 1 status, 2 standard output, 3 standard error.
# The status port can be opened once only, so no other program can write to it.
bb=/.machine/busybox
fail() {
    $bb echo "machine: $*" >/dev/console
    $bb poweroff -f
}

mounted() { # TYPE DIRECTORY [OPTIONS]
    $bb mkdir -p "$2"
    $bb mount -t "$1" -o "${3:-rw}" "$1" "$2" || fail "cannot mount $1 on $2"
}
mounted proc /proc
mounted sysfs /sys
mounted devtmpfs /dev
mounted devpts /dev/pts ptmxmode=666
mounted tmpfs /dev/shm mode=1777
mounted tmpfs /tmp mode=1777
mounted tmpfs /run mode=755
mounted securityfs /sys/kernel/security
mounted tracefs /sys/kernel/tracing
mounted cgroup2 /sys/fs/cgroup
mounted bpf /sys/fs/bpf mode=700
$bb ln -sf /proc/self/fd /dev/fd
$bb ln -sf /proc/self/fd/0 /dev/stdin
$bb ln -sf /proc/self/fd/1 /dev/stdout
$bb ln -sf /proc/self/fd/2 /dev/stderr
$bb ip link set lo up
$bb hostname machine

until [ -c /dev/vport0p1 ] && [ -c /dev/vport0p2 ] && [ -c /dev/vport0p3 ]; do
    # The driver makes the ports while we run; uptime is the limit.
    read -r seconds _ </proc/uptime
    [ "${seconds%.*}" -lt 60 ] || fail "no virtio console ports: is virtio_console in this kernel?"
    $bb usleep 10000
done
exec 9>/dev/vport0p1 || fail "cannot open the status port"

# Programs write into pipes and not to the ports, which can't be opened a second time (/dev/stderr would fail).
$bb mkfifo /.machine/out /.machine/err
$bb cat /.machine/out >/dev/vport0p2 9>&- &
out=$!
$bb cat /.machine/err >/dev/vport0p3 9>&- &
err=$!

export HOME=/root USER=root LOGNAME=root SHELL=/bin/sh TERM=dumb LANG=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root || fail "cannot enter /root"
read -r seconds _ </proc/uptime
echo "up $seconds" >&9
$bb setsid /bin/sh -c "$($bb cat /.machine/command)" </dev/null >/.machine/out 2>/.machine/err 9>&-
status=$?

# Whatever the command left running keeps the pipes open; end it, so that all its output arrives before the status.
# Kernel threads and the dead have no program file.
end_others() {
    left=false
    for process in /proc/[0-9]*; do
        process=${process#/proc/}
        case $process in 1 | "$out" | "$err") continue ;; esac
        [ -e "/proc/$process/exe" ] && kill -KILL "$process" 2>/dev/null && left=true
    done
    $left
}
while end_others; do $bb usleep 1000; done
wait "$out" "$err"
echo "exit $status" >&9
exec 9>&-
$bb poweroff -f
