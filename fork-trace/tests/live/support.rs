//! Running the tool and `forker`, and reading what they wrote.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

/// Whether live tests can run here; says why not.
pub(crate) fn here(test: &str) -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    let required = env::var_os("FORK_TRACE_LIVE").is_some_and(|value| value == "require");
    assert!(!required, "{test} needs root, and FORK_TRACE_LIVE=require forbids to skip it");
    println!("skip {test}: needs root");
    false
}

/// How many times slower than a machine this one is: an emulated guest says so.
pub(crate) fn slowness() -> f64 {
    if env::var_os("FORK_TRACE_EMULATED").is_some() { 20.0 } else { 1.0 }
}

/// The middle of some figures.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The tool, with nothing said yet.
pub(crate) fn tool() -> Command {
    let built = env!("CARGO_BIN_EXE_fork-trace");
    Command::new(env::var_os("FORK_TRACE_BIN").map_or_else(|| PathBuf::from(built), PathBuf::from))
}

/// The tool, tracing by the backend that `FORK_TRACE_BACKEND` names, if any.
pub(crate) fn fork_trace() -> Command {
    let mut tool = tool();
    if let Some(backend) = env::var_os("FORK_TRACE_BACKEND") {
        tool.arg("--backend").arg(backend);
    }
    tool
}

/// The workload.
pub(crate) fn forker() -> PathBuf {
    env::var_os("FORKER_BIN").map_or_else(
        || {
            let tool = Path::new(env!("CARGO_BIN_EXE_fork-trace"));
            tool.parent().unwrap().join("examples/forker")
        },
        PathBuf::from,
    )
}

/// A folder of its own that goes away.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("fork-trace-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A cgroup of the unified hierarchy that goes away.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn make(name: &str) -> Option<Self> {
        Self::make_bytes(name.as_bytes())
    }

    /// As [`Self::make`], of a name that may be no text.
    pub(crate) fn make_bytes(name: &[u8]) -> Option<Self> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mount = mounts.iter().map(PathBuf::from).find(|at| at.join("cgroup.procs").exists())?;
        let path = mount.join(OsStr::from_bytes(name));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs to its end, which has to come within a minute.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(child, Duration::from_secs(60))
}

/// Waits for the end, which has to come in time.
pub(crate) fn wait(mut child: Child, most: Duration) -> Output {
    let end = Instant::now() + most;
    let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).unwrap();
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it did not end in {most:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// A trace of the whole host, attached; ended when dropped, as by a test that fails.
pub(crate) struct HostTrace {
    child: Option<Child>,
    stderr: BufReader<ChildStderr>,
}

impl Drop for HostTrace {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl HostTrace {
    /// Starts the tool with `args` and waits until it is attached.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(fork_trace().args(args))
    }

    /// As [`Self::start`], of a command made by the caller.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("tracing"), "{line}");
        Self { child: Some(child), stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(mut self, signal: Signal) -> Output {
        kill(self.pid(), signal);
        let child = self.child.take().unwrap();
        let mut stderr = Vec::new();
        let child_stderr = self.stderr.get_mut();
        let collected = std::thread::scope(|scope| {
            let reader = scope.spawn(|| child_stderr.read_to_end(&mut stderr).unwrap());
            let output = wait(child, Duration::from_secs(30));
            reader.join().unwrap();
            output
        });
        Output { stderr, ..collected }
    }

    /// Takes standard output away.
    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    /// Waits for an end that comes by itself.
    pub(crate) fn ended(mut self) -> Output {
        let output = wait(self.child.take().unwrap(), Duration::from_secs(30));
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).unwrap();
        Output { stderr, ..output }
    }
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// Each line of JSON; every line has to be whole.
pub(crate) fn lines(text: impl AsRef<[u8]>) -> Vec<Value> {
    let text = std::str::from_utf8(text.as_ref()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Each line of a file.
pub(crate) fn read(path: &Path) -> Vec<Value> {
    lines(fs::read(path).unwrap())
}

/// The lines of one type.
pub(crate) fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

/// The last line, which has to be the summary.
pub(crate) fn summary(lines: &[Value]) -> &Value {
    let last = lines.last().expect("a stream is not empty");
    assert_eq!(last["type"], "summary", "the last line is always the summary");
    last
}

/// Asserts what holds for every stream: a start, a summary, and stages that add up.
pub(crate) fn check(lines: &[Value]) {
    assert_eq!(lines[0]["type"], "start");
    let summary = summary(lines);
    let forks = of_type(lines, "fork");
    assert_eq!(summary["attempts"], forks.len(), "{summary}");
    for fork in forks {
        let stages = fork["stages"].as_array().cloned().unwrap_or_default();
        let own: u64 = stages.iter().filter_map(|stage| stage["self_ns"].as_u64()).sum();
        if let Some(total) = fork["total_ns"].as_u64() {
            assert_eq!(own + fork["other_ns"].as_u64().unwrap(), total, "{fork}");
        }
        for stage in &stages {
            let timed = stage["dur_ns"].is_u64();
            assert_eq!(timed, stage["status"] == "done" || stage["status"] == "failed", "{stage}");
            assert_eq!(timed, stage["start_ns"].is_u64() && stage["self_ns"].is_u64(), "{stage}");
        }
    }
}
