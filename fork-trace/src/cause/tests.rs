//! Every rule and every limit is found, each from evidence that is made up for it.

use fork_trace_common::{
    function::{FUNCTIONS, FunctionRow},
    record::{ForkRecord, Syscall, TaskIds, bits},
    refusal::{RefusalRecord, known},
    stage::Mark,
};
use zerocopy::FromZeros as _;

use super::*;
use crate::{
    assemble::{join::Joined, times::Times},
    cause::{add, case::Case, rules::RULES, window::Window},
    event::{cause::Confidence, fork::Fork},
    host::{
        call_sites::all_unknown,
        facts::Facts,
        features::Features,
        functions::{Probe, ProbeKind},
        limits::Aftermath,
    },
    plan::{Plan, Tracepoint, backend::Backend, stages::Stages},
};

/// The plan of a host on which every inner mark was learned.
pub(super) fn learned_plan() -> Plan {
    let inner = all_unknown("").into_keys().map(|mark| (mark, Ok(0x1000 + mark as u64))).collect();
    let tracepoints = Tracepoint::ALL.iter().copied().collect();
    let facts = Facts { tracepoints, inner, ..Facts::default() };
    Plan::new(&facts, Backend::Auto, &Stages::All).unwrap()
}

/// The plan of a host on which every function can be probed.
pub(super) fn probed_plan() -> Plan {
    let probe = |row: &FunctionRow| {
        (row.function, Ok(Probe { how: ProbeKind::Fentry, name: row.id, leaves: true }))
    };
    let facts = Facts {
        tracepoints: Tracepoint::ALL.iter().copied().collect(),
        inner: all_unknown("not used"),
        probes: FUNCTIONS.iter().map(probe).collect(),
        ..Facts::default()
    };
    Plan::new(&facts, Backend::Fentry, &Stages::All).unwrap()
}

/// A failed attempt of which only the entry and the return were seen.
pub(super) fn refused(flags: u64) -> ForkRecord {
    let mut record = ForkRecord::zeroed();
    record.bits = bits::ENTERED | bits::FLAGS;
    record.syscall = Syscall::Clone as u32;
    record.clone_flags = flags;
    record.parent = TaskIds { tgid: 10, tid: 10, start_ns: 1 };
    record.marks[Mark::SysEnter as usize] = 1_000;
    record.marks[Mark::SysExit as usize] = 9_000;
    record.ret = -22;
    record
}

/// All that is known of one refusal.
struct Scene {
    record: ForkRecord,
    refusal: RefusalRecord,
    after: Aftermath,
    features: Features,
    /// The last mark that the attempt reached.
    passed: Option<Mark>,
    errno: Errno,
}

/// A valid clone3 by an ordinary user, for whose refusal there is no reason.
fn scene() -> Scene {
    let mut record = refused(0);
    record.syscall = Syscall::Clone3 as u32;
    let mut refusal = RefusalRecord::new_zeroed();
    refusal.bits = known::ARGS
        | known::CRED
        | known::SIGNAL
        | known::PID_NS
        | known::PID_MAX
        | known::NPROC
        | known::PIDS_WALKED
        | known::NAMESPACES
        | known::SECCOMP;
    refusal.args_bytes = 88;
    refusal.args[4] = 17;
    refusal.uid = 1000;
    refusal.euid = 1000;
    refusal.open_files_max = 1024;
    refusal.children_allocated = 1 << 31 | 90;
    refusal.pid_ns = counter(90, 32_768, 4_026_531_836);
    refusal.nproc = counter(40, 100, 1000);
    let after = Aftermath {
        threads: Some((200, 10_000)),
        pid_max: Some(32_768),
        no_unprivileged_userns: Some(false),
        overcommit_mode: Some(0),
        committed_bytes: Some((1 << 20, 1 << 30)),
        pids_mount: Some("/sys/fs/cgroup".to_owned()),
        memory_mount: Some("/sys/fs/cgroup".to_owned()),
        ..Aftermath::default()
    };
    let features = Features {
        unknown_flags: Some(!((1 << 38) - 1)),
        newtime: Some(true),
        no_thread_pidfd: Some(false),
        late_signal_check: Some(false),
        early_nproc: false,
    };
    Scene { record, refusal, after, features, passed: None, errno: Errno::EINVAL }
}

