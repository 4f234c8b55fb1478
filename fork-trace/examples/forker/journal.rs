//! The journal of attempts: memory shared by forker and all of its descendants.
//!
//! Whichever process made an attempt writes it here; [`drain`] gives the attempts since the last
//! reading, in the order of their start. It is shared memory rather than a pipe, so that a child
//! writes without a system call, and what it wrote is safe if it is killed.

use std::{
    ffi::c_int,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde::Serialize;

use crate::{
    call::{Call, Note, Syscall},
    sys::{self, Errno, Times, flag, memory},
};

/// How many attempts are kept between two readings; pages that are not touched cost nothing.
const SLOTS: usize = 16_384;

/// Words in a slot. The end time is the last and is written last: it says that the slot is whole.
const WORDS: usize = 18;

/// The shared memory. All zeros are an empty journal.
struct Journal {
    /// How many slots were asked for since the last reading: more than there are if some were lost.
    used: AtomicUsize,
    /// A child leaves its tid on the host here, for the attempt that made it.
    host_tid: AtomicU64,
    slots: [[AtomicU64; WORDS]; SLOTS],
}

static JOURNAL: OnceLock<&'static Journal> = OnceLock::new();

/// The name of the running scenario, as [`text_words`] gives it; children inherit it.
static SCENARIO: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// One line of output; fields without a value are left out.
#[derive(Serialize)]
pub(crate) struct Line {
    r#type: &'static str,
    scenario: &'static str,
    kind: &'static str,
    syscall: &'static str,
    clone_flags: String,
    exit_signal: u64,
    parent_pid: c_int,
    parent_tid: c_int,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_pid: Option<c_int>,
    /// The child's tid in forker's pid namespace, where `child_pid` is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_host_pid: Option<c_int>,
    ret: c_int,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<Errno>,
    start_ns: u64,
    end_ns: u64,
    around: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unexpected: Option<bool>,
    /// The kind of cause it should fail for.
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'static str,
    /// The rule it should break.
    #[serde(skip_serializing_if = "str::is_empty")]
    rule: &'static str,
}

/// Makes the shared memory.
pub(crate) fn open() -> Result<(), Errno> {
    let at = memory::share(size_of::<Journal>())?;
    // SAFETY: the memory is page-aligned zeros, large enough and never unmapped; atomics may be
    // shared.
    JOURNAL.get_or_init(|| unsafe { &*at.cast::<Journal>() });
    Ok(())
}

/// Names the scenario that the next attempts belong to.
pub(crate) fn set_scenario(name: &'static str) {
    for (place, word) in SCENARIO.iter().zip(text_words(name)) {
        place.store(word, Ordering::Relaxed);
    }
}

/// Leaves this process's tid on the host for [`write_with_host_tid`].
pub(crate) fn leave_host_tid(tid: c_int) {
    if let Some(journal) = JOURNAL.get() {
        journal.host_tid.store(word(tid), Ordering::Release);
    }
}

/// Records an attempt of this thread.
pub(crate) fn write(call: &Call, times: Times, ret: c_int) {
    append(call, times, ret, (sys::tgid(), sys::tid()), 0);
}

/// Records an attempt of this thread by its numbers on the host: `host` is the thread's own tid
/// there, and the child's is the one that it left.
pub(crate) fn write_with_host_tid(call: &Call, times: Times, ret: c_int, host: c_int) {
    let child = JOURNAL.get().map_or(0, |journal| journal.host_tid.swap(0, Ordering::Acquire));
    append(call, times, ret, (host, host), child);
}

fn append(call: &Call, times: Times, ret: c_int, caller: (c_int, c_int), child_host: u64) {
    let Some(journal) = JOURNAL.get() else { return };
    let Some(slot) = journal.slots.get(journal.used.fetch_add(1, Ordering::Relaxed)) else {
        return;
    };
    let [scenario, scenario_len] = SCENARIO.each_ref().map(|place| place.load(Ordering::Relaxed));
    let [cause, cause_len] = text_words(call.cause);
    let [rule, rule_len] = text_words(call.rule);
    let words: [u64; WORDS] = [
        scenario,
        scenario_len,
        call.syscall as u64,
        call.flags,
        call.exit_signal,
        u64::from(call.in_libc),
        call.note as u64,
        word(call.expected),
        word(ret),
        word(caller.0),
        word(caller.1),
        child_host,
        cause,
        cause_len,
        rule,
        rule_len,
        times.start_ns,
        times.end_ns,
    ];
    for (place, value) in slot.iter().zip(words) {
        place.store(value, Ordering::Release);
    }
}

/// Takes all attempts out of the journal, and how many did not fit in.
pub(crate) fn drain() -> (Vec<Line>, usize) {
    let Some(journal) = JOURNAL.get() else {
        return (Vec::new(), 0);
    };
    let used = journal.used.swap(0, Ordering::AcqRel);
    let taken = journal.slots.iter().take(used);
    let mut lines: Vec<Line> = taken.filter_map(take).collect();
    lines.sort_by_key(|line| line.start_ns);
    (lines, used.saturating_sub(SLOTS))
}

/// Reads a slot and clears it; None if its writer was killed half way.
fn take(slot: &[AtomicU64; WORDS]) -> Option<Line> {
    let [
        scenario,
        scenario_len,
        syscall,
        flags,
        exit_signal,
        in_libc,
        note,
        expected,
        ret,
        pid,
        tid,
        child_host,
        cause,
        cause_len,
        rule,
        rule_len,
        start_ns,
        end_ns,
    ] = slot.each_ref().map(|place| place.swap(0, Ordering::AcqRel));
    let ret = number(ret);
    let errno = Some(-ret).filter(|&errno| errno > 0);
    Some(Line {
        r#type: "attempt",
        scenario: text(scenario, scenario_len),
        kind: kind(flags),
        syscall: row(&Syscall::ALL, syscall)?.name(),
        clone_flags: format!("{flags:#x}"),
        exit_signal,
        parent_pid: number(pid),
        parent_tid: number(tid),
        child_pid: Some(ret).filter(|&tid| tid > 0),
        child_host_pid: Some(number(child_host)).filter(|&tid| tid > 0),
        ret,
        errno,
        start_ns,
        end_ns,
        around: if in_libc == 1 { "libc" } else { "syscall" },
        note: row(&Note::ALL, note)?.text(),
        unexpected: Some(true).filter(|_| errno.unwrap_or(0) != number(expected)),
        cause: text(cause, cause_len),
        rule: text(rule, rule_len),
    })
    .filter(|_| end_ns != 0)
}

fn row<T>(table: &[T], index: u64) -> Option<&T> {
    table.get(usize::try_from(index).ok()?)
}

fn kind(flags: u64) -> &'static str {
    match flags {
        _ if flags & flag::THREAD != 0 => "thread",
        _ if flags & flag::VFORK != 0 => "vfork",
        _ => "process",
    }
}

/// A text of the program as words: every process that writes here has it at the same address.
fn text_words(text: &'static str) -> [u64; 2] {
    [text.as_ptr().expose_provenance() as u64, text.len() as u64]
}

/// The text that these two words stand for.
fn text(address: u64, len: u64) -> &'static str {
    let (Ok(address), Ok(len @ 1..)) = (usize::try_from(address), usize::try_from(len)) else {
        return "";
    };
    let start = ptr::with_exposed_provenance(address);
    // SAFETY: a whole slot holds what `text_words` made of a static text.
    let bytes = unsafe { std::slice::from_raw_parts(start, len) };
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A small number with its sign, as a word of the journal.
fn word(number: c_int) -> u64 {
    i64::from(number).cast_unsigned()
}

/// The small number that a word stands for.
fn number(word: u64) -> c_int {
    c_int::try_from(word.cast_signed()).unwrap_or(0)
}
