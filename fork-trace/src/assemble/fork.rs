//! An attempt's records, joined, to a [`Fork`]: pure, no I/O. Its stages are made in `spans`.

use fork_trace_common::{
    flags::{CLONE_THREAD, CLONE_VFORK, PF_IO_WORKER, PF_KTHREAD},
    record::{ForkRecord, StartRecord, Syscall, bits},
    refusal::known,
    stage::{Mark, Row, Stage},
};
use nix::errno::Errno;

use crate::{
    assemble::{
        failure::Failure,
        joined::Joined,
        memory::memory,
        spans::spans,
        times::{Times, began_ns, failed_stage},
        tracer,
    },
    event::{
        bytes::{before_nul, text},
        caller::Parent,
        clock::Clock,
        clone_flags,
        errno::errno_name,
        fork::{Child, ChildStart, Fork, ForkWarning, id_of},
        values::{Call, HexFlags, Kind, Name},
    },
    plan::Plan,
};

/// Makes a [`Fork`].
#[must_use]
pub fn fork(joined: &Joined, plan: &Plan, clock: Clock) -> Fork {
    let Joined { record, functions, start, .. } = joined;
    let times = Times::new(record, functions.as_deref());
    let call = call(record);
    let ret = (returned(record) && !may_be_changed(joined)).then_some(record.ret);
    let errno = ret.and_then(|ret| u32::try_from(-ret).ok()).filter(|errno| *errno > 0);
    let total_ns = total_ns(times);
    let mono_ns = times.began_ns();
    let mut fork = Fork {
        id: id(record),
        ts: clock.at(mono_ns),
        mono_ns,
        kind: kind(record),
        syscall: call,
        compat: record.has(bits::COMPAT).then_some(true),
        clone_flags: clone_flags(record).map(HexFlags),
        clone_flags_names: clone_flags(record).map(|word| clone_flags::names(word, call)),
        exit_signal: record.has(bits::EXIT_SIGNAL).then_some(record.exit_signal),
        set_tids: Some(record.set_tids).filter(|set| *set > 0),
        parent: parent(joined),
        ancestors: <_>::default(),
        stack: Vec::new(),
        child: child(record),
        ret,
        errno,
        errno_name: errno.map(errno_name),
        failed_stage: None,
        cause: None,
        other_causes: Vec::new(),
        fallback: None,
        fell_back_to: None,
        restarts: (record.restarts > 0).then_some(record.restarts),
        total_ns,
        held_ns: None,
        return_ns: None,
        off_cpu_ns: None,
        waits: Vec::new(),
        waits_more: None,
        waits_incomplete: None,
        brief: record.has(bits::BRIEF).then_some(true),
        slow: None,
        memory: memory(record),
        other_ns: None,
        stages: Vec::new(),
        child_start: start.as_ref().map(|start| child_start(record, start)),
        libc: None,
        warnings: warnings(record),
    };
    if fork.brief.is_none() {
        add_stages(&mut fork, times, plan, failed_stage(times));
    }
    fork
}

/// Makes the stages of a failed attempt anew, once its `failed_stage` was decided: what they say of
/// the failure is what the cause says of it.
pub fn settle(fork: &mut Fork, joined: &Joined, plan: &Plan) {
    let times = Times::new(&joined.record, joined.functions.as_deref());
    let decided = fork.failed_stage.as_deref().and_then(Row::named).map(|row| row.stage);
    add_stages(fork, times, plan, decided);
}

/// Adds the stages, and the rest of the total.
fn add_stages(fork: &mut Fork, times: Times<'_>, plan: &Plan, decided: Option<Stage>) {
    let failure = Failure::of(times, plan, decided);
    let failed = failure.and_then(|failure| failure.stage);
    fork.failed_stage = failed.map(|stage| Name::Borrowed(stage.row().name));
    fork.stages = spans(times, plan, failure);
    let timed_ns: u64 = fork.stages.iter().filter_map(|span| span.self_ns).sum();
    fork.other_ns = fork.total_ns.map(|total| total.saturating_sub(timed_ns));
}

/// An attempt's id, by which others name it: unique in one boot.
#[must_use]
pub fn id(record: &ForkRecord) -> String {
    id_of(record.parent.tid, began_ns(record))
}