fn counter(current: u64, max: u64, owner: u64) -> fork_trace_common::refusal::Counted {
    fork_trace_common::refusal::Counted { current, max, owner, place: 0 }
}

impl Scene {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut scene = scene();
        change(&mut scene);
        scene
    }

    fn flags(&mut self, flags: u64) {
        self.refusal.args[0] = flags;
        self.record.clone_flags = flags;
    }

    fn set_tid(&mut self, first: u32, count: u64) {
        self.refusal.args[8] = 0x1000;
        self.refusal.args[9] = count;
        self.refusal.set_tid = first;
        self.refusal.bits |= known::SET_TID;
    }

    /// The fork with its cause, as a user would see it.
    fn explained(&self) -> Fork {
        let plan = learned_plan();
        let mut record = self.record;
        for mark in Mark::ALL.iter().filter(|mark| (**mark as usize) < Mark::IN_RECORD) {
            if self.passed.is_some_and(|passed| *mark <= passed) {
                record.marks[*mark as usize] = 1_000 + *mark as u64;
            }
        }
        record.ret = -i64::from(self.errno as i32);
        let clock = crate::event::clock::Clock::new(jiff::Timestamp::UNIX_EPOCH, 0);
        let joined =
            Joined { record: Box::new(record), functions: None, start: None, refusal: None };
        let mut fork = crate::assemble::fork::fork(&joined, &plan, clock);
        let case = Case {
            errno: (self.errno as i32).unsigned_abs(),
            record: &record,
            refusal: Some(&self.refusal),
            after: &self.after,
            features: &self.features,
            window: Window::of(Times { record: &record, functions: None }, &plan),
        };
        add(&mut fork, &case);
        fork
    }
}

type Change = fn(&mut Scene);

