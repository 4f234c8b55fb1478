//! For each row of the table of limits, the function that goes from the evidence to a finding.

use fork_trace_common::{
    flags::{CLONE_FS, CLONE_INTO_CGROUP, CLONE_NEWPID, CLONE_NEWUSER, CLONE_PIDFD},
    record::bits,
    refusal::{Counted, NAMESPACES, RefusalRecord, UserNamespace, known},
    stage::Stage,
};
use nix::errno::Errno;

use crate::{
    cause::{
        case::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE, Case},
        finding::{Details, Finding},
        rules::RULES,
    },
    event::{
        bytes::{before_nul, text},
        values::Name,
    },
};

/// KERNEL: include/uapi/linux/sched.h.
pub(super) const SCHED_DEADLINE: u32 = 6;

/// KERNEL: include/linux/pid.h `RESERVED_PIDS`: ids below this one are not given a second time.
const RESERVED_PIDS: u64 = 300;

/// KERNEL: `include/linux/pid_namespace.h` `PIDNS_ADDING`.
pub(super) const PIDNS_ADDING: u32 = 1 << 31;

/// How deep pid namespaces may be nested; user namespaces may be nested one level deeper.
const NESTED: u64 = 32;

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
    if case.entered() || case.taken() {
        return Finding::No;
    }
    let details = seccomp_details(case);
    match case.with(known::SECCOMP) {
        Some(refusal) if refusal.seccomp_mode != SECCOMP_FILTER => Finding::No,
        Some(refusal) if refusal.has(known::TRACED) => Finding::Maybe(details),
        Some(_) if kernel_may_refuse(case) => Finding::Probably(details),
        Some(_) => Finding::Yes(details),
        None => Finding::Maybe(details),
    }
}

/// Whether the kernel itself has a reason for this error, so that the call may have been refused after
/// an entry that was missed.
fn kernel_may_refuse(case: &Case<'_>) -> bool {
    let errno = case.error();
    let by_state =
        [Errno::EAGAIN, Errno::ENOMEM, Errno::EINTR, Errno::ENOSPC, Errno::EMFILE].contains(&errno);
    by_state || RULES.iter().any(|rule| rule.errno == errno && rule.holds(case) != Some(false))
}

/// KERNEL: include/linux/entry-common.h `syscall_trace_enter`: a call whose number a tracer has made -1
/// is not made.
pub(super) fn tracer(case: &Case<'_>) -> Finding {
    if !case.taken() {
        return Finding::No;
    }
    let call = case.call();
    let who = match case.record.tracer {
        0 => "the tracer".to_owned(),
        tracer => format!("process {tracer}, the tracer"),
    };
    Finding::Yes(Details {
        what: Some(format!("{call} taken away by a tracer before it began")),
        hint: Some(format!(
            "ask {who}, why: it put another number in the place of {call}'s, and the caller sees \
             what it put in the place of the result"
        )),
        ..Details::default()
    })
}

