# The port belongs to somebody else: exit code 2 and one line with file, line, key and fix; nothing has changed.
. "$(dirname "$0")/../lib.sh"

configured_pair
on a "$LAB_TOOLS/lab-copy" receive 0.0.0.0 4117 >/dev/null 2>&1 &
until_true 5 listens a 4117
code=0
timeout 10 ip netns exec "$LAB_TAG-a" "$WARREN" daemon --config "$LAB_DIR/a/warren.yaml" --state "$LAB_DIR/a/state" \
    --socket "$LAB_DIR/a/warren.sock" >"$LAB_DIR/a/output" 2>&1 || code=$?
[[ $code == 2 ]] || fail "exit code $code: $(cat "$LAB_DIR/a/output")"
line=$(grep -n '^listen:' "$LAB_DIR/a/warren.yaml" | cut -d: -f1)
[[ $(wc -l <"$LAB_DIR/a/output") == 1 ]] || fail "more than one line: $(cat "$LAB_DIR/a/output")"
for word in "$LAB_DIR/a/warren.yaml:$line" listen 4117; do
    grep -qF "$word" "$LAB_DIR/a/output" || fail "'$word' is not in: $(cat "$LAB_DIR/a/output")"
done
cat "$LAB_DIR/a/output" >&2
nothing_left a
