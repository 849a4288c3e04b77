# SIGHUP adds and removes a peer and a route; the tunnel that stays keeps its connection.
. "$(dirname "$0")/../lib.sh"

trio
a=$(peer_entry a 192.0.2.1) b=$(peer_entry b 192.0.2.2) c=$(peer_entry c 192.0.2.3)
configure a <<<"$a
$b"
for node in a b c; do up $node; done
first_ping a b 10
kept=$(connections a)

configure a <<<"$a
$b
        routes: [ 203.0.113.0/24 ]
$c"
reload a
first_ping a c 5
[[ $(on a ip route get 203.0.113.1) == *warren0* ]] || fail "the new route is not there"
[[ -z $(comm -23 <(echo "$kept") <(connections a)) ]] || fail "the connection to b was replaced"

configure a <<<"$a
$b"
reload a
[[ $(of_peer a c .name) == "" ]] || fail "c is still listed"
[[ $(on a ip route get 203.0.113.1 2>&1) != *warren0* ]] || fail "the route is still there"
as_before() { [[ $(connections a) == "$kept" ]]; }
until_true 5 as_before
pings a b
