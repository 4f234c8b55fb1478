//! The kernel's own event log of the same forks, as a second truth.
//!
//! ftrace writes whole microseconds, so two of its times are up to one microsecond off. Both
//! tracers run at the same points, one after the other, and each adds its own cost.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

use fork_trace_common::arch::ARCH;

use crate::support::{
    Mount, forker, live_test, median, number, of_type, skip, slowness, stage, tool, trace,
};

/// What ftrace saw of one fork, in microseconds.
#[derive(Default)]
struct Seen {
    enter: Option<u64>,
    newtask: Option<u64>,
    process_fork: Option<u64>,
    wakeup_new: Option<u64>,
    exit: Option<u64>,
    on_cpu: Option<u64>,
}

/// An ftrace instance of its own.
struct Instance {
    path: PathBuf,
    _mount: Mount,
}

/// The number of the call by which `forker` forks.
const FORK: u64 = match ARCH.calls.fork {
    Some(fork) => fork,
    None => ARCH.calls.clone,
};

/// The events that show a fork from outside, and their filters, in which `FORK` is that number.
const AROUND: [(&str, &str); 6] = [
    ("raw_syscalls/sys_enter", "id == FORK"),
    ("raw_syscalls/sys_exit", "id == FORK && ret != 0"),
    ("task/task_newtask", "comm == \"forker\""),
    ("sched/sched_process_fork", "parent_comm == \"forker\""),
    ("sched/sched_wakeup_new", "comm == \"forker\""),
    ("sched/sched_switch", "next_pid != 0"),
];

/// Events that fire inside a fork.
const INSIDE: [&str; 10] = [
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "kmem/kmem_cache_alloc",
    // Before 6.1 this one fires for a task.
    "kmem/kmem_cache_alloc_node",
    "timer/hrtimer_setup",
    // Older kernels call it so.
    "timer/hrtimer_init",
    "mmap_lock/mmap_lock_start_locking",
    "mmap_lock/mmap_lock_acquire_returned",
    "mmap_lock/mmap_lock_released",
    "x86_fpu/x86_fpu_copy_dst",
];

