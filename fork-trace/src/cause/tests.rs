//! Every rule and every limit is found, each from evidence that is made up for it.

use fork_trace_common::{
    function::{FUNCTIONS, FunctionRow},
    record::{ForkRecord, Syscall, TaskIds, bits},
    refusal::{RefusalRecord, UserNamespace, known},
    stage::Mark,
};
use nix::errno::Errno;
use zerocopy::FromZeros as _;

use super::*;
use crate::{
    assemble::{joined::Joined, times::Times},
    cause::{add, case::Case, rules::RULES, window::Window},
    event::{
        cause::{Confidence, HeldBy, Holder},
        fork::Fork,
    },
    host::{
        call_sites::all_unknown,
        facts::Facts,
        features::Features,
        functions::{Probe, ProbeKind},
        limits::Aftermath,
        process::mappings::Largest,
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
    record.marks[Mark::SysEnter.place()] = 1_000;
    record.marks[Mark::SysExit.place()] = 9_000;
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
        | known::SECCOMP
        | known::ENDING
        | known::FS
        | known::ROOT
        | known::IDS
        | known::PRIVATE_PAGES;
    refusal.args_bytes = 88;
    refusal.args[4] = 17;
    refusal.uid = 1000;
    refusal.euid = 1000;
    refusal.open_files_max = 1024;
    refusal.children_allocated = 1 << 31 | 90;
    refusal.pid_ns = counter(90, 32_768, 4_026_531_836);
    refusal.nproc = counter(40, 100, 1000);
    refusal.fs_users = 1;
    refusal.private_pages = 100;
    let after = Aftermath {
        threads: Some((200, 10_000)),
        pid_max: Some(32_768),
        no_unprivileged_userns: Some(false),
        overcommit_mode: Some(0),
        committed_bytes: Some((1 << 30, 1 << 30)),
        memory_and_swap_bytes: Some(8 << 30),
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
        self.refusal.set_tid[0] = first;
        self.refusal.bits |= known::SET_TID;
    }

    /// The fork with its cause, as a user would see it.
    fn explained(&self) -> Fork {
        let plan = learned_plan();
        let mut record = self.record;
        for mark in Mark::ALL.iter().filter(|mark| (**mark as usize) < Mark::IN_RECORD) {
            if self.passed.is_some_and(|passed| *mark <= passed) {
                record.marks[mark.place()] = 1_000 + *mark as u64;
            }
        }
        record.ret = -i64::from(self.errno as i32);
        let clock = crate::event::clock::Clock::new(jiff::Timestamp::UNIX_EPOCH, 0);
        let joined = Joined::alone(Box::new(record));
        let mut fork = crate::assemble::fork::fork(&joined, &plan, clock);
        let case = Case {
            errno: (self.errno as i32).unsigned_abs(),
            record: &record,
            refusal: Some(&self.refusal),
            after: &self.after,
            features: &self.features,
            window: Window::of(Times::new(&record, None), &plan),
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
    ("newuser-in-chroot", |s| {
        s.flags(0x1000_0000);
        s.refusal.bits |= known::CHROOTED;
    }),
    ("newuser-unmapped-ids", |s| {
        s.flags(0x1000_0000);
        s.refusal.bits |= known::UID_UNMAPPED;
    }),
    ("newuser-unmapped-ids", |s| {
        s.flags(0x1000_0000);
        s.refusal.bits |= known::GID_UNMAPPED;
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
        Stage::CopyCreds => Some(Mark::CredAlloc),
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
            window: Window::of(Times::new(&scene.record, None), &plan),
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
            window: Window::of(Times::new(&scene.record, None), &plan),
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
    assert_eq!(of(Errno::EINTR, |_| ()), (CauseKind::SignalPending, Confidence::Likely));
    let module: Change = |s| s.passed = Some(Mark::SchedForkTimer);
    assert_eq!(of(Errno::EACCES, module), (CauseKind::SecurityModule, Confidence::Likely));
    assert_eq!(of(Errno::EPERM, module), (CauseKind::SecurityModule, Confidence::Likely));
    let module = of(Errno::EPERM, |s| {
        s.flags(0x1000_0000);
        s.passed = Some(Mark::CredAlloc);
    });
    assert_eq!(module, (CauseKind::SecurityModule, Confidence::Likely), "neither chroot nor ids");
    let module = of(Errno::EACCES, |s| {
        s.flags(0x1000_0000);
        s.passed = Some(Mark::CredAlloc);
    });
    assert_eq!(module, (CauseKind::SecurityModule, Confidence::Likely));
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

fn enomem(passed: Mark, change: Change) -> Scene {
    Scene::with(|scene| {
        scene.errno = Errno::ENOMEM;
        scene.passed = Some(passed);
        change(scene);
    })
}

/// The cause told of a scene.
fn cause_of(scene: &Scene) -> Cause {
    scene.explained().cause.unwrap()
}

#[test]
fn the_limit_of_a_user_namespace_is_its_own() {
    let scene = eagain(Mark::CredAlloc, |s| {
        s.refusal.nproc = counter(5, 5, 62_001);
        s.refusal.nproc.place = 1;
        s.refusal.nproc_ns = UserNamespace { inum: 4_026_532_177, level: 1 };
    });
    let cause = cause_of(&scene);
    assert_eq!((cause.kind, cause.confidence), (CauseKind::RlimitNproc, Confidence::Certain));
    assert_eq!((cause.path.as_deref(), cause.level), (Some("user:[4026532177]"), Some(1)));
    assert_eq!((cause.current, cause.max, cause.uid), (Some(5), Some(5), Some(62_001)));
    assert!(cause.hint.contains("ulimit -u inside does not help"), "{}", cause.hint);
    let own = cause_of(&eagain(Mark::CredAlloc, |s| s.refusal.nproc = counter(5, 5, 1000)));
    assert_eq!((own.path, own.level), (None, None));
    assert!(own.hint.contains("raise it with ulimit -u"));
}

#[test]
fn an_exec_beside_the_caller_is_certain_where_it_was_seen() {
    let racing: Change = |s| {
        s.flags(0x200);
        s.refusal.fs_users = 2;
    };
    let mut scene = eagain(Mark::FilesAlloc, racing);
    scene.refusal.bits |= known::IN_EXEC;
    assert_eq!(kind(&scene), (CauseKind::SiblingExec, Confidence::Certain));
    assert_eq!(scene.explained().failed_stage.as_deref(), Some("copy_fs"));
    // It was over as the call returned, but had not been just before it was refused.
    scene.refusal.bits &= !known::IN_EXEC;
    scene.record.bits |= bits::IN_EXEC;
    assert_eq!(kind(&scene), (CauseKind::SiblingExec, Confidence::Certain));
    scene.record.bits &= !bits::IN_EXEC;
    // It was over as the call returned.
    scene.refusal.bits &= !known::IN_EXEC;
    assert_eq!(kind(&scene), (CauseKind::SiblingExec, Confidence::Likely));
    scene.refusal.fs_users = 1;
    assert_eq!(kind(&scene).0, CauseKind::Unknown, "nobody shares it");
    let mut copied = eagain(Mark::FilesAlloc, |s| s.refusal.fs_users = 2);
    copied.refusal.bits |= known::IN_EXEC;
    assert_eq!(kind(&copied).0, CauseKind::Unknown, "it is not shared with the child");
    // Where the stage is not known, what moved a counter comes first.
    let mut group = Scene::with(|s| {
        s.errno = Errno::EAGAIN;
        racing(s);
        s.record.bits &= !bits::FLAGS;
    });
    group.refusal.bits |= known::IN_EXEC | known::PIDS | known::PIDS_REFUSALS;
    group.refusal.pids = counter(7, 7, 77);
    group.record.bits |= bits::PIDS_REFUSALS;
    group.refusal.pids_refusals = 1;
    let told = group.explained();
    assert_eq!(told.cause.unwrap().kind, CauseKind::CgroupPids);
    assert_eq!(told.other_causes[0].kind, CauseKind::SiblingExec);
}

#[test]
fn a_caller_that_is_killed_while_it_copies_has_memory_enough() {
    let killed: Change = |s| {
        s.refusal.bits |= known::KILLED;
        s.refusal.signal_flags = 4;
        s.refusal.group_exit_code = 15;
    };
    let scene = enomem(Mark::ParentMmapReleased, killed);
    let cause = cause_of(&scene);
    assert_eq!((cause.kind, cause.confidence), (CauseKind::SignalPending, Confidence::Certain));
    assert_eq!(cause.what, "SIGTERM ends the caller, which does not see the error");
    assert_eq!(scene.explained().failed_stage.as_deref(), Some("dup_mmap"));
    let by = |code, flags, bits| {
        let mut scene = enomem(Mark::ParentMmapReleased, killed);
        (scene.refusal.group_exit_code, scene.refusal.signal_flags) = (code, flags);
        scene.refusal.bits |= bits;
        cause_of(&scene).what.into_owned()
    };
    assert!(by(0x100, 4, 0).contains("exit_group"));
    assert!(by(0, 0, known::THREAD_TAKES_OVER).contains("runs another program"));
    assert!(by(0, 0, 0).contains("a fatal signal"));
    // The promise may have been refused before the signal came.
    let mut strict = enomem(Mark::ParentMmapReleased, killed);
    strict.after.overcommit_mode = Some(2);
    let told = strict.explained();
    let first = told.cause.unwrap();
    assert_eq!((first.kind, first.confidence), (CauseKind::SignalPending, Confidence::Likely));
    assert_eq!(told.other_causes[0].kind, CauseKind::Overcommit);
    let early = enomem(Mark::SysEnter, killed);
    assert_eq!(kind(&early), (CauseKind::SignalPending, Confidence::Likely));
    let mut interrupted = scene;
    interrupted.errno = Errno::EINTR;
    interrupted.passed = Some(Mark::PidAlloc);
    assert_eq!(kind(&interrupted), (CauseKind::SignalPending, Confidence::Certain));
}

#[test]
fn the_out_of_memory_killer_is_told_with_its_group() {
    let chosen: Change = |s| {
        s.refusal.bits |= known::KILLED | known::OOM_VICTIM;
        s.after.memory_v1 = true;
    };
    let host = enomem(Mark::SysEnter, chosen);
    let cause = cause_of(&host);
    assert_eq!((cause.kind, cause.confidence), (CauseKind::OomKill, Confidence::Certain));
    assert_eq!((cause.limit, cause.path), (None, None));
    for errno in [Errno::ENOMEM, Errno::EINTR] {
        let mut scene = enomem(Mark::SysEnter, chosen);
        scene.errno = errno;
        scene.refusal.bits |= known::MEMORY | known::MEMORY_OOMS | known::GROUP_PATH;
        scene.refusal.memory = counter(760, 768, 5);
        scene.refusal.memory_ooms = 5;
        scene.record.bits |= bits::MEMORY_OOMS;
        scene.refusal.names[0][..3].copy_from_slice(b"ci\0");
        let cause = cause_of(&scene);
        assert_eq!((cause.kind, cause.confidence), (CauseKind::OomKill, Confidence::Certain));
        assert_eq!(cause.limit.as_deref(), Some("memory.limit_in_bytes"));
        assert_eq!((cause.path.as_deref(), cause.max), (Some("/ci"), Some(768 * 4096)));
        assert!(scene.explained().other_causes.iter().all(|o| o.kind != CauseKind::CgroupMemory));
        // The group above may have been the one.
        scene.refusal.memory.place = 1;
        assert_eq!(kind(&scene), (CauseKind::OomKill, Confidence::Likely));
    }
}

#[test]
fn a_promise_of_memory_is_told_by_its_mode() {
    let large: Change = |s| s.refusal.private_pages = (40 << 30) / 4096;
    let mapping = |bytes, promised| {
        let mut scene = enomem(Mark::ParentMmapReleased, large);
        scene.after.largest = Some(Largest { bytes, promised });
        scene
    };
    let cause = cause_of(&mapping(40 << 30, Some(true)));
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Overcommit, Confidence::Certain));
    assert_eq!((cause.asked, cause.max), (Some(40 << 30), Some(8 << 30)));
    assert_eq!((cause.current, cause.read_afterwards), (None, Some(true)));
    assert!(cause.what.contains("vm.overcommit_memory=0") && !cause.hint.contains("ratio"));
    assert_eq!(kind(&mapping(40 << 30, None)), (CauseKind::Overcommit, Confidence::Likely));
    assert_eq!(kind(&mapping(7 << 30, Some(true))).0, CauseKind::NoMemory);
    let gone = enomem(Mark::ParentMmapReleased, large);
    assert_eq!(kind(&gone), (CauseKind::Overcommit, Confidence::Likely));
    assert_eq!(cause_of(&gone).asked, None);
    let small = enomem(Mark::ParentMmapReleased, |_| ());
    assert_eq!(kind(&small).0, CauseKind::NoMemory, "no mapping can be that large");

    let strict = |current: u64| {
        let mut scene = enomem(Mark::ParentMmapReleased, large);
        scene.after.overcommit_mode = Some(2);
        scene.after.committed_bytes = Some((current, 50 << 30));
        scene
    };
    let cause = cause_of(&strict(20 << 30));
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Overcommit, Confidence::Likely));
    assert_eq!((cause.current, cause.max), (Some(20 << 30), Some(50 << 30)));
    assert_eq!(cause.asked, Some(40 << 30));
    assert!(cause.what.contains("vm.overcommit_memory=2") && cause.hint.contains("ratio"));
    let mut lives_on = strict(1 << 30);
    lives_on.after.largest = mapping(7 << 30, Some(true)).after.largest;
    assert_eq!(kind(&lives_on).0, CauseKind::NoMemory, "all of it fits");
    assert_eq!(
        kind(&strict(1 << 30)).0,
        CauseKind::Overcommit,
        "the caller has given its own back"
    );
    let mut all_fits = strict(1 << 30);
    all_fits.after.committed_bytes = Some((1 << 30, 90 << 30));
    assert_eq!(kind(&all_fits).0, CauseKind::NoMemory, "twice that fits");
}

/// A call that had no entry, by a caller with a filter.
fn unentered(errno: Errno, change: Change) -> Scene {
    Scene::with(|scene| {
        scene.errno = errno;
        scene.record.bits &= !bits::ENTERED;
        scene.record.marks[Mark::SysEnter.place()] = 0;
        scene.refusal.seccomp_mode = 2;
        change(scene);
    })
}

#[test]
fn seccomp_is_told_with_the_call_and_what_a_library_does_next() {
    let enosys = cause_of(&unentered(Errno::ENOSYS, |_| ()));
    assert_eq!((enosys.kind, enosys.confidence), (CauseKind::Seccomp, Confidence::Certain));
    assert_eq!(enosys.what, "clone3 refused by seccomp before it began");
    assert!(enosys.hint.contains("try clone next"));
    let eperm = cause_of(&unentered(Errno::EPERM, |_| ()));
    assert!(eperm.hint.contains("refuse it with ENOSYS"), "{}", eperm.hint);
    let clone = cause_of(&unentered(Errno::EPERM, |s| s.record.syscall = Syscall::Clone as u32));
    assert_eq!(clone.what, "clone refused by seccomp before it began");
    assert!(clone.hint.starts_with("allow clone in"));
    // The kernel refuses that too, and its entry may have been missed.
    let both = unentered(Errno::EPERM, |s| s.flags(0x2_0000));
    assert_eq!(kind(&both), (CauseKind::Seccomp, Confidence::Likely));
    assert_eq!(both.explained().other_causes[0].rule.as_deref(), Some("namespace-without-admin"));
}

#[test]
fn a_call_that_a_tracer_took_away_is_its_refusal() {
    let scene = unentered(Errno::ENOSYS, |s| {
        s.refusal.bits |= known::TAKEN | known::TRACED;
        s.record.tracer = 70;
    });
    let fork = scene.explained();
    let cause = fork.cause.unwrap();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Tracer, Confidence::Certain));
    assert!(cause.hint.contains("process 70"), "{}", cause.hint);
    assert!(fork.other_causes.is_empty(), "seccomp was not asked");
    assert!(fork.warnings[0].text.starts_with("refused by a tracer"));
}

