# Everything vanishes both ways without a word, then no more: packets flow within 2 s of that.
. "$(dirname "$0")/../lib.sh"

pair
keep_pinging a b
for seconds in 1 3 5 8; do
    black_hole a
    pause $seconds
    nft_clear a
    back_within 2000 a b "after $seconds s of silence"
done
pings b a
