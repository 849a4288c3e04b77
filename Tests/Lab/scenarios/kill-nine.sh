# Killed without notice: the next start sweeps what was left, and an ordered end leaves nothing.
. "$(dirname "$0")/../lib.sh"

pair
before=$(on a ip rule)
stop a KILL
[[ $(on a ip rule) == "$before" ]] || fail "the kernel's rules went away by themselves: this scenario tests nothing"
up a
grep -q 'undid what the last run left' "$LAB_DIR/a/log" || fail "nothing was swept"
back_within 2000 b a "after kill -9"
pings a b
[[ $(on a ip rule) == "$before" ]] || fail "rules after the sweep: $(on a ip rule)"
stop a
nothing_left a