#[test]
fn the_warning_beside_a_cause_is_as_sure_as_the_cause() {
    let text = |scene: &Scene| scene.explained().warnings[0].text.clone();
    let certain = text(&unentered(Errno::ENOSYS, |_| ()));
    assert!(certain.starts_with("refused by seccomp before"), "{certain}");
    let likely = text(&unentered(Errno::ENOSYS, |s| s.refusal.bits |= known::TRACED));
    assert!(likely.starts_with("likely refused by seccomp before"), "{likely}");
    let missed = text(&unentered(Errno::EAGAIN, |s| {
        s.refusal.seccomp_mode = 0;
        s.refusal.nproc = counter(5, 5, 1000);
    }));
    assert!(missed.starts_with("its entry was not seen"), "{missed}");
}

#[test]
fn the_group_and_the_descriptor_that_were_asked_for_are_told() {
    let into = |errno, change: Change| {
        Scene::with(|scene| {
            scene.errno = errno;
            scene.passed = Some(Mark::PidAlloc);
            scene.flags(1 << 33);
            scene.refusal.args[10] = 5;
            change(scene);
        })
    };
    let busy = cause_of(&into(Errno::EBUSY, |s| {
        s.refusal.bits |= known::INTO | known::GROUP_PATH;
        s.refusal.names[0][..3].copy_from_slice(b"ci\0");
    }));
    assert_eq!((busy.fd, busy.path.as_deref()), (Some(5), Some("/ci")));
    let no_group = cause_of(&into(Errno::EBADF, |s| s.after.into = Some("/proc".to_owned())));
    assert_eq!((no_group.fd, no_group.path), (Some(5), None));
    assert_eq!(no_group.read_afterwards, Some(true));
    assert!(no_group.what.contains("descriptor 5, which is (read afterwards) /proc"));
    let gone = cause_of(&into(Errno::EBADF, |_| ()));
    assert!(gone.what.contains("no directory of the cgroup2 hierarchy"));
}

#[test]
fn the_id_that_was_asked_for_is_told_with_what_holds_it() {
    let taken = |change: Change| {
        let scene = Scene::with(|scene| {
            scene.errno = Errno::EEXIST;
            scene.passed = Some(Mark::PidAlloc);
            scene.set_tid(70, 1);
            change(scene);
        });
        cause_of(&scene)
    };
    let zombie = taken(|s| {
        let holder = Holder { what: HeldBy::Zombie, pid: 70, comm: "sh".to_owned() };
        s.after.id_holder = Some(holder);
    });
    assert_eq!((zombie.id, zombie.level), (Some(70), Some(0)));
    assert_eq!(zombie.held_by.as_ref().map(|holder| holder.what), Some(HeldBy::Zombie));
    assert!(zombie.hint.contains("the id of a zombie"), "{}", zombie.hint);
    let unknown = taken(|_| ());
    assert_eq!((unknown.id, unknown.held_by, unknown.read_afterwards), (Some(70), None, None));
    let several = taken(|s| s.set_tid(70, 2));
    assert_eq!(several.id, None, "one of them is taken");
}
