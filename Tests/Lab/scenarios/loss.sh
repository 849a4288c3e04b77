# One packet in a hundred is lost each way: a large file (LAB_BYTES / 10, 20 MB) arrives as it was sent.
. "$(dirname "$0")/../lib.sh"

bytes=$((${LAB_BYTES:-200000000} / 10))
pair
lossy a
copy a b "$bytes"
copy b a "$bytes"
