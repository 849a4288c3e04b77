# What the daemons allocate for a burst of packets does not depend on how many packets are in it.
. "$(dirname "$0")/../lib.sh"

"$(dirname "$0")/../../Benchmarks/run" --only warren --measure allocations --warren "$WARREN" --judge 2>&1 | sed 's/^/  /' >&2 ||
    fail "allocations per packet, or none could be counted"
