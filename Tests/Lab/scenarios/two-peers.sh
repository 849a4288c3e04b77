# Two machines with each other's address: packets of both families flow both ways, and nothing is left at the end.
. "$(dirname "$0")/../lib.sh"

pair
pings a b
pings b a
copy a b 5000000
copy b a 5000000
is_state a b direct || fail "a reaches b as $(state_of a b)"
holds a b '.paths[0] | .transport == "tcp" and .security == "noise" and .muxer == "yamux"' || fail "$(of_peer a b .paths)"
w a ping b --count 2 --interval 0.05 >&2
stop a
stop b
nothing_left a
nothing_left b
