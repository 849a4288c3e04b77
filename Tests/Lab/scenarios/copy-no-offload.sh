# A large file arrives as it was sent, both ways, with no offload on one side's TUN, then on neither's (LAB_BYTES, 40 MB).
. "$(dirname "$0")/../lib.sh"

bytes=${LAB_BYTES:-40000000}
configured_pair
up a WARREN_OFFLOAD=off
up b
first_ping a b 10
copy a b "$bytes"
copy b a "$bytes"
stop b
up b WARREN_OFFLOAD=off
first_ping a b 10
copy a b "$bytes"
copy b a "$bytes"
holds a b '.dropped.malformed == 0' || fail "$(of_peer a b .dropped)"