/// The error that the kernel gave a caller, which a tracer may have changed afterwards.
#[must_use]
pub fn errno(joined: &Joined) -> Option<u32> {
    let ret = returned(&joined.record).then_some(joined.record.ret)?;
    u32::try_from(-ret).ok().filter(|errno| *errno > 0)
}

/// Whether a tracer is about to say what the caller sees: it took the call away, and has not put
/// anything in the place of what it returns.
///
/// KERNEL: kernel/entry/common.c `syscall_exit_work`: a tracer stops the caller after `sys_exit`.
fn may_be_changed(joined: &Joined) -> bool {
    let taken = joined.refusal.as_ref().is_some_and(|refusal| refusal.has(known::TAKEN));
    taken && joined.record.ret == -i64::from(Errno::ENOSYS as i32)
}

/// Whether it is known what the caller saw.
fn returned(record: &ForkRecord) -> bool {
    let seen = record.has(bits::CHILD) || mark(record, Mark::SysExit).is_some();
    seen && !record.has(bits::KERNEL_MADE)
}

/// The warning about a call that was refused without an entry.
pub const NO_ENTRY: &str = "no-entry";

/// What was not seen of a call.
fn warnings(record: &ForkRecord) -> Vec<ForkWarning> {
    let entered = record.has(bits::ENTERED);
    let returned = mark(record, Mark::SysExit).is_some() || record.has(bits::VFORK_WAIT);
    let (code, text) = match (entered, returned) {
        _ if record.has(bits::KERNEL_MADE) => return Vec::new(),
        (true, true) => return Vec::new(),
        (true, false) => ("return-not-seen", "its return was not seen: the total is not known"),
        (false, _) if record.has(bits::CHILD) => (
            "entry-not-seen",
            "its entry was not seen, perhaps because it was under way when tracing began: \
             the total is not known",
        ),
        (false, _) => (
            NO_ENTRY,
            "refused before the system call began, by seccomp or a tracer: \
             only the time of its return is known",
        ),
    };
    vec![ForkWarning { code: Name::Borrowed(code), text: text.to_owned() }]
}

fn mark(record: &ForkRecord, mark: Mark) -> Option<u64> {
    Some(record.mark_ns(mark)).filter(|at| *at != 0)
}

fn total_ns(times: Times<'_>) -> Option<u64> {
    times.ended_ns()?.checked_sub(times.start_ns()?)
}

fn call(record: &ForkRecord) -> Option<Call> {
    const FUNCTION_TIMES: [(Syscall, Call); 4] = [
        (Syscall::Fork, Call::Fork),
        (Syscall::Vfork, Call::Vfork),
        (Syscall::Clone, Call::Clone),
        (Syscall::Clone3, Call::Clone3),
    ];
    let found = FUNCTION_TIMES.iter().find(|(syscall, _)| *syscall as u32 == record.syscall);
    found.map(|(_, call)| *call)
}

/// The word the caller passed; the kernel's own for a task that the kernel made, or where the
/// caller's could not be read.
fn clone_flags(record: &ForkRecord) -> Option<u64> {
    if record.has(bits::FLAGS) {
        return Some(record.clone_flags);
    }
    record.has(bits::CHILD).then_some(record.task_flags)
}

fn kind(record: &ForkRecord) -> Option<Kind> {
    if record.has(bits::KERNEL_MADE) {
        return Some(match record.child_pf {
            pf if pf & PF_KTHREAD != 0 => Kind::Kthread,
            pf if pf & PF_IO_WORKER != 0 => Kind::IoWorker,
            _ => Kind::Other,
        });
    }
    let flags = clone_flags(record)?;
    Some(match flags {
        _ if flags & CLONE_THREAD != 0 => Kind::Thread,
        _ if flags & CLONE_VFORK != 0 => Kind::Vfork,
        _ => Kind::Process,
    })
}

