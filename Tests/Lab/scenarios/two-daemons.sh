# Two daemons on one machine, each with its own files, port and interface, and a third machine.
. "$(dirname "$0")/../lib.sh"

node a
node b
guest c b 4118 warren1
link a 192.0.2.1/24 b 192.0.2.2/24
entries="$(peer_entry a 192.0.2.1)
$(peer_entry b 192.0.2.2)
$(peer_entry c 192.0.2.2)"
for name in a b c; do configure $name <<<"$entries"; done
for name in a b c; do up $name; done
first_ping a b 10
first_ping a c 10
copy a b 5000000
copy a c 5000000
stop b KILL
up b
pings a c
back_within 2000 a b "b after kill -9, beside c"
stop b
pings a c
copy c a 5000000
stop c
nothing_left b
nothing_left c
