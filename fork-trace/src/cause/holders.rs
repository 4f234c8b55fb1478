//! Who fills the limit that refused an attempt: which tasks to ask the kernel for, and what they are
//! taken together.

use std::collections::HashMap;

use fork_trace_common::{
    flags::{PF_IO_WORKER, PF_KTHREAD},
    holder::{HolderSeen, HoldersKind, HoldersOf},
    refusal::{RefusalRecord, known},
};

use crate::event::{
    bytes::{before_nul, text},
    cause::{Cause, CauseKind, Tasks, TasksParent, ZOMBIE},
    values::{Kind, Name},
};

/// How many sorts of tasks are told; more would hide the ones that matter.
const MOST: usize = 8;

/// Which tasks fill the limit that is the cause; `None` where it is no limit of tasks, or where the
/// evidence does not say whose it is.
#[must_use]
pub fn wanted(cause: &Cause, refusal: &RefusalRecord) -> Option<HoldersOf> {
    cause.current.zip(cause.max)?;
    let of = |kind: HoldersKind| HoldersOf { kind: kind as u32, ..HoldersOf::default() };
    match cause.kind {
        CauseKind::RlimitNproc if refusal.has(known::NPROC) => Some(HoldersOf {
            uid: cause.uid?,
            inum: refusal.nproc_in.inum,
            ..of(HoldersKind::User)
        }),
        CauseKind::CgroupPids if refusal.has(known::PIDS) => {
            Some(HoldersOf { group: refusal.pids.owner, ..of(HoldersKind::Group) })
        }
        CauseKind::PidMax if refusal.has(known::PID_MAX) => Some(HoldersOf {
            inum: u32::try_from(refusal.pid_ns.owner).ok()?,
            level: cause.level?,
            ..of(HoldersKind::PidNamespace)
        }),
        CauseKind::ThreadsMax => Some(of(HoldersKind::Host)),
        _ => None,
    }
}

/// What distinguishes the tasks that are told together.
#[derive(PartialEq, Eq, Hash)]
struct Sort {
    comm: String,
    state: &'static str,
    kind: Option<Kind>,
}

/// Tells the tasks, those of one name and state together, most first; and how many are left out.
#[must_use]
pub fn told(seen: &[HolderSeen]) -> (Vec<Tasks>, Option<u64>) {
    let mut sorts: HashMap<Sort, Tasks> = HashMap::new();
    for task in seen {
        let kind = kind(task);
        let comm = if kind.is_some() { &task.comm } else { &task.process_comm };
        let sort = Sort { comm: name(comm), state: state(task), kind };
        // A worker of io_uring is a thread of the process that it works for.
        let parent = match kind {
            Some(Kind::IoWorker) => TasksParent { pid: task.tgid, comm: name(&task.process_comm) },
            _ => TasksParent { pid: task.ppid, comm: name(&task.parent_comm) },
        };
        let parent = Some(parent).filter(|parent| parent.pid != 0);
        match sorts.get_mut(&sort) {
            Some(tasks) => {
                tasks.count += 1;
                tasks.pid = tasks.pid.filter(|pid| *pid == task.tgid);
                tasks.parent = tasks.parent.take().filter(|same| Some(same) == parent.as_ref());
            }
            None => {
                let tasks = Tasks {
                    comm: sort.comm.clone(),
                    state: Name::Borrowed(sort.state),
                    count: 1,
                    kind,
                    pid: Some(task.tgid),
                    parent,
                };
                sorts.insert(sort, tasks);
            }
        }
    }
    let mut all: Vec<_> = sorts.into_values().collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.comm, a.pid).cmp(&(&b.comm, b.pid))));
    let more = all.iter().skip(MOST).map(|tasks| tasks.count).sum();
    all.truncate(MOST);
    (all, Some(more).filter(|more| *more > 0))
}

fn name(comm: &[u8]) -> String {
    text(before_nul(comm))
}

/// What a task is that is no process and no thread of one.
fn kind(task: &HolderSeen) -> Option<Kind> {
    match task.flags {
        flags if flags & PF_KTHREAD != 0 => Some(Kind::Kthread),
        flags if flags & PF_IO_WORKER != 0 => Some(Kind::IoWorker),
        _ => None,
    }
}