fn parent(joined: &Joined) -> Parent {
    let record = &joined.record;
    let program = joined.program.as_deref();
    let known = |value: u64| (value != 0).then_some(value);
    Parent {
        pid: record.parent.tgid,
        tid: record.parent.tid,
        ppid: record.ppid,
        comm: comm(record),
        exe: program.and_then(|program| program.exe.clone()),
        argv: program.and_then(|program| program.argv.clone()),
        argv_truncated: program.and_then(|program| program.argv_truncated.then_some(true)),
        uid: record.uid,
        user: None,
        threads: record.has(bits::THREADS).then_some(record.threads),
        start_ns: known(record.parent_process_start_ns),
        cgroup_id: known(record.cgroup_id),
        cgroup: None,
        unit: None,
        ns_pid: Some(record.parent_ns_pid).filter(|pid| ![0, record.parent.tgid].contains(pid)),
        container: None,
        real_parent_pid: Some(record.real_parent)
            .filter(|pid| ![0, record.parent.tgid].contains(pid)),
        ptrace: tracer::ptrace(record, call(record)),
    }
}

fn child(record: &ForkRecord) -> Option<Child> {
    let differs = record.child_ns_tid != 0 && record.child_ns_tid != record.child.tid;
    record.has(bits::CHILD).then(|| Child {
        pid: record.child.tgid,
        tid: record.child.tid,
        ns_pid: differs.then_some(record.child_ns_tid),
        comm: None,
    })
}

/// The name of the task that called.
#[must_use]
pub fn comm(record: &ForkRecord) -> String {
    text(before_nul(&record.comm))
}

