# A large file arrives as it was sent, both ways: super-packets on both sides (LAB_BYTES, 200 MB).
. "$(dirname "$0")/../lib.sh"

bytes=${LAB_BYTES:-200000000}
pair
copy a b "$bytes"
copy b a "$bytes"
holds a b '.dropped.malformed == 0' || fail "$(of_peer a b .dropped)"
