# The daemons measure their own throughput, both ways, beside packets; who is gone is named.
. "$(dirname "$0")/../lib.sh"

pair
w a perf b --bytes 20000000 --json >"$LAB_DIR/perf"
jq -es 'map(select(.done) | [.direction, .bytes, .error]) == [["upload", 20000000, null], ["download", 20000000, null]]' \
    "$LAB_DIR/perf" >/dev/null || fail "$(cat "$LAB_DIR/perf")"
w b perf a --seconds 1 >&2
pings a b
stop b
w a perf b --bytes 1 >"$LAB_DIR/perf" && fail "b is gone, and yet: $(cat "$LAB_DIR/perf")"
grep -q '^to b: failed: ' "$LAB_DIR/perf" || fail "$(cat "$LAB_DIR/perf")"