impl Instance {
    fn new() -> Self {
        let mount = Mount::new("tracefs", "tracefs", &[]);
        let path = mount.path().join("instances").join(format!("forks-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let instance = Self { path, _mount: mount };
        instance.write("trace_clock", "mono");
        instance.write("buffer_size_kb", "8192");
        instance
    }

    /// Enables an event of the kernel, if it has it.
    fn enable(&self, event: &str, filter: Option<&str>) {
        if self.path.join("events").join(event).exists() {
            if let Some(filter) = filter {
                let filter = filter.replace("FORK", &FORK.to_string());
                self.write(&format!("events/{event}/filter"), &filter);
            }
            self.write(&format!("events/{event}/enable"), "1");
        }
    }

    /// Each fork by the call of `forker`, with the caller's events from its entry to its exit.
    fn inside(&self) -> Vec<Inside> {
        let (text, fork) = (self.text(), format!("NR {FORK} "));
        let mut open: HashMap<u64, Inside> = HashMap::new();
        let mut done = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((caller, at, event, rest)) = parts(line) else { continue };
            match event {
                "sys_enter" if rest.trim_start().starts_with(&fork) => {
                    open.insert(caller, Inside { caller, entered: at, events: Vec::new() });
                }
                "sys_exit" => done.extend(open.remove(&caller)),
                _ => {
                    if let Some(fork) = open.get_mut(&caller) {
                        fork.events.push((at, event.to_owned(), rest.to_owned()));
                    }
                }
            }
        }
        done
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// What was written. It is switched off first: reading adds events, and so would not end.
    fn text(&self) -> String {
        self.write("tracing_on", "0");
        fs::read_to_string(self.path.join("trace")).unwrap()
    }

    /// The forks by their child.
    fn forks(&self) -> HashMap<u64, Seen> {
        let text = self.text();
        let mut entered = HashMap::new();
        let mut by_caller: HashMap<u64, u64> = HashMap::new();
        let mut forks: HashMap<u64, Seen> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((caller, at, event, rest)) = parts(line) else {
                continue;
            };
            let field = |name| field(rest, name);
            match event {
                "sys_enter" => {
                    entered.insert(caller, at);
                }
                "task_newtask" => {
                    let child = field("pid=").unwrap();
                    by_caller.insert(caller, child);
                    let seen = Seen {
                        enter: entered.get(&caller).copied(),
                        newtask: Some(at),
                        ..Seen::default()
                    };
                    forks.insert(child, seen);
                }
                "sched_process_fork" => {
                    forks.entry(field("child_pid=").unwrap()).or_default().process_fork = Some(at);
                }
                "sched_wakeup_new" => {
                    forks.entry(field("pid=").unwrap()).or_default().wakeup_new = Some(at);
                }
                "sys_exit" => {
                    if let Some(child) = by_caller.get(&caller) {
                        forks.entry(*child).or_default().exit = Some(at);
                    }
                }
                "sched_switch" => {
                    let seen = forks.entry(field("next_pid=").unwrap()).or_default();
                    seen.on_cpu.get_or_insert(at);
                }
                _ => {}
            }
        }
        forks
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        fs::write(self.path.join("events/enable"), "0").ok();
        fs::remove_dir(&self.path).ok();
    }
}

/// The parts of a line like `  comm-PID  [CPU] flags  SECONDS.MICROS: event: rest`; the comm may
/// hold any character.
fn parts(line: &str) -> Option<(u64, u64, &str, &str)> {
    let (head, tail) = line.split_once(" [")?;
    let (_, caller) = head.trim().rsplit_once('-')?;
    let (before, rest) = tail.split_once(": ")?;
    let (seconds, micros) = before.split_whitespace().last()?.split_once('.')?;
    let at = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let (event, rest) = rest.split_once([':', '('])?;
    Some((caller.parse().ok()?, at, event.trim(), rest))
}

fn field(rest: &str, name: &str) -> Option<u64> {
    let word = rest.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    word.parse().ok()
}

/// A fork as ftrace saw it from inside: microseconds.
struct Inside {
    caller: u64,
    entered: u64,
    /// For each event its time, its name, and the rest of the line.
    events: Vec<(u64, String, String)>,
}

impl Inside {
    /// When an event first fired after `after`, in microseconds since the entry.
    fn first(&self, event: &str, part: &str, after: f64) -> Option<f64> {
        let since = |at: u64| between(Some(self.entered), Some(at));
        self.events
            .iter()
            .filter(|(_, name, rest)| name == event && rest.contains(part))
            .filter_map(|(at, ..)| since(*at))
            .find(|at| *at >= after)
    }

