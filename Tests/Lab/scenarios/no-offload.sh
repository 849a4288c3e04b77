# One side's TUN has no offload: TCP, UDP and a large file (LAB_BYTES / 5, 40 MB) pass both ways.
. "$(dirname "$0")/../lib.sh"

bytes=$((${LAB_BYTES:-200000000} / 5))
configured_pair
up a WARREN_OFFLOAD=off
up b
first_ping a b 10
copy a b "$bytes"
copy b a "$bytes"
on b iperf3 -s -1 -D --logfile /dev/null
until_true 5 listens b 5201
on a iperf3 -c "$(ip_of b)" -u -b 5M -t 1 -J >"$LAB_DIR/udp"
jq -e '.end.sum.lost_percent < 5' "$LAB_DIR/udp" >/dev/null || fail "UDP from a to b: $(jq -c .end.sum "$LAB_DIR/udp")"
on b iperf3 -s -1 -D --logfile /dev/null
until_true 5 listens b 5201
on a iperf3 -c "$(ip_of b)" -u -b 5M -t 1 -R -J >"$LAB_DIR/udp"
jq -e '.end.sum.lost_percent < 5' "$LAB_DIR/udp" >/dev/null || fail "UDP from b to a: $(jq -c .end.sum "$LAB_DIR/udp")"
