//! What is known of one refused attempt, as questions that rules ask. An answer is `None` where
//! the evidence is not there; `?` carries that through a rule.

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

/// One refused attempt.
pub struct Case<'a> {
    /// The error number.
    pub errno: u32,
    /// The attempt.
    pub record: &'a ForkRecord,
    /// The evidence.
    pub refusal: Option<&'a RefusalRecord>,
    /// What was read afterwards.
    pub after: &'a Aftermath,
    /// This kernel.
    pub features: &'a Features,
    /// Between which stages it failed.
    pub window: Window,
}

impl Case<'_> {
    /// The evidence, if it has `bit` of [`known`].
    pub(super) fn with(&self, bit: u64) -> Option<&RefusalRecord> {
        self.refusal.filter(|refusal| refusal.has(bit))
    }

    fn is(&self, bit: u64, needed: u64) -> Option<bool> {
        self.with(needed).map(|refusal| refusal.has(bit))
    }

    pub(super) fn entered(&self) -> bool {
        self.record.has(bits::ENTERED)
    }

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

    /// The size given for `clone3`'s struct.
    pub(super) fn size(&self) -> Option<u64> {
        self.with(known::ARGS).map(|refusal| refusal.args_bytes)
    }

    pub(super) fn unreadable(&self) -> Option<bool> {
        self.is(known::ARGS_UNREADABLE, known::ARGS)
    }

    pub(super) fn tail_unreadable(&self) -> Option<bool> {
        self.is(known::TAIL_UNREADABLE, known::ARGS)
    }

    pub(super) fn tail_not_zero(&self) -> Option<bool> {
        self.is(known::TAIL_NOT_ZERO, known::ARGS)
    }

    pub(super) fn set_tid_unreadable(&self) -> Option<bool> {
        Some(self.word(arg::SET_TID_SIZE)? > 0 && self.with(known::SET_TID).is_none())
    }

    /// A word of the arguments.
    pub(super) fn word(&self, place: usize) -> Option<u64> {
        let refusal = self.with(known::ARGS)?;
        let readable = !refusal.has(known::ARGS_UNREADABLE);
        refusal.args.get(place).copied().filter(|_| readable)
    }

    /// The clone flags, without the exit signal.
    pub(super) fn flags(&self) -> Option<u64> {
        let flags = self.word(arg::FLAGS)?;
        // Another thread may have written to the struct since the kernel read it.
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

    /// KERNEL: include/linux/sched/signal.h `SIGNAL_UNKILLABLE`: an init process.
    pub(super) fn init(&self) -> Option<bool> {
        self.with(known::SIGNAL).map(|refusal| refusal.signal_flags & 0x40 != 0)
    }

    /// Whether the pids controller refused the caller's own group a task during the attempt.
    pub(super) fn pids_refused(&self) -> Option<bool> {
        let refusal = self.with(known::PIDS_REFUSALS)?;
        let known = self.record.has(bits::PIDS_REFUSALS);
        known.then_some(refusal.pids_refusals > self.record.pids_refusals)
    }

    /// Whether the caller's own group was out of memory during the attempt.
    pub(super) fn out_of_group_memory(&self) -> Option<bool> {
        let refusal = self.with(known::MEMORY_OOMS)?;
        let known = self.record.has(bits::MEMORY_OOMS);
        known.then_some(refusal.memory_ooms > self.record.memory_ooms)
    }

    pub(super) fn other_pid_ns(&self) -> Option<bool> {
        self.is(known::OTHER_PID_NS, known::PID_NS)
    }

    pub(super) fn other_time_ns(&self) -> Option<bool> {
        self.is(known::OTHER_TIME_NS, known::PID_NS)
    }

    /// How deep the child's pid namespace would be nested.
    pub(super) fn child_pid_level(&self) -> Option<u64> {
        let level = self.with(known::PID_NS)?.children_level;
        Some(u64::from(level) + u64::from(self.any(CLONE_NEWPID)?))
    }

    /// The first number asked for.
    pub(super) fn first_tid(&self) -> Option<u32> {
        self.with(known::SET_TID).and_then(|refusal| refusal.set_tid.first().copied())
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

    /// Whether no number may be chosen in the child's pid namespace.
    pub(super) fn may_not_set_tid(&self) -> Option<bool> {
        let refusal = self.with(known::CRED)?;
        let may = self.capable(CAP_CHECKPOINT_RESTORE)? || self.capable(CAP_SYS_ADMIN)?;
        // Which user namespace owns the pid namespace is not known.
        let simple = refusal.user_ns_level == 0 && !self.any(CLONE_NEWUSER)?;
        if !may || simple { Some(!may) } else { None }
    }

    pub(super) fn names_group(&self) -> Option<bool> {
        self.any(CLONE_INTO_CGROUP)
    }
}
