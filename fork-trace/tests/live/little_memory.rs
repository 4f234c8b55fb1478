//! Tracing where there is little memory: in a control group that gives the tracer no more than it needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    Background, Cgroup, Folder, HostTrace, accounted, check, fork_trace, forker, live_test, number,
    of_type, read, skip, slowness, summary,
};

/// A control group whose memory is limited; it goes away.
struct Limited {
    path: PathBuf,
    /// Of version 2 of the hierarchy.
    group: Option<Cgroup>,
    /// Where the controller was switched on for it.
    switched_on: Option<PathBuf>,
}

impl Limited {
    /// `None`: this host has no memory controller that can be used.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        // Version 1, where a host or a guest has it.
        for hierarchy in ["/sys/fs/cgroup/memory", "/dev/memory"].map(Path::new) {
            if !hierarchy.join("memory.limit_in_bytes").exists() {
                continue;
            }
            let path = hierarchy.join(name);
            fs::create_dir(&path).ok()?;
            let limited = Self { path, group: None, switched_on: None };
            limited.limit("memory.limit_in_bytes", bytes);
            return Some(limited);
        }
        let group = Cgroup::make(name)?;
        let path = group.path().to_owned();
        let mut limited = Self { path, group: Some(group), switched_on: None };
        if !limited.path.join("memory.max").exists() {
            let switch = limited.path.parent()?.join("cgroup.subtree_control");
            fs::write(&switch, "+memory").ok()?;
            limited.switched_on = Some(switch);
        }
        limited.limit("memory.max", bytes);
        Some(limited)
    }

    fn limit(&self, file: &str, bytes: u64) {
        fs::write(self.path.join(file), bytes.to_string()).unwrap();
    }

    /// The same command, which begins in this group.
    fn holds(&self, command: &Command) -> Command {
        let mut within = Command::new("sh");
        within.args(["-c", r#"echo 0 >"$0" && exec "$@""#]).arg(self.path.join("cgroup.procs"));
        within.arg(command.get_program()).args(command.get_args());
        within
    }

    /// How often something in it was killed for want of memory.
    fn kills(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"].map(|name| self.path.join(name));
        let text: String = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.group.take().is_none() {
            fs::remove_dir(&self.path).ok();
        }
        if let Some(switch) = &self.switched_on {
            fs::write(switch, "-memory").ok();
        }
    }
}

#[test]
fn a_tracer_with_little_memory_loses_nothing() {
    live_test!();
    // Reading the kernel's types takes the most of it, when tracing begins.
    const ENOUGH: u64 = 128 << 20;
    let Some(group) = Limited::new("fork-trace-little-memory", ENOUGH) else {
        skip!("there is no memory controller that can be used");
    };
    let folder = Folder::new("little");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(["--exit", "--buffer", "1M", "-o"]).arg(&file);
    let trace = HostTrace::of(&mut group.holds(&tool));
    let storm = Background::start(Command::new(forker()).args(["loop", "--count", "1000000"]));
    sleep(Duration::from_secs(1).mul_f64(slowness().sqrt()));
    let caller = storm.pid();
    drop(storm);
    // What is left in the ring is shown before the stop, which has little time for it.
    sleep(Duration::from_secs(1).mul_f64(slowness().sqrt()));
    let output = trace.stop(Signal::SIGINT);
    assert!(output.status.success(), "{output:?}");
    let shown = read(&file);
    check(&shown);
    accounted(&shown);
    assert_eq!(group.kills(), 0);
    let forks = of_type(&shown, "fork");
    let ours = forks.iter().filter(|fork| fork["parent"]["pid"] == caller).count();
    assert!(ours > 10, "{ours} forks");
    let summary = summary(&shown);
    assert_eq!(number(&summary["lost"]), 0, "{summary}");
}
