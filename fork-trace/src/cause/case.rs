//! One refused attempt, as the questions that rules and limits ask about it.
//!
//! The answer is `None` where the evidence for it was not recorded; `?` passes that on, so that the
//! rule itself answers `None`.

use fork_trace_common::{
    flags::{CLONE_INTO_CGROUP, CLONE_NEWPID, CLONE_NEWUSER},
    record::{ForkRecord, Syscall, bits},
    refusal::{RefusalRecord, arg, known},
};

use nix::errno::Errno;

use crate::{
    cause::window::Window,
    host::{features::Features, limits::Aftermath},
};

/// KERNEL: include/uapi/linux/capability.h.
pub(super) const CAP_SYS_ADMIN: u32 = 21;

pub(super) const CAP_SYS_RESOURCE: u32 = 24;

pub(super) const CAP_CHECKPOINT_RESTORE: u32 = 40;

/// One refused attempt, with all that is known of it.
pub struct Case<'a> {
    /// The error number that the caller gets, positive.
    pub errno: u32,
    /// The attempt's record.
    pub record: &'a ForkRecord,
    /// What the kernel side read when the attempt was refused; `None` where that record was lost.
    pub refusal: Option<&'a RefusalRecord>,
    /// What this process read just after the refusal.
    pub after: &'a Aftermath,
    /// What this kernel refuses where kernels differ.
    pub features: &'a Features,
    /// The stages that can have refused the attempt.
    pub window: Window,
}

