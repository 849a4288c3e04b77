# Connections are replaced while packets flow both ways, as their keys have served their time: nothing is lost, nothing overtakes, no
# TCP connection inside the tunnel breaks. LAB_MOVES of them (10).
. "$(dirname "$0")/../lib.sh"

moves=${LAB_MOVES:-10}
configured_pair
start a WARREN_KEY_LIFETIME=,1
start b WARREN_KEY_LIFETIME=,1
until_true 15 w a status
until_true 15 w b status
first_ping a b 10

established() { of_peer "$1" "$2" '[.paths[] | select(.sending) | .since] | first'; }
moves_of() { grep -c 'tunnel on another path' "$LAB_DIR/$1/log" || :; }
have_moved() { (($(moves_of a) + $(moves_of b) >= moves)); }

on b iperf3 -s -1 -D --logfile /dev/null
until_true 10 listens b 5201
on a iperf3 -c "$(ip_of b)" -t $((moves + 30)) --bidir -J >"$LAB_DIR/flow" &
flow=$!
until_true $((moves + 20)) have_moved
# Packet by packet beside the flow: each arrives once.
bursts a b 1200 8 50
bursts b a 100 32 50
kill -TERM $flow 2>/dev/null || :
wait $flow || :
say "$(moves_of a) moves of a, $(moves_of b) of b"
for pair in "a b" "b a"; do
    # shellcheck disable=SC2086
    holds $pair '.reorderedPackets == 0 and .dropped.malformed == 0 and .dropped.pathLost == 0' \
        || fail "$pair: $(of_peer $pair '{ reorderedPackets, dropped }')"
done
pings a b
