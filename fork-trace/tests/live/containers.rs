//! In containers: namespaces of its own, few rights, file systems that are missing.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use caps::{CapSet, Capability};
use serde_json::Value;

use crate::{
    namespaces::{Place, inside},
    support::{check, fork_trace, forker, lines, live_test, of_type, run, skip, summary, tool},
};

/// Scenarios of which each attempt is made by a process that forker itself has made or is.
const SCENARIOS: [&str; 5] = ["fork-libc", "vfork-exec", "nested", "thread", "einval-sighand"];

/// A pid namespace, with its `/proc` as in any container.
const CONTAINER: Place = Place {
    new: libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP,
    fork: true,
    mounts: &[(c"proc", c"/proc")],
    clocks: None,
    guest: false,
};

/// What docker, containerd and podman leave a container's root.
/// Kubernetes takes over what the runtime gives.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Asserts that it says what is missing, and how to get it.
fn refused(output: &Output, cause: &str, cure: &str) {
    let said = text(output.stderr.clone());
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(output.stdout.is_empty(), "the command does not run");
    let [first, second] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(first.contains(cause), "{said}");
    assert!(second.contains("hint:") && second.contains(cure), "{said}");
}

/// What forker says of each attempt, as its own pid namespace has it: who, and what it got.
fn truth(output: &[u8]) -> Vec<(Value, Value)> {
    let lines = lines(output);
    let attempts = of_type(&lines, "attempt");
    let mut truth: Vec<_> =
        attempts.iter().map(|a| (a["parent_pid"].clone(), a["ret"].clone())).collect();
    truth.sort_by_key(|(pid, ret)| (pid.as_i64(), ret.as_i64()));
    truth
}

/// The same as fork-trace says it.
fn shown(traced: &[Value]) -> Vec<(Value, Value)> {
    let mut forks = of_type(traced, "fork");
    forks.retain(|fork| fork["parent"]["comm"] == "forker");
    let mut shown: Vec<_> =
        forks.iter().map(|f| (f["parent"]["ns_pid"].clone(), f["ret"].clone())).collect();
    shown.sort_by_key(|(pid, ret)| (pid.as_i64(), ret.as_i64()));
    shown
}

/// A command is traced in a pid namespace as on the host, whatever `/proc` is mounted; and what is
/// read of `/proc` is that of the right process.
#[test]
fn a_command_in_a_pid_namespace() {
    live_test!();
    let shell = fs::canonicalize("/bin/sh").unwrap().to_str().unwrap().to_owned();
    let without_proc = Place { mounts: &[], ..CONTAINER };
    for place in [CONTAINER, without_proc] {
        let mut trace = fork_trace();
        trace.args(["--json", "--", "sh", "-c", "\"$@\"; sleep 0.3; :", "sh"]);
        trace.arg(forker()).args(SCENARIOS);
        let output = run(inside(&mut trace, place));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let traced = lines(&output.stderr);
        check(&traced);
        let truth = truth(&output.stdout);
        assert!(truth.len() > 5);
        assert_eq!(shown(&traced), truth);
        assert_eq!(summary(&traced)["accounted"], true);
        let forks = of_type(&traced, "fork");
        for fork in &forks {
            assert_ne!(fork["parent"]["pid"], fork["parent"]["ns_pid"], "{fork}");
            let exe = fork["parent"]["exe"].as_str();
            let name = fork["parent"]["comm"].as_str().unwrap();
            let right = |exe: &str| exe == shell || name == "forker" && exe.ends_with("/forker");
            assert!(exe.is_none_or(right), "{fork}");
        }
        // The one that stays long enough to be looked up.
        let own = forks.iter().find(|fork| fork["parent"]["comm"] == "sh").unwrap();
        assert_eq!(own["parent"]["exe"], shell, "{own}");
    }
}