/// For each rule at least one refusal that it explains, as a change to a valid call.
const SCENES: &[(&str, Change)] = &[
    ("struct-larger-than-page", |s| s.refusal.args_bytes = 4097),
    ("struct-too-small", |s| s.refusal.args_bytes = 63),
    ("struct-tail-unreadable", |s| s.refusal.bits |= known::TAIL_UNREADABLE),
    ("struct-tail-not-zero", |s| s.refusal.bits |= known::TAIL_NOT_ZERO),
    ("struct-unreadable", |s| s.refusal.bits |= known::ARGS_UNREADABLE),
    ("set-tid-too-many", |s| s.set_tid(5, 33)),
    ("set-tid-null", |s| s.refusal.args[9] = 1),
    ("set-tid-without-size", |s| s.refusal.args[8] = 0x1000),
    ("exit-signal-too-large", |s| s.refusal.args[4] = 256),
    ("exit-signal-unknown", |s| s.refusal.args[4] = 65),
    ("into-cgroup-no-fd", |s| {
        s.flags(1 << 33);
        s.refusal.args[10] = 1 << 31;
    }),
    ("into-cgroup-no-fd", |s| {
        s.flags(1 << 33);
        s.refusal.args_bytes = 80;
    }),
    ("set-tid-unreadable", |s| {
        s.set_tid(0, 1);
        s.refusal.bits &= !known::SET_TID;
    }),
    ("unknown-flags", |s| s.flags(1 << 40)),
    ("unknown-flags", |s| {
        s.features.unknown_flags = Some(1 << 34);
        s.flags(1 << 34);
    }),
    ("detached-in-clone3", |s| s.flags(0x40_0000)),
    ("signal-in-flags", |s| s.flags(0x11)),
    ("newtime-in-clone3", |s| {
        s.features.newtime = Some(false);
        s.flags(0x80);
    }),
    ("sighand-and-clear-sighand", |s| s.flags(1 << 32 | 0x900)),
    ("exit-signal-of-thread-or-sibling", |s| s.flags(0x10900)),
    ("exit-signal-of-thread-or-sibling", |s| s.flags(0x8000)),
    ("stack-size-without-stack", |s| s.refusal.args[6] = 4096),
    ("stack-without-size", |s| s.refusal.args[5] = 4096),
    ("stack-outside", |s| {
        s.refusal.args[5] = 1 << 63;
        s.refusal.args[6] = 4096;
    }),
    ("stack-outside", |s| {
        s.refusal.args[5] = u64::MAX;
        s.refusal.args[6] = 4096;
    }),
    ("pidfd-is-parent-tid", |s| {
        s.flags(0x10_1000);
        s.refusal.args[1] = 0x5000;
        s.refusal.args[3] = 0x5000;
    }),
    ("exit-signal-unknown-late", |s| {
        s.features.late_signal_check = Some(true);
        s.record.syscall = Syscall::Clone as u32;
        s.refusal.args[4] = 100;
    }),
    ("newns-and-fs", |s| s.flags(0x2_0200)),
    ("newns-and-fs", |s| s.flags(1 << 37 | 0x200)),
    ("newuser-and-fs", |s| s.flags(0x1000_0200)),
    ("userns-sysctl", |s| {
        s.after.no_unprivileged_userns = Some(true);
        s.flags(0x1000_0000);
    }),
    ("thread-without-sighand", |s| {
        s.flags(0x10100);
        s.refusal.args[4] = 0;
    }),
    ("sighand-without-vm", |s| s.flags(0x800)),
    ("parent-of-init", |s| {
        s.flags(0x8000);
        s.refusal.args[4] = 0;
        s.refusal.signal_flags = 0x40;
    }),
    ("thread-and-new-namespace", |s| {
        s.flags(0x2001_0900);
        s.refusal.args[4] = 0;
    }),
    ("thread-into-other-pid-namespace", |s| {
        s.flags(0x10900);
        s.refusal.args[4] = 0;
        s.refusal.bits |= known::OTHER_PID_NS;
    }),
    ("pidfd-and-detached", |s| {
        s.record.syscall = Syscall::Clone as u32;
        s.flags(0x40_1000);
    }),
    ("pidfd-and-thread", |s| {
        s.features.no_thread_pidfd = Some(true);
        s.flags(0x11900);
        s.refusal.args[4] = 0;
    }),
    ("autoreap-and-thread", |s| {
        s.flags(1 << 34 | 0x10900);
        s.refusal.args[4] = 0;
    }),
    ("autoreap-and-parent", |s| {
        s.flags(1 << 34 | 0x8000);
        s.refusal.args[4] = 0;
    }),
    ("autoreap-and-exit-signal", |s| s.flags(1 << 34)),
    ("nnp-and-thread", |s| {
        s.flags(1 << 35 | 0x10900);
        s.refusal.args[4] = 0;
    }),
    ("autokill-without-pidfd", |s| s.flags(1 << 36)),
    ("autokill-without-autoreap", |s| s.flags(1 << 36 | 0x1000)),
    ("autokill-without-nnp", |s| {
        s.flags(1 << 36 | 1 << 34 | 0x1000);
        s.refusal.args[4] = 0;
    }),
    ("namespace-without-admin", |s| s.flags(0x2_0000)),
    ("namespace-without-admin", |s| s.flags(0x80)),
    ("newipc-and-sysvsem", |s| s.flags(0x804_0000)),
    ("newpid-into-other-pid-namespace", |s| {
        s.flags(0x2000_0000);
        s.refusal.bits |= known::OTHER_PID_NS;
    }),
    ("tls-outside", |s| {
        s.flags(0x8_0000);
        s.refusal.args[7] = 1 << 63;
    }),
    ("set-tid-too-deep", |s| s.set_tid(5, 2)),
    ("set-tid-out-of-range", |s| s.set_tid(0, 1)),
    ("set-tid-out-of-range", |s| s.set_tid(32_768, 1)),
    ("set-tid-out-of-range", |s| s.set_tid(u32::MAX, 1)),
    ("set-tid-first-not-1", |s| {
        s.flags(0x2000_0000);
        s.set_tid(5, 1);
    }),
    ("set-tid-not-permitted", |s| s.set_tid(5, 1)),
    ("set-tid-taken", |s| s.set_tid(1, 1)),
    ("pidfd-unwritable", |s| s.flags(0x1000)),
    ("into-cgroup-bad-fd", |s| s.flags(1 << 33)),
    ("into-cgroup-not-permitted", |s| s.flags(1 << 33)),
    ("into-cgroup-removed", |s| s.flags(1 << 33)),
    ("into-cgroup-dying", |s| s.flags(1 << 33)),
    ("into-cgroup-has-controllers", |s| s.flags(1 << 33)),
    ("into-cgroup-domain", |s| s.flags(1 << 33)),
];

