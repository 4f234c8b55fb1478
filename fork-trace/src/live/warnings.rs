//! What is worth a warning: a storm of forks, a fork of a process with threads whose child runs on. Pure;
//! times and facts are given.

use std::collections::VecDeque;

use anyhow::Result;
use foldhash::{HashMap, HashSet};
use fork_trace_common::{
    flags::{CLONE_THREAD, CLONE_VM},
    libc::{self, LibcFunction, LibcRecord},
    record::{ForkRecord, TaskIds, bits},
};

use crate::event::{errno::errno_name, fork::Fork, notice::Warning, units::count, values::Name};

/// More attempts of one process within a second are a storm.
pub const STORM: u64 = 1000;
/// How long a child of a process with threads may run without exec.
pub const EXEC_NS: u64 = 1_000_000_000;
/// How many processes and children are watched at once.
pub const MOST: usize = 16_384;

const SECOND_NS: u64 = 1_000_000_000;

/// A process by id and start.
type Process = (u32, u64);

/// Says that most stages of `copy_process` cannot be told apart, and why.
#[must_use]
pub fn no_inner_marks(reason: &str) -> Warning {
    Warning {
        code: Name::Borrowed("no-inner-marks"),
        text: format!("most stages of copy_process cannot be told apart: {reason}"),
        hint: Some("`fork-trace doctor` shows what can be seen of each stage".to_owned()),
        fork_id: None,
    }
}

/// Says that no samples of kernel stacks can be taken, and why.
#[must_use]
pub fn no_samples(reason: &str) -> Warning {
    Warning {
        code: Name::Borrowed("no-samples"),
        text: format!("no samples of kernel stacks can be taken: {reason}"),
        hint: Some(
            "what a slow fork does between two marks is not told; CAP_PERFMON (root has it), a \
             seccomp filter that permits perf_event_open, or --sample 0 to do without"
                .to_owned(),
        ),
        fork_id: None,
    }
}

/// Says that the C library gave up before it made a task: `posix_spawn` or `pthread_create` failed, and
/// there was no system call. `None` where the wrapper did not fail.
///
/// GLIBC: nptl/allocatestack.c `allocate_stack`, sysdeps/unix/sysv/linux/spawni.c `__spawnix`: each maps
/// a stack first.
#[must_use]
pub fn no_clone(wrapper: &LibcRecord) -> Option<Warning> {
    let function = LibcFunction::from_number(wrapper.function)?;
    let returns_errno = matches!(
        function,
        LibcFunction::PosixSpawn | LibcFunction::PosixSpawnp | LibcFunction::PthreadCreate
    );
    // An int: the upper half of the register is not defined.
    let errno = u32::try_from(wrapper.ret & 0xffff_ffff).ok().filter(|errno| *errno != 0)?;
    if !returns_errno || !wrapper.has(libc::bits::RETURNED) || errno > 4095 {
        return None;
    }
    let TaskIds { tgid, tid, .. } = wrapper.thread;
    Some(Warning {
        code: Name::Borrowed("no-clone"),
        text: format!(
            "{} in thread {tid} of process {tgid} returned {}, and made no clone",
            function.name(),
            errno_name(errno)
        ),
        hint: Some(
            "the C library found no memory for a stack: RLIMIT_AS (ulimit -v), vm.max_map_count and \
             the limits of overcommit decide that; or its arguments are wrong"
                .to_owned(),
        ),
        fork_id: None,
    })
}

/// Counts attempts by process.
#[derive(Default)]
pub struct Storms {
    /// When the second under way began, and attempts in it.
    counts: HashMap<Process, (u64, u64)>,
    warned: HashSet<Process>,
}

impl Storms {
    /// Takes an attempt; says so when it makes a storm, once for a process.
    pub fn add(&mut self, fork: &Fork) -> Option<Warning> {
        let process = (fork.parent.pid, fork.parent.start_ns?);
        // What is forgotten is counted anew.
        if self.counts.len() == MOST {
            self.counts.clear();
        }
        let (began_ns, attempts) = self.counts.entry(process).or_insert((fork.mono_ns, 0));
        if fork.mono_ns.saturating_sub(*began_ns) >= SECOND_NS {
            (*began_ns, *attempts) = (fork.mono_ns, 0);
        }
        *attempts += 1;
        if *attempts <= STORM || !first(&mut self.warned, process) {
            return None;
        }
        let (parent, limit) = (&fork.parent, count(STORM));
        Some(Warning {
            code: Name::Borrowed("fork-storm"),
            text: format!(
                "{} ({}) made more than {limit} attempts to fork within a second",
                parent.comm, parent.pid
            ),
            hint: Some(
                "a pool of workers, or fewer and longer-lived helpers, would spare them".to_owned(),
            ),
            fork_id: Some(fork.id.clone()),
        })
    }
}

/// Whether `process` is new in `known`, which stays bounded.
fn first(known: &mut HashSet<Process>, process: Process) -> bool {
    if known.len() == MOST {
        known.clear();
    }
    known.insert(process)
}

/// Process ids as the mounted `/proc` shows them, which may be of another pid namespace than the
/// initial one; 0: not there.
#[derive(Clone, Copy, Debug)]
pub struct ProcPids {
    /// Of the process that forked.
    pub parent: u32,
    /// Of its child.
    pub child: u32,
}

/// A child of a process with threads.
#[derive(Clone, Debug)]
struct Watched {
    due_ns: u64,
    /// Which child.
    child: TaskIds,
    /// Id and start of the process that forked.
    parent: Process,
    /// What `/proc` shows of both.
    proc_pids: ProcPids,
    /// Its name.
    comm: String,
    /// Its threads when it forked.
    threads: u32,
    /// Id of the fork.
    fork: String,
}

