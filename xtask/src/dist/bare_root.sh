# This installs a package of Debian's in a root that has only what Debian cannot do without, traces with it,
# and removes it. It runs as root in a mount namespace of its own, so that what it mounts goes with it; the
# root itself is in memory. What it sees is written to files, for others to judge.
#
# Arguments: the packed root, which is made if it is not there; the package; the folder for what was seen.
set -eu
umask 022
packed=$1 package=$2 seen=$3
suite=bookworm mirror=http://deb.debian.org/debian
root=$seen/root

mkdir -p "$root"
mount -t tmpfs -o mode=0755 bare-root "$root"
if [ ! -f "$packed" ]; then
    echo "Debian $suite: fetching what it cannot do without, which takes a minute"
    if ! command -v debootstrap >/dev/null || [ ! -f /usr/share/keyrings/debian-archive-keyring.gpg ]; then
        apt-get -q update
        apt-get -q install --yes --no-install-recommends debootstrap debian-archive-keyring
    fi
    if ! debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        "$suite" "$root" "$mirror" >"$seen/debootstrap" 2>&1; then
        tail -n 20 "$seen/debootstrap" >&2
        exit 1
    fi
    rm -f "$root"/var/cache/apt/archives/*.deb
    tar -C "$root" -cf "$packed.new" .
    mv "$packed.new" "$packed"
else
    tar -C "$root" -xf "$packed"
fi
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
cp "$package" "$root/package.deb"

in_root() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$root" "$@" </dev/null
}
files() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log \) -prune -o -print) | sort
}

files >"$seen/before"
in_root dpkg --install /package.deb >"$seen/dpkg"
files >"$seen/installed"
in_root dpkg --verify fork-trace >"$seen/verify"
in_root fork-trace --version >"$seen/version"
in_root fork-trace doctor >"$seen/doctor"
in_root fork-trace --json -o /trace.json -- sh -c 'ls / | wc -l' >"$seen/number"
mv "$root/trace.json" "$seen/trace"
in_root gzip -dc /usr/share/man/man1/fork-trace.1.gz >"$seen/man"
# What bash does when somebody types `fork-trace exp` and the tabulator.
in_root bash -c '
    . /usr/share/bash-completion/completions/fork-trace
    function=$(complete -p fork-trace)
    function=${function##* -F }
    COMP_WORDS=(fork-trace exp) COMP_CWORD=1
    ${function%% *} fork-trace exp fork-trace
    echo "${COMPREPLY[*]}"' >"$seen/bash"
in_root cat /usr/share/zsh/vendor-completions/_fork-trace >"$seen/zsh"
in_root cat /usr/share/fish/vendor_completions.d/fork-trace.fish >"$seen/fish"
# As the unit starts it.
in_root fork-trace export --config /etc/fork-trace/export.toml --check >"$seen/check"
in_root dpkg --purge fork-trace >>"$seen/dpkg"
files >"$seen/removed"