/// Rules that the evidence cannot prove: such a cause is always only likely.
const NEVER_CERTAIN: [&str; 2] = ["vm-into-other-time-namespace", "tls-descriptor"];
/// Rules that are never the first to hold: `CLONE_PIDFD_AUTOKILL` needs `CLONE_AUTOREAP`, and an
/// earlier rule refuses that for a thread.
const NEVER_FIRST: [&str; 1] = ["autokill-and-thread"];

/// The last mark that an attempt reaches before the kernel checks the rules of `stage`.
fn last_mark(stage: Stage) -> Option<Mark> {
    match stage {
        Stage::CopyNamespaces => Some(Mark::ParentMmapReleased),
        Stage::CopyThread => Some(Mark::FpuCopy),
        Stage::AllocPid | Stage::PidfdPrepare | Stage::CgroupCanFork => Some(Mark::PidAlloc),
        _ => None,
    }
}

#[test]
fn each_rule_is_named_where_it_holds() {
    for rule in RULES {
        let scenes = SCENES.iter().filter(|(name, _)| *name == rule.name);
        let unproven = NEVER_CERTAIN.contains(&rule.name) || NEVER_FIRST.contains(&rule.name);
        assert!(unproven || scenes.clone().count() > 0, "{} is not tested", rule.name);
        for (_, change) in scenes {
            let scene = Scene::with(|scene| {
                change(scene);
                scene.errno = rule.errno;
                scene.passed = last_mark(rule.stage);
            });
            let fork = scene.explained();
            let cause = fork.cause.unwrap();
            assert_eq!(cause.rule.as_deref(), Some(rule.name));
            assert_eq!(cause.confidence, Confidence::Certain, "{}", rule.name);
            assert_eq!(cause.kind, rule.kind);
            assert_eq!(fork.failed_stage.as_deref(), Some(rule.stage.row().name));
            assert_eq!(fork.other_causes, [], "{}", rule.name);
        }
    }
}

#[test]
fn no_rule_holds_for_a_valid_call() {
    for rule in RULES {
        let scene = scene();
        let plan = learned_plan();
        let case = Case {
            errno: 22,
            record: &scene.record,
            refusal: Some(&scene.refusal),
            after: &scene.after,
            features: &scene.features,
            window: Window::of(Times { record: &scene.record, functions: None }, &plan),
        };
        assert_eq!(rule.holds(&case), Some(false), "{}", rule.name);
    }
}

#[test]
fn rules_have_unique_names_and_stand_in_the_kernel_s_order() {
    for (place, rule) in RULES.iter().enumerate() {
        assert!(RULES.iter().skip(place + 1).all(|other| other.name != rule.name), "{}", rule.name);
    }
    for pair in RULES.windows(2) {
        assert!(pair[0].stage <= pair[1].stage, "{} before {}", pair[0].name, pair[1].name);
    }
    assert!(SCENES.iter().all(|(name, _)| RULES.iter().any(|rule| rule.name == *name)));
}

#[test]
fn without_evidence_nothing_is_certain() {
    let scene = scene();
    let plan = learned_plan();
    for errno in [Errno::EINVAL, Errno::EPERM, Errno::EAGAIN, Errno::ENOMEM, Errno::ENOSPC] {
        let mut fork = scene.explained();
        let case = Case {
            errno: (errno as i32).unsigned_abs(),
            record: &scene.record,
            refusal: None,
            after: &Aftermath::default(),
            features: &Features::default(),
            window: Window::of(Times { record: &scene.record, functions: None }, &plan),
        };
        add(&mut fork, &case);
        assert_eq!(fork.cause.unwrap().confidence, Confidence::Likely, "{errno}");
    }
}

