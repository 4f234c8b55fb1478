//! Random sets of `clone3` arguments, and what the kernel ought to say to each: a second, separate
//! writing down of its rules, for a tracer to be compared with.
//!
//! The same seed gives the same sets. No set asks for anything that outlives it.

use std::{ffi::c_int, fs, ptr};

use crate::{
    call::{After, Call, Outcome, attempt, helper},
    host,
    raw::{self, flag},
    sys::{self, Errno},
};

/// Room for a struct larger than the largest that is accepted.
const WORDS: usize = 520;

/// The largest signal.
const LAST_SIGNAL: c_int = 64;

/// What is written to or read by the kernel; it never moves.
struct Places {
    pidfd: c_int,
    parent_tid: c_int,
    child_tid: c_int,
    set_tid: [c_int; 2],
}

/// One set of arguments, its first eleven words the struct's known fields.
struct Set {
    words: [u64; WORDS],
    size: usize,
}

/// Places in the struct.
mod at {
    pub(super) const FLAGS: usize = 0;
    pub(super) const PIDFD: usize = 1;
    pub(super) const CHILD_TID: usize = 2;
    pub(super) const PARENT_TID: usize = 3;
    pub(super) const EXIT_SIGNAL: usize = 4;
    pub(super) const STACK: usize = 5;
    pub(super) const STACK_SIZE: usize = 6;
    pub(super) const TLS: usize = 7;
    pub(super) const SET_TID: usize = 8;
    pub(super) const SET_TID_SIZE: usize = 9;
    pub(super) const CGROUP: usize = 10;
}

/// What differs between hosts.
struct Host {
    /// Major and minor number of the kernel's release.
    release: (u32, u32),
    /// How deep this process's pid namespace is nested.
    level: u64,
    pid_max: i64,
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of `choices`.
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = usize::try_from(self.next() % choices.len() as u64).unwrap_or(0);
        choices
            .get(place)
            .or(choices.first())
            .copied()
            .unwrap_or_else(|| sys::exit_now(libc::EINVAL))
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}

/// Bundles that are accepted, alone or together with most others.
const BUNDLES: [u64; 8] = [
    0,
    0,
    flag::VM,
    flag::VM | flag::VFORK,
    flag::VM | flag::SIGHAND,
    flag::VM | flag::SIGHAND | flag::THREAD,
    flag::FILES | flag::FS,
    flag::VM | flag::SIGHAND | flag::THREAD | flag::FILES | flag::FS | flag::SYSVSEM,
];

/// Single flags, thrown in.
const SINGLES: [u64; 24] = [
    flag::VM,
    flag::FS,
    flag::FILES,
    flag::SIGHAND,
    flag::THREAD,
    flag::PARENT,
    flag::PIDFD,
    flag::PIDFD | flag::PARENT_SETTID,
    flag::PARENT_SETTID,
    flag::SYSVSEM,
    flag::SETTLS,
    flag::UNTRACED,
    flag::DETACHED,
    flag::NEWNS,
    flag::NEWIPC,
    flag::NEWUTS,
    flag::NEWUSER,
    flag::NEWPID,
    flag::IO,
    flag::CLEAR_SIGHAND,
    flag::INTO_CGROUP,
    1 << 40,
    1 << 63,
    flag::SIGCHLD,
];

/// An address that no program has.
const NOWHERE: u64 = 1 << 63;

impl Set {
    fn draw(random: &mut Random, places: &Places, stack: &'static [u128]) -> Self {
        let mut words = [0; WORDS];
        let mut flags = random.of(&BUNDLES);
        for _ in 0..random.next() % 3 {
            flags |= random.of(&SINGLES);
        }
        let mut put = |place: usize, word: u64| {
            if let Some(slot) = words.get_mut(place) {
                *slot = word;
            }
        };
        let ordinary = flags & (flag::THREAD | flag::PARENT) == 0;
        let signal = if ordinary { flag::SIGCHLD } else { 0 };
        put(at::FLAGS, flags);
        put(at::EXIT_SIGNAL, random.of(&[signal, signal, signal, signal, 0, 17, 64, 65, 256]));
        let [pidfd, parent_tid, child_tid] =
            [&places.pidfd, &places.parent_tid, &places.child_tid].map(address);
        put(at::PIDFD, random.of(&[pidfd, pidfd, pidfd, 0, NOWHERE]));
        put(at::PARENT_TID, random.of(&[parent_tid, parent_tid, pidfd, 0]));
        put(at::CHILD_TID, child_tid);
        put(at::TLS, random.of(&[0, 0, 0, NOWHERE]));
        if random.once_in(4) {
            let lowest = stack.as_ptr().addr() as u64;
            let bytes = size_of_val(stack) as u64;
            let (start, size) = random.of(&[
                (lowest, bytes),
                (lowest, bytes),
                (lowest, 0),
                (0, bytes),
                (NOWHERE, 4096),
                (u64::MAX, 4096),
            ]);
            put(at::STACK, start);
            put(at::STACK_SIZE, size);
        }
        if random.once_in(5) {
            let array = places.set_tid.as_ptr().addr() as u64;
            let (array, count) = random.of(&[
                (array, 1),
                (array, 1),
                (array, 1),
                (array, 2),
                (array, 0),
                (0, 1),
                (array, 33),
                (NOWHERE, 1),
            ]);
            put(at::SET_TID, array);
            put(at::SET_TID_SIZE, count);
        }
        put(at::CGROUP, random.of(&[9_999, 9_999, 1 << 32]));
        let size = random.of(&[88, 88, 88, 88, 88, 88, 80, 64, 96, 128, 4096, 63, 70, 90, 4097]);
        if size > 88 && random.once_in(2) {
            put(size.min(4096) / 8 - 1, 1 << 8);
        }
        Self { words, size }
    }

