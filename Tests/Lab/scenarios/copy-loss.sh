# One packet in a hundred is lost each way: a large file arrives as it was sent (LAB_BYTES, 20 MB).
. "$(dirname "$0")/../lib.sh"

bytes=${LAB_BYTES:-20000000}
pair
lossy a
copy a b "$bytes"
copy b a "$bytes"
holds a b '.dropped.malformed == 0' || fail "$(of_peer a b .dropped)"
