//! Filters: all that is wanted is shown, and what is left out is counted.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Cgroup, FileTrace, accounted, check, fork_trace, forker, lines, live_test, number, of_type,
    python, run, skip, slowness, summary,
};

/// How often each pair of caller and outcome was seen.
fn counted<'a>(
    attempts: impl IntoIterator<Item = (&'a Value, &'a Value)>,
) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for (caller, outcome) in attempts {
        *counts.entry(format!("{caller} {outcome}")).or_default() += 1;
    }
    counts
}

/// Whether an attempt of `forker` is wanted.
type Wanted = fn(&Value) -> bool;

#[test]
fn each_filter_shows_what_it_names_and_counts_the_rest() {
    live_test!();
    const SCENARIOS: [&str; 11] = [
        "fork-libc",
        "vfork",
        "vfork-exec",
        "posix-spawn",
        "thread",
        "clone3-88",
        "nested",
        "einval-thread",
        "einval-sighand",
        "eexist-set-tid",
        "seccomp",
    ];
    let cases: [(&[&str], Wanted); 10] = [
        (&["-k", "process"], |attempt| attempt["kind"] == "process"),
        (&["-k", "vfork"], |attempt| attempt["kind"] == "vfork"),
        (&["-k", "thread,kthread"], |attempt| attempt["kind"] == "thread"),
        (&["-x"], |attempt| !attempt["errno"].is_null()),
        (&["-e", "EINVAL", "-e", "EEXIST"], |attempt| {
            attempt["errno"] == 22 || attempt["errno"] == 17
        }),
        (&["-e", "22", "-k", "thread"], |attempt| {
            attempt["errno"] == 22 && attempt["kind"] == "thread"
        }),
        (&["-n", "forker", "-u", "root"], |_| true),
        (&["-n", "another"], |_| false),
        (&["-u", "12345678"], |_| false),
        (&["--min-duration", "1h"], |_| false),
    ];
    for (options, wanted) in cases {
        let mut trace = fork_trace();
        trace.arg("--json").args(options).args(["--exec", "--exit", "--"]).arg(forker());
        let output = run(trace.args(SCENARIOS));
        assert!(output.status.success(), "{options:?}");
        let (truth, traced) = (lines(&output.stdout), lines(&output.stderr));
        check(&traced);
        let attempts = of_type(&truth, "attempt").into_iter().filter(|attempt| wanted(attempt));
        let want = counted(attempts.map(|attempt| (&attempt["parent_tid"], &attempt["errno"])));
        let forks = of_type(&traced, "fork");
        // An attempt that was refused before it began has no duration, and may count as a long one.
        let timed = |fork: &&&Value| options[0] != "--min-duration" || fork["total_ns"].is_u64();
        let shown = forks.iter().filter(timed);
        let got = counted(shown.map(|fork| (&fork["parent"]["tid"], &fork["errno"])));
        assert_eq!(got, want, "{options:?}");
        let summary = summary(&traced);
        assert_eq!(summary["accounted"], true, "{options:?} {summary}");
        // The follow-ups of a child are shown where its fork is.
        let ids: Vec<_> = forks.iter().map(|fork| &fork["id"]).collect();
        for line in traced.iter().filter(|line| line["fork_id"].is_string()) {
            assert!(ids.contains(&&line["fork_id"]), "{options:?}: {line}");
        }
    }
}

/// A shell that forks when it is told to, with a child that forks all the time.
struct Shell(Child);

impl Shell {
    fn start() -> Self {
        let script = "(while :; do sleep 0.1; done) & read x; (exit 0); (exit 0); \
                      sh -c '(exit 0); :'; read x; kill $!";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped());
        Self(shell.spawn().unwrap())
    }

    fn go_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        std::thread::sleep(Duration::from_millis(600).mul_f64(slowness().min(5.0)));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // At the end of its input it ends its child and itself.
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

