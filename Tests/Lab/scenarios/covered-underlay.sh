# A route behind b covers b's own underlay address, under strict reverse path filters: no tunnel in the tunnel.
. "$(dirname "$0")/../lib.sh"

node a
node b
router r a 192.0.2.1/24 192.0.2.254 b 198.51.100.1/24 198.51.100.254
for node in a b; do on $node sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1; done
entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 198.51.100.1 'routes: [ 198.51.100.0/24 ]')"
configure a <<<"$entries"
configure b <<<"$entries"
up a
up b
first_ping a b 10
copy a b 5000000
before=$(of_peer a b .sentPackets)
answered a 198.51.100.1 50
sent=$(($(of_peer a b .sentPackets) - before))
((sent >= 50 && sent < 200)) || fail "50 pings to b's underlay address were $sent packets in the tunnel"
stop a
nothing_left a
