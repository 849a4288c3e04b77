# A machine's underlay address changes, to one that the other has and to one that it cannot know.
. "$(dirname "$0")/../lib.sh"

node a
node b
link a 192.0.2.1/24 b 192.0.2.2/24
entries="$(peer_entry a 192.0.2.1)
$(peer_entry b "192.0.2.2 192.0.2.3")"
configure a <<<"$entries"
configure b <<<"$entries"
up a
up b
first_ping a b 10
keep_pinging a b
for last in 3 4; do
    ip -n "$LAB_TAG-b" addr flush dev u0
    ip -n "$LAB_TAG-b" addr add "192.0.2.$last/24" dev u0
    back_within 3000 a b "b moved to 192.0.2.$last"
done
pings b a
