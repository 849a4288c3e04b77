# The README's five commands for two machines, taken from it and run as they stand there. What is moved are the paths of each machine,
# for both share a file system; an editor is a program that pastes, and there is no systemd: its unit's command is run.
. "$(dirname "$0")/../lib.sh"

here=$(cd "$(dirname "$0")/../../.." && pwd)
mapfile -t commands < <(awk '
    /^## / { inside = $0 == "## Two machines" }
    inside && /^```sh/ { block++; next }
    /^```/ { if (inside && block == 2) exit }
    inside && block == 2 { sub(/ *#.*/, ""); print }' "$here/README.md")
((${#commands[@]} == 5)) || fail "the README promises five commands and has ${#commands[@]}: ${commands[*]}"

# as_written NODE WORDS…: a command of the README on one of the machines.
as_written() {
    local node=$1 other=b
    [[ $1 == a ]] || other=a
    shift
    [[ $1 != sudo ]] || shift
    case "$*" in
        "warren init --name a") # "on the other machine: --name b. Prints an entry for the others' configuration"
            w "$node" init --name "$node" >"$LAB_DIR/$node/entry" ;;
        "sudoedit /etc/warren/warren.yaml") # "paste the other machine's entry under networks.home.peers": that is the file's end
            [[ $(awk '/^[^ #]/ { top = $1 } /^  [^ ]/ { network = $1 } /^    [^ ]/ { key = $1 } END { print top network key }' \
                "$LAB_DIR/$node/warren.yaml") == networks:home:peers: ]] || fail "$node: networks.home.peers is not where the file ends"
            cat "$LAB_DIR/$other/entry" >>"$LAB_DIR/$node/warren.yaml"
            w "$node" config check >&2 ;;
        "systemctl enable --now warren")
            [[ $(sed -n 's/^ExecStart=//p' "$here/packaging/warren.service") == "/usr/bin/warren daemon" ]] || fail "the unit runs something else"
            # Type=notify: the command returns when the daemon is ready.
            up "$node" ;;
        "warren status")
            w "$node" status | tee "$LAB_DIR/$node/status" >&2 ;;
        "warren ping b") # from a; from b it is the other's name
            w "$node" ping "$other" >&2 ;;
        *) fail "this scenario does not know the README's command '$*'" ;;
    esac
}

node a
node b
link a 192.0.2.1/24 b 192.0.2.2/24
for command in "${commands[@]}"; do
    for name in a b; do
        say "$name: $command"
        as_written $name $command || fail "$name: '$command' failed"
    done
done

# "and from then on: ping, ssh, … to the addresses that status shows"
for name in a b; do
    other=$([[ $name == a ]] && echo b || echo a)
    address=$(ip_of $other)
    w $name status | grep -qF "$address" || fail "status of $name does not show $other's address $address"
    answered $name "$address" 5
done
stop_all a b
for name in a b; do nothing_left $name; done
