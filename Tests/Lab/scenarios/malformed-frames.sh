# A member's frames break the format, too short and too long: each ends its stream and is counted.
. "$(dirname "$0")/../lib.sh"

siege
attack malformed-frame
attack oversize-frame
grep -c 'streams that live: none' "$LAB_DIR/c/log" | grep -qx 2 || fail "streams live on: $(cat "$LAB_DIR/c/log")"
frames=$(grep -o '[0-9]* frames' "$LAB_DIR/c/log" | awk '{ sum += $1 } END { print sum }')
(($(dropped a c malformed) == frames)) || fail "$frames frames: $(of_peer a c .dropped)"
unharmed
