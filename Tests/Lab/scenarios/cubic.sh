# The congestion control that was asked for is used and shown.
. "$(dirname "$0")/../lib.sh"

pair 'tcpCongestion: cubic'
holds a b '.paths | length > 0 and all(.congestion == "cubic")' || fail "$(of_peer a b .paths)"
on a ss -Htin state established '( sport = :4117 or dport = :4117 )' | grep -q cubic || fail "the kernel says otherwise"
