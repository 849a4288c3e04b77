# 'make install' puts what a package would hold into DESTDIR, and nothing else; the unit is one that systemd takes; 'make uninstall', as the
# README says it, takes all of it away again.
. "$(dirname "$0")/../lib.sh"

here=$(cd "$(dirname "$0")/../../.." && pwd)
grep -qF 'sudo env "PATH=$PATH" make install' "$here/README.md" || fail "the README says how to install in other words"
command -v make >/dev/null || fail "'make' is missing"

# in_folder COMMAND…: as the README says it, with DESTDIR, what has been built, and the strictest umask that root may have.
in_folder() { (cd "$here" && umask 077 && WARREN=$WARREN DESTDIR=$LAB_DIR/image "$@"); }
# The executable under test is built already.
in_folder make -s -o release install >&2 || fail "make install"

listing() { (cd "$LAB_DIR/image" && find . -mindepth 1 "$@" -printf '%m %P\n' | sort -k 2); }
expected='755 usr/local/bin/warren
644 usr/local/lib/systemd/system/warren.service
644 usr/local/lib/sysusers.d/warren.conf
644 usr/local/share/bash-completion/completions/warren
644 usr/local/share/doc/warren/warren.yaml
644 usr/local/share/fish/vendor_completions.d/warren.fish
644 usr/local/share/zsh/site-functions/_warren'
[[ $(listing ! -type d) == "$expected" ]] || fail "installed: $(listing ! -type d)"
[[ -z $(listing -type d ! -perm 755) ]] || fail "folders that not everyone can enter: $(listing -type d ! -perm 755)"
installed=$LAB_DIR/image/usr/local
cmp "$WARREN" "$installed/bin/warren"
cmp "$here/etc/warren.yaml" "$installed/share/doc/warren/warren.yaml"
[[ $("$installed/bin/warren" version) == "$("$WARREN" version)" ]] || fail "warren version: $("$installed/bin/warren" version)"
bash -n "$installed/share/bash-completion/completions/warren"
for file in share/zsh/site-functions/_warren share/fish/vendor_completions.d/warren.fish; do
    grep -q warren "$installed/$file" || fail "$file completes nothing"
done

# The unit, without systemd: sections and settings are well formed, the command is what was installed and takes those words.
unit=$installed/lib/systemd/system/warren.service
bad=$(grep -vnE '^(#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.+)?$' "$unit" || :)
[[ -z $bad ]] || fail "the unit has lines that are no settings: $bad"
[[ $(grep -c '^\[' "$unit") == 3 ]] || fail "the unit has not three sections"
read -r program words < <(sed -n 's/^ExecStart=//p' "$unit")
[[ -x $LAB_DIR/image$program && $words == daemon ]] || fail "the unit starts '$program $words'"
"$LAB_DIR/image$program" $words --help >/dev/null || fail "'$program $words' is no command"
[[ $(cut -d' ' -f1,2 "$installed/lib/sysusers.d/warren.conf" | grep -v '^#') == 'g warren' ]] || fail "the group of operators is not made"
# And with it, where it is installed: in a mount namespace in which the image is the real /usr/local.
if command -v systemd-analyze >/dev/null; then
    said=$(unshare --mount bash -c 'mount --bind "$0/usr/local" /usr/local && systemd-analyze verify --man=no /usr/local/lib/systemd/system/warren.service' \
        "$LAB_DIR/image" 2>&1) || fail "systemd-analyze: $said"
    [[ -z $(grep warren <<<"$said" || :) ]] || fail "systemd-analyze: $said"
    say "the unit passes systemd-analyze verify ($(systemd-analyze --version | head -n 1))"
else
    say "systemd-analyze is not installed: the unit's form and its command were checked, its settings by no one but us"
fi
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers --dry-run "$installed/lib/sysusers.d/warren.conf" >&2 || fail "systemd-sysusers"
fi
[[ -d /run/systemd/system ]] || say "systemd does not run here: the unit was not started by it"

in_folder make -s -o release install >&2 || fail "a second make install"
[[ $(listing ! -type d) == "$expected" ]] || fail "installed twice: $(listing ! -type d)"

# The README's way back.
undo=$(grep -o '`sudo make [a-z]*`' "$here/README.md" | tr -d '`' | sed 's/^sudo //' | grep uninstall) || fail "the README does not say how to uninstall"
in_folder $undo >&2 || fail "$undo"
[[ -z $(listing ! -type d) ]] || fail "'$undo' leaves $(listing ! -type d)"
