#!/bin/sh
# The first process of a guest: mounts what fork-trace and its tests use, runs the tests once for
# each backend, and switches the machine off. The console gets everything; the second serial line
# gets what results.rs reads, so that no kernel message comes between.
export PATH=/bin HOME=/root TMPDIR=/tmp FORK_TRACE_LIVE=require RUST_BACKTRACE=1
# Times are the emulator's: tests that hold two clocks together allow for it.
export FORK_TRACE_EMULATED=1
# Rust's test programs tell the time of each test only where unstable options are allowed.
export RUSTC_BOOTSTRAP=1
TIMES="-Z unstable-options --report-time"
export FORK_TRACE_BIN=/bin/fork-trace FORKER_BIN=/bin/forker

/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
# Only version 1 of the memory controller refuses a fork there.
case $(uname -r) in
5.*) mkdir /dev/memory && mount -t cgroup -o memory memory /dev/memory ;;
esac
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Metrics are scraped.
ifconfig lo up
# As most hosts have it; forker limits the number of processes by it.
echo +pids >/sys/fs/cgroup/cgroup.subtree_control

exec </dev/console >/dev/console 2>&1
# The kernel was told what its second serial line is called.
TOLD=/dev/$TOLD
stty -F "$TOLD" raw

# Tells the host: a word, and what belongs to it.
tell() {
    echo "$*" >"$TOLD"
}

# BACKENDS, and of each TESTS_BACKEND: arguments of the live tests; ONCE: tests that only one series of
# the kernel runs, as SERIES=NAME.
. /etc/guest
others=
for once in $ONCE; do
    case $(uname -r) in
    "${once%%=*}".*) ;;
    *) others="$others --skip ${once#*=}" ;;
    esac
done
# A guest that is booted once more does what is left.
[ -z "$ONLY" ] || BACKENDS=$(echo "$ONLY" | tr , ' ')

plan=$(fork-trace doctor --json)
echo "fork-trace doctor: status $?"
tell plan "$plan"

for backend in $BACKENDS; do
    eval "tests=\$TESTS_$backend"
    echo "backend $backend"
    tell begin "$backend"
    if fork-trace --backend "$backend" -- true >/tmp/smoke 2>&1; then
        # Where the host asks for a backend, the tests' own runs of the tool take it from here.
        export FORK_TRACE_BACKEND=$backend
        live --test-threads=1 --show-output $TIMES $tests $others 2>&1 | tee /tmp/results
        cat /tmp/results >"$TOLD"
        # An emulated CPU stands still at times: what failed is tried again, alone, twice at most.
        for try in 2 3; do
            failed=$(sed -n '/^failures:$/,$ s/^    \([a-z0-9_:]*\)$/\1/p' /tmp/results | sort -u)
            [ -n "$failed" ] || break
            tell again
            live --test-threads=1 --show-output $TIMES --exact $failed 2>&1 | tee /tmp/results
            cat /tmp/results >"$TOLD"
        done
    else
        tell "broken $(tail -n 1 /tmp/smoke)"
        # With what the verifier says.
        fork-trace -vv --backend "$backend" -- true
    fi
    tell end
done

tell done
poweroff -f
