//! For each row of the table of limits, the function that goes from the evidence to a finding.

use fork_trace_common::{
    flags::{CLONE_INTO_CGROUP, CLONE_NEWPID, CLONE_NEWUSER, CLONE_PIDFD, CLONE_VM},
    refusal::{Counted, NAMESPACES, known},
    stage::Stage,
};

use crate::{
    cause::case::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE, Case},
    event::values::Name,
};

/// The value of `vm.overcommit_memory` with which the kernel never promises more memory than it
/// has.
const NEVER: u64 = 2;

/// What the evidence says about one row of the table.
#[derive(Debug)]
pub(super) enum Finding {
    /// The evidence rules the reason out.
    No,
    /// Only the error number speaks for the reason, so it counts only if no other is found.
    Fallback(Details),
    /// The reason is possible.
    Maybe(Details),
    /// The evidence shows the reason.
    Yes(Details),
}

/// The values that show which limit was reached, and whose it is; each is `None` where a row has no
/// such value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// The limit's name.
    pub(super) limit: Option<Name>,
    /// The value of the counter that the limit applies to.
    pub(super) current: Option<u64>,
    /// The limit's value, in the same unit.
    pub(super) max: Option<u64>,
    /// The control group or namespace that the limit belongs to.
    pub(super) path: Option<String>,
    /// The user whose limit it is.
    pub(super) uid: Option<u32>,
    /// A better hint than the row's.
    pub(super) hint: Option<String>,
}

/// KERNEL: include/uapi/linux/sched.h.
pub(super) const SCHED_DEADLINE: u32 = 6;

/// KERNEL: include/linux/pid.h `RESERVED_PIDS`: ids below this one are not given a second time.
const RESERVED_PIDS: u64 = 300;

/// KERNEL: `include/linux/pid_namespace.h` `PIDNS_ADDING`.
pub(super) const PIDNS_ADDING: u32 = 1 << 31;

/// How deep pid namespaces may be nested; user namespaces may be nested one level deeper.
const NESTED: u64 = 32;

/// A group with fewer pages left than this counts as short of memory: a fork may charge as many at
/// once. KERNEL: mm/memcontrol.c charges 64 pages at a time.
const SHORT_PAGES: u64 = 64;

const PAGE_BYTES: u64 = 4096;

/// How many tasks may end between the refusal and the reading of a counter: a counter that is below
/// its limit by no more than this may have been full.
const SLACK: u64 = 64;

/// KERNEL: include/uapi/linux/seccomp.h `SECCOMP_MODE_FILTER`.
const SECCOMP_FILTER: u32 = 2;

/// `No` where the condition is known not to hold, otherwise `Maybe` without values.
pub(super) fn maybe(holds: Option<bool>) -> Finding {
    match holds {
        Some(false) => Finding::No,
        _ => Finding::Maybe(Details::default()),
    }
}

/// The values of a counter and of its limit, named `limit`.
fn counted(counted: &Counted, limit: &'static str) -> Details {
    Details {
        limit: Some(Name::Borrowed(limit)),
        current: Some(counted.current),
        max: Some(counted.max),
        ..Details::default()
    }
}

fn id(owner: u64) -> Option<u32> {
    u32::try_from(owner).ok()
}

/// A seccomp filter refuses a call before its entry is marked, so a call whose entry was seen was
/// not refused by one. The reverse is not certain: a tracer comes before the mark too, and from
/// 6.13 on the kernel may skip the program that marks it.
///
/// KERNEL: kernel/entry/common.c `syscall_trace_enter`.
pub(super) fn seccomp(case: &Case<'_>) -> Finding {
    if case.entered() {
        return Finding::No;
    }
    match case.with(known::SECCOMP) {
        Some(refusal) if refusal.seccomp_mode != SECCOMP_FILTER => Finding::No,
        Some(refusal) if !refusal.has(known::TRACED) => Finding::Yes(Details::default()),
        _ => Finding::Maybe(Details::default()),
    }
}

