# 100 Mbit/s, 20 ms, half a percent lost: an ordinary CUBIC flow gets at least 3.5 times as much through the tunnel as beside it, and a ping
# next to it waits no longer than 1.5 times (median) and twice (99th percentile) as long as on the bare link next to a BBR flow.
. "$(dirname "$0")/../lib.sh"

seconds=${LAB_FLOW_SECONDS:-10}
configured=$(sysctl -n net.ipv4.tcp_available_congestion_control)
[[ " $configured " == *" bbr "* && " $configured " == *" cubic "* ]] || fail "this kernel has only $configured"

node a
node b
# The queue holds 50 ms.
long_link a 192.0.2.1/24 b 192.0.2.2/24 --rate 100000000 --delay 10000 --queue 625000 --loss 5000 --seed 7

# flow_and_pings ADDRESS CONGESTION: one TCP flow from a to b and, from its second second on, pings beside it. Prints Mbit/s, the median
# and the 99th percentile of the pings in ms, and how many were not answered.
flow_and_pings() {
    local flow count=$(((seconds - 2) * 50))
    on b iperf3 -s -1 -D --logfile /dev/null
    until_true 60 listens b 5201
    on a iperf3 -c "$1" -C "$2" -t "$seconds" -J >"$LAB_DIR/flow" &
    flow=$!
    pause 1.5
    on a ping -i 0.02 -c $count -W 5 "$1" >"$LAB_DIR/pings" || :
    wait $flow || fail "iperf3: $(jq -r .error "$LAB_DIR/flow")"
    jq -r '.end.sum_received.bits_per_second / 1e6 * 10 | round / 10' "$LAB_DIR/flow"
    sed -n 's/.*time=\([0-9.]*\) ms/\1/p' "$LAB_DIR/pings" | sort -n | awk -v sent=$count '
        { times[NR] = $1 }
        END { if (NR) print times[int((NR + 1) / 2)], times[int(NR * 0.99 + 0.999)], sent - NR; else print "- - " sent }'
}

row() { printf '  %-26s %9s %9s %9s %11s\n' "$@" >&2; }
row "" Mbit/s "ping ms" "p99 ms" unanswered
declare -A mbps=() median=() p99=()
measure() { # key, label, address, congestion
    local lost
    read -r -d '' "mbps[$1]" "median[$1]" "p99[$1]" lost < <(flow_and_pings "$3" "$4") || :
    [[ -n $lost && ${median[$1]} != - ]] || fail "$2: no figures"
    row "$2" "${mbps[$1]}" "${median[$1]}" "${p99[$1]}" "$lost"
}
measure raw-bbr "bare link, BBR" 192.0.2.2 bbr
measure raw-cubic "bare link, CUBIC" 192.0.2.2 cubic

entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 192.0.2.2)"
configure a <<<"$entries"
configure b <<<"$entries"
up a
up b
first_ping a b 10
measure tunnel-bbr "tunnel, BBR" "$(ip_of b)" bbr
measure tunnel-cubic "tunnel, CUBIC" "$(ip_of b)" cubic
say "the tunnel's own connections: $(of_peer a b '[.paths[] | "\(.transport) \(.congestion // "")"] | unique | join(", ")')"
end_link a b

ratio() { awk "BEGIN { printf \"%.2f\", $1 / $2 }"; }
at_most() { awk "BEGIN { exit !($1 <= $2) }"; }
missed=()
judge() { # what, value, relation, bound
    local verdict=ok
    if [[ $3 == '>=' ]]; then at_most "$4" "$2"; else at_most "$2" "$4"; fi || verdict=MISS
    printf '  %-52s %6s  %s %-4s %s\n' "$1" "$2" "$3" "$4" $verdict >&2
    [[ $verdict == ok ]] || missed+=("$1")
}
judge "CUBIC in the tunnel / on the bare link" "$(ratio "${mbps[tunnel-cubic]}" "${mbps[raw-cubic]}")" '>=' 3.5
judge "ping beside it / beside BBR on the bare link, median" "$(ratio "${median[tunnel-cubic]}" "${median[raw-bbr]}")" '<=' 1.5
judge "the same, 99th percentile" "$(ratio "${p99[tunnel-cubic]}" "${p99[raw-bbr]}")" '<=' 2
((${#missed[@]} == 0)) || fail "$(printf '%s; ' "${missed[@]}")"
