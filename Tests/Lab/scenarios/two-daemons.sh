# Two daemons on one machine, each with its own files, port, interface and network, and a third machine in both networks.
. "$(dirname "$0")/../lib.sh"

node a
node b
guest c b 4118 warren1
link a 192.0.2.1/24 b 192.0.2.2/24
peer_entry b 192.0.2.2 | configure a
peer_entry a 192.0.2.1 | configure b
peer_entry a 192.0.2.1 | configure c
{
    printf '  second:\n    interface: warren1\n    peers:\n'
    peer_entry c 192.0.2.2
} >>"$LAB_DIR/a/warren.yaml"
sed -i 's/^  lab:/  second:/' "$LAB_DIR/c/warren.yaml"
for name in a b c; do up $name; done
first_ping a b 10
first_ping a c 10
copy a b 5000000
copy a c 5000000

stop b KILL
say "c, after b's end"
answered a "$(ip_of c)" 20
up b
back_within 2000 a b "b after kill -9, beside c"
say "c, after b's start"
answered a "$(ip_of c)" 20
stop b
copy a c 5000000
stop c
nothing_left b
on b ip link show warren1 >/dev/null 2>&1 && fail "c's interface is still there"
[[ -z $(on b ip route show table all | grep warren1) ]] || fail "c's routes remain"
