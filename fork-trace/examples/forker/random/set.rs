//! One set of arguments: how it is drawn, and what the kernel reads in it.

use std::{ffi::c_int, ptr};

use super::{field, numbers::Random};
use crate::sys::flag;

/// Words enough for a struct larger than the largest that the kernel accepts.
const WORDS: usize = 520;

/// What the kernel writes to or reads; it never moves.
pub(super) struct Places {
    pub(super) pidfd: c_int,
    pub(super) parent_tid: c_int,
    pub(super) child_tid: c_int,
    pub(super) set_tid: [c_int; 2],
}

/// One set of arguments: its first eleven words are the struct's known fields.
pub(super) struct Set {
    pub(super) words: [u64; WORDS],
    pub(super) size: usize,
}

/// Flags that are accepted together, and with most others too.
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

/// Flags that are added to them, up to two.
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
pub(super) const NOWHERE: u64 = 1 << 63;

impl Set {
    /// Draws a set; its addresses are of `places` and `stack`.
    pub(super) fn draw(random: &mut Random, places: &Places, stack: &'static [u128]) -> Self {
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
        put(field::FLAGS, flags);
        put(field::EXIT_SIGNAL, random.of(&[signal, signal, signal, signal, 0, 17, 64, 65, 256]));
        let [pidfd, parent_tid, child_tid] =
            [&places.pidfd, &places.parent_tid, &places.child_tid].map(address);
        put(field::PIDFD, random.of(&[pidfd, pidfd, pidfd, 0, NOWHERE]));
        put(field::PARENT_TID, random.of(&[parent_tid, parent_tid, pidfd, 0]));
        put(field::CHILD_TID, child_tid);
        put(field::TLS, random.of(&[0, 0, 0, NOWHERE]));
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
            put(field::STACK, start);
            put(field::STACK_SIZE, size);
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
            put(field::SET_TID, array);
            put(field::SET_TID_SIZE, count);
        }
        put(field::CGROUP, random.of(&[9_999, 9_999, 1 << 32]));
        let size = random.of(&[88, 88, 88, 88, 88, 88, 80, 64, 96, 128, 4096, 63, 70, 90, 4097]);
        if size > 88 && random.once_in(2) {
            put(size.min(4096) / 8 - 1, 1 << 8);
        }
        Self { words, size }
    }

    /// A word as the kernel reads it: zero behind the struct's end.
    pub(super) fn word(&self, place: usize) -> u64 {
        let begin = place * 8;
        let word = self.words.get(place).copied().unwrap_or(0);
        match self.size.saturating_sub(begin) {
            8.. => word,
            bytes => word & ((1 << (bytes * 8)) - 1),
        }
    }

    /// Whether all of these flags are set.
    pub(super) fn has(&self, flags: u64) -> bool {
        self.word(field::FLAGS) & flags == flags
    }

    /// Whether one of these flags is set.
    pub(super) fn any(&self, flags: u64) -> bool {
        self.word(field::FLAGS) & flags != 0
    }
}

fn address(place: &c_int) -> u64 {
    ptr::from_ref(place).addr() as u64
}