impl Case<'_> {
    /// The evidence, if it has the part that `bit` of [`known`] stands for.
    pub(super) fn with(&self, bit: u64) -> Option<&RefusalRecord> {
        self.refusal.filter(|refusal| refusal.has(bit))
    }

    /// Whether `bit` is set; `None` where the evidence lacks `needed`, without which it says
    /// nothing.
    fn is(&self, bit: u64, needed: u64) -> Option<bool> {
        self.with(needed).map(|refusal| refusal.has(bit))
    }

    /// Whether the entry of the system call was seen.
    pub(super) fn entered(&self) -> bool {
        self.record.has(bits::ENTERED)
    }

    /// Whether the system call came through the 32-bit entry.
    pub(super) fn compat(&self) -> bool {
        self.record.has(bits::COMPAT)
    }

    /// The error as the kernel names it.
    pub(super) fn error(&self) -> Errno {
        i32::try_from(self.errno).map_or(Errno::UnknownErrno, Errno::from_raw)
    }

    /// The system call's name.
    pub(super) fn call(&self) -> &'static str {
        const NAMES: [(Syscall, &str); 4] = [
            (Syscall::Fork, "fork"),
            (Syscall::Vfork, "vfork"),
            (Syscall::Clone, "clone"),
            (Syscall::Clone3, "clone3"),
        ];
        let named = NAMES.iter().find(|(call, _)| *call as u32 == self.record.syscall);
        named.map_or("the call", |(_, name)| name)
    }

    pub(super) fn clone3(&self) -> bool {
        self.record.syscall == Syscall::Clone3 as u32
    }

    /// The size that the caller gave for `clone3`'s struct, in bytes.
    pub(super) fn size(&self) -> Option<u64> {
        self.with(known::ARGS).map(|refusal| refusal.args_bytes)
    }

    /// Whether the words of `clone3`'s struct could not be read. A caller that is being killed does not get a
    /// page that is not there, so of its memory nothing is known.
    pub(super) fn unreadable(&self) -> Option<bool> {
        self.is_lost(known::ARGS_UNREADABLE)
    }

    /// The same of what follows the known words of `clone3`'s struct.
    pub(super) fn tail_unreadable(&self) -> Option<bool> {
        self.is_lost(known::TAIL_UNREADABLE)
    }

    /// Whether `bit` says that something could not be read which the caller can have meant.
    fn is_lost(&self, bit: u64) -> Option<bool> {
        Some(self.is(bit, known::ARGS)? && self.killed() != Some(true))
    }

    /// Whether what follows the known words of `clone3`'s struct is not all zero.
    pub(super) fn tail_not_zero(&self) -> Option<bool> {
        self.is(known::TAIL_NOT_ZERO, known::ARGS)
    }

    /// Whether the array that `set_tid` points to could not be read.
    pub(super) fn set_tid_unreadable(&self) -> Option<bool> {
        Some(self.word(arg::SET_TID_SIZE)? > 0 && self.with(known::SET_TID).is_none())
    }

    /// The word of the arguments at `place`, one of [`arg`].
    pub(super) fn word(&self, place: usize) -> Option<u64> {
        let refusal = self.with(known::ARGS)?;
        let readable = !refusal.has(known::ARGS_UNREADABLE);
        refusal.args.get(place).copied().filter(|_| readable)
    }

    /// The clone flags, without the exit signal.
    pub(super) fn flags(&self) -> Option<u64> {
        let flags = self.word(arg::FLAGS)?;
        // The evidence was read when the attempt failed. Another thread may have written to the
        // struct since the kernel read it, so the flags count only if they are those at entry.
        let entered = self.clone3() && self.record.has(bits::FLAGS);
        (!entered || flags == self.record.clone_flags).then_some(flags)
    }

    /// Whether all of `flags` are set.
    pub(super) fn all(&self, flags: u64) -> Option<bool> {
        Some(self.flags()? & flags == flags)
    }

    /// Whether any of `flags` is set.
    pub(super) fn any(&self, flags: u64) -> Option<bool> {
        Some(self.flags()? & flags != 0)
    }

    /// Whether `flag` is set and `missing` is not.
    pub(super) fn without(&self, flag: u64, missing: u64) -> Option<bool> {
        Some(self.any(flag)? && !self.any(missing)?)
    }

    /// Whether the caller has `capability` in its own user namespace.
    pub(super) fn capable(&self, capability: u32) -> Option<bool> {
        self.with(known::CRED).map(|refusal| refusal.caps >> capability & 1 == 1)
    }

    /// Whether the caller has `capability` in the initial user namespace.
    pub(super) fn capable_in_init(&self, capability: u32) -> Option<bool> {
        let refusal = self.with(known::CRED)?;
        Some(refusal.user_ns_level == 0 && self.capable(capability)?)
    }

    /// Whether the caller is an init process, the first of its pid namespace.
    ///
    /// KERNEL: include/linux/sched/signal.h `SIGNAL_UNKILLABLE`.
    pub(super) fn init(&self) -> Option<bool> {
        self.with(known::SIGNAL).map(|refusal| refusal.signal_flags & 0x40 != 0)
    }

    /// Whether the pids controller refused the caller's own group a task during the attempt: its
    /// counter grew between the entry and the failure.
    pub(super) fn pids_refused(&self) -> Option<bool> {
        let refusal = self.with(known::PIDS_REFUSALS)?;
        let known = self.record.has(bits::PIDS_REFUSALS);
        known.then_some(refusal.pids_refusals > self.record.pids_refusals)
    }

    /// Whether the caller's own group was out of memory during the attempt: its counter grew
    /// between the entry and the failure.
    pub(super) fn out_of_group_memory(&self) -> Option<bool> {
        let refusal = self.with(known::MEMORY_OOMS)?;
        let known = self.record.has(bits::MEMORY_OOMS);
        known.then_some(refusal.memory_ooms > self.record.memory_ooms)
    }

    /// Whether the caller's children go to another pid namespace than its own.
    pub(super) fn other_pid_ns(&self) -> Option<bool> {
        self.is(known::OTHER_PID_NS, known::PID_NS)
    }

    /// Whether the caller's children go to another time namespace than its own.
    pub(super) fn other_time_ns(&self) -> Option<bool> {
        self.is(known::OTHER_TIME_NS, known::PID_NS)
    }

    /// How deep the child's pid namespace would be nested.
    pub(super) fn child_pid_level(&self) -> Option<u64> {
        let level = self.with(known::PID_NS)?.children_level;
        Some(u64::from(level) + u64::from(self.any(CLONE_NEWPID)?))
    }

    /// The first id in `set_tid`, that of the child's innermost pid namespace.
    pub(super) fn first_tid(&self) -> Option<u32> {
        self.with(known::SET_TID).and_then(|refusal| refusal.set_tid.first().copied())
    }

    /// Whether a tracer took the call away from the kernel.
    pub(super) fn taken(&self) -> bool {
        self.with(known::TAKEN).is_some()
    }

    /// Whether a fatal signal was pending for the caller as the call returned.
    pub(super) fn killed(&self) -> Option<bool> {
        self.is(known::KILLED, known::ENDING)
    }

    /// Whether the out-of-memory killer had chosen the caller's process by then.
    pub(super) fn oom_victim(&self) -> Option<bool> {
        self.is(known::OOM_VICTIM, known::ENDING)
    }

    /// Whether the caller's root directory is another than that of its mount namespace.
    pub(super) fn chrooted(&self) -> Option<bool> {
        self.is(known::CHROOTED, known::ROOT)
    }

    /// Whether an effective id of the caller has no mapping in its user namespace.
    pub(super) fn unmapped(&self) -> Option<bool> {
        self.is(known::UID_UNMAPPED | known::GID_UNMAPPED, known::IDS)
    }

    /// Whether the caller lacks the right to choose an id in the child's pid namespace.
    pub(super) fn may_not_set_tid(&self) -> Option<bool> {
        let refusal = self.with(known::CRED)?;
        let may = self.capable(CAP_CHECKPOINT_RESTORE)? || self.capable(CAP_SYS_ADMIN)?;
        // The right counts in the user namespace that owns the pid namespace, and the evidence does
        // not say which one that is. It is certain only in the initial user namespace.
        let simple = refusal.user_ns_level == 0 && !self.any(CLONE_NEWUSER)?;
        if !may || simple { Some(!may) } else { None }
    }

    /// Whether the caller names the child's control group.
    pub(super) fn names_group(&self) -> Option<bool> {
        self.any(CLONE_INTO_CGROUP)
    }
}
