//! Function probes: what they give is exact, they leave nothing behind, and ftrace's function graph
//! sees the same durations. These tests are for kernels that let functions be probed.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fork_trace::host::counts::possible_cpus;
use fork_trace_common::stage::{STAGES, Stage};
use serde_json::Value;

use crate::support::{
    FileTrace, Programs, fork_trace, forker, functions_are_probed, live_test, median, number,
    of_type, run, skip, slowness, stage, tool, trace,
};

/// Why a test of this file may not run.
const UNPROBED: &str = "this kernel, or the backend asked for, probes no functions";

/// Traces `forker` with these arguments, for every stage; `None` where no functions are probed.
fn traced(args: &[&str]) -> Option<Vec<Value>> {
    let lines = trace(fork_trace().arg("--stages=all"), Command::new(forker()).args(args)).shown;
    functions_are_probed(&lines).then_some(lines)
}

/// How many runs of a program the kernel skipped, of `missed_runs`.
fn missed(runs: &Value, name: &str) -> u64 {
    runs[name].as_u64().unwrap_or_default()
}

/// Whether a stage of the table is `outer` or part of it.
fn within(name: &Value, outer: Stage) -> bool {
    let row = STAGES.iter().find(|row| *name == row.name).unwrap();
    row.stage == outer || row.stage.is_within(outer)
}

#[test]
fn a_fork_is_seen_exactly_and_its_stages_add_up() {
    live_test!();
    let Some(lines) = traced(&["fork-raw", "--repeat", "50"]) else { skip!("{UNPROBED}") };
    let exact = |fork: &Value| {
        let stages = fork["stages"].as_array().unwrap();
        stages.iter().filter(|stage| stage["precision"] == "exact").count()
    };
    let forks = of_type(&lines, "fork");
    assert_eq!(forks.len(), 50);
    // From 6.13 on the kernel skips a run now and then, and counts it.
    let missed = lines.last().unwrap()["missed_runs"].as_object();
    let missed: u64 = missed.into_iter().flatten().filter_map(|(_, runs)| runs.as_u64()).sum();
    let count = |fork: &Value| fork["stages"].as_array().unwrap().len();
    let most = forks.iter().map(|fork| count(fork)).max().unwrap();
    let whole = |fork: &&&Value| count(fork) == most && is_exact(fork, "copy_process");
    let whole: Vec<_> = forks.iter().filter(whole).collect();
    let parts = forks.len() - whole.len();
    println!("{parts} forks seen in part; {missed} runs were skipped");
    assert!(parts as u64 <= missed && whole.len() >= 40, "{parts} in part, {missed} skipped");
    for fork in whole {
        assert!(exact(fork) >= 25, "{} are exact: {fork}", exact(fork));
        let copy_process = stage(fork, "copy_process").unwrap();
        let stages = fork["stages"].as_array().unwrap();
        let inside = stages.iter().filter(|stage| within(&stage["name"], Stage::CopyProcess));
        let own: u64 = inside.filter_map(|stage| stage["self_ns"].as_u64()).sum();
        assert_eq!(Some(own), copy_process["dur_ns"].as_u64(), "with its gaps: {fork}");
    }
}

#[test]
fn a_failure_is_where_its_function_failed() {
    live_test!();
    let Some(lines) = traced(&["eagain-pids"]) else { skip!("{UNPROBED}") };
    let forks = of_type(&lines, "fork");
    let fork = forks.iter().find(|fork| fork["errno_name"] == "EAGAIN").unwrap();
    let failed = |name| stage(fork, name).unwrap()["status"] == "failed";
    assert!(failed("kernel_clone") && failed("copy_process") && failed("cgroup_can_fork"));
    let stages = fork["stages"].as_array().unwrap();
    let count = stages.iter().filter(|stage| stage["status"] == "failed").count();
    assert_eq!(count, 3, "it, and what is around it: {fork}");
    for undone in ["free_pid", "mmput", "exit_fs", "exit_creds"] {
        assert_eq!(stage(fork, undone).unwrap()["precision"], "exact", "{undone}");
    }
    assert!(stage(fork, "sched_cgroup_fork").is_none(), "the fork did not come that far");
}

#[test]
fn vforks_that_wait_take_no_return_from_others() {
    live_test!();
    let held = "$0 hold-vfork --count 64 --ms 4000 & sleep 2; $0 loop --count 200; wait";
    let mut shell = Command::new("sh");
    let lines = trace(&mut fork_trace(), shell.args(["-c", held]).arg(forker())).shown;
    if !functions_are_probed(&lines) {
        skip!("{UNPROBED}");
    }
    // From 6.13 on the kernel skips a run now and then, and counts it.
    let runs = &lines.last().unwrap()["missed_runs"];
    let missed = |name| missed(runs, name);
    let unseen = missed("sys_enter") + missed("sys_exit") + missed("task_newtask");
    let forks = of_type(&lines, "fork");
    let vforks = forks.iter().filter(|fork| fork["kind"] == "vfork").count();
    assert!(vforks as u64 + unseen >= 64, "{vforks} vforks, {runs} skipped");
    let mut by_parent: HashMap<u64, Vec<&Value>> = HashMap::new();
    for fork in forks {
        by_parent.entry(number(&fork["parent"]["pid"])).or_default().push(fork);
    }
    let meanwhile = by_parent.into_values().max_by_key(Vec::len).unwrap();
    assert!(meanwhile.len() as u64 + unseen >= 200, "{}, {runs} skipped", meanwhile.len());
    for name in ["copy_process", "wake_up_new_task"] {
        let exact = |fork: &&&Value| is_exact(fork, name);
        let seen = meanwhile.iter().filter(exact).count() as u64;
        // A kretprobe counts those that found no room too, which must not be.
        let skipped = if lines[0]["backend"] == "fentry" { missed(name) } else { 0 };
        assert!(seen + unseen + skipped >= 200, "{name}: {seen} returns seen, {runs} skipped");
    }
}

