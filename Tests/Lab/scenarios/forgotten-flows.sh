# A firewall forgets the flows it knew, again and again, while only a has something to send: each time packets arrive within 4 s.
. "$(dirname "$0")/../lib.sh"

pair
on b sysctl -qw net.ipv4.icmp_echo_ignore_all=1
keep_pinging a b
received() { of_peer b a .receivedPackets; }
more_than() { (($(received) > $1)); }
for round in {1..9}; do
    while read -r local remote; do
        nft_rule a output "tcp sport ${local##*:} tcp dport ${remote##*:} drop"
        nft_rule a input "tcp sport ${remote##*:} tcp dport ${local##*:} drop"
    done < <(connections a)
    pause 0.2
    before=$(received)
    start_clock
    until_true 60 more_than $((before + 2))
    judge_clock 4000 "flow $round forgotten: packets arrive, b has $(of_peer b a '.paths | length') connections,"
done
