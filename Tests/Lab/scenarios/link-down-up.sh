# A link goes down for 3 s: packets flow within 2 s of its return, with and without traffic in between.
. "$(dirname "$0")/../lib.sh"

pair
for round in idle idle busy busy; do
    [[ $round == idle ]] || keep_pinging a b
    ip -n "$LAB_TAG-a" link set u0 down
    pause 3
    ip -n "$LAB_TAG-a" link set u0 up
    back_within 2000 a b "link back, $round"
done
pings b a
