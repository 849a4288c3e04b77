# 'warren down' takes the interface away, 'up' brings it back, and a restart keeps the choice.
. "$(dirname "$0")/../lib.sh"

pair
w a down
on a ip link show warren0 >/dev/null 2>&1 && fail "the interface is still there"
says_so() { of_peer b a .reason | grep -q 'the network is down at a'; }
until_true 5 says_so
stop a
up a
on a ip link show warren0 >/dev/null 2>&1 && fail "down does not survive a restart"
w a up
back_within 2000 a b "after 'up'"
stop a
up a
back_within 2000 b a "up again after a restart"
w a down
stop a
nothing_left a
