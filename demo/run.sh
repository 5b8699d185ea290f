#!/bin/sh
# A first container, without any registry: makes an image from the distribution's busybox, loads it into
# a store of its own, and runs containers from it that say what they see. Needs root. Leaves nothing.
# Called by `make demo`, which builds the programs first; CARRACK names another program to show.
set -eu
cd "$(dirname "$0")/.."

CARRACK=${CARRACK:-$PWD/target/release/carrack}
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root: sudo make demo"
[ -x "$CARRACK" ] || die "$CARRACK is missing: make build"
if [ ! -x /usr/bin/busybox ]; then
    say "Installing the distribution's busybox-static"
    apt-get install -y --no-install-recommends busybox-static >/dev/null || die "no busybox: install busybox-static"
fi

WORLD=$(mktemp -d "${TMPDIR:-/tmp}/carrack-demo.XXXXXX")
trap 'rm -rf "$WORLD"' EXIT
trap 'exit 130' INT TERM
carrack() { "$CARRACK" --root "$WORLD/store" --runroot "$WORLD/run" "$@"; }

say "Making an image from /usr/bin/busybox (an OCI image layout in a tar file)"
APPLETS=""
for applet in $(/usr/bin/busybox --list); do
    [ "$applet" = busybox ] || APPLETS="$APPLETS @busybox=bin/$applet"
done
# shellcheck disable=SC2086  # one word an applet is what is wanted
cargo run --quiet --package carrack-store --example make-image -- "$WORLD/busybox.tar" busybox:demo \
    --cmd /bin/sh --env GREETING=ahoy \
    +755=bin +755=etc +700=root +1777=tmp /usr/bin/busybox=bin/busybox $APPLETS \
    --layer '%root:x:0:0:root:/root:/bin/sh=etc/passwd' '%root:x:0:=etc/group' '%Carrack demonstration image=etc/motd'
ls -l "$WORLD/busybox.tar"

say "carrack load, carrack images"
carrack load -i "$WORLD/busybox.tar"
carrack images

say "carrack run: what a container sees"
carrack run --rm --hostname demo --memory 64m --cpus 1.5 --pids-limit 50 busybox:demo sh -c '
    cat /etc/motd; echo "$GREETING from PID $$ on $(hostname), $(nproc) CPUs in sight"
    echo "--- processes"; ps -o pid,user,args
    echo "--- identity"; id; grep -E "^(CapEff|Seccomp|NoNewPrivs):" /proc/self/status
    echo "--- network"; ip -brief address 2>/dev/null || ip address | grep -E "^[0-9]+:|inet "
    echo "--- limits"
    for file in memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max memory.max cpu.max pids.max; do
        [ ! -r /sys/fs/cgroup/$file ] || echo "$file $(cat /sys/fs/cgroup/$file)"
    done
    echo "--- mounts"; awk "{ print \$3, \$2, substr(\$4, 1, 40) }" /proc/mounts'

say "carrack run: the exit code is the command's, standard input can be piped in"
printf 'three\nlines\nhere\n' | carrack run --rm -i busybox:demo wc -l
carrack run --rm busybox:demo sh -c 'exit 42' || echo "exit code $?"
carrack run --rm busybox:demo no-such-program || echo "exit code $?"

say "Ten containers, one after another"
time sh -c 'for n in 1 2 3 4 5 6 7 8 9 10; do "$@" run --rm busybox:demo true; done' - \
    "$CARRACK" --root "$WORLD/store" --runroot "$WORLD/run"

say "Nothing is left"
carrack ps -a
carrack rmi busybox:demo