#[test]
fn a_struct_that_changed_after_the_kernel_read_it_proves_nothing() {
    let scene = Scene::with(|scene| {
        scene.flags(0x800);
        scene.record.clone_flags = 0x10100;
    });
    assert_eq!(scene.explained().cause.unwrap().confidence, Confidence::Likely);
}

/// The kind and confidence of the cause that is found for a scene.
fn kind(scene: &Scene) -> (CauseKind, Confidence) {
    let cause = scene.explained().cause.unwrap();
    (cause.kind, cause.confidence)
}

fn eagain(passed: Mark, change: Change) -> Scene {
    Scene::with(|scene| {
        scene.errno = Errno::EAGAIN;
        scene.passed = Some(passed);
        change(scene);
    })
}

#[test]
fn the_user_s_limit_is_certain_where_it_is_full() {
    let full = eagain(Mark::CredAlloc, |s| s.refusal.nproc = counter(5, 5, 1000));
    let fork = full.explained();
    let cause = fork.cause.unwrap();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::RlimitNproc, Confidence::Certain));
    assert_eq!((cause.current, cause.max, cause.uid), (Some(5), Some(5), Some(1000)));
    assert_eq!(fork.failed_stage.as_deref(), Some("is_rlimit_overlimit"));
    // The limit does not refuse a caller that is exempt from it.
    for exempt in [
        (|s| s.refusal.uid = 0) as Change,
        |s| s.refusal.caps = 1 << 24,
        |s| s.refusal.caps = 1 << 21,
    ] {
        let mut scene = eagain(Mark::CredAlloc, |s| s.refusal.nproc = counter(5, 5, 1000));
        exempt(&mut scene);
        assert_ne!(kind(&scene).0, CauseKind::RlimitNproc);
    }
    // A capability in a user namespace of its own exempts nobody.
    let nested = eagain(Mark::CredAlloc, |s| {
        s.refusal.nproc = counter(5, 5, 1000);
        s.refusal.caps = u64::MAX;
        s.refusal.user_ns_level = 1;
    });
    assert_eq!(kind(&nested), (CauseKind::RlimitNproc, Confidence::Certain));
}

#[test]
fn before_5_15_the_user_s_limit_comes_before_the_credentials() {
    let scene = eagain(Mark::TaskAlloc, |s| {
        s.features.early_nproc = true;
        s.refusal.nproc = counter(5, 5, 1000);
    });
    assert_eq!(kind(&scene), (CauseKind::RlimitNproc, Confidence::Certain));
}

#[test]
fn the_pids_group_that_is_full_is_named() {
    let scene = eagain(Mark::PidAlloc, |s| {
        s.refusal.bits |= known::PIDS | known::GROUP_PATH;
        s.refusal.pids = counter(512, 512, 77);
        s.refusal.names[0][..9].copy_from_slice(b"ci.slice\0");
        s.refusal.names[1][..11].copy_from_slice(b"user.slice\0");
    });
    let fork = scene.explained();
    let cause = fork.cause.unwrap();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::CgroupPids, Confidence::Certain));
    assert_eq!(cause.path.as_deref(), Some("/user.slice/ci.slice"));
    assert_eq!(cause.hint, "raise TasksMax= of ci.slice");
    assert_eq!(fork.failed_stage.as_deref(), Some("cgroup_can_fork"));
    let mut other = scene;
    other.refusal.names[0][..9].copy_from_slice(b"ci\0\0\0\0\0\0\0");
    let hint = other.explained().cause.unwrap().hint;
    assert_eq!(hint, "raise /sys/fs/cgroup/user.slice/ci/pids.max");
    other.refusal.pids = counter(3, 512, 77);
    assert_ne!(kind(&other).0, CauseKind::CgroupPids, "it was not full");
    // The caller names a group that the kernel side did not find, and its own group says nothing.
    other.refusal.pids = counter(512, 512, 77);
    other.flags(1 << 33);
    assert_eq!(kind(&other), (CauseKind::CgroupPids, Confidence::Likely));
    assert_eq!(other.explained().cause.unwrap().path, None);
}