/// A task's state in words.
///
/// KERNEL: fs/proc/array.c `task_state_array`, include/linux/sched.h `__task_state_index`: of several
/// bits the highest counts, and a task that sleeps without being part of the load is idle.
fn state(task: &HolderSeen) -> &'static str {
    const IDLE: u32 = 0x402;
    const RTLOCK_WAIT: u32 = 0x1000;
    const FROZEN: u32 = 0x8000;
    const REPORTED: u32 = 0x7f;
    let bits = (task.state | task.exit_state) & REPORTED;
    match bits.checked_ilog2() {
        _ if task.state & IDLE == IDLE => "idle",
        _ if task.state & (RTLOCK_WAIT | FROZEN) != 0 => "disk sleep",
        None => "running",
        Some(0) => "sleeping",
        Some(1) => "disk sleep",
        Some(2) => "stopped",
        Some(3) => "tracing stop",
        Some(4) => "dead",
        Some(5) => ZOMBIE,
        Some(_) => "parked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tgid: u32, ppid: u32, comm: &str) -> HolderSeen {
        let mut bytes = [0; 16];
        bytes[..comm.len()].copy_from_slice(comm.as_bytes());
        HolderSeen {
            tgid,
            tid: tgid,
            ppid,
            state: 1,
            comm: bytes,
            process_comm: bytes,
            parent_comm: *b"parent\0\0\0\0\0\0\0\0\0\0",
            ..HolderSeen::default()
        }
    }

    #[test]
    fn zombies_of_one_parent_are_told_together() {
        let mut seen: Vec<_> = (10..29)
            .map(|pid| HolderSeen { exit_state: 0x20, ..task(pid, 7, "zombies") })
            .collect();
        seen.push(HolderSeen { state: 0, ..task(7, 1, "zombies") });
        let (tasks, more) = told(&seen);
        let [zombies, parent] = &tasks[..] else { panic!("{tasks:?}") };
        assert_eq!((zombies.count, zombies.state.as_ref(), zombies.pid), (19, ZOMBIE, None));
        let same = TasksParent { pid: 7, comm: "parent".to_owned() };
        assert_eq!(zombies.parent, Some(same));
        assert_eq!((parent.count, parent.state.as_ref(), parent.pid), (1, "running", Some(7)));
        assert_eq!(more, None);
    }

    #[test]
    fn workers_of_io_uring_belong_to_their_process() {
        let worker = HolderSeen {
            tid: 71,
            flags: PF_IO_WORKER,
            comm: *b"iou-wrk-70\0\0\0\0\0\0",
            ..task(70, 1, "server")
        };
        let (tasks, _) = told(&[task(70, 1, "server"), worker, HolderSeen { tid: 72, ..worker }]);
        assert_eq!((tasks[0].comm.as_str(), tasks[0].count), ("iou-wrk-70", 2));
        assert_eq!(tasks[0].kind, Some(Kind::IoWorker));
        assert_eq!(tasks[0].parent, Some(TasksParent { pid: 70, comm: "server".to_owned() }));
        assert_eq!((tasks[1].comm.as_str(), tasks[1].kind), ("server", None));
    }

    #[test]
    fn no_more_than_a_few_sorts_are_told_and_the_rest_is_counted() {
        let seen: Vec<_> = (0..20).map(|n| task(n + 1, 1, &format!("p{n}"))).collect();
        let (tasks, more) = told(&seen);
        assert_eq!((tasks.len(), more), (MOST, Some(12)));
        let named = |comm: &str| tasks.iter().any(|tasks| tasks.comm == comm);
        assert!(named("p0") && !named("p9"));
        assert_eq!(told(&[]), (Vec::new(), None));
    }

    #[test]
    fn a_state_is_told_as_proc_tells_it() {
        let of = |state, exit_state| {
            super::state(&HolderSeen { state, exit_state, ..HolderSeen::default() })
        };
        assert_eq!(
            [of(0, 0), of(1, 0), of(2, 0), of(4, 0)],
            ["running", "sleeping", "disk sleep", "stopped"]
        );
        assert_eq!([of(8, 0), of(0x402, 0), of(0x8000, 0)], ["tracing stop", "idle", "disk sleep"]);
        assert_eq!(
            [of(0x80, 0x20), of(0x80, 0x30), of(0x80, 0x10), of(0x40, 0)],
            ["zombie", "zombie", "dead", "parked"]
        );
    }
}
