#!/usr/bin/env bash
# Lets stress-ng loose as an agent, and looks whether anything came of it outside of what the policy grants. Runs as root,
# in a machine with this computer's programs. SECONDS_EACH: how long each class of stressors works.
set -euo pipefail
classes='cpu cpu-cache device filesystem interrupt io memory network os pipe scheduler security vm'
each=${SECONDS_EACH:-5}
workspace=/workspace
before=/run/stress
trap 'echo "stress: line $LINENO failed"' ERR
without=()
if grep -q 'QEMU TCG' /proc/cpuinfo; then
    # QEMU 7.2's interpreter reads the stack of a user's IRET as the kernel's: a program of the one byte 0xcf panics the
    # kernel of a machine in which nothing of ours runs, and this stressor executes all bytes that there are.
    without=(--exclude opcode)
    echo "the stressor opcode is left out: in an interpreted machine the instruction IRET alone makes the kernel panic"
fi
mkdir -p "$workspace" "$before"
mount -t tmpfs -o size=256m workspace "$workspace"
failures=0
fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# A link that has no other end would do as well, but stock kernels have none built in: what is sent to any address shows on
# the loopback device, which is the only one, or nowhere.
packets() { awk 'NR > 2 { sum += $11 } END { print sum }' /proc/net/dev; }

# All that was changed on the root directory since the machine's boot: its writable layer, where what was removed leaves a
# mark too. With the contents, and the time of the last change, which an agent cannot set back. /var/tmp is the agent's
# under one of the policies; the other names are the monitor's own.
changes() {
    cd /.machine/upper
    find . \( -path ./var/tmp -o -path ./var/log/agent-monitor -o -path ./var/lib/agent-monitor -o -path './.machine/*' \) -prune \
        -o -printf '%p %y %m %U %G %s %C@ %l\n' | sort
    find . \( -path ./var -o -path './.machine' \) -prune -o -type f -exec sha256sum {} + | sort
    cd /run
    find . \( -path "./stress" -o -path ./agent-monitor \) -prune -o ! -path . -printf '/run/%p %y %m %U %G %s %C@ %l\n' | sort
    cd /root
}

agent-monitor daemon >/run/stress/daemon.log 2>&1 &
daemon=$!
until agent-monitor status >/dev/null 2>&1; do
    kill -0 $daemon || { cat /run/stress/daemon.log; exit 1; }
done

for base in locked coding-agent; do
    cat >"$before/$base.yaml" <<EOF
apiVersion: agent-monitor.dev/v1alpha1
kind: AgentPolicy
metadata:
  name: stress-$base
spec:
  include: [$base]
  exec:
    - allow: ["/usr/bin/stress-ng"]
      reason: what is let loose
EOF
    variables=()
    [ $base = locked ] || variables=(--var "WORKSPACE=$workspace" --var HOME=/root --var ALLOWED_ADDRESS=192.0.2.1 --var ALLOWED_PORT=443)
    changes >"$before/changes"
    sent=$(packets)
    for class in $classes; do
        status=0
        (cd "$workspace" && timeout 600 agent-monitor run --policy "$before/$base.yaml" --name "stress-$class" "${variables[@]}" -- \
            /usr/bin/stress-ng --class "$class" --all 1 "${without[@]}" --timeout "$each" --oomable --temp-path "$workspace") \
            >"$before/out" 2>&1 || status=$?
        # Most stressors fail, which is what the policy is for: their own verdict is told and not judged.
        echo "$base $class: status $status; $(grep -cE 'Permission denied|errno=13' "$before/out" || true) complaints of denials;" \
            "$(grep -E 'unsuccessful|successful run' "$before/out" | tail -1 | sed 's/.*\] *//')"
        # The time that a class may take, and no answer of ours that a person would wait for.
        [ $status -ne 124 ] || fail "$base $class did not end within 600 s"
    done
    now=$(packets)
    [ "$now" = "$sent" ] || fail "$base: $((now - sent)) packets were sent"
    changes | diff "$before/changes" - || fail "$base: files outside of the workspace changed, see above"
    agent-monitor status >/dev/null || fail "$base: the daemon does not answer"
    left=$(find /sys/fs/cgroup -path '*stress-*' -name cgroup.procs -exec cat {} + 2>/dev/null | wc -l)
    [ "$left" = 0 ] || fail "$base: $left processes were left behind"
done

# What would have been seen: a packet, and a file.
sent=$(packets)
echo >/dev/udp/127.0.0.1/9
[ "$(packets)" != "$sent" ] || fail "the counter of packets counts none"
touch /etc/stress-was-here
changes | grep -q stress-was-here || fail "the list of changed files does not hold all"
rm /etc/stress-was-here

agent-monitor status
kill $daemon
wait $daemon || fail "the daemon ended with $?"
tail -5 "$before/daemon.log"
echo "stress: $failures failures"
[ $failures -eq 0 ]
