#!/usr/bin/env bash
# The demo: an agent does what it may and what it may not, and everybody sees what came of it. Runs as root, where
# agent-monitor can enforce. Exit status 0 means that each step ended as announced.
# POLICIES: directory of the shipped policies. DEMO: an empty directory of our own.
set -euo pipefail
policies=${POLICIES:-/etc/agent-monitor/policies}
demo=${DEMO:-/tmp/agent-monitor-demo}
allowed_port=8111 other_port=8112 metrics=9478

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
started=()
finish() {
    [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
    # Enforcement outlives its daemon by what is pinned; our pins end with their file system.
    umount "$demo/bpf" 2>/dev/null || true
    find /sys/fs/cgroup/agent-monitor-demo*.slice -depth -type d -exec rmdir {} + 2>/dev/null || true
    rm -rf "$demo"
}
trap finish EXIT

# Waits until a TCP port of this machine answers, at most a minute.
answers() {
    local port=$1 end=$((SECONDS + 60))
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "nothing answers on port $port" >&2; return 1; }
        sleep 0.1
    done
}

get() { # PORT PATH
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    sed '1,/^\r$/d' <&3
    exec 3>&-
}

# --- What there is: a workspace with a repository, a secret, two addresses to reach -----------------------------------
# The distribution's own programs, which the policy names; agent-monitor itself comes from wherever it is.
monitor=$(command -v agent-monitor)
export HOME=$demo/home PATH=/usr/bin:/bin:/usr/sbin:/sbin
mkdir -p "$demo/workspace" "$HOME/.ssh"
echo 'not a real key' >"$HOME/.ssh/id_ed25519"
echo 'print("hello from", __file__.rsplit("/", 1)[1])' >"$demo/workspace/hello.py"
git -C "$demo/workspace" init -q
python3 -c '
import select, socket, sys
listeners = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
while True:
    for ready in select.select(listeners, [], [])[0]:
        ready.accept()[0].close()
' $allowed_port $other_port &
started+=($!)

# --- What the agent does, as it sees it itself -----------------------------------------------------------------------
cat >"$demo/workspace/agent.sh" <<EOF
cd "$demo/workspace"
unexpected=0
step() { # EXPECTED WHAT COMMAND
    if said=\$(eval "\$3" 2>&1); then was=allowed; else was=denied; fi
    said=\${said##*\$'\n'}
    [ \$was = allowed ] || said=\${said##*: }
    mark=' '; [ \$was = "\$1" ] || { mark='!'; unexpected=1; }
    printf '%s %-8s %-46s %s\n' "\$mark" "\$was" "\$2" "\${said:0:70}"
}
step allowed 'write a file in the workspace'        'echo text >notes.txt && cat notes.txt'
step allowed 'run git in the workspace'             'git add . && git status --short | head -1'
step allowed 'run a Python script'                  '/usr/bin/python3 hello.py'
step allowed 'reach the address that it works with' 'exec 3<>/dev/tcp/127.0.0.1/$allowed_port && echo connected'
step denied  'read the private SSH key'             'cat "$HOME/.ssh/id_ed25519"'
step denied  'read the password hashes'             'cat /etc/shadow'
step denied  'reach another address'                '(exec 3<>/dev/tcp/127.0.0.1/$other_port)'
step denied  'run a program under another name'     'cp /usr/bin/python3 ./helper && ./helper -c "print(1)"'
exit \$unexpected
EOF

# --- The monitor, with all that it writes in our own directory; one that runs here already is used as it is ----------
if ! "$monitor" status >/dev/null 2>&1; then
    export AGENT_MONITOR_CONFIG=$demo/config.toml
    mkdir "$demo/bpf"
    mount -t bpf bpf "$demo/bpf"
    cat >"$AGENT_MONITOR_CONFIG" <<EOF
agents_root = "agent-monitor-demo.slice"
run_root = "agent-monitor-demo-run.slice"
policies_dir = "$policies"
socket = "$demo/control.sock"
audit_log = "$demo/audit.jsonl"
roots.bpffs = "$demo/bpf"
EOF
    "$monitor" daemon >"$demo/daemon.log" 2>&1 &
    started+=($!)
    answers $metrics || { cat "$demo/daemon.log"; exit 1; }
fi
answers $allowed_port
answers $other_port

bold 'What this kernel can enforce (agent-monitor doctor)'
"$monitor" doctor || { echo 'This kernel cannot enforce all; there is nothing to show.'; exit 1; }

bold 'An agent works under policies/coding-agent.yaml; what came of it, as it sees it'
status=0
"$monitor" run --policy "$policies/coding-agent.yaml" --name demo --record "$demo/records.jsonl" \
    --var "WORKSPACE=$demo/workspace" --var "HOME=$HOME" \
    --var ALLOWED_ADDRESS=127.0.0.1 --var ALLOWED_PORT=$allowed_port \
    -- /bin/bash "$demo/workspace/agent.sh" 2>"$demo/report" || status=$?

bold 'What was denied, and the rule that would have allowed it (the report of agent-monitor run)'
cat "$demo/report"

bold 'The records of it (agent-monitor events --denied)'
"$monitor" events --denied -o line || cat "$demo/records.jsonl"

bold "The same as metrics (127.0.0.1:$metrics/metrics)"
get $metrics /metrics | grep -E '^agent_monitor_(operations|denied)_total.* [1-9]' || true

bold 'Outside the agent nothing changed'
cat "$HOME/.ssh/id_ed25519"

if [ $status -eq 0 ]; then
    bold 'Each step ended as announced.'
else
    bold "A step did not end as announced (see the lines that begin with !; exit status $status)."
fi
exit $status
