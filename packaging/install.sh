#!/bin/sh
# Installs what has been built. Neither the configuration nor the key is touched: 'warren init' writes those.
#
#   packaging/install.sh BINARY            PREFIX (default /usr/local) and DESTDIR (default empty) from the environment
#   packaging/install.sh --uninstall
set -eu

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
here=$(cd "$(dirname "$0")" && pwd)

binary=$root/bin/warren
unit=$root/lib/systemd/system/warren.service
sysusers=$root/lib/sysusers.d/warren.conf
example=$root/share/doc/warren/warren.yaml
bash=$root/share/bash-completion/completions/warren
zsh=$root/share/zsh/site-functions/_warren
fish=$root/share/fish/vendor_completions.d/warren.fish

if [ "${1:-}" = --uninstall ]; then
    rm -f "$binary" "$unit" "$sysusers" "$example" "$bash" "$zsh" "$fish"
    exit
fi
if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    echo "usage: $0 BINARY | --uninstall" >&2
    exit 2
fi

put() { # mode, destination; the content on standard input
    install -d "$(dirname "$2")"
    cat >"$2.new"
    chmod "$1" "$2.new"
    mv -f "$2.new" "$2"
}

put 0755 "$binary" <"$1"
sed "s|^ExecStart=/usr/bin/|ExecStart=$prefix/bin/|" "$here/warren.service" | put 0644 "$unit"
put 0644 "$sysusers" <"$here/warren.sysusers"
put 0644 "$example" <"$here/../etc/warren.yaml"
"$1" completion bash | put 0644 "$bash"
"$1" completion zsh | put 0644 "$zsh"
"$1" completion fish | put 0644 "$fish"

if [ -z "${DESTDIR:-}" ] && [ -d /run/systemd/system ]; then
    systemd-sysusers "$sysusers"
    systemctl daemon-reload
fi