    /// A word as the kernel sees it: what lies behind the struct's end is zero.
    fn word(&self, place: usize) -> u64 {
        let begin = place * 8;
        let word = self.words.get(place).copied().unwrap_or(0);
        match self.size.saturating_sub(begin) {
            8.. => word,
            bytes => word & ((1 << (bytes * 8)) - 1),
        }
    }

    fn has(&self, flags: u64) -> bool {
        self.word(at::FLAGS) & flags == flags
    }

    fn any(&self, flags: u64) -> bool {
        self.word(at::FLAGS) & flags != 0
    }
}

fn address(place: &c_int) -> u64 {
    ptr::from_ref(place).addr() as u64
}

/// The rule that the kernel ought to apply, with its error number; None: it accepts.
fn verdict(set: &Set, places: &Places, host: &Host) -> Option<(&'static str, Errno)> {
    copying(set).or_else(|| checking(set, host)).or_else(|| making(set, places, host))
}

/// While the struct is copied.
fn copying(set: &Set) -> Option<(&'static str, Errno)> {
    let tail = set.words.iter().take(set.size / 8).skip(11).any(|word| *word != 0);
    let odd_tail = set.size == 90 && set.words.get(11).is_some_and(|word| word & 0xffff != 0);
    let (set_tid, count) = (set.word(at::SET_TID), set.word(at::SET_TID_SIZE));
    let signal = set.word(at::EXIT_SIGNAL);
    let early = signal > 64 && signal <= 255;
    Some(match () {
        () if set.size > 4096 => ("struct-larger-than-page", libc::E2BIG),
        () if set.size < 64 => ("struct-too-small", libc::EINVAL),
        () if tail || odd_tail => ("struct-tail-not-zero", libc::E2BIG),
        () if count > 32 => ("set-tid-too-many", libc::EINVAL),
        () if set_tid == 0 && count > 0 => ("set-tid-null", libc::EINVAL),
        () if set_tid != 0 && count == 0 => ("set-tid-without-size", libc::EINVAL),
        () if signal > 255 => ("exit-signal-too-large", libc::EINVAL),
        () if early && !late_signals() => ("exit-signal-unknown", libc::EINVAL),
        () if set.has(flag::INTO_CGROUP)
            && (set.size < 88 || set.word(at::CGROUP) > 0x7fff_ffff) =>
        {
            ("into-cgroup-no-fd", libc::EINVAL)
        }
        () if count > 0 && set_tid == NOWHERE => ("set-tid-unreadable", libc::EFAULT),
        () => return None,
    })
}

/// Linux 7.1 checks the signal later.
fn late_signals() -> bool {
    host::release() >= (7, 1)
}

/// Before anything is made.
fn checking(set: &Set, host: &Host) -> Option<(&'static str, Errno)> {
    let known = 0xffff_ffff | flag::CLEAR_SIGHAND | flag::INTO_CGROUP;
    let (stack, size) = (set.word(at::STACK), set.word(at::STACK_SIZE));
    let rule = match () {
        () if set.any(!known) => "unknown-flags",
        () if set.any(flag::DETACHED) => "detached-in-clone3",
        () if set.any(0x7f) => "signal-in-flags",
        () if set.has(flag::SIGHAND | flag::CLEAR_SIGHAND) => "sighand-and-clear-sighand",
        () if set.any(flag::THREAD | flag::PARENT) && set.word(at::EXIT_SIGNAL) != 0 => {
            "exit-signal-of-thread-or-sibling"
        }
        () if stack == 0 && size > 0 => "stack-size-without-stack",
        () if stack != 0 && size == 0 => "stack-without-size",
        () if stack >= NOWHERE => "stack-outside",
        () if set.has(flag::PIDFD | flag::PARENT_SETTID)
            && set.word(at::PIDFD) == set.word(at::PARENT_TID) =>
        {
            "pidfd-is-parent-tid"
        }
        () if set.word(at::EXIT_SIGNAL) > 64 => "exit-signal-unknown-late",
        () if set.has(flag::NEWNS | flag::FS) => "newns-and-fs",
        () if set.has(flag::NEWUSER | flag::FS) => "newuser-and-fs",
        () if set.has(flag::THREAD) && !set.has(flag::SIGHAND) => "thread-without-sighand",
        () if set.has(flag::SIGHAND) && !set.has(flag::VM) => "sighand-without-vm",
        () if set.has(flag::THREAD) && set.any(flag::NEWUSER | flag::NEWPID) => {
            "thread-and-new-namespace"
        }
        () if set.has(flag::PIDFD | flag::THREAD) && host.release < (6, 9) => "pidfd-and-thread",
        () => return None,
    };
    Some((rule, libc::EINVAL))
}

