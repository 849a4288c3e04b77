# Routes come and go by command, until the daemon ends.
. "$(dirname "$0")/../lib.sh"

pair
on b ip addr add 203.0.113.7/24 dev lo
entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 192.0.2.2 'routes: [ 203.0.113.0/24 ]')"
configure b <<<"$entries"
reload b
on a ping -q -c 1 -W 1 203.0.113.7 >/dev/null 2>&1 && fail "there is a way before the route"
w a route add 203.0.113.0/24 b
w a route show | grep -q '203.0.113.0/24.*b' || fail "$(w a route show)"
answered a 203.0.113.7 3 0.05
w a route add 203.0.113.0/25 nobody 2>/dev/null && fail "a route to nobody was taken"
w a route del 203.0.113.0/24
w a route show | grep -q 203.0.113 && fail "$(w a route show)"
on a ping -q -c 1 -W 1 203.0.113.7 >/dev/null 2>&1 && fail "there is a way after the route"
w a route add 203.0.113.0/24 b
stop a
up a
w a route show | grep -q 203.0.113 && fail "an added route outlasted the daemon"
stop a
nothing_left a