/// Ids that are typed are those of the namespace: of two numbers that are in use on the host too.
#[test]
fn ids_in_a_pid_namespace_are_translated() {
    live_test!();
    // The shell is 1, the loops are 2 and a little more: on the host kernel threads have these.
    let script = "sh -c 'while :; do (exit 0); sleep 0.1; done' & a=$!; \
                  sh -c 'while :; do (exit 0); sleep 0.1; done' & b=$!; \
                  echo $a $b; \"$@\"; status=$?; kill $a $b; exit $status";
    let traced = |options: &[&str]| {
        let mut trace = fork_trace();
        trace.args(["--json", "-D", "1500ms"]);
        let program = trace.get_program().to_owned();
        let args: Vec<_> = trace.get_args().map(ToOwned::to_owned).collect();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(program).args(args).args(options);
        let output = run(inside(&mut shell, CONTAINER));
        let out = text(output.stdout);
        assert!(output.status.success(), "{}", text(output.stderr));
        let (first, json) = out.split_once('\n').unwrap();
        let pids: Vec<u64> = first.split(' ').map(|pid| pid.parse().unwrap()).collect();
        (pids, lines(json))
    };
    let (pids, alone) = traced(&["-p", "2"]);
    assert_eq!(pids[0], 2, "the first child of a namespace's first process");
    let forks = of_type(&alone, "fork");
    assert!(forks.len() >= 4, "{forks:?}");
    assert!(forks.iter().all(|fork| fork["parent"]["ns_pid"] == 2), "{forks:?}");
    let filters = &alone[0]["filters"];
    assert_eq!(filters["pids"][0], 2);
    assert_eq!(filters["host_pids"][0], forks[0]["parent"]["pid"], "both are told");

    let (pids, children) = traced(&["-P", "1"]);
    let forks = of_type(&children, "fork");
    let by = |pid: u64| forks.iter().filter(|fork| fork["parent"]["ns_pid"] == pid).count();
    let [a, b] = pids[..] else { panic!("{pids:?}") };
    assert!(by(a) >= 4 && by(b) >= 4 && by(a) + by(b) == forks.len(), "{forks:?}");

    let (pids, all) = traced(&["-p", "1", "-f"]);
    let forks = of_type(&all, "fork");
    assert!(forks.iter().any(|fork| fork["parent"]["ns_pid"] == pids[1]), "{forks:?}");
}

#[test]
fn an_id_of_the_host_is_none_of_the_namespace() {
    live_test!();
    for place in [CONTAINER, Place { mounts: &[], ..CONTAINER }] {
        let mut trace = fork_trace();
        trace.args(["-p", &std::process::id().to_string()]);
        let output = run(inside(&mut trace, place));
        assert_eq!(output.status.code(), Some(2));
        let said = text(output.stderr);
        assert!(said.contains("no such process in this pid namespace"), "{said}");
    }
}

/// The clock of a time namespace is another; the moments that are told are not.
#[test]
fn a_time_namespace_shifts_nothing() {
    live_test!();
    if !fs::exists("/proc/self/timens_offsets").unwrap() {
        skip!("the kernel has no time namespaces");
    }
    let place = Place {
        new: libc::CLONE_NEWTIME,
        fork: true,
        clocks: Some(c"monotonic 86400 5\nboottime -1 0\n"),
        ..Place::default()
    };
    let before = jiff::Timestamp::now();
    let mut trace = fork_trace();
    let output =
        run(inside(trace.args(["--json", "--exit", "--", "sh", "-c", "(sleep 0.2; :); :"]), place));
    let after = jiff::Timestamp::now();
    assert!(output.status.success(), "{}", text(output.stderr));
    let traced = lines(&output.stderr);
    check(&traced);
    for line in traced.iter().filter(|line| line["ts"].is_string()) {
        let ts: jiff::Timestamp = line["ts"].as_str().unwrap().parse().unwrap();
        assert!(before <= ts && ts <= after, "{line}");
        assert!(line["mono_ns"].is_u64());
    }
    let forks = of_type(&traced, "fork");
    assert!(!forks.is_empty());
    // The program is only told of a process whose start agrees with that in `/proc`.
    assert!(forks[0]["parent"]["exe"].is_string(), "{}", forks[0]);
    let doctor = run(inside(tool().args(["doctor", "--json"]), place));
    let report = &lines(&doctor.stdout)[0];
    let time = report["namespaces"].as_array().unwrap().iter().find(|n| n["kind"] == "time");
    assert!(time.unwrap()["follows"].as_str().unwrap().contains("86400"), "{time:?}");
}

