# Connections that say nothing, by the hundred: closed in time, and an honest machine comes in meanwhile.
. "$(dirname "$0")/../lib.sh"

siege
attack half-open --count 400 --seconds 12
count=$(grep -o '[0-9]* closed' "$LAB_DIR/c/log" | tail -n 1 | cut -d' ' -f1)
((count == 400)) || fail "$((400 - count)) of 400 silent connections are still open"
stop b
(attack half-open --count 400 --seconds 8) &
pause 1
up b
back_within 12000 b a "b starts while 400 connections say nothing"
wait $! || fail "the attack failed"
unharmed