fn child_start(record: &ForkRecord, start: &StartRecord) -> ChildStart {
    let woken = mark(record, Mark::SchedWakeupNew);
    let since_woken = |at: u64| woken.and_then(|woken| at.checked_sub(woken));
    ChildStart {
        queued_ns: since_woken(start.on_cpu_ns),
        to_user_ns: since_woken(start.return_ns),
        schedule_tail_ns: Some(start.tail_ns).filter(|tail_ns| *tail_ns != 0),
        cpu: start.cpu,
        parent_cpu: woken.map(|_| record.parent_cpu),
        waits: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use fork_trace_common::{
        record::TaskIds,
        wait::{Phase, WaitsRecord},
    };
    use jiff::Timestamp;

    use super::*;
    use crate::{
        assemble::waits,
        event::span::Status,
        host::{call_sites::all_unknown, facts::Facts, tracepoint::Tracepoint},
        plan::{backend::Backend, stages::Stages},
    };

    fn plan() -> Plan {
        let tracepoints = Tracepoint::ALL.iter().copied().collect();
        let inner = all_unknown("hidden");
        let facts = Facts { tracepoints, inner, ..Facts::default() };
        Plan::new(&facts, Backend::Auto, &Stages::All).unwrap()
    }

    fn fork(record: &ForkRecord, start: Option<&StartRecord>, plan: &Plan, clock: Clock) -> Fork {
        let joined = Joined { start: start.copied(), ..Joined::alone(Box::new(*record)) };
        super::fork(&joined, plan, clock)
    }

    fn clock() -> Clock {
        Clock::new(Timestamp::from_second(1_000).unwrap(), 500_000_000_000)
    }

    fn success() -> ForkRecord {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::ENTERED | bits::FLAGS | bits::CHILD;
        record.syscall = Syscall::Clone as u32;
        record.clone_flags = 0x120_0011;
        record.task_flags = 0x120_0000;
        record.start_ns = 1_000;
        for (mark, at) in [
            (Mark::SysEnter, 1_000),
            (Mark::StartTime, 31_000),
            (Mark::TaskNewtask, 32_000),
            (Mark::SchedProcessFork, 38_000),
            (Mark::SchedWakeupNew, 41_000),
            (Mark::SysExit, 43_500),
        ] {
            record.marks[mark.place()] = at;
        }
        record.ret = 77;
        record.parent = TaskIds { tgid: 10, tid: 11, start_ns: 1 };
        record.child = TaskIds { tgid: 77, tid: 77, start_ns: 31_000 };
        record.comm = *b"redis-server\0\0\0\0";
        record
    }

    #[test]
    fn self_times_and_the_rest_are_the_total() {
        for vfork in [false, true] {
            let mut record = success();
            if vfork {
                record.bits |= bits::VFORK_WAIT;
                record.task_flags |= CLONE_VFORK;
                record.marks[Mark::SysExit.place()] = 0;
            }
            let fork = fork(&record, None, &plan(), clock());
            let own: u64 = fork.stages.iter().filter_map(|span| span.self_ns).sum();
            assert_eq!(fork.total_ns, Some(own + fork.other_ns.unwrap()));
            assert_eq!(fork.total_ns, Some(if vfork { 40_000 } else { 42_500 }));
        }
    }

    #[test]
    fn in_brief_there_are_no_stages_even_of_a_wait() {
        let mut record = success();
        record.bits |= bits::WAITED;
        let mut log = Box::new(WaitsRecord::zeroed());
        log.phase = Phase::Call as u32;
        (log.used, log.count, log.off_ns) = (1, 1, 2_000);
        (log.waits[0].left_ns, log.waits[0].back_ns) = (33_000, 35_000);
        for brief in [false, true] {
            record.bits |= if brief { bits::BRIEF } else { 0 };
            let alone = Joined::alone(Box::new(record));
            let joined = Joined { waits: Some(log.clone()), is_back: true, ..alone };
            let mut fork = super::fork(&joined, &plan(), clock());
            waits::add(&mut fork, &joined, &waits::seen(&joined, &mut |_| None));
            assert_eq!((fork.stages.is_empty(), fork.other_ns.is_none()), (brief, brief));
            assert_eq!((fork.off_cpu_ns, fork.held_ns), (Some(2_000), Some(42_500)));
        }
    }

    #[test]
    fn a_stage_lies_between_its_marks() {
        let fork = fork(&success(), None, &plan(), clock());
        let span = |name: &str| fork.stages.iter().find(|span| span.name == name).unwrap();
        let copy = span("copy_process");
        assert_eq!((copy.start_ns, copy.dur_ns), (Some(0), Some(37_000)));
        assert_eq!(copy.self_ns, Some(30_000), "tasklist_lock and uprobe_copy_process apart");
        let tasklist = span("tasklist_lock");
        assert_eq!((tasklist.start_ns, tasklist.dur_ns), (Some(30_000), Some(1_000)));
        assert_eq!(fork.slowest().unwrap().0, "copy_process");
        let mut unseen = fork;
        unseen.other_ns = Some(90_000);
        assert_eq!(unseen.slowest(), Some(("other", 90_000)));
        unseen.waits_incomplete = Some(true);
        assert_eq!(unseen.slowest(), None, "it may have been a wait");
    }

    #[test]
    fn a_restarted_call_counts_its_last_pass_and_the_whole_time() {
        let mut record = success();
        record.start_ns = 400;
        record.restarts = 2;
        let fork = fork(&record, None, &plan(), clock());
        assert_eq!(fork.restarts, Some(2));
        assert_eq!(fork.total_ns, Some(43_100));
        assert_eq!(fork.stages[0].start_ns, Some(600));
        assert_eq!(fork.other_ns, Some(600), "the earlier passes");
    }

    #[test]
    fn a_failed_attempt_has_an_errno_and_shows_where_it_ended() {
        let mut record = success();
        record.bits &= !bits::CHILD;
        record.marks = [0; Mark::IN_RECORD];
        record.marks[Mark::SysEnter.place()] = 1_000;
        record.marks[Mark::SysExit.place()] = 2_500;
        record.ret = -11;
        let fork = fork(&record, None, &plan(), clock());
        assert_eq!((fork.errno, fork.errno_name.as_deref()), (Some(11), Some("EAGAIN")));
        assert_eq!(fork.child, None);
        assert_eq!((fork.total_ns, fork.other_ns), (Some(1_500), Some(0)));
        let [copy] = &fork.stages[..] else { panic!("{:?}", fork.stages) };
        assert_eq!((copy.name.as_ref(), copy.status), ("copy_process", Status::Failed));
        assert_eq!((copy.dur_ns, copy.until.as_deref()), (Some(1_500), Some("sys_exit")));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let mut record = ForkRecord::zeroed();
        record.syscall = Syscall::Clone3 as u32;
        record.ret = -1;
        record.marks[Mark::SysExit.place()] = 9_000;
        let fork = fork(&record, None, &plan(), clock());
        assert_eq!((fork.kind, fork.clone_flags, fork.exit_signal), (None, None, None));
        assert_eq!((fork.total_ns, fork.other_ns), (None, None));
        assert_eq!(fork.mono_ns, 9_000);
        assert_eq!(fork.warnings[0].code, "no-entry");
        assert_eq!((fork.parent.threads, fork.parent.start_ns), (None, None));
    }

    #[test]
    fn a_task_that_the_kernel_made_begins_at_its_first_mark() {
        let mut record = success();
        record.bits = bits::CHILD | bits::KERNEL_MADE;
        record.syscall = Syscall::None as u32;
        record.start_ns = 0;
        record.marks[Mark::SysEnter.place()] = 0;
        record.marks[Mark::SysExit.place()] = 0;
        let fork = fork(&record, None, &plan(), clock());
        assert_eq!((fork.kind, fork.mono_ns), (Some(Kind::Other), 31_000));
        assert_eq!((fork.total_ns, fork.ret), (None, None));
        let span = |name: &str| fork.stages.iter().find(|span| span.name == name).unwrap();
        assert!(fork.stages.iter().all(|span| span.name != "copy_process"), "it has no beginning");
        assert_eq!(span("tasklist_lock").start_ns, Some(0));
        assert_eq!(span("wake_up_new_task").start_ns, Some(7_000));
    }

    #[test]
    fn a_call_that_was_seen_in_part_says_so() {
        let codes = |fork: &Fork| fork.warnings.iter().map(|w| w.code.clone()).collect::<Vec<_>>();
        let mut record = success();
        record.bits &= !bits::ENTERED;
        record.marks[Mark::SysEnter.place()] = 0;
        let no_entry = fork(&record, None, &plan(), clock());
        assert_eq!(codes(&no_entry), ["entry-not-seen"]);
        assert_eq!((no_entry.total_ns, no_entry.ret), (None, Some(77)));
        assert!(no_entry.succeeded());

        let mut record = success();
        record.marks[Mark::SysExit.place()] = 0;
        let no_return = fork(&record, None, &plan(), clock());
        assert_eq!(codes(&no_return), ["return-not-seen"]);
        assert_eq!((no_return.total_ns, no_return.ret), (None, Some(77)));

        record.bits &= !bits::CHILD;
        let nothing = fork(&record, None, &plan(), clock());
        assert_eq!((nothing.ret, nothing.errno, nothing.succeeded()), (None, None, false));
    }

    #[test]
    fn a_shared_stage_is_shared_and_not_timed() {
        let mut record = success();
        record.task_flags = 0x3d_0f00;
        record.clone_flags = 0x3d_0f00;
        let fork = fork(&record, None, &plan(), clock());
        assert_eq!(fork.kind, Some(Kind::Thread));
        let shared: Vec<_> = fork
            .stages
            .iter()
            .filter(|span| span.status == Status::Shared)
            .map(|span| span.name.as_ref())
            .collect();
        let all =
            ["copy_semundo", "copy_files", "copy_fs", "copy_sighand", "copy_signal", "copy_mm"];
        assert_eq!(shared, all);
    }

    #[test]
    fn the_wait_for_a_cpu_is_known_only_where_the_switch_was_seen() {
        let mut start = StartRecord {
            kind: 2,
            cpu: 1,
            child: TaskIds::default(),
            return_ns: 91_000,
            on_cpu_ns: 61_000,
            tail_ns: 0,
        };
        let made = |start: &StartRecord| {
            fork(&success(), Some(start), &plan(), clock()).child_start.unwrap()
        };
        assert_eq!((made(&start).queued_ns, made(&start).to_user_ns), (Some(20_000), Some(50_000)));
        start.on_cpu_ns = 0;
        assert_eq!((made(&start).queued_ns, made(&start).to_user_ns), (None, Some(50_000)));
    }

    #[test]
    fn clocks_meet_before_and_after_their_common_moment() {
        let text = |mono_ns| clock().at(mono_ns).to_string();
        assert_eq!(text(500_000_000_007), "1970-01-01T00:16:40.000000007Z");
        assert_eq!(text(499_000_000_000), "1970-01-01T00:16:39.000000000Z");
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(errno_name(11), "EAGAIN");
        assert_eq!(errno_name(7), "E2BIG");
        assert_eq!(errno_name(999), "errno 999");
    }
}
