# A member lies about super-packets in every way: each is counted as malformed, and the honest one that follows is delivered.
. "$(dirname "$0")/../lib.sh"

siege
attack forged-offload
lies=$(($(grep -o '[0-9]* frames' "$LAB_DIR/c/log" | tail -n 1 | cut -d' ' -f1) - 1))
grep -q 'the stream lives' "$LAB_DIR/c/log" || fail "the stream was ended: $(tail -n 1 "$LAB_DIR/c/log")"
(($(dropped a c malformed) == lies)) || fail "$lies lies: $(of_peer a c .dropped)"
(($(of_peer a c .receivedPackets) == 1)) || fail "a delivered $(of_peer a c .receivedPackets) packets, not 1"
unharmed