/// The limit does not apply to root, nor to a caller with either of two capabilities.
///
/// KERNEL: kernel/fork.c `copy_process`.
pub(super) fn nproc(case: &Case<'_>) -> Finding {
    let exempt = || {
        let root = case.with(known::CRED)?.uid == 0;
        Some(
            root || case.capable_in_init(CAP_SYS_RESOURCE)?
                || case.capable_in_init(CAP_SYS_ADMIN)?,
        )
    };
    if exempt() == Some(true) {
        return Finding::No;
    }
    let Some(refusal) = case.with(known::NPROC) else {
        return Finding::Maybe(Details::default());
    };
    let uid = id(refusal.nproc.owner);
    let details = Details { uid, ..counted(&refusal.nproc, "RLIMIT_NPROC") };
    // A child in a new user namespace is counted there, and that counter is not in the evidence.
    match (refusal.nproc.full(), case.any(CLONE_NEWUSER)) {
        (true, Some(false)) if exempt() == Some(false) => Finding::Yes(details),
        (true, _) => Finding::Maybe(details),
        (false, Some(false)) => Finding::No,
        (false, _) => Finding::Maybe(Details::default()),
    }
}

pub(super) fn threads_max(case: &Case<'_>) -> Finding {
    let Some((current, max)) = case.after.threads else {
        return Finding::Maybe(Details::default());
    };
    if current + SLACK < max {
        return Finding::No;
    }
    Finding::Maybe(Details {
        limit: Some(Name::Borrowed("kernel.threads-max")),
        current: Some(current),
        max: Some(max),
        ..Details::default()
    })
}

pub(super) fn deadline(case: &Case<'_>) -> Finding {
    match case.with(known::SIGNAL) {
        Some(refusal) if refusal.policy != SCHED_DEADLINE => Finding::No,
        // The evidence does not show whether the policy has the flag that lets the caller fork. But
        // no other reason gives this error after the check of `kernel.threads-max` and before the
        // copy of root and working directory.
        Some(_) if !case.window.admits(Stage::MaxThreads) && !case.window.admits(Stage::CopyFs) => {
            Finding::Yes(Details::default())
        }
        _ => Finding::Maybe(Details::default()),
    }
}

/// The ids of a namespace are used up a little before `pid_max`, because those below
/// [`RESERVED_PIDS`] are given only once.
///
/// KERNEL: kernel/pid.c `alloc_pid`: ids are given cyclically.
pub(super) fn pid_max(case: &Case<'_>) -> Finding {
    let inner = case.with(known::PID_MAX).map(|refusal| refusal.pid_ns);
    let outer = case.with(known::PID_NS).zip(case.after.pid_max).map(|(refusal, max)| Counted {
        current: u64::from(refusal.children_allocated & !PIDNS_ADDING),
        max,
        owner: u64::from(refusal.children_inum),
        place: 0,
    });
    let Some(numbers) = inner.or(outer) else {
        return Finding::Maybe(Details::default());
    };
    let details = Details {
        path: Some(format!("pid:[{}]", numbers.owner)),
        ..counted(&numbers, "kernel.pid_max")
    };
    if numbers.current + RESERVED_PIDS < numbers.max { Finding::No } else { Finding::Yes(details) }
}

