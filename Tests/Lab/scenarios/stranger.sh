# A machine that a does not list is closed after the handshake, again and again, at no one else's expense.
. "$(dirname "$0")/../lib.sh"

trio
peer_entry a 192.0.2.1 >"$LAB_DIR/entries"
peer_entry b 192.0.2.2 >>"$LAB_DIR/entries"
configure a <"$LAB_DIR/entries"
up a
up b
first_ping b a 10
before=$(connections a)
up c
refused() { grep 'connection refused' "$LAB_DIR/a/log" | grep -q "$(identity c)"; }
until_true 5 refused
on c ping -q -c 20 -i 0.1 -W 1 "$(ip_of a)" >/dev/null 2>&1 && fail "a stranger's ping was answered"
pings b a 20
until_true 5 is_state c a unreachable
[[ $(connections a) == "$before" ]] || fail "a's connections changed: $before / $(connections a)"