#[test]
fn the_group_s_own_counter_decides() {
    let counted = |current, now| {
        let mut scene = eagain(Mark::PidAlloc, |s| {
            s.refusal.bits |= known::PIDS | known::PIDS_WALKED | known::PIDS_REFUSALS;
            s.record.bits |= bits::PIDS_REFUSALS;
            s.record.pids_refusals = 7;
        });
        scene.refusal.pids = counter(current, 512, 77);
        scene.refusal.pids_refusals = now;
        scene
    };
    assert_eq!(kind(&counted(512, 8)), (CauseKind::CgroupPids, Confidence::Certain));
    assert_ne!(kind(&counted(512, 7)).0, CauseKind::CgroupPids, "it did not refuse");
    // Many tasks ended between the refusal and the reading of the group's count.
    assert_eq!(kind(&counted(3, 8)), (CauseKind::CgroupPids, Confidence::Likely));
}

#[test]
fn of_two_full_limits_the_first_is_the_cause_and_the_other_is_another_cause() {
    let scene = Scene::with(|s| {
        s.errno = Errno::EAGAIN;
        s.record.bits &= !bits::FLAGS;
        s.refusal.nproc = counter(5, 5, 1000);
        s.refusal.bits |= known::PIDS;
        s.refusal.pids = counter(7, 7, 77);
    });
    let fork = scene.explained();
    let others: Vec<_> = fork.other_causes.iter().map(|cause| cause.kind).collect();
    assert_eq!(fork.cause.unwrap().kind, CauseKind::RlimitNproc);
    assert_eq!(others, [CauseKind::CgroupPids]);
}

#[test]
fn the_other_limits_of_eagain() {
    let full = eagain(Mark::CredAlloc, |s| s.after.threads = Some((9_990, 10_000)));
    assert_eq!(kind(&full), (CauseKind::ThreadsMax, Confidence::Likely));
    let deadline = eagain(Mark::SchedForkTimer, |s| s.refusal.policy = 6);
    assert_eq!(kind(&deadline), (CauseKind::Deadline, Confidence::Certain));
    let pids = eagain(Mark::PidAlloc, |s| s.refusal.pid_ns = counter(300, 301, 4_026_532_000));
    let cause = pids.explained().cause.unwrap();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::PidMax, Confidence::Certain));
    assert_eq!(cause.path.as_deref(), Some("pid:[4026532000]"));
    // Before 6.14 there is one limit for the whole host.
    let old = eagain(Mark::PidAlloc, |s| {
        s.refusal.bits &= !known::PID_MAX;
        s.after.pid_max = Some(380);
    });
    assert_eq!(kind(&old).0, CauseKind::PidMax);
    let nothing = eagain(Mark::PidAlloc, |_| ());
    assert_eq!(kind(&nothing), (CauseKind::Unknown, Confidence::Likely));
}

#[test]
fn the_limits_of_namespaces() {
    let user = Scene::with(|s| {
        s.errno = Errno::ENOSPC;
        s.passed = Some(Mark::CredAlloc);
        s.flags(0x1000_0000);
        s.refusal.bits |= known::NAMESPACE_FULL;
        s.refusal.namespaces = counter(0, 0, 0);
    });
    let cause = user.explained().cause.unwrap();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::NamespaceLimit, Confidence::Certain));
    assert_eq!(cause.limit.as_deref(), Some("user.max_user_namespaces"));
    assert_eq!((cause.current, cause.max, cause.uid), (Some(0), Some(0), Some(0)));
    let deep = Scene::with(|s| {
        s.errno = Errno::ENOSPC;
        s.passed = Some(Mark::CredAlloc);
        s.flags(0x1000_0000);
        s.refusal.user_ns_level = 33;
    });
    assert_eq!(deep.explained().cause.unwrap().limit.as_deref(), Some("depth of nesting"));
}