pub(super) fn cgroup_pids(case: &Case<'_>) -> Finding {
    let into = case.any(CLONE_INTO_CGROUP);
    let refusal = match case.refusal {
        // The caller's own group says nothing where the child is to go into another one. That
        // one's counters are in the evidence only if the kernel side found it.
        Some(refusal) if into == Some(false) || refusal.has(known::INTO) => refusal,
        _ => return Finding::Maybe(Details::default()),
    };
    if !refusal.has(known::PIDS) {
        return maybe(Some(!refusal.has(known::PIDS_WALKED)));
    }
    let path = case.group_path();
    let details = Details {
        hint: path
            .as_deref()
            .map(|path| group_hint(path, case.after.pids_mount.as_deref(), "TasksMax", "pids.max")),
        path,
        ..counted(&refusal.pids, "pids.max")
    };
    match (case.pids_refused(), refusal.pids.full(), refusal.has(known::PIDS_WALKED)) {
        (Some(false), _, _) => Finding::No,
        (_, true, _) => Finding::Yes(details),
        // Tasks may have ended since the refusal.
        (None, false, true) if refusal.pids.current + SLACK < refusal.pids.max => Finding::No,
        (_, false, _) => Finding::Maybe(details),
    }
}

/// How to raise a group's limit: with `setting` where the group is a unit of systemd, which manages
/// the files of its units, otherwise with `file`.
fn group_hint(path: &str, mount: Option<&str>, setting: &str, file: &str) -> String {
    let unit = path.rsplit('/').next().unwrap_or_default();
    if [".slice", ".service", ".scope"].iter().any(|ending| unit.ends_with(ending)) {
        return format!("raise {setting}= of {unit}");
    }
    format!("raise {}{path}/{file}", mount.unwrap_or_default())
}

/// The limit of user namespaces where `user` is set, otherwise the limits of all other kinds.
///
/// KERNEL: kernel/ucount.c `inc_ucount`.
pub(super) fn namespace_limit(case: &Case<'_>, user: bool) -> Finding {
    let asked = NAMESPACES.iter().filter(|(flag, _)| (*flag == CLONE_NEWUSER) == user);
    let asked = asked.fold(0, |all, (flag, _)| all | flag);
    if case.any(asked) == Some(false) {
        return Finding::No;
    }
    if let Some(nested) = nested(case, user) {
        return Finding::Yes(nested);
    }
    let Some(refusal) = case.with(known::NAMESPACES) else {
        return Finding::Maybe(Details::default());
    };
    // With CLONE_NEWUSER the other namespaces are counted in the new user namespace, whose counters
    // are not in the evidence.
    let inside = !user && case.any(CLONE_NEWUSER) != Some(false);
    let counter = &refusal.namespaces;
    let place = usize::try_from(counter.place >> 32).unwrap_or_default();
    let limit = NAMESPACES.get(place).filter(|(flag, _)| flag & asked != 0);
    let Some((_, name)) = limit.filter(|_| refusal.has(known::NAMESPACE_FULL)) else {
        return maybe(Some(inside));
    };
    let details = Details {
        limit: Some(Name::Owned(format!("user.{name}"))),
        uid: id(counter.owner),
        hint: Some(format!(
            "sysctl user.{name}=N, with N above its present value, in that user namespace"
        )),
        ..counted(counter, "")
    };
    if inside { Finding::Maybe(details) } else { Finding::Yes(details) }
}

/// The depth of nesting as the limit, where one more namespace would be nested too deep.
fn nested(case: &Case<'_>, user: bool) -> Option<Details> {
    let level = if user {
        case.any(CLONE_NEWUSER)?.then_some(u64::from(case.with(known::CRED)?.user_ns_level))?
    } else {
        case.any(CLONE_NEWPID)?.then_some(u64::from(case.with(known::PID_NS)?.children_level))?
    };
    let most = if user { NESTED + 1 } else { NESTED };
    (level >= most).then(|| Details {
        limit: Some(Name::Borrowed("depth of nesting")),
        current: Some(level),
        max: Some(most),
        hint: Some("nest fewer namespaces".to_owned()),
        ..Details::default()
    })
}

pub(super) fn pid_namespace_dead(case: &Case<'_>) -> Finding {
    // With CLONE_NEWPID the child goes into a namespace that was made just now.
    if case.any(CLONE_NEWPID) == Some(true) {
        return Finding::No;
    }
    match case.with(known::PID_NS) {
        Some(refusal) if refusal.children_allocated & PIDNS_ADDING != 0 => Finding::No,
        Some(refusal) => Finding::Yes(Details {
            path: Some(format!("pid:[{}]", refusal.children_inum)),
            ..Details::default()
        }),
        None => Finding::Maybe(Details::default()),
    }
}