fn seccomp_details(case: &Case<'_>) -> Details {
    let call = case.call();
    let hint = match (case.clone3(), case.error()) {
        (true, Errno::ENOSYS) => {
            "glibc and others try clone next; for a program that does not, allow clone3 in the \
             seccomp profile"
                .to_owned()
        }
        (true, _) => {
            "allow clone3 in the seccomp profile, or refuse it with ENOSYS: for that alone \
                      glibc tries clone next (Docker: --security-opt seccomp=PROFILE)"
                .to_owned()
        }
        (false, _) => {
            format!("allow {call} in the seccomp profile (Docker: --security-opt seccomp=PROFILE)")
        }
    };
    Details {
        what: Some(format!("{call} refused by seccomp before it began")),
        hint: Some(hint),
        ..Details::default()
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
    let details = nproc_details(refusal);
    // A child in a new user namespace is counted there, and that counter is not in the evidence.
    match (refusal.nproc.full(), case.any(CLONE_NEWUSER)) {
        (true, Some(false)) if exempt() == Some(false) => Finding::Yes(details),
        (true, _) => Finding::Maybe(details),
        (false, Some(false)) => Finding::No,
        (false, _) => Finding::Maybe(Details::default()),
    }
}

/// The caller's own limit, or the one that a user namespace was made under.
fn nproc_details(refusal: &RefusalRecord) -> Details {
    let own = Details { uid: id(refusal.nproc.owner), ..counted(&refusal.nproc, "RLIMIT_NPROC") };
    let namespace = refusal.nproc_ns;
    if refusal.nproc.place == 0 || namespace.inum == 0 {
        return own;
    }
    Details {
        path: Some(user_namespace(namespace)),
        level: Some(namespace.level),
        hint: Some(format!(
            "this namespace was made under that limit and keeps it, so ulimit -u inside does not \
             help: make it anew under a higher one, or run it as a user with fewer processes than \
             uid {}",
            refusal.nproc.owner
        )),
        ..own
    }
}

fn user_namespace(namespace: UserNamespace) -> String {
    format!("user:[{}]", namespace.inum)
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
        read_afterwards: Some(true),
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
        Some(_) => Finding::Maybe(Details::default()),
        // Hardly anybody is.
        None => Finding::Fallback(Details::default()),
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
        level: level(case, &numbers),
        read_afterwards: inner.is_none().then_some(true),
        ..counted(&numbers, "kernel.pid_max")
    };
    // A control group counts a refusal only once the child has an id.
    if numbers.current + RESERVED_PIDS < numbers.max || case.pids_refused() == Some(true) {
        return Finding::No;
    }
    // The first ids are kept free only once the last one has been given, so some may be free still.
    let are_all_used = numbers.current + 1 >= numbers.max;
    match cgroup_pids(case) {
        Finding::Yes(_) if !are_all_used => Finding::Fallback(details),
        _ => Finding::Yes(details),
    }
}

/// How deep the pid namespace of a counter is nested.
fn level(case: &Case<'_>, numbers: &Counted) -> Option<u32> {
    let children_level = case.with(known::PID_NS)?.children_level;
    children_level.checked_sub(u32::try_from(numbers.place).ok()?)
}

/// KERNEL: kernel/fork.c `copy_fs`: an `fs_struct` with a thread inside `execve` is not shared with
/// one more, because the exec has counted who shares it.
pub(super) fn sibling_exec(case: &Case<'_>) -> Finding {
    let refusal = case.with(known::FS);
    let alone = refusal.is_some_and(|refusal| refusal.fs_users < 2);
    if case.any(CLONE_FS) == Some(false) || alone {
        return Finding::No;
    }
    let seen = refusal.is_some_and(|refusal| refusal.has(known::IN_EXEC))
        || case.record.has(bits::IN_EXEC);
    let sure = case.any(CLONE_FS) == Some(true) && case.pids_refused() != Some(true);
    let only_this = !case.window.admits(Stage::MaxThreads) && !case.window.admits(Stage::AllocPid);
    match (seen, only_this) {
        (true, _) if sure => Finding::Yes(Details::default()),
        (true, _) | (false, true) => Finding::Maybe(Details::default()),
        (false, false) => Finding::Fallback(Details::default()),
    }
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
pub(super) fn group_hint(path: &str, mount: Option<&str>, setting: &str, file: &str) -> String {
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
    let namespace = refusal.namespaces_ns;
    let details = Details {
        limit: Some(Name::Owned(format!("user.{name}"))),
        uid: id(counter.owner),
        path: (namespace.inum != 0).then(|| user_namespace(namespace)),
        level: (namespace.inum != 0).then_some(namespace.level),
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
            level: Some(refusal.children_level),
            ..Details::default()
        }),
        None => Finding::Maybe(Details::default()),
    }
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
    /// memory controller where the error is `ENOMEM` or `EINTR`, otherwise of the pids controller. Of
    /// `CLONE_INTO_CGROUP` it is the group that the caller names.
    pub(super) fn group_path(&self) -> Option<String> {
        let Some(refusal) = self.with(known::GROUP_PATH) else {
            return self.after.group_path.clone();
        };
        let mut path = String::new();
        for name in refusal.names.iter().rev() {
            let room = name.len();
            let name = before_nul(name);
            if name.len() + 1 == room {
                // A name that fills its place may have been cut off.
                return self.after.group_path.clone();
            }
            if !name.is_empty() {
                path.push('/');
                path.push_str(&text(name));
            }
        }
        Some(path).filter(|path| !path.is_empty())
    }
}
