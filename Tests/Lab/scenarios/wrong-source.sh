# A member sends packets from addresses that are not its own: each is counted, none is delivered.
. "$(dirname "$0")/../lib.sh"

siege
attack wrong-source --count 60
(($(dropped a c wrongSource) == 60)) || fail "$(of_peer a c .dropped)"
(($(of_peer a c .receivedPackets) == 0)) || fail "a delivered $(of_peer a c .receivedPackets) of them"
unharmed
