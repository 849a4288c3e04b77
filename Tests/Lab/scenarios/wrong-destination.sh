# A member sends packets to addresses that are not the daemon's: each is counted, none is delivered.
. "$(dirname "$0")/../lib.sh"

siege
attack wrong-destination --count 60
(($(dropped a c wrongDestination) == 60)) || fail "$(of_peer a c .dropped)"
(($(of_peer a c .receivedPackets) == 0)) || fail "a delivered $(of_peer a c .receivedPackets) of them"
unharmed
