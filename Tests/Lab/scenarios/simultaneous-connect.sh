# Both start at the same moment, knowing nothing, 50 times: packets flow within 5 s, over at most 4 connections.
. "$(dirname "$0")/../lib.sh"

pair
slowest=0
for round in {1..50}; do
    stop_all a b
    rm -f "$LAB_DIR"/{a,b}/state/peers.json
    start_clock
    start a
    start b
    first_ping a b 60
    judge_clock 5000 "round $round: packets flow"
    ((LAB_TOOK > slowest)) && slowest=$LAB_TOOK
    paths=$(of_peer a b '.paths | length')
    ((paths >= 1 && paths <= 4)) || fail "round $round: $paths connections"
done
! grep -h 'connection refused' "$LAB_DIR"/{a,b}/log || fail "a member was taken for a stranger"
say "slowest of 50: $slowest ms from the start of the daemons"