/// While the child is made.
fn making(set: &Set, places: &Places, host: &Host) -> Option<(&'static str, Errno)> {
    let count = set.word(at::SET_TID_SIZE);
    let [first, second] = places.set_tid;
    let levels = host.level + 1 + u64::from(set.has(flag::NEWPID));
    let range = |tid: c_int, most: i64| tid < 1 || i64::from(tid) >= most;
    let newpid = set.has(flag::NEWPID);
    Some(match () {
        () if set.has(flag::NEWIPC | flag::SYSVSEM) => ("newipc-and-sysvsem", libc::EINVAL),
        () if set.has(flag::SETTLS) && set.word(at::TLS) >= NOWHERE => ("tls-outside", libc::EPERM),
        () if count > levels => ("set-tid-too-deep", libc::EINVAL),
        () if count > 0 && range(first, host.pid_max) => ("set-tid-out-of-range", libc::EINVAL),
        () if count > 0 && newpid && first != 1 => ("set-tid-first-not-1", libc::EINVAL),
        () if count == 1 && !newpid && first == 1 => ("set-tid-taken", libc::EEXIST),
        () if count == 2 && newpid && second == 1 => ("set-tid-taken", libc::EEXIST),
        () if set.has(flag::PIDFD) && [0, NOWHERE].contains(&set.word(at::PIDFD)) => {
            ("pidfd-unwritable", libc::EFAULT)
        }
        () if set.has(flag::INTO_CGROUP) => ("into-cgroup-bad-fd", libc::EBADF),
        () => return None,
    })
}

fn this_host() -> Host {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let levels = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let levels = levels.map_or(1, |line| line.split_ascii_whitespace().count());
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    Host {
        release: host::release(),
        level: levels.saturating_sub(1) as u64,
        pid_max: pid_max.trim().parse().unwrap_or(32_768),
    }
}

/// Makes `count` attempts; each is in the journal with what it ought to come to.
pub(crate) fn run(seed: u64, count: usize) -> Outcome {
    // A child of its own, so that siblings become forker's children and are waited for.
    helper(move || {
        // A child's end must not end this process.
        // SAFETY: to ignore a signal runs nothing.
        let _old = unsafe { sys::handle(LAST_SIGNAL, libc::SIG_IGN, 0) }?;
        let host = this_host();
        let stack: &'static [u128] = Vec::leak(vec![0_u128; 4096]);
        let places =
            Box::leak(Box::new(Places { pidfd: -1, parent_tid: 0, child_tid: 0, set_tid: [1, 1] }));
        let mut random = Random(seed);
        for _ in 0..count {
            if sys::stop_signal().is_some() {
                break;
            }
            places.set_tid = [random.of(&[1, 1, 1, 0, -1, 2_000_000_000]), 1];
            let set = Set::draw(&mut random, places, stack);
            one(&set, places, &host);
        }
        Ok(())
    })
}

fn one(set: &Set, places: &mut Places, host: &Host) {
    let truth = verdict(set, places, host);
    let (rule, errno) = truth.unwrap_or(("", 0));
    let kind = match rule {
        "" => "",
        _ if rule.starts_with("set-tid-t") && rule != "set-tid-too-many" => "set-tid",
        "set-tid-out-of-range" | "set-tid-first-not-1" => "set-tid",
        "into-cgroup-bad-fd" => "cgroup-into",
        _ => "invalid-flags",
    };
    let call = Call::words(set.word(at::FLAGS), set.word(at::EXIT_SIGNAL));
    let call = call.fails(errno).because(kind, rule);
    places.pidfd = -1;
    // SAFETY: every address in the set is one of `places`, of the leaked stack, or one that no
    // program has; the child touches neither stack nor memory.
    let after = attempt(&call, || unsafe { raw::clone3_raw(&set.words, set.size) });
    if let After::Parent(tid) = after {
        sys::reap(tid);
        sys::close(places.pidfd);
    }
}