#[test]
fn what_is_not_mounted_is_said_with_its_cure() {
    live_test!();
    let own = Place { new: libc::CLONE_NEWNS, ..Place::default() };
    let traced = |place| run(inside(fork_trace().args(["--", "echo", "ran"]), place));
    let output = traced(Place { mounts: &[(c"tmpfs", c"/proc")], ..own });
    refused(&output, "/proc is not mounted", "mount -t proc");
    let output = traced(Place { mounts: &[(c"tmpfs", c"/sys")], ..own });
    refused(&output, "/sys is not mounted", "mount -t sysfs");
    // The /proc of a namespace below, in which this process has no id.
    let output = traced(Place {
        new: libc::CLONE_NEWNS | libc::CLONE_NEWPID,
        mounts: &[(c"proc", c"/proc")],
        guest: true,
        ..own
    });
    refused(&output, "in which this process has no id", "mount -t proc");
    // Without control groups everything works but the filter by one.
    let without = Place { mounts: &[(c"tmpfs", c"/sys/fs/cgroup")], ..own };
    if fs::exists("/sys/fs/cgroup").unwrap() {
        assert!(traced(without).status.success());
    }
    let mut trace = fork_trace();
    trace.args(["--cgroup", "/x", "--", "echo", "ran"]);
    let output = match fs::exists("/sys/fs/cgroup").unwrap() {
        true => run(inside(&mut trace, without)),
        false => run(&mut trace),
    };
    refused(&output, "no hierarchy of control groups is mounted", "mount -t cgroup2");
}

#[test]
fn a_namespace_in_which_it_cannot_work_is_said() {
    live_test!();
    let user = Place { new: libc::CLONE_NEWUSER, ..Place::default() };
    let output = run(inside(fork_trace().args(["--", "echo", "ran"]), user));
    refused(&output, "user namespace", "as root outside");
    let no_fork = Place { new: libc::CLONE_NEWPID, ..Place::default() };
    let output = run(inside(fork_trace().args(["--", "echo", "ran"]), no_fork));
    refused(&output, "in another pid namespace than itself", "--fork");
}

/// Sets a limit of the program, soft and hard.
fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, soft: u64, hard: u64) {
    let set = move || {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the struct is valid for the call.
        let set = unsafe { libc::setrlimit(resource, &raw const limit) };
        if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(set) };
}

/// Few open files are made more where that is allowed, and the command does not see it.
#[test]
fn few_open_files_are_raised_or_said() {
    live_test!();
    let mut trace = fork_trace();
    limit(&mut trace, libc::RLIMIT_NOFILE, 16, 1024);
    let output = run(trace.args(["-q", "--", "sh", "-c", "ulimit -n"]));
    assert!(output.status.success());
    assert_eq!(text(output.stdout).trim(), "16");
    for few in [16, 40, 100] {
        let mut trace = fork_trace();
        limit(&mut trace, libc::RLIMIT_NOFILE, few, few);
        let output = run(trace.args(["--", "echo", "ran"]));
        refused(&output, "open files", "ulimit -n");
    }
}

