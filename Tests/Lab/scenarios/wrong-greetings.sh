# A member greets for another network, greets badly, and speaks noise: refused, at no one else's expense.
. "$(dirname "$0")/../lib.sh"

siege
attack wrong-network
grep -q 'another network: unknownNetworkOrMember' "$LAB_DIR/c/log" || fail "$(tail -n 1 "$LAB_DIR/c/log")"
! grep -q 'greeting[^;]*: the stream lives\|endless length: the stream lives\|protobuf: the stream lives' "$LAB_DIR/c/log" \
    || fail "a stream lives on: $(tail -n 1 "$LAB_DIR/c/log")"
attack garbage --count 60
unharmed
