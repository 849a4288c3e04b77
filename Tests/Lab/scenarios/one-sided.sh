# a lists b, b does not list a: a says so.
. "$(dirname "$0")/../lib.sh"

node a
node b
link a 192.0.2.1/24 b 192.0.2.2/24
peer_entry b 192.0.2.2 | configure a
identity a >/dev/null
printf '      []\n' | configure b
up b
up a
says_so() { of_peer a b .reason | grep -q 'b does not list this machine'; }
until_true 5 says_so
until_true 5 is_state a b unreachable
! holds a b '.paths | length > 0' || fail "a connection remains: $(of_peer a b .paths)"