/// Children of processes with threads, until they have had time to exec.
#[derive(Default)]
pub struct Watcher {
    watched: VecDeque<Watched>,
    warned: HashSet<Process>,
    /// Children that were not watched because there were too many.
    pub left_out: u64,
}

impl Watcher {
    /// Takes a fork that was shown. A child that shares its parent's memory, as of vfork and
    /// `posix_spawn`, finds no lock held by a thread that it does not have.
    pub fn add(&mut self, record: &ForkRecord, fork: &Fork) {
        let copied = record.task_flags & (CLONE_VM | CLONE_THREAD) == 0;
        if !record.has(bits::CHILD) || !copied || record.threads < 2 {
            return;
        }
        if self.watched.len() == MOST {
            self.left_out += 1;
            return;
        }
        self.watched.push_back(Watched {
            due_ns: record.child.start_ns + EXEC_NS,
            child: record.child,
            parent: (record.parent.tgid, record.parent_process_start_ns),
            proc_pids: ProcPids { parent: record.parent_proc_pid, child: record.child_proc_pid },
            comm: fork.parent.comm.clone(),
            threads: record.threads,
            fork: fork.id.clone(),
        });
    }

    /// Children whose time is up by `now_ns`.
    fn due(&mut self, now_ns: u64) -> Vec<Watched> {
        let mut due = Vec::new();
        while self.watched.front().is_some_and(|watched| watched.due_ns <= now_ns) {
            due.extend(self.watched.pop_front());
        }
        due
    }

    /// Warnings about children whose time is up by `now_ns`. `is_without_exec` tells whether one still runs the
    /// program of its parent, and `line` the command line of a process that `/proc` shows under an id, by its start.
    ///
    /// # Errors
    /// That of `is_without_exec`.
    pub fn without_exec(
        &mut self,
        now_ns: u64,
        is_without_exec: impl Fn(&TaskIds) -> Result<bool>,
        line: impl Fn((u32, u64)) -> Option<String>,
    ) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        for watched in self.due(now_ns) {
            if is_without_exec(&watched.child)? {
                let child = line((watched.proc_pids.child, watched.child.start_ns));
                let parent = line((watched.proc_pids.parent, watched.parent.1));
                warnings.extend(self.warning(&watched, parent, child));
            }
        }
        Ok(warnings)
    }

    /// The warning for a child that runs on without exec, once for a process that forks; command
    /// lines where they are known.
    fn warning(
        &mut self,
        watched: &Watched,
        parent: Option<String>,
        child: Option<String>,
    ) -> Option<Warning> {
        if !first(&mut self.warned, watched.parent) {
            return None;
        }
        let line = |of: &str, line: Option<String>| {
            line.map_or_else(String::new, |line| format!("; {of}: {line}"))
        };
        Some(Warning {
            code: Name::Borrowed("threads-without-exec"),
            text: format!(
                "{} ({}) forked while it had {} threads, and its child {} runs on without exec: a \
                 lock that another thread held is held for ever in the child{}{}",
                watched.comm,
                watched.parent.0,
                watched.threads,
                watched.child.tgid,
                line("parent", parent),
                line("child", child),
            ),
            hint: Some(
                "exec at once or use posix_spawn; in Python subprocess, or multiprocessing with \
                 the spawn or forkserver method"
                    .to_owned(),
            ),
            fork_id: Some(watched.fork.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(mono_ns: u64, json: &str) -> Fork {
        let head =
            format!(r#"{{"id":"1-{mono_ns}","ts":"2026-01-01T00:00:00Z","mono_ns":{mono_ns}"#);
        let parent = r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0,"start_ns":5}"#;
        serde_json::from_str(&format!("{head},{parent}{json}}}")).unwrap()
    }

    #[test]
    fn a_storm_is_told_once() {
        let mut storms = Storms::default();
        let mut told = |from_ns: u64, step_ns: u64, attempts: u64| {
            let all = (0..attempts).map(|place| fork(from_ns + place * step_ns, ""));
            all.filter_map(|fork| storms.add(&fork)).count()
        };
        assert_eq!(told(0, 1_000_001, 5 * STORM), 0, "just below");
        assert_eq!(told(10 * SECOND_NS, 900_000, 5 * STORM), 1);
        assert_eq!(told(20 * SECOND_NS, 900_000, 5 * STORM), 0);
    }

    #[test]
    fn children_of_threads_are_due_after_a_second_and_told_once_for_a_process() {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::CHILD;
        record.threads = 1;
        record.child = TaskIds { tgid: 9, tid: 9, start_ns: 100 };
        record.parent.tgid = 1;
        let shown = fork(90, "");
        let mut watcher = Watcher::default();
        watcher.add(&record, &shown);
        record.threads = 4;
        for flags in [CLONE_VM, CLONE_VM | CLONE_THREAD, CLONE_VM | 0x4000] {
            record.task_flags = flags;
            watcher.add(&record, &shown);
        }
        assert!(watcher.due(u64::MAX).is_empty(), "one thread, or one memory");
        record.task_flags = 0;
        watcher.add(&record, &shown);
        watcher.add(&record, &shown);
        assert!(watcher.due(EXEC_NS + 99).is_empty());
        let due = watcher.due(EXEC_NS + 100);
        assert_eq!(due.len(), 2);
        let text = watcher.warning(&due[0], Some("python3 a.py".to_owned()), None).unwrap().text;
        assert!(
            text.starts_with("a (1) forked while it had 4 threads, and its child 9 "),
            "{text}"
        );
        assert!(text.ends_with("; parent: python3 a.py"), "{text}");
        assert_eq!(watcher.warning(&due[1], None, None).map(|warning| warning.text), None);
    }
}
