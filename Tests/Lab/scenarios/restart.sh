# One of two machines restarts under traffic: packets flow within 2 s of its being up.
. "$(dirname "$0")/../lib.sh"

pair
keep_pinging a b
for round in 1 2 3; do
    stop b
    up b
    back_within 2000 a b "restart $round"
done
pings b a
