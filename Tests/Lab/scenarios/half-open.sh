# Connections that say nothing, by the hundred: closed in time, and an honest machine comes in meanwhile.
. "$(dirname "$0")/../lib.sh"

siege
# The handshake's time-out is 10 s.
some_are_open() { [[ -n $(on a ss -Htn state established 'sport = :4117 and dst 192.0.2.3') ]]; }
none_is_open() { ! some_are_open; }
(attack half-open --count 400 --seconds 20) &
attacker=$!
until_true 10 some_are_open
start_clock
until_true 60 none_is_open
judge_clock 12000 "the last of 400 silent connections is closed"
wait $attacker || fail "the attack failed"
count=$(grep -o '[0-9]* closed' "$LAB_DIR/c/log" | tail -n 1 | cut -d' ' -f1)
((count == 400)) || fail "$((400 - count)) of 400 silent connections are still open"
stop b
(hostile half-open --count 400 --seconds 8) &
attacker=$!
pause 1
up b
back_within 12000 b a "b starts while 400 connections say nothing"
wait $attacker || fail "the attack failed"
unharmed
