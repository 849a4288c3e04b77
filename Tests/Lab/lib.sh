# What every scenario of the lab uses. Source it; it cleans up on every exit.
#
# A lab is a set of network namespaces without a way out, joined by veth pairs. Each node has a directory with its key,
# configuration, state, socket and log. Times are waited for as states (`until_true`), never slept away.
set -euo pipefail

WARREN=${WARREN:?path of the warren executable}
LAB_TOOLS=${LAB_TOOLS:?folder of the lab\'s own executables}
LAB_TAG="wl$$"
LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/warren-lab.XXXXXX")
LAB_NODES=()
declare -A LAB_PID=()

# Prints a step on standard error, so that a failed scenario tells its story.
say() { printf '%s\n' "· $*" >&2; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

lab_cleanup() {
    local code=$?
    set +e
    trap '' INT TERM
    if ((code != 0)); then
        for node in "${LAB_NODES[@]}"; do
            [[ -s $LAB_DIR/$node/log ]] && { printf -- '--- log of %s\n' "$node"; tail -n 40 "$LAB_DIR/$node/log"; } >&2
        done
    fi
    local node pid
    for node in "${LAB_NODES[@]}"; do
        for pid in $(ip netns pids "$LAB_TAG-$node" 2>/dev/null); do kill "$pid" 2>/dev/null; done
    done
    for node in "${LAB_NODES[@]}"; do
        for _ in {1..30}; do
            [[ -z $(ip netns pids "$LAB_TAG-$node" 2>/dev/null) ]] && break
            read -rt 0.1 <> <(:)
        done
        for pid in $(ip netns pids "$LAB_TAG-$node" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$LAB_TAG-$node" 2>/dev/null
    done
    rm -rf "$LAB_DIR"
    exit "$code"
}
trap lab_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command in a node's namespace.
on() {
    local node=$1
    shift
    ip netns exec "$LAB_TAG-$node" "$@"
}

# until_true SECONDS COMMAND…: waits until the command succeeds.
until_true() {
    local limit=$1 end
    shift
    end=$((${EPOCHREALTIME/./} + limit * 1000000))
    until "$@" >/dev/null 2>&1; do
        ((${EPOCHREALTIME/./} < end)) || fail "not within $limit s: $*"
        read -rt 0.05 <> <(:) || :
    done
}

# never_true SECONDS COMMAND…: fails when the command succeeds within the time.
never_true() {
    local limit=$1 end
    shift
    end=$((${EPOCHREALTIME/./} + limit * 1000000))
    while ((${EPOCHREALTIME/./} < end)); do
        "$@" >/dev/null 2>&1 && fail "came true: $*"
        read -rt 0.1 <> <(:) || :
    done
}

milliseconds() { printf '%s' "$((${EPOCHREALTIME/./} / 1000))"; }

# node NAME: a namespace with a loopback device and a folder.
node() {
    ip netns add "$LAB_TAG-$1"
    LAB_NODES+=("$1")
    mkdir -p "$LAB_DIR/$1"
    ip -n "$LAB_TAG-$1" link set lo up
}

# link A ADDRESS B ADDRESS [DEVICE]: a veth pair; the device is called the same on both sides.
link() {
    local device=${5:-u0}
    ip -n "$LAB_TAG-$1" link add "$device" type veth peer name "$device" netns "$LAB_TAG-$3"
    ip -n "$LAB_TAG-$1" addr add "$2" dev "$device"
    ip -n "$LAB_TAG-$3" addr add "$4" dev "$device"
    ip -n "$LAB_TAG-$1" link set "$device" up
    ip -n "$LAB_TAG-$3" link set "$device" up
}

# bridge NAME: a switch that nodes are plugged into.
switch() {
    node "$1"
    ip -n "$LAB_TAG-$1" link add br0 type bridge forward_delay 0
    ip -n "$LAB_TAG-$1" link set br0 up
}

# plug NODE ADDRESS SWITCH: joins a node to a switch; its device is u0.
plug() {
    ip -n "$LAB_TAG-$3" link add "p-$1" type veth peer name u0 netns "$LAB_TAG-$1"
    ip -n "$LAB_TAG-$3" link set "p-$1" master br0 up
    ip -n "$LAB_TAG-$1" addr add "$2" dev u0
    ip -n "$LAB_TAG-$1" link set u0 up
}

# w NODE ARGUMENTS…: the CLI against the node's daemon.
w() {
    local node=$1
    shift
    on "$node" "$WARREN" "$@" --config "$LAB_DIR/$node/warren.yaml" --state "$LAB_DIR/$node/state" \
        --socket "$LAB_DIR/$node/warren.sock"
}

# identity NODE: makes the key once and prints the peer ID.
identity() {
    [[ -e $LAB_DIR/$1/state/identity.key ]] || w "$1" init --name "$1" >/dev/null
    w "$1" id
}

# peer_entry NODE [ADDRESS] [LINE…]: an entry for `configure`; further lines are keys of the entry.
peer_entry() {
    local node=$1 address=${2:-}
    printf '      - name: %s\n        id: %s\n' "$node" "$(identity "$node")"
    [[ -z $address ]] || printf '        addresses: [ /ip4/%s/tcp/4117 ]\n' "$address"
    shift $(($# < 2 ? $# : 2))
    local line
    for line in "$@"; do printf '        %s\n' "$line"; done
}

# configure NODE [TOP LEVEL LINE…] <PEER ENTRIES: writes the configuration of network "lab".
configure() {
    local node=$1
    shift
    identity "$node" >/dev/null
    {
        printf 'name: %s\nlisten: [ /ip4/0.0.0.0/tcp/4117 ]\n' "$node"
        local line
        for line in "$@"; do printf '%s\n' "$line"; done
        printf 'networks:\n  lab:\n    interface: warren0\n    peers:\n'
        cat
    } >"$LAB_DIR/$node/warren.yaml"
}

# up NODE [ENVIRONMENT…]: starts the daemon and waits until it answers.
up() {
    local node=$1
    shift
    ip netns exec "$LAB_TAG-$node" env "$@" "$WARREN" daemon --config "$LAB_DIR/$node/warren.yaml" \
        --state "$LAB_DIR/$node/state" --socket "$LAB_DIR/$node/warren.sock" >>"$LAB_DIR/$node/log" 2>&1 &
    LAB_PID[$node]=$!
    until_true 15 w "$node" status
}

# stop NODE [SIGNAL]: ends the daemon and waits until it is gone.
stop() {
    kill "-${2:-TERM}" "${LAB_PID[$1]}"
    wait "${LAB_PID[$1]}" 2>/dev/null || :
    unset "LAB_PID[$1]"
}

# status NODE FILTER: the raw result of a jq filter on the status.
status() { w "$1" status --json | jq -r "$2"; }

# ip_of NODE [4|6]: a node's own overlay address.
ip_of() { status "$1" ".networks[0].ips[] | select(test(\":\") == $([[ ${2:-4} == 6 ]] && echo true || echo false))"; }

# state_of NODE PEER: how NODE reaches PEER.
state_of() { status "$1" ".networks[0].peers[] | select(.name == \"$2\") | .state"; }

is_state() { [[ $(state_of "$1" "$2") == "$3" ]]; }

# pings NODE PEER [COUNT]: all of COUNT pings through the tunnel are answered, over IPv4 and IPv6.
pings() {
    on "$1" ping -q -i 0.02 -W 2 -c "${3:-5}" "$(ip_of "$2" 4)" >/dev/null
    on "$1" ping -q -i 0.02 -W 2 -c "${3:-5}" "$(ip_of "$2" 6)" >/dev/null
}

# first_ping NODE PEER SECONDS: waits for the first answer over IPv4.
first_ping() { until_true "$3" on "$1" ping -q -c 1 -W 0.2 "$(ip_of "$2" 4)"; }

# pair [A LINES] : two nodes a and b on one link, both started, each with the other's address.
pair() {
    node a
    node b
    link a 192.0.2.1/24 b 192.0.2.2/24
    local entries
    entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 192.0.2.2)"
    configure a "$@" <<<"$entries"
    configure b "$@" <<<"$entries"
    up a
    up b
    first_ping a b 10
}

# copy NODE PEER BYTES: sends random bytes through the tunnel and compares their SHA-256 on both ends.
copy() {
    local from=$1 to=$2 bytes=$3 address sent received port=9000
    address=$(ip_of "$to" 4)
    on "$to" "$LAB_TOOLS/lab-copy" receive "$address" $port >"$LAB_DIR/$to/sum" &
    local receiver=$!
    until_true 5 listens "$to" $port
    sent=$(on "$from" "$LAB_TOOLS/lab-copy" send "$address" $port "$bytes")
    wait $receiver
    received=$(cat "$LAB_DIR/$to/sum")
    [[ -n $sent && $sent == "$received" ]] || fail "copied $bytes bytes from $from to $to: sent $sent, received $received"
}

listens() { [[ -n $(on "$1" ss -Hltn "sport = :$2") ]]; }

# nothing_left NODE: no interface, rule, route table or socket of ours remains.
nothing_left() {
    ! on "$1" ip link show warren0 2>/dev/null || fail "$1: the interface is still there"
    [[ $(on "$1" ip rule | wc -l) == 3 ]] || fail "$1: rules remain: $(on "$1" ip rule)"
    [[ $(on "$1" ip -6 rule | wc -l) == 2 ]] || fail "$1: IPv6 rules remain: $(on "$1" ip -6 rule)"
    [[ -z $(on "$1" ip route show table all | grep warren0) ]] || fail "$1: routes remain"
    [[ ! -e $LAB_DIR/$1/warren.sock ]] || fail "$1: the socket is still there"
}