#[test]
fn a_process_is_traced_alone_or_with_its_descendants() {
    live_test!();
    for follow in [false, true] {
        let mut shell = Shell::start();
        let pid = shell.0.id();
        std::thread::sleep(Duration::from_millis(300));
        let pid_text = pid.to_string();
        let args: &[&str] = if follow { &["-p", &pid_text, "-f"] } else { &["-p", &pid_text] };
        let trace = FileTrace::start(args);
        shell.go_on();
        let traced = trace.stop();
        drop(shell);
        let forks = of_type(&traced, "fork");
        let own: Vec<_> = forks.iter().filter(|fork| fork["parent"]["pid"] == pid).collect();
        assert_eq!(own.len(), 3, "{forks:?}");
        // Where tracepoints may be preempted, as from 7.0 on, the child may come upon the program that its
        // parent is in the middle of, and then the kernel skips the child's.
        let seen = own.iter().filter(|fork| fork["child_start"]["cpu"].is_u64()).count();
        assert!(seen >= 2, "{own:?}");
        if follow {
            let older = forks
                .iter()
                .filter(|fork| fork["parent"]["ppid"] == pid)
                .filter(|fork| own.iter().all(|own| own["child"]["pid"] != fork["parent"]["pid"]));
            assert!(older.count() > 0, "its child was there before: {forks:?}");
            let last = &own[2]["child"]["pid"];
            assert!(forks.iter().any(|fork| &fork["parent"]["pid"] == last), "{forks:?}");
        } else {
            assert_eq!(forks.len(), 3, "{forks:?}");
        }
        accounted(&traced);
    }
}

#[test]
fn callers_are_found_by_their_parent_and_by_their_cgroup() {
    live_test!();
    let shown = |option: &str, value: &str, work: &mut dyn FnMut()| {
        let trace = FileTrace::start(&[option, value]);
        work();
        let traced = trace.stop();
        accounted(&traced);
        of_type(&traced, "fork").into_iter().cloned().collect::<Vec<_>>()
    };
    let own = std::process::id();
    let mut pid = 0;
    let forks = shown("-P", &own.to_string(), &mut || {
        let script = "(exit 0); sh -c '(exit 0); :'; :";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        pid = child.id();
        child.wait().unwrap();
    });
    assert!(forks.iter().all(|fork| fork["parent"]["ppid"] == own), "{forks:?}");
    let count = forks.iter().filter(|fork| fork["parent"]["pid"] == pid).count();
    assert_eq!(count, 2, "{forks:?}");

    let name = format!("fork-trace-{own}");
    let Some(group) = Cgroup::make(&name) else {
        skip!("there is no unified hierarchy to make a group in");
    };
    let script =
        format!("(exit 0); echo $$ > {}/cgroup.procs; (exit 0); :", group.path().display());
    let forks = shown("--cgroup", &format!("/{name}"), &mut || {
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    });
    assert_eq!(forks.len(), 1, "one of the two was made inside: {forks:?}");
}

/// A control group of some hierarchy, which goes away.
struct Group(PathBuf);