/// When the evidence was read, the kernel had already given back what the attempt had charged, so a
/// group at its limit has some pages left again. The counter of a group's shortages is known for
/// the caller's own group only.
pub(super) fn cgroup_memory(case: &Case<'_>) -> Finding {
    let Some(refusal) = case.with(known::MEMORY) else {
        return Finding::No;
    };
    let pages = &refusal.memory;
    let short = pages.current.saturating_add(SHORT_PAGES) >= pages.max;
    let own = pages.place == 0;
    let proven = match case.out_of_group_memory() {
        Some(false) if own => return Finding::No,
        Some(moved) => moved && own,
        None => false,
    };
    if !proven && !short {
        return Finding::No;
    }
    let path = case.group_path();
    let file = if case.after.memory_v1 { "memory.limit_in_bytes" } else { "memory.max" };
    let details = Details {
        limit: Some(Name::Borrowed("memory.max")),
        current: Some(pages.current.saturating_mul(PAGE_BYTES)),
        max: Some(pages.max.saturating_mul(PAGE_BYTES)),
        hint: path
            .as_deref()
            .map(|path| group_hint(path, case.after.memory_mount.as_deref(), "MemoryMax", file)),
        path,
        uid: None,
    };
    // Where the kernel may have refused to promise the memory at all, another task of the group
    // may be the one that made the counter grow.
    let promised = case.after.overcommit_mode == Some(NEVER) && case.window.admits(Stage::DupMmap);
    if proven && !promised { Finding::Yes(details) } else { Finding::Maybe(details) }
}

pub(super) fn overcommit(case: &Case<'_>) -> Finding {
    if case.any(CLONE_VM) == Some(true) || case.after.overcommit_mode == Some(1) {
        return Finding::No;
    }
    let Some((current, max)) = case.after.committed_bytes else {
        return Finding::Fallback(Details::default());
    };
    if case.after.overcommit_mode != Some(NEVER) {
        return Finding::Fallback(Details::default());
    }
    Finding::Maybe(Details {
        limit: Some(Name::Borrowed("vm.overcommit_memory")),
        current: Some(current),
        max: Some(max),
        ..Details::default()
    })
}

pub(super) fn open_files(case: &Case<'_>) -> Finding {
    let asked = case.any(CLONE_PIDFD);
    let Some(refusal) = case.with(known::SIGNAL) else {
        return maybe(asked);
    };
    let details = Details {
        limit: Some(Name::Borrowed("RLIMIT_NOFILE")),
        max: Some(refusal.open_files_max),
        ..Details::default()
    };
    match asked {
        // After the table of files was copied, nothing else gives EMFILE.
        // KERNEL: fs/file.c `alloc_fd`.
        Some(true) if case.window.admits(Stage::PidfdPrepare) => Finding::Yes(details),
        _ => Finding::Maybe(details),
    }
}

impl Case<'_> {
    /// The path of the control group that has the limit, from the root of its hierarchy: of the
    /// memory controller where the error is `ENOMEM`, otherwise of the pids controller.
    fn group_path(&self) -> Option<String> {
        let Some(refusal) = self.with(known::GROUP_PATH) else {
            return self.after.group_path.clone();
        };
        let mut path = String::new();
        for name in refusal.names.iter().rev() {
            let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if text.len() + 1 == name.len() {
                // A name that fills its place may have been cut off.
                return self.after.group_path.clone();
            }
            if !text.is_empty() {
                path.push('/');
                path.push_str(&String::from_utf8_lossy(text));
            }
        }
        Some(path).filter(|path| !path.is_empty())
    }
}
