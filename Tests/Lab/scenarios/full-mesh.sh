# Three machines on a switch: every pair talks directly.
. "$(dirname "$0")/../lib.sh"

trio
for node in a b c; do up $node; done
for from in a b c; do
    for to in a b c; do
        [[ $from == "$to" ]] && continue
        first_ping $from $to 10
        pings $from $to
        is_state $from $to direct || fail "$from reaches $to as $(state_of $from $to)"
    done
done
copy a c 5000000