impl Group {
    fn make(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

/// What a shell does to get into a group.
fn enter(group: &Path) -> String {
    format!("echo $$ > {}/cgroup.procs", group.display())
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// Where a hierarchy is mounted that has what controllers need to have tasks in nested groups: the
/// unified one, and one of version 1.
fn hierarchies() -> Vec<&'static str> {
    let all = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer"];
    let mounted = all.into_iter().filter(|at| Path::new(at).join("cgroup.procs").exists());
    mounted.collect()
}

#[test]
fn a_control_group_is_taken_with_all_below_it_of_either_version() {
    live_test!();
    let own = std::process::id();
    let (wanted, other) = (format!("fork-trace-{own}-a"), format!("fork-trace-{own}-b"));
    let mut looked = 0;
    for mount in hierarchies() {
        let mount = Path::new(mount);
        let Some(outer) = Group::make(mount.join(&wanted)) else { continue };
        let Some(stranger) = Group::make(mount.join(&other)) else { continue };
        looked += 1;
        let inner = outer.0.join("inner");
        // As the output prints it, by its place, and by a file in it.
        let paths = [
            format!("/{wanted}"),
            outer.0.display().to_string(),
            format!("{}/cgroup.procs", outer.0.display()),
        ];
        for path in paths {
            let trace = FileTrace::start(&["--cgroup", &path]);
            // The inner group is made while the trace runs, and its task is in a third one below it.
            let deepest = inner.join("deepest");
            let script = format!(
                "(exit 0); {}; (exit 0); (exit 0); mkdir -p {}; {}; (exit 0); (exit 0); (exit 0); {}; \
                 (exit 0); :",
                enter(&outer.0),
                deepest.display(),
                enter(&deepest),
                enter(&stranger.0),
            );
            let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
            let pid = shell.id();
            assert!(shell.wait().unwrap().success());
            let traced = trace.stop();
            fs::remove_dir(&deepest).unwrap();
            fs::remove_dir(&inner).unwrap();
            accounted(&traced);
            let forks = of_type(&traced, "fork");
            let own = forks.iter().filter(|fork| fork["parent"]["pid"] == pid);
            // Two and mkdir, three, and nothing before or after.
            assert_eq!(own.count(), 6, "{path}: {forks:?}");
            assert_eq!(forks.len(), 6, "{path}: nobody else is in it: {forks:?}");
        }
    }
    if looked == 0 {
        skip!("there is no hierarchy to make a group in");
    }
}

/// Makes a polling thread of `io_uring`, or says that it cannot.
const RING: &str = r#"
import ctypes, struct, sys
IORING_SETUP_SQPOLL = 2
params = ctypes.create_string_buffer(struct.pack("III", 0, 0, IORING_SETUP_SQPOLL), 120)
sys.exit(0 if ctypes.CDLL(None).syscall(425, 1, params) >= 0 else 77)
"#;

#[test]
fn threads_of_io_uring_are_shown_where_asked_for() {
    live_test!();
    let Some(python) = python() else { skip!("there is no Python") };
    let traced = |kinds: &[&str]| {
        let mut trace = fork_trace();
        trace.arg("--json").args(kinds).args(["--", python, "-c", RING]);
        let output = run(&mut trace);
        let traced = lines(&output.stderr);
        check(&traced);
        accounted(&traced);
        (output.status.code(), traced)
    };
    let (status, asked) = traced(&["-k", "io-worker"]);
    if status == Some(77) {
        skip!("this kernel makes no ring");
    }
    let forks = of_type(&asked, "fork");
    let [fork] = forks[..] else { panic!("{forks:?}") };
    assert_eq!(fork["kind"], "io-worker");
    assert!(fork["parent"]["comm"].as_str().unwrap().starts_with("python3"), "{fork}");
    assert_eq!(fork["parent"]["pid"], fork["child"]["pid"], "a thread: {fork}");
    for unknown in ["syscall", "ret", "total_ns"] {
        assert!(fork[unknown].is_null(), "{unknown} of {fork}");
    }
    let (_, default) = traced(&[]);
    assert!(of_type(&default, "fork").is_empty(), "{default:?}");
    assert!(number(&summary(&default)["filtered"]) > 0);
}

#[test]
fn a_filter_that_names_nothing_is_refused() {
    live_test!();
    let cases = [
        ["-p", "4194304"],
        ["-u", "no such user"],
        ["-P", "4194304"],
        ["-n", ""],
        ["--cgroup", "/no/such/group"],
        ["-e", "EWHAT"],
    ];
    for [option, value] in cases {
        let output = run(fork_trace().args([option, value]));
        assert_eq!(output.status.code(), Some(2), "{option}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(option) && said.contains(value) && said.contains("--help"), "{said}");
    }
}
