//! Running the tool and `forker`.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use super::{
    host::{Folder, Programs, slowness},
    lines::{check, lines, of_type, read},
};

/// The tool, with nothing said yet.
pub(crate) fn tool() -> Command {
    let built = env!("CARGO_BIN_EXE_fork-trace");
    Command::new(env::var_os("FORK_TRACE_BIN").map_or_else(|| PathBuf::from(built), PathBuf::from))
}

/// The tool, tracing by the backend that `FORK_TRACE_BACKEND` names, if any. An emulated machine is busy
/// with timers as it is, so no samples are taken there.
pub(crate) fn fork_trace() -> Command {
    let mut tool = sampling_fork_trace();
    if slowness() > 1.0 {
        tool.arg("--sample=0");
    }
    tool
}

/// The same, which takes samples everywhere.
pub(crate) fn sampling_fork_trace() -> Command {
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

/// Runs to its end, which has to come within a minute.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(child, Duration::from_secs(60).mul_f64(slowness().sqrt()))
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

pub(crate) fn kill(pid: u32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// A command that was traced to its end.
pub(crate) struct Traced {
    /// What the command printed.
    pub(crate) stdout: Vec<u8>,
    /// What the tool showed.
    pub(crate) shown: Vec<Value>,
}

impl Traced {
    /// What `forker` says that it did.
    pub(crate) fn truth(&self) -> Vec<Value> {
        lines(&self.stdout)
    }
}

/// Traces a command; the tool, which may have options already, writes to a file. Both have to
/// succeed.
pub(crate) fn trace(tool: &mut Command, command: &mut Command) -> Traced {
    let folder = Folder::new("trace");
    let file = folder.file("forks.json");
    tool.arg("-o").arg(&file).arg("--").arg(command.get_program()).args(command.get_args());
    let output = run(tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = read(&file);
    check(&shown);
    Traced { stdout: output.stdout, shown }
}

/// Traces `forker` with these arguments.
pub(crate) fn trace_forker(args: &[&str]) -> Traced {
    trace(&mut fork_trace(), Command::new(forker()).args(args))
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

    /// Does as [`Self::start`] does, by a command made by the caller.
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

    /// The programs that this trace has in the kernel.
    pub(crate) fn programs(&self) -> Programs {
        Programs::of(self.pid())
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
    pub(crate) fn stdout(&mut self) -> ChildStdout {
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

/// A trace of the whole host that goes to a file.
pub(crate) struct FileTrace {
    trace: HostTrace,
    file: PathBuf,
    _folder: Folder,
}

impl FileTrace {
    /// Starts the tool with `args` and waits until it is attached.
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = Folder::new("host");
        let file = folder.file("forks.json");
        let trace = HostTrace::of(fork_trace().arg("-o").arg(&file).args(args));
        Self { trace, file, _folder: folder }
    }

    /// The programs that this trace has in the kernel.
    pub(crate) fn programs(&self) -> Programs {
        self.trace.programs()
    }

    /// Waits for a line that is wanted.
    pub(crate) fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20).mul_f64(slowness().sqrt());
        loop {
            let text = fs::read_to_string(&self.file).unwrap();
            // The last line may be half written.
            let mut whole = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(line) = whole.find(|line| wanted(line)) {
                return line;
            }
            assert!(Instant::now() < end, "the line did not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the trace in order; returns what it wrote.
    pub(crate) fn stop(self) -> Vec<Value> {
        self.stop_timed().0
    }

    /// Does as [`Self::stop`] does, and says how long the tracer took to end.
    pub(crate) fn stop_timed(self) -> (Vec<Value>, Duration) {
        let began = Instant::now();
        assert!(self.trace.stop(Signal::SIGINT).status.success());
        let took = began.elapsed();
        let shown = read(&self.file);
        check(&shown);
        (shown, took)
    }

    /// Kills the tracer; returns the end of its process and what it had written.
    pub(crate) fn kill(self) -> (Output, Vec<Value>) {
        let output = self.trace.stop(Signal::SIGKILL);
        (output, read(&self.file))
    }
}

/// Forker's truth, the fork that it tells of, and the whole trace.
type OneFork = (Value, Value, Vec<Value>);

/// Runs `forker KIND WHAT` under `tool`; returns what came of it. `None` where this host cannot do it.
pub(crate) fn one_fork(mut tool: Command, kind: &str, what: &str) -> Option<OneFork> {
    const TRIES: usize = 4;
    let folder = Folder::new(&format!("{kind}-{what}"));
    let file = folder.file("forks.json");
    tool.arg("-o").arg(&file).arg("--").arg(forker()).args([kind, what]);
    let mut made = try_one_fork(&mut tool, &file, kind, what)?;
    for _ in 1..TRIES {
        // A host may hide tasks of its own, and with them who comes back to a CPU after one.
        if made.1["waits_incomplete"] != true {
            break;
        }
        made = try_one_fork(&mut tool, &file, kind, what)?;
    }
    Some(made)
}

fn try_one_fork(tool: &mut Command, file: &Path, kind: &str, what: &str) -> Option<OneFork> {
    let output = run(tool);
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let truth = lines(&output.stdout).remove(0);
    if truth["type"] != kind {
        println!("skip {what}: {}", truth["skipped"]);
        return None;
    }
    let traced = read(file);
    check(&traced);
    let fork = of_type(&traced, "fork").into_iter().find(|fork| {
        fork["child"]["tid"] == truth["child"] && fork["parent"]["tid"] == truth["parent_tid"]
    });
    let fork = fork.unwrap_or_else(|| panic!("{what} is not shown: {truth}")).clone();
    Some((truth, fork, traced))
}