/// Whether the entry and the return of a stage's function were seen.
fn is_exact(fork: &Value, name: &str) -> bool {
    stage(fork, name).is_some_and(|stage| stage["precision"] == "exact")
}

#[test]
fn returns_that_found_no_room_are_counted() {
    live_test!();
    // One thread copies the memory, the others wait for its lock in the middle of `copy_process`.
    let threads = (4 * possible_cpus().unwrap()).max(40).to_string();
    let args = ["loop", "--count", "5", "--threads", &threads, "--touch-mib", "32"];
    let Some(lines) = traced(&args) else { skip!("{UNPROBED}") };
    let forks = of_type(&lines, "fork");
    let forks = forks.iter().filter(|fork| fork["kind"] == "process");
    let unseen = forks.clone().filter(|fork| !is_exact(fork, "copy_process"));
    let unseen = unseen.count() as u64;
    let runs = &lines.last().unwrap()["missed_runs"];
    let missed = |name| missed(runs, name);
    let inside = missed("copy_process");
    // From 6.13 on the programs of the system call may be skipped too.
    let counted = inside + missed("sys_enter") + missed("sys_exit");
    println!("{unseen} of {} returns unseen, {runs} counted", forks.count());
    let release = lines[0]["host"]["kernel"].as_str().unwrap();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let tells = (parts.next(), parts.next()) >= (Some(6), Some(7));
    if lines[0]["backend"] == "kprobe" && tells {
        assert!(0 < inside && unseen <= counted, "{unseen} unseen, {runs} counted");
    }
    if lines[0]["backend"] == "fentry" {
        // A trampoline serves every caller at once.
        assert!(unseen <= counted, "{unseen} unseen, {runs} counted");
    }
}

#[test]
fn inner_marks_agree_with_functions() {
    live_test!();
    // With so much memory, what the probes themselves take weighs little.
    let mib = if slowness() > 1.0 { "256" } else { "64" };
    let args = ["loop", "--count", "12", "--touch-mib", mib];
    let Some(lines) = traced(&args) else { skip!("{UNPROBED}") };
    let mut forker = Command::new(forker());
    let inner = trace(tool().args(["--backend", "inner"]), forker.args(args)).shown;
    // Shares of each fork's total are compared, because a load of the machine changes both times.
    let shares = |lines: &[Value], name: &str| {
        let forks = of_type(lines, "fork");
        let shares = forks.iter().filter_map(|fork| {
            let total = fork["total_ns"].as_u64()?;
            Some(stage(fork, name)?["dur_ns"].as_u64()? as f64 / total as f64)
        });
        shares.collect::<Vec<_>>()
    };
    let mut compared = 0;
    for name in ["copy_process", "copy_mm", "dup_mmap"] {
        let (mut by_function, mut by_mark) = (shares(&lines, name), shares(&inner, name));
        if by_function.len() < 12 || by_mark.len() < 12 {
            continue;
        }
        let (by_function, by_mark) = (median(&mut by_function), median(&mut by_mark));
        println!("{name}: {by_function:.3} of a fork by functions, {by_mark:.3} by inner marks");
        assert!((by_function - by_mark).abs() < 0.1, "{name}");
        compared += 1;
    }
    assert!(compared >= 1, "no stage is seen by both");
}

#[test]
fn the_prompt_comes_back_at_once_and_nothing_stays() {
    live_test!();
    let trace = FileTrace::start(&[]);
    assert!(run(Command::new(forker()).arg("fork-raw")).status.success());
    let programs = trace.programs();
    let began = Instant::now();
    let (lines, back) = trace.stop_timed();
    assert!(!of_type(&lines, "fork").is_empty());
    println!("{} programs; back after {back:.0?}", programs.count());
    assert!(back < Duration::from_millis(300).mul_f64(slowness().sqrt()), "{back:?}");
    let left = programs.left_after(Duration::from_secs(30));
    assert!(left.is_empty(), "{left:?} are left");
    println!("all gone after {:.1?}", began.elapsed());
}

/// Where ftrace's function graph is set up.
const TRACING: &str = "/sys/kernel/tracing";

/// The function graph of forks; it is switched off when this is dropped.
struct Graph;