    /// When `copy_process` allocated for the `nth` time, from 0.
    fn allocation(&self, nth: usize) -> Option<f64> {
        let own = |rest: &str| rest.contains("call_site=copy_process+");
        let at = self
            .events
            .iter()
            .filter(|(_, name, rest)| name.starts_with("kmem_cache_alloc") && own(rest));
        between(Some(self.entered), Some(at.map(|(at, ..)| *at).nth(nth)?))
    }
}

/// How two series differ: the median of each, the median of the differences of pairs, and the
/// largest of these.
struct Difference {
    ours: f64,
    ftrace: f64,
    apart: f64,
    largest: f64,
}

fn compare(pairs: &[(f64, f64)]) -> Difference {
    assert!(!pairs.is_empty());
    let median_of =
        |of: fn(&(f64, f64)) -> f64| median(&mut pairs.iter().map(of).collect::<Vec<_>>());
    let largest = pairs.iter().map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
    Difference {
        ours: median_of(|pair| pair.0),
        ftrace: median_of(|pair| pair.1),
        // The differences are those of one and the same fork: where forks are of two sorts, the
        // median of all may be of either sort.
        apart: median_of(|(ours, theirs)| ours - theirs),
        largest,
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
fn micros(ns: &Value) -> Option<f64> {
    Some(ns.as_u64()? as f64 / 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
fn between(from: Option<u64>, to: Option<u64>) -> Option<f64> {
    Some((to? - from?) as f64)
}

/// What is compared: what each says of a fork, in microseconds, and how far the two may be apart,
/// because each tracer runs inside what the other measures.
struct Row {
    what: &'static str,
    most: f64,
    ours: fn(&Value) -> Option<f64>,
    theirs: fn(&Seen) -> Option<f64>,
}

const ROWS: [Row; 5] = [
    Row {
        what: "sys_enter to sched_process_fork",
        most: 3.0,
        ours: |fork| ends(fork, "copy_process"),
        theirs: |seen| between(seen.enter, seen.process_fork),
    },
    Row {
        what: "task_newtask to sched_process_fork",
        most: 3.0,
        ours: |fork| took(fork, "uprobe_copy_process"),
        theirs: |seen| between(seen.newtask, seen.process_fork),
    },
    Row {
        what: "sched_process_fork to sched_wakeup_new",
        most: 3.0,
        ours: |fork| took(fork, "wake_up_new_task"),
        theirs: |seen| between(seen.process_fork, seen.wakeup_new),
    },
    Row {
        what: "sys_enter to sys_exit",
        most: 4.0,
        ours: |fork| micros(&fork["total_ns"]),
        theirs: |seen| between(seen.enter, seen.exit),
    },
    Row {
        what: "sched_wakeup_new to the child's first sched_switch",
        most: 3.0,
        ours: |fork| micros(&fork["child_start"]["queued_ns"]),
        theirs: |seen| between(seen.wakeup_new, seen.on_cpu),
    },
];

/// When a stage ends, from the start of the attempt.
fn ends(fork: &Value, name: &str) -> Option<f64> {
    let stage = stage(fork, name)?;
    Some(micros(&stage["start_ns"])? + micros(&stage["dur_ns"])?)
}

/// How long a stage took.
fn took(fork: &Value, name: &str) -> Option<f64> {
    micros(&stage(fork, name)?["dur_ns"])
}

/// Why a test of this file may not run.
const OTHER: &str = "the backend asked for bounds no stages by these tracepoints";

/// The tool with a backend that bounds stages by tracepoints, as ftrace sees them. It is the
/// backend that the tests are run with, if it is `accepted`; where they are run with none, the
/// first of these.
fn by_tracepoints(accepted: &[&str]) -> Option<Command> {
    let given = std::env::var("FORK_TRACE_BACKEND");
    let backend = given.as_deref().unwrap_or(accepted[0]);
    accepted.contains(&backend).then(|| {
        let mut tool = tool();
        tool.args(["--backend", backend]);
        tool
    })
}

#[test]
fn ftrace_sees_the_same_gaps() {
    live_test!();
    let Some(mut tool) = by_tracepoints(&["tracepoint", "inner"]) else { skip!("{OTHER}") };
    let instance = Instance::new();
    for (event, filter) in AROUND {
        instance.enable(event, Some(filter));
    }
    let mut work = Command::new(forker());
    let traced = trace(&mut tool, work.args(["fork-raw", "--repeat", "1000"])).shown;
    let seen = instance.forks();
    drop(instance);
    let forks: Vec<_> = of_type(&traced, "fork");
    assert_eq!(forks.len(), 1000);

    for Row { what, most, ours, theirs } in ROWS {
        let pairs: Vec<_> = forks
            .iter()
            .filter_map(|fork| {
                let seen = seen.get(&fork["child"]["tid"].as_u64()?)?;
                Some((ours(fork)?, theirs(seen)?))
            })
            .collect();
        // ftrace leaves out some switches at times. Our times are there, but for the few forks for
        // which the kernel skipped a program.
        let unseen = forks.iter().filter(|fork| ours(fork).is_none()).count();
        assert!(unseen <= forks.len() / 25, "{what}: {unseen} unseen");
        assert!(pairs.len() > 50, "{what}: only {} pairs", pairs.len());
        let Difference { ours, ftrace, apart, largest } = compare(&pairs);
        println!(
            "{what}: median {ours:.1} us, by ftrace {ftrace:.1} us; {apart:.1} us apart, \
             {largest:.1} us at most, of {} forks",
            pairs.len()
        );
        assert!(apart.abs() <= most * slowness(), "{what}: {apart:.1} us apart");
    }
}

/// A mark inside a fork: the stage it opens, and how ftrace sees it.
type InsideRow = (&'static str, fn(&Inside) -> Option<f64>);

const INSIDE_ROWS: [InsideRow; 13] = [
    ("dup_task_struct", |fork| fork.allocation(0)),
    ("copy_creds", |fork| fork.first("kmem_cache_alloc", "call_site=prepare_creds+", 0.0)),
    ("sched_fork", |fork| {
        let first = |event| fork.first(event, "mode=REL|HARD", 0.0);
        first("hrtimer_setup").or_else(|| first("hrtimer_init"))
    }),
    ("copy_files", |fork| fork.first("kmem_cache_alloc", "call_site=dup_fd+", 0.0)),
    ("copy_fs", |fork| fork.first("kmem_cache_alloc", "call_site=copy_fs_struct+", 0.0)),
    ("copy_sighand", |fork| fork.allocation(1)),
    ("copy_signal", |fork| fork.allocation(2)),
    ("mm_init", |fork| fork.allocation(3)),
    ("mmap_write_lock", |fork| {
        fork.first("mmap_lock_start_locking", "write=true", fork.allocation(3)?)
    }),
    ("copy_page_range", |fork| {
        fork.first("mmap_lock_acquire_returned", "write=true", fork.allocation(3)?)
    }),
    ("flush_tlb_mm", |fork| fork.first("mmap_lock_released", "write=true", fork.allocation(3)?)),
    ("copy_thread", |fork| fork.first("x86_fpu_copy_dst", "", 0.0)),
    ("alloc_pid", |fork| fork.first("kmem_cache_alloc", "call_site=alloc_pid+", 0.0)),
];

#[test]
fn ftrace_sees_the_same_inside() {
    live_test!();
    let Some(mut tool) = by_tracepoints(&["inner"]) else { skip!("{OTHER}") };
    let instance = Instance::new();
    for event in INSIDE {
        instance.enable(event, None);
    }
    let mut work = Command::new(forker());
    let traced = trace(&mut tool, work.args(["fork-raw", "--repeat", "100"])).shown;
    let mut seen = instance.inside();
    drop(instance);
    let forks = of_type(&traced, "fork");
    // Others may fork meanwhile.
    let callers: HashSet<u64> = forks.iter().map(|fork| number(&fork["parent"]["tid"])).collect();
    seen.retain(|fork| callers.contains(&fork.caller));
    assert_eq!((forks.len(), seen.len()), (100, 100), "each fork, by both");

    let begins = |fork: &Value, name: &str| micros(&stage(fork, name)?["start_ns"]);
    let mut last = 0.0;
    let bounded = |name: &str| stage(&traced[0], name).unwrap()["precision"] == "bounded";
    // Kernels differ in what they can mark.
    for (name, theirs) in INSIDE_ROWS.into_iter().filter(|(name, _)| bounded(name)) {
        let pairs = forks.iter().zip(&seen);
        let pairs: Vec<_> =
            pairs.filter_map(|(fork, seen)| Some((begins(fork, name)?, theirs(seen)?))).collect();
        assert!(pairs.len() >= 98, "{name}: {} pairs", pairs.len());
        let Difference { ours, ftrace, apart, largest } = compare(&pairs);
        println!(
            "{name} begins: median {ours:.1} us, by ftrace {ftrace:.1} us; {apart:.1} us apart, \
             {largest:.1} us at most"
        );
        assert!(apart.abs() <= 3.0 * slowness(), "{name}: {apart:.1} us apart");
        assert!(ftrace >= last, "{name}: ftrace sees the same order");
        last = ftrace;
    }
}
