# One side's TUN has no offload: TCP passes both ways, and every UDP packet, of any size, alone and in bursts, over IPv4 and IPv6.
. "$(dirname "$0")/../lib.sh"

configured_pair
up a WARREN_OFFLOAD=off
up b
first_ping a b 10
for way in "a b" "b a"; do
    read -r from to <<<"$way"
    copy "$from" "$to" 5000000
    for family in 4 6; do
        for bytes in 8 64 512 1201 1232; do
            bursts "$from" "$to" $bytes 1 20 $family
            bursts "$from" "$to" $bytes 32 20 $family
        done
    done
done
holds a b '.dropped.malformed == 0' || fail "$(of_peer a b .dropped)"