impl Graph {
    /// Begins to trace these functions under `kernel_clone`.
    fn start(functions: &[String]) -> Self {
        let this = Self;
        Self::write("current_tracer", "nop");
        Self::write("trace_clock", "mono");
        Self::write("buffer_size_kb", "8192");
        // The function that it begins at has to be among them.
        Self::write("set_ftrace_filter", &format!("kernel_clone {}", functions.join(" ")));
        Self::write("set_graph_function", "kernel_clone");
        Self::write("current_tracer", "function_graph");
        for option in ["funcgraph-proc", "funcgraph-tail"] {
            Self::write(&format!("options/{option}"), "1");
        }
        this
    }

    fn write(file: &str, text: &str) {
        let path = Path::new(TRACING).join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// The durations of each function that `comm` called, in microseconds.
    fn durations(&self, comm: &str) -> HashMap<String, Vec<f64>> {
        Self::write("tracing_on", "0");
        let text = fs::read_to_string(Path::new(TRACING).join("trace")).unwrap();
        let mut durations: HashMap<String, Vec<f64>> = HashMap::new();
        for line in text.lines().filter(|line| line.contains(&format!(" {comm}-"))) {
            // ` 1)  forker-88  | + 12.345 us  |    dup_fd();`, or `} /* dup_fd */` where it nests.
            let mut columns = line.split('|').skip(1);
            let (Some(took), Some(call)) = (columns.next(), columns.next()) else { continue };
            let took = took.split_whitespace().rev().nth(1).and_then(|us| us.parse::<f64>().ok());
            let call = call.trim();
            let name = call
                .strip_suffix("();")
                .or_else(|| call.strip_prefix("} /* ")?.split([' ', ']']).next());
            if let (Some(took), Some(name)) = (took, name) {
                durations.entry(name.to_owned()).or_default().push(took);
            }
        }
        durations
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        for (file, text) in [
            ("current_tracer", "nop"),
            ("set_graph_function", ""),
            ("set_ftrace_filter", ""),
            ("trace", ""),
            ("tracing_on", "1"),
        ] {
            fs::write(Path::new(TRACING).join(file), text).ok();
        }
    }
}

#[test]
fn the_function_graph_shows_the_same_durations() {
    live_test!();
    let Some(lines) = traced(&["fork-raw"]) else { skip!("{UNPROBED}") };
    let tracers = fs::read_to_string(Path::new(TRACING).join("available_tracers")).unwrap();
    assert!(tracers.contains("function_graph"), "a kernel that lets functions be probed has it");
    // These are pairs of stage and function; each such stage is one run of one function.
    let exact = lines[0]["coverage"].as_array().unwrap().iter();
    let functions: Vec<(String, String)> = exact
        .filter(|stage| stage["precision"] == "exact")
        .filter_map(|stage| {
            let function = stage["opens"].as_str()?.strip_prefix("enter ")?;
            Some((stage["name"].as_str()?.to_owned(), function.to_owned()))
        })
        .collect();
    let traceable =
        fs::read_to_string(Path::new(TRACING).join("available_filter_functions")).unwrap();
    let traceable: Vec<String> = functions
        .iter()
        .map(|(_, function)| function.clone())
        .filter(|function| traceable.lines().any(|line| line == function))
        .collect();
    let args = ["fork-raw", "--repeat", "100"];
    let earlier = Programs::all();
    let graph = Graph::start(&traceable);
    let lines = traced(&args).unwrap();
    let mut theirs = graph.durations("forker");
    drop(graph);
    let seen = |theirs: &HashMap<String, Vec<f64>>| theirs.contains_key("copy_creds");
    let apart = !seen(&theirs);
    if apart {
        println!("this kernel's function graph leaves out what has a trampoline: forks of its own");
        Programs::all().since(&earlier).left_after(Duration::from_secs(30));
        let graph = Graph::start(&traceable);
        assert!(run(Command::new(forker()).args(args)).status.success());
        theirs = graph.durations("forker");
        if !seen(&theirs) {
            skip!("another tracer's trampolines hide functions from the function graph");
        }
    }

    let forks = of_type(&lines, "fork");
    let mut compared = 0;
    for (name, function) in functions {
        let ours = forks.iter().filter_map(|fork| {
            let stage = stage(fork, &name)?;
            let once = stage["runs"].is_null();
            // Our times include the probes of the functions inside, which the other forks did not
            // have.
            let bare = !apart || stage["self_ns"] == stage["dur_ns"];
            stage["dur_ns"].as_u64().filter(|_| once && bare).map(|ns| ns as f64 / 1e3)
        });
        let mut ours: Vec<f64> = ours.collect();
        let Some(mut theirs) = theirs.get(&function).filter(|seen| seen.len() >= 50).cloned()
        else {
            continue;
        };
        if ours.len() < 50 {
            continue;
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        println!("{function}: median {ours:.1} us, by the function graph {theirs:.1} us");
        // Each of the two tracers runs inside what the other measures, and nested functions add
        // that up.
        let overhead = 2.0 * slowness() + 0.25 * ours.max(theirs);
        assert!((ours - theirs).abs() <= overhead, "{function}");
        compared += 1;
    }
    let least = if apart { 12 } else { 20 };
    assert!(compared >= least, "{compared} functions were compared");
}
