//! The stacks of callers, with the names of their frames.

use crate::{
    assemble::joined::Joined,
    event::fork::Fork,
    host::user_stacks::{Caller, UserStacks},
};

/// Adds the stack of an attempt's caller, where it was taken. Its program was added before.
pub(super) fn add(fork: &mut Fork, joined: &Joined, stacks: &mut UserStacks) {
    let Some(taken) = joined.stack.as_deref() else { return };
    let record = &joined.record;
    let caller = Caller {
        proc_pid: record.parent_proc_pid,
        ns_pid: record.parent_ns_pid,
        uid: record.uid,
        exe: fork.parent.exe.as_deref(),
        image: taken.image,
    };
    let frames = stacks.frames(&caller, &taken.frames);
    fork.stack = frames;
}
