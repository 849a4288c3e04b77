# A router passes 1300 bytes and tells no one: DF is set, ICMP is dropped. A copy completes all the same.
. "$(dirname "$0")/../lib.sh"

node a
node b
router r a 192.0.2.1/24 192.0.2.254 b 198.51.100.1/24 198.51.100.254
ip -n "$LAB_TAG-r" route replace 192.0.2.0/24 dev u0 mtu lock 1300
ip -n "$LAB_TAG-r" route replace 198.51.100.0/24 dev u1 mtu lock 1300
nft_rule r output 'meta l4proto { icmp, ipv6-icmp } drop'
entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 198.51.100.1)"
configure a <<<"$entries"
configure b <<<"$entries"
up a
up b
on a ping -q -c 1 -W 1 -M do -s 1272 198.51.100.1 >/dev/null || fail "1300 bytes do not pass the router"
on a ping -q -c 1 -W 1 -M do -s 1273 198.51.100.1 >/dev/null && fail "1301 bytes pass the router"
first_ping a b 10
copy a b 5000000
copy b a 5000000
