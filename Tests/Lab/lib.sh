# What every scenario of the lab uses. Source it; it cleans up on every exit.
#
# A lab is a set of network namespaces without a way out, joined by veth pairs. Each node has a directory with its key,
# configuration, state, socket and log. Times are waited for as states (`until_true`), never slept away, and what
# other programs of this machine took is left out of every limit.
set -euo pipefail

WARREN=${WARREN:?path of the warren executable}
LAB_TOOLS=${LAB_TOOLS:?folder of the lab\'s own executables}
LAB_TAG="wl$$"
LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/warren-lab.XXXXXX")
LAB_NODES=()
LAB_TICKS=$(getconf CLK_TCK)
LAB_PROCESSORS=$(nproc)
declare -A LAB_PID=() LAB_HOST=() LAB_PORT=() LAB_INTERFACE=() LAB_LINK=() LAB_CLOCK=()

# Prints a step on standard error, so that a failed scenario tells its story.
say() { printf '%s\n' "· $*" >&2; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

lab_cleanup() {
    local code=$? node pid
    set +e
    trap '' INT TERM
    if ((code != 0)); then
        for node in "${LAB_NODES[@]}" "${!LAB_HOST[@]}"; do
            [[ -s $LAB_DIR/$node/log ]] && { printf -- '--- log of %s\n' "$node"; tail -n 40 "$LAB_DIR/$node/log"; } >&2
        done
    fi
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
    local node=${LAB_HOST[$1]:-$1}
    shift
    ip netns exec "$LAB_TAG-$node" "$@"
}

# until_true SECONDS COMMAND…: waits until the command succeeds.
until_true() {
    local limit=$1
    shift
    "$@" >/dev/null 2>&1 && return
    start_clock wait
    until "$@" >/dev/null 2>&1; do
        if ((${EPOCHREALTIME/./} / 1000 > ${LAB_CLOCK[wait]%% *} + limit * 1000)); then
            read_clock wait
            ((LAB_TOOK <= limit * 1000)) || fail "not within $limit s: $*"
        fi
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

# pause SECONDS: lets a fault last. Never used to wait for something to happen.
pause() { read -rt "$1" <> <(:) || :; }

# start_clock [NAME]: time is taken from now on.
start_clock() {
    LAB_CLOCK[${1:-judge}]="$(milliseconds) $(foreign_time)"
    kept_waiting >"$LAB_DIR/waits-${1:-judge}"
}

# read_clock [NAME]: LAB_TOOK becomes the milliseconds since start_clock, less LAB_FORGIVEN, those that others of this machine took.
#
# Others took as long as a thread of our daemons was ready to run and did not (the longest of all), but never more than what
# programs that are not ours have run meanwhile: nobody is forgiven for being in his own way. On a machine of our own that is nothing.
read_clock() {
    local begin foreign stolen foreignNow stolenNow waited now
    now=$(milliseconds)
    read -r begin foreign stolen <<<"${LAB_CLOCK[${1:-judge}]}"
    read -r foreignNow stolenNow < <(foreign_time)
    waited=$(kept_waiting | awk '!now { before[$1] = $2; next } { lost = $2 - before[$1]; if (lost > most) most = lost }
        END { printf "%d", most / 1000000 }' "$LAB_DIR/waits-${1:-judge}" now=1 -)
    foreign=$((foreignNow > foreign ? foreignNow - foreign : 0))
    LAB_FORGIVEN=$(((waited < foreign ? waited : foreign) + stolenNow - stolen))
    LAB_TOOK=$((now - begin - LAB_FORGIVEN))
    ((LAB_TOOK > 0)) || LAB_TOOK=0
}

# judge_clock MILLISECONDS WHAT: prints the time since start_clock and judges it.
judge_clock() {
    read_clock
    say "$2 after $LAB_TOOK ms$( ((LAB_FORGIVEN < 20)) || echo ", and $LAB_FORGIVEN ms of others")"
    ((LAB_TOOK <= $1)) || fail "$2: $LAB_TOOK ms are more than $1 ms"
}

# foreign_time: how long others have run since boot, and how long the machine itself was kept from running; milliseconds.
foreign_time() {
    local node
    {
        cat /proc/stat "/proc/$$/stat"
        for node in "${!LAB_PID[@]}"; do cat "/proc/${LAB_PID[$node]}/stat" 2>/dev/null || :; done
    } | awk -v ticks="$LAB_TICKS" -v processors="$LAB_PROCESSORS" '
        $1 == "cpu" { busy = $2 + $3 + $4 + $7 + $8; stolen = $9 }
        sub(/^[0-9]+ \(.*\) /, "") { own += $12 + $13 + $14 + $15 }
        END { printf "%d %d\n", (busy - own) * 1000 / ticks, stolen * 1000 / ticks / processors }'
}

# kept_waiting: of each thread of our daemons its file and the nanoseconds that it was ready to run and did not.
kept_waiting() {
    local node
    for node in "${!LAB_PID[@]}"; do
        grep -H . "/proc/${LAB_PID[$node]}"/task/*/schedstat 2>/dev/null | awk -F '[: ]' '{ print $1, $3 }' || :
    done
}

# back_within MILLISECONDS NODE PEER WHAT: the first ping answered from now on; prints how long that took and judges it.
back_within() {
    start_clock
    first_ping "$2" "$3" 60
    judge_clock "$1" "$4: tunnel from $2 to $3 is back"
}

# node NAME: a namespace with a loopback device and a folder.
node() {
    ip netns add "$LAB_TAG-$1"
    LAB_NODES+=("$1")
    mkdir -p "$LAB_DIR/$1"
    ip -n "$LAB_TAG-$1" link set lo up
}

# guest NAME HOST PORT INTERFACE: one more daemon in another node's namespace.
guest() {
    LAB_HOST[$1]=$2
    LAB_PORT[$1]=$3
    LAB_INTERFACE[$1]=$4
    mkdir -p "$LAB_DIR/$1"
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

# router NAME A ADDRESS GATEWAY B ADDRESS GATEWAY: joins two nodes of different networks; theirs go through it by default.
router() {
    node "$1"
    link "$2" "$3" "$1" "$4/24" u0
    link "$5" "$6" "$1" "$7/24" u1
    on "$1" sysctl -qw net.ipv4.ip_forward=1
    ip -n "$LAB_TAG-$2" route add default via "$4"
    ip -n "$LAB_TAG-$5" route add default via "$7"
}

# nft_rule NODE HOOK RULE: a rule on what a node receives (input, prerouting), sends (output) or passes on (forward).
nft_rule() {
    on "$1" nft "add table inet lab
add chain inet lab $2 { type filter hook $2 priority 0; }
add rule inet lab $2 $3"
}

nft_clear() { on "$1" nft delete table inet lab; }

# black_hole NODE: swallows everything on the node's underlay, both ways, without a word.
black_hole() {
    nft_rule "$1" prerouting 'iifname "u0" drop'
    nft_rule "$1" postrouting 'oifname "u0" drop'
}

# long_link A ADDRESS B ADDRESS [OPTION…]: a link with a rate, a delay, a queue and loss, as linkemu's options say. Its devices are called u0.
long_link() {
    local emulator="$1-$3"
    node "$emulator"
    end_of_long_link "$1" "$2" "$emulator" e0
    end_of_long_link "$3" "$4" "$emulator" e1
    ip netns exec "$LAB_TAG-$emulator" "$LAB_TOOLS/linkemu" e0 e1 "${@:5}" >"$LAB_DIR/$emulator/frames" 2>"$LAB_DIR/$emulator/log" &
    LAB_LINK[$emulator]=$!
    until_true 30 on "$1" ping -q -c 1 -W 1 "${4%/*}"
}

end_of_long_link() {
    ip -n "$LAB_TAG-$1" link add u0 type veth peer name "$4" netns "$LAB_TAG-$3"
    ip -n "$LAB_TAG-$1" addr add "$2" dev u0
    # Frames as they are on a wire: no super-packets, no checksums left for later.
    on "$1" ethtool -K u0 tx off tso off gso off gro off >/dev/null
    on "$3" ethtool -K "$4" tx off tso off gso off gro off >/dev/null
    ip -n "$LAB_TAG-$1" link set u0 up
    ip -n "$LAB_TAG-$3" link set "$4" up
}

# end_link A B: ends what long_link started, says what became of the frames, and fails if the link was not one as it was asked for.
end_link() {
    local folder=$LAB_DIR/$1-$2
    kill "${LAB_LINK[$1-$2]}"
    wait "${LAB_LINK[$1-$2]}" || fail "linkemu: $(cat "$folder/log")"
    say "frames: $(jq -c . "$folder/frames")"
    jq -e '[.there, .back] | map(.tooLong + .unsent + .missed) | add == 0' "$folder/frames" >/dev/null || fail "the link lost frames of its own"
}

# lossy NODE: loses one packet in a hundred of each direction. Super-packets of veth would be lost whole: they are turned off.
lossy() {
    on "$1" ethtool -K u0 tso off gso off gro off >/dev/null
    nft_rule "$1" prerouting 'iifname "u0" numgen random mod 100 == 0 drop'
    nft_rule "$1" postrouting 'oifname "u0" numgen random mod 100 == 0 drop'
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

# carriers IP PORT: an address for each transport in LAB_CARRIERS (tcp, quic; tcp by default), separated by commas.
carriers() {
    local carrier addresses=()
    for carrier in ${LAB_CARRIERS:-tcp}; do
        case $carrier in
            tcp) addresses+=("/ip4/$1/tcp/$2") ;;
            quic) addresses+=("/ip4/$1/udp/$2/quic-v1") ;;
            *) fail "no such carrier: $carrier" ;;
        esac
    done
    paste -sd, <<<"$(printf '%s\n' "${addresses[@]}")"
}

# peer_entry NODE [ADDRESSES] [LINE…]: an entry for `configure`; further lines are keys of the entry. ADDRESSES is one word,
# IPv4 addresses separated by blanks.
peer_entry() {
    local node=$1 address=${2:-}
    printf '      - name: %s\n        id: %s\n' "$node" "$(identity "$node")"
    local ip places=()
    for ip in $address; do places+=("$(carriers "$ip" "${LAB_PORT[$node]:-4117}")"); done
    [[ -z $address ]] || printf '        addresses: [ %s ]\n' "$(printf '%s\n' "${places[@]}" | paste -sd,)"
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
        printf 'name: %s\nlisten: [ %s ]\n' "$node" "$(carriers 0.0.0.0 "${LAB_PORT[$node]:-4117}")"
        local line
        for line in "$@"; do printf '%s\n' "$line"; done
        printf 'networks:\n  lab:\n    interface: %s\n    peers:\n' "${LAB_INTERFACE[$node]:-warren0}"
        cat
    } >"$LAB_DIR/$node/warren.yaml"
}

# start NODE [ENVIRONMENT…]: starts the daemon.
start() {
    local node=$1 host=${LAB_HOST[$1]:-$1}
    shift
    ip netns exec "$LAB_TAG-$host" env "$@" "$WARREN" daemon --config "$LAB_DIR/$node/warren.yaml" \
        --state "$LAB_DIR/$node/state" --socket "$LAB_DIR/$node/warren.sock" >>"$LAB_DIR/$node/log" 2>&1 &
    LAB_PID[$node]=$!
}

# up NODE [ENVIRONMENT…]: starts the daemon and waits until it answers.
up() {
    start "$@"
    until_true 15 w "$1" status
}

# stop NODE [SIGNAL]: ends the daemon and waits until it is gone. It must end well, unless it is killed.
stop() {
    local code=0
    kill "-${2:-TERM}" "${LAB_PID[$1]}"
    wait "${LAB_PID[$1]}" 2>/dev/null || code=$?
    unset "LAB_PID[$1]"
    [[ $code == 0 || ${2:-TERM} == KILL ]] || fail "$1 ended with exit code $code"
}

# stop_all NODE…: ends several daemons at the same moment.
stop_all() {
    local node
    for node in "$@"; do kill "${LAB_PID[$node]}"; done
    for node in "$@"; do
        wait "${LAB_PID[$node]}" || fail "$node ended with exit code $?"
        unset "LAB_PID[$node]"
    done
}

# reload NODE: makes the daemon read its configuration again and waits until it says that it has.
reload() {
    local before
    before=$(grep -c 'reloaded\|reload failed' "$LAB_DIR/$1/log" || :)
    kill -HUP "${LAB_PID[$1]}"
    until_true 5 reloads_exceed "$1" "$before"
    grep 'reloaded\|reload failed' "$LAB_DIR/$1/log" | tail -n 1 | grep -q reloaded || fail "$1: reload failed"
}

reloads_exceed() { (($(grep -c 'reloaded\|reload failed' "$LAB_DIR/$1/log") > $2)); }

# alive NODE: the daemon that was started still runs.
alive() { kill -0 "${LAB_PID[$1]}" 2>/dev/null || fail "$1: the daemon is gone"; }

# status NODE FILTER: the raw result of a jq filter on the status.
status() { w "$1" status --json | jq -r "$2"; }

# ip_of NODE [4|6]: a node's own overlay address. It never changes: asked once, known while the daemon is away.
ip_of() {
    local file=$LAB_DIR/$1/ips
    [[ -s $file ]] || status "$1" '.networks[0].ips[]' >"$file"
    if [[ ${2:-4} == 6 ]]; then grep : "$file"; else grep -v : "$file"; fi
}

# state_of NODE PEER: how NODE reaches PEER.
state_of() { status "$1" ".networks[0].peers[] | select(.name == \"$2\") | .state"; }

is_state() { [[ $(state_of "$1" "$2") == "$3" ]]; }

# of_peer NODE PEER FILTER: a jq filter on NODE's entry of PEER.
of_peer() { status "$1" ".networks[0].peers[] | select(.name == \"$2\") | $3"; }

# holds NODE PEER CONDITION: whether a jq condition on NODE's entry of PEER is true.
holds() { [[ $(of_peer "$1" "$2" "$3") == true ]]; }

# connections NODE: the established connections of the daemon, one a line: what is the same before and after was kept.
connections() { on "$1" ss -Htn state established "sport = :4117 or dport = :4117" | awk '{ print $3, $4 }' | sort; }

# resident NODE: the daemon's memory in KiB.
resident() { awk '/^VmRSS:/ { print $2 }' "/proc/${LAB_PID[$1]}/status"; }

# processor_seconds NODE: what the daemon has used, all threads, in hundredths of a second.
processor_seconds() { awk '{ print $14 + $15 }' "/proc/${LAB_PID[$1]}/stat"; }

# answered NODE ADDRESS COUNT [INTERVAL]: all of COUNT pings are answered. ping itself is content with one answer.
answered() {
    local said
    said=$(on "$1" ping -q -i "${4:-0.02}" -W 10 -c "$3" "$2" 2>&1) || :
    [[ $said == *" $3 received"* ]] || fail "not all of $3 pings from $1 to $2 were answered: $(grep received <<<"$said")"
}

# pings NODE PEER [COUNT]: all of COUNT pings through the tunnel are answered, over IPv4 and IPv6.
pings() {
    answered "$1" "$(ip_of "$2" 4)" "${3:-5}"
    answered "$1" "$(ip_of "$2" 6)" "${3:-5}"
}

# bursts NODE PEER BYTES PER_BURST BURSTS [4|6]: UDP packets through the tunnel, each of which arrives, once and undamaged.
bursts() {
    local said
    said=$("$LAB_TOOLS/lab-bursts" "$LAB_TAG-${LAB_HOST[$1]:-$1}" "$LAB_TAG-${LAB_HOST[$2]:-$2}" "$(ip_of "$2" "${6:-4}")" 9001 "$3" "$4" "$5")
    jq -e '.lost + .damaged + .repeated == 0' <<<"$said" >/dev/null || fail "UDP from $1 to $2: $said"
}

# first_ping NODE PEER SECONDS: waits for the first answer over IPv4.
first_ping() { until_true "$3" on "$1" ping -q -c 1 -W 0.5 "$(ip_of "$2" 4)"; }

# keep_pinging NODE PEER: traffic in the background, 20 packets a second, until the scenario ends.
keep_pinging() { on "$1" ping -q -i 0.05 "$(ip_of "$2" 4)" >/dev/null 2>&1 & }

# configured_pair [LINE…]: two nodes a and b on one link, each with the other's address; the lines are keys of both configurations.
configured_pair() {
    node a
    node b
    link a 192.0.2.1/24 b 192.0.2.2/24
    local entries
    entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 192.0.2.2)"
    configure a "$@" <<<"$entries"
    configure b "$@" <<<"$entries"
}

# pair [LINE…]: a configured pair, both started, packets flowing.
pair() {
    configured_pair "$@"
    up a
    up b
    first_ping a b 10
}

# trio: three nodes a, b and c on one switch, each with everyone's address; nothing is started.
trio() {
    switch s
    local name number=1 entries=""
    for name in a b c; do
        node $name
        plug $name 192.0.2.$number/24 s
        entries+="$(peer_entry $name 192.0.2.$number)"$'\n'
        number=$((number + 1))
    done
    for name in a b c; do configure $name <<<"${entries%$'\n'}"; done
}

# copy NODE PEER BYTES: sends random bytes through the tunnel and compares their SHA-256 on both ends.
copy() {
    local from=$1 to=$2 bytes=$3 address sent received port=9000
    address=$(ip_of "$to" 4)
    on "$to" "$LAB_TOOLS/lab-copy" receive "$address" $port >"$LAB_DIR/$to/sum" &
    local receiver=$!
    until_true 60 listens "$to" $port
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

# siege: the nodes a and b are honest and connected, c is a member that `attack` speaks for; a's memory is noted.
siege() {
    trio
    up a
    up b
    first_ping b a 10
    LAB_RESIDENT=$(resident a)
}

# hostile NAME [OPTION…]: the hostile peer does to a what NAME says, with the key of c. What it saw is kept in c's log.
hostile() {
    local name=$1 code=0
    shift
    timeout 120 ip netns exec "$LAB_TAG-c" "$LAB_TOOLS/lab-peer" "$name" --key "$LAB_DIR/c/state/identity.key" \
        --target "$(identity a)" --address 192.0.2.1 --from "$(of_peer a c '.ips | join(",")')" --to "$(ip_of a 4),$(ip_of a 6)" \
        "$@" >>"$LAB_DIR/c/log" 2>&1 || code=$?
    [[ $code == 0 ]] || fail "lab-peer $name: exit code $code"
    say "lab-peer $name: $(tail -n 1 "$LAB_DIR/c/log")"
    alive a
}

# attack NAME [OPTION…]: the same, while b pings a: not one ping is lost.
attack() {
    on b ping -q -i 0.05 -W 10 -c 60 "$(ip_of a 4)" >"$LAB_DIR/b/pings" 2>&1 &
    local honest=$!
    hostile "$@"
    wait $honest || fail "an honest peer's pings were disturbed: $(tail -n 3 "$LAB_DIR/b/pings")"
    grep -q '60 received' "$LAB_DIR/b/pings" || fail "an honest peer lost pings: $(grep received "$LAB_DIR/b/pings")"
    alive a
}

# dropped NODE PEER REASON: how many packets of PEER were dropped for REASON.
dropped() { of_peer "$1" "$2" ".dropped.$3"; }

# unharmed [MEBIBYTES]: the daemon a lives, its memory has grown by no more than that since `siege` (32), and b's tunnel carries data.
unharmed() {
    alive a
    local grown=$((($(resident a) - LAB_RESIDENT) / 1024))
    ((grown <= ${1:-32})) || fail "a's memory has grown by $grown MiB"
    pings b a
    copy b a 5000000
}