/// A program with no rights but these, as a container's root has them.
fn with_capabilities(command: &mut Command, kept: Vec<Capability>) -> &mut Command {
    // Up to 5.10 maps are charged to it; `docker run --ulimit memlock=-1` does the same.
    let lock_all = || {
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the struct is valid for the call, which may be refused where it is not needed.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) };
        Ok(())
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(lock_all) };
    let mut all: Vec<_> = caps::runtime::thread_all_supported().into_iter().collect();
    all.retain(|capability| !kept.contains(capability));
    inside(command, CONTAINER);
    let drop = move || {
        let mut each = all.iter();
        each.try_for_each(|capability| caps::drop(None, CapSet::Bounding, *capability))
            .map_err(std::io::Error::other)
    };
    // SAFETY: system calls on this thread alone.
    unsafe { command.pre_exec(drop) }
}

/// With the rights that containers have by default nothing can be traced, and it says which are
/// missing; with the two it names everything can.
#[test]
fn the_default_rights_of_a_container() {
    live_test!();
    let command = ["-q", "--json", "--backend", "tracepoint", "--", "sh", "-c", ": & wait"];
    let output = run(with_capabilities(tool().args(["--", "echo", "ran"]), DEFAULT.to_vec()));
    refused(&output, "none of them", "--cap-add BPF --cap-add PERFMON");
    let only_bpf = [&DEFAULT[..], &[Capability::CAP_BPF]].concat();
    let output = run(with_capabilities(tool().args(["--", "echo", "ran"]), only_bpf));
    refused(&output, "only CAP_BPF", "--cap-add PERFMON");

    let both = [&DEFAULT[..], &[Capability::CAP_BPF, Capability::CAP_PERFMON]].concat();
    let output = run(with_capabilities(tool().args(command), both.clone()));
    assert!(output.status.success(), "{}", text(output.stderr));
    let traced = lines(&output.stderr);
    check(&traced);
    let forks = of_type(&traced, "fork");
    assert_eq!(forks.len(), 1);
    assert!(forks[0]["child"]["ns_pid"].is_u64(), "{}", forks[0]);

    // With CAP_SYSLOG the kernel shows its addresses, by which most stages are told apart, and with
    // CAP_SYS_PTRACE which program a process runs.
    let more = [&both[..], &[Capability::CAP_SYSLOG, Capability::CAP_SYS_PTRACE]].concat();
    let mut trace = tool();
    trace.args(["-q", "--json", "--backend", "inner", "--", "sh", "-c", "sleep 0.3 & wait"]);
    let output = run(with_capabilities(&mut trace, more));
    assert!(output.status.success(), "{}", text(output.stderr));
    let traced = lines(&output.stderr);
    assert!(of_type(&traced, "fork")[0]["parent"]["exe"].is_string(), "{traced:?}");
}

#[test]
fn doctor_says_where_it_runs() {
    live_test!();
    let output = run(inside(tool().args(["doctor", "--json"]), CONTAINER));
    let report = &lines(&output.stdout)[0];
    assert_eq!(report["can_trace"], true, "{report}");
    let all = report["namespaces"].as_array().unwrap();
    let of = |kind: &str| all.iter().find(|namespace| namespace["kind"] == kind).unwrap();
    assert_eq!(of("pid")["initial"], false);
    assert!(of("pid")["follows"].as_str().unwrap().contains("ns_pid"), "{report}");
    assert_eq!(of("user")["initial"], true);
    assert!(of("cgroup")["follows"].as_str().unwrap().contains("root"), "{report}");
    let said = text(run(inside(tool().arg("doctor"), CONTAINER)).stdout);
    assert!(said.contains("pid:[") && said.contains("not the host's own"), "{said}");

    let output = run(inside(
        tool().args(["doctor", "--json"]),
        Place { new: libc::CLONE_NEWUSER, ..Place::default() },
    ));
    assert_eq!(output.status.code(), Some(3));
    let report = &lines(&output.stdout)[0];
    assert!(report["problem"].as_str().unwrap().contains("user namespace"), "{report}");
    assert!(report["coverage"].as_array().is_some(), "{report}");
}