#[test]
fn the_reasons_of_enomem() {
    let enomem = |passed, change: Change| {
        Scene::with(|scene| {
            scene.errno = Errno::ENOMEM;
            scene.passed = Some(passed);
            change(scene);
        })
    };
    let dead = enomem(Mark::PidAlloc, |s| s.refusal.children_allocated = 0);
    assert_eq!(kind(&dead), (CauseKind::PidNamespaceDead, Confidence::Certain));
    let strict = enomem(Mark::MmapLockTaken, |s| s.after.overcommit_mode = Some(2));
    assert_eq!(kind(&strict), (CauseKind::Overcommit, Confidence::Likely));
    assert_eq!(strict.explained().failed_stage.as_deref(), Some("dup_mmap"));
    let group = enomem(Mark::SysEnter, |s| {
        s.refusal.bits |= known::MEMORY;
        s.refusal.memory = counter(760, 768, 5);
        s.after.group_path = Some("/ci".to_owned());
    });
    let cause = group.explained().cause.unwrap();
    assert_eq!((cause.kind, cause.max), (CauseKind::CgroupMemory, Some(768 * 4096)));
    assert_eq!(cause.hint, "raise /sys/fs/cgroup/ci/memory.max");
    // The counter of the caller's own group proves that it was out of memory, or that it was not.
    let counted = |now| {
        let mut scene = enomem(Mark::SysEnter, |s| {
            s.refusal.bits |= known::MEMORY | known::MEMORY_OOMS;
            s.refusal.memory = counter(760, 768, 5);
            s.record.bits |= bits::MEMORY_OOMS;
            s.record.memory_ooms = 4;
        });
        scene.refusal.memory_ooms = now;
        scene
    };
    assert_eq!(kind(&counted(5)), (CauseKind::CgroupMemory, Confidence::Certain));
    assert_eq!(kind(&counted(4)), (CauseKind::NoMemory, Confidence::Likely));
    let mut freed = counted(5);
    freed.refusal.memory.current = 3;
    assert_eq!(kind(&freed), (CauseKind::CgroupMemory, Confidence::Certain));
    freed.passed = Some(Mark::MmapLockTaken);
    freed.after.overcommit_mode = Some(2);
    let explained = freed.explained();
    assert_eq!(
        explained.cause.unwrap().confidence,
        Confidence::Likely,
        "another task may have made the counter grow"
    );
    assert!(explained.other_causes.iter().any(|other| other.kind == CauseKind::CgroupMemory));
    let mut above = counted(4);
    above.refusal.memory.place = 1;
    assert_eq!(kind(&above), (CauseKind::CgroupMemory, Confidence::Likely));
    let none = enomem(Mark::SysEnter, |_| ());
    assert_eq!(kind(&none), (CauseKind::NoMemory, Confidence::Likely));
}

#[test]
fn the_other_errors() {
    let of = |errno, change: Change| {
        let mut scene = scene();
        scene.errno = errno;
        change(&mut scene);
        kind(&scene)
    };
    let files = of(Errno::EMFILE, |s| {
        s.flags(0x1000);
        s.passed = Some(Mark::PidAlloc);
    });
    assert_eq!(files, (CauseKind::RlimitNofile, Confidence::Certain));
    assert_eq!(of(Errno::EINTR, |_| ()), (CauseKind::SignalPending, Confidence::Certain));
    let module: Change = |s| s.passed = Some(Mark::SchedForkTimer);
    assert_eq!(of(Errno::EACCES, module), (CauseKind::SecurityModule, Confidence::Likely));
    assert_eq!(of(Errno::EPERM, module), (CauseKind::SecurityModule, Confidence::Likely));
    let chroot = of(Errno::EPERM, |s| {
        s.flags(0x1000_0000);
        s.passed = Some(Mark::CredAlloc);
    });
    assert_eq!(chroot, (CauseKind::Permission, Confidence::Likely));
    assert_eq!(of(Errno::EXDEV, |_| ()), (CauseKind::Unknown, Confidence::Likely));
    let filter: Change = |s| {
        s.record.bits &= !bits::ENTERED;
        s.refusal.seccomp_mode = 2;
    };
    assert_eq!(of(Errno::ENOSYS, filter), (CauseKind::Seccomp, Confidence::Certain));
    let traced = of(Errno::ENOSYS, |s| {
        s.record.bits &= !bits::ENTERED;
        s.refusal.seccomp_mode = 2;
        s.refusal.bits |= known::TRACED;
    });
    assert_eq!(traced, (CauseKind::Seccomp, Confidence::Likely));
}
