//! Names that are no UTF-8, and what is typed that cannot be meant.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    namespaces::{Place, inside},
    support::{
        Background, Cgroup, Folder, check, fork_trace, forker, lines, live_test, of_type, read,
        run, tool,
    },
};

/// The workload under another name.
fn forker_named(folder: &Folder, name: &[u8]) -> PathBuf {
    let program = folder.path().join(OsStr::from_bytes(name));
    fs::copy(forker(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// A task that stands still is found whatever its name is, and told by it.
#[test]
fn a_stuck_task_is_told_by_its_bytes() {
    live_test!();
    let folder = Folder::new("stuck-bytes");
    let program = forker_named(&folder, b"a\xffb");
    let mut held = Command::new(&program);
    let held = Background::start(held.args(["hold-vfork", "--ms", "60000", "--count", "1"]));
    std::thread::sleep(Duration::from_millis(300));
    let output = run(tool().args(["stuck", "--json"]));
    assert_eq!(output.status.code(), Some(1), "something is stuck");
    let all = lines(&output.stdout);
    assert!(all.iter().any(|stuck| stuck["parent"]["comm"] == "a\\xffb"), "{all:?}");
    drop(held);
}

/// A byte that is no UTF-8 costs only itself, in each name there is.
#[test]
fn bytes_that_are_no_text_are_told_as_bytes() {
    live_test!();
    let folder = Folder::new("bytes");
    let program = forker_named(&folder, b"a\xffb\\xfe");
    let file = folder.file("forks.json");
    let run_in = Cgroup::make_bytes(b"fork-trace-\xff");
    let mut trace = fork_trace();
    trace.args(["--exec", "-o"]).arg(&file).args(["--", "sh", "-c"]);
    let enter =
        run_in.as_ref().map_or_else(String::new, |_| "echo $$ >\"$2/cgroup.procs\"; ".into());
    // It forks for long enough to be looked up.
    trace.arg(format!("{enter}\"$1\" loop --count 500; :")).arg(OsStr::from_bytes(b"\xfe"));
    trace.arg(&program);
    if let Some(cgroup) = &run_in {
        trace.arg(cgroup.path());
    }
    let output = run(&mut trace);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(&file);
    check(&traced);
    let command = traced[0]["filters"]["command"].as_array().unwrap();
    assert!(command.iter().any(|word| word == "\\xfe"), "{command:?}");
    let forks = of_type(&traced, "fork");
    let theirs: Vec<_> =
        forks.iter().filter(|f| f["parent"]["comm"] == "a\\xffb\\x5cxfe").collect();
    assert_eq!(theirs.len(), 500);
    let exe = theirs.iter().find_map(|fork| fork["parent"]["exe"].as_str()).unwrap();
    assert!(exe.ends_with("/a\\xffb\\x5cxfe"), "{exe}");
    let execs = of_type(&traced, "exec");
    let exec = execs.iter().find(|exec| exec["exe"].as_str().unwrap().ends_with("xfe")).unwrap();
    assert!(exec["argv"][0].as_str().unwrap().ends_with("/a\\xffb\\x5cxfe"), "{exec}");
    if run_in.is_some() {
        let cgroup = theirs.iter().find_map(|fork| fork["parent"]["cgroup"].as_str()).unwrap();
        assert!(cgroup.ends_with("/fork-trace-\\xff"), "{cgroup}");
    }
    // What is told can be typed.
    let again = run(fork_trace()
        .args(["--json", "-n", "a\\xffb\\x5cxfe", "--"])
        .arg(&program)
        .arg("fork-libc"));
    assert_eq!(of_type(&lines(&again.stderr), "fork").len(), 1);
    // And it comes back from a recording.
    let replayed = run(tool().arg("replay").arg(&file).arg("--json"));
    assert_eq!(replayed.stdout, fs::read(&file).unwrap());
}

/// One name in `/etc/passwd` that is no text costs no other user's.
#[test]
fn a_broken_user_costs_no_other() {
    live_test!();
    let users = b"root:x:0:0::/root:/bin/sh\nb\xffb:x:65534:65534::/h\xff:/bin/sh\n\
                  ann:x:4711:4711::/:/bin/sh\n";
    fs::write("/tmp/fork-trace-passwd", users).unwrap();
    let place = Place {
        new: libc::CLONE_NEWNS,
        mounts: &[(c"/tmp/fork-trace-passwd", c"/etc/passwd")],
        ..Place::default()
    };
    let script = ": & wait; echo \"$USER $HOME\"";
    let traced = |uid: &str, more: &[&str]| {
        let mut trace = fork_trace();
        trace.env("SUDO_UID", uid).env("SUDO_GID", "65534").arg("--json").args(more);
        let output = run(inside(trace.args(["--", "sh", "-c", script]), place));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (lines(&output.stderr), output.stdout)
    };
    let user = |uid: &str, more: &[&str]| {
        let (traced, _) = traced(uid, more);
        let forks = of_type(&traced, "fork");
        forks.first().and_then(|fork| fork["parent"]["user"].as_str().map(str::to_owned))
    };
    assert_eq!(user("0", &[]).as_deref(), Some("root"));
    assert_eq!(user("4711", &[]).as_deref(), Some("ann"));
    assert_eq!(
        user("65534", &["-u", "b\\xffb"]).as_deref(),
        Some("b\\xffb"),
        "and it can be typed"
    );
    let (_, environment) = traced("65534", &[]);
    assert_eq!(environment, b"b\xffb /h\xff\n", "the command has its bytes");
    fs::remove_file("/tmp/fork-trace-passwd").unwrap();
}

/// What cannot be meant is refused with the reason, whatever it is.
#[test]
fn what_cannot_be_meant_is_refused() {
    live_test!();
    let refused = |options: &[&str], reason: &str| {
        let output = run(fork_trace().args(options));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
        assert!(said.contains(reason) && !said.contains("panicked"), "{options:?}: {said}");
    };
    // A thread of this process.
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        ended.recv().ok();
    });
    let tid = told.recv().unwrap().to_string();
    let own = std::process::id();
    for option in ["-p", "-P"] {
        refused(&[option, &tid], &format!("it is a thread of process {own}: give that"));
    }
    drop(end);
    thread.join().unwrap();

    let mut child = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    let ended = child.id().to_string();
    child.wait().unwrap();
    for option in ["-p", "-P"] {
        refused(&[option, &ended], "there is no such process");
    }
    refused(&["-D", "1e19"], "a hundred years");
    refused(&["-u", "4294967295"], "no user has this number");
    refused(&["-u", "a\u{1b}[31m"], "a\\x1b[31m");

    for (variable, value) in
        [("SUDO_UID", "4294967295"), ("SUDO_UID", "x"), ("SUDO_GID", "-1"), ("SUDO_GID", "")]
    {
        let mut trace = fork_trace();
        trace.env("SUDO_UID", "0").env("SUDO_GID", "0").env(variable, value);
        let output = run(trace.args(["--", "echo", "ran"]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {said}");
        assert!(said.contains(variable) && said.contains("unset"), "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// A filter may name thousands.
#[test]
fn thousands_of_users_can_be_named() {
    live_test!();
    let mut trace = fork_trace();
    trace.arg("--json");
    for uid in 100_000..105_000 {
        trace.args(["-u", &uid.to_string()]);
    }
    let output = run(trace.args(["-u", "0", "--", "sh", "-c", ": & wait"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(of_type(&lines(&output.stderr), "fork").len(), 1);

    let sleeper = Background::start(Command::new("sleep").arg("60"));
    let pid = sleeper.pid().to_string();
    let mut trace = fork_trace();
    trace.args(["--json", "-q", "-D", "100ms"]);
    for _ in 0..2000 {
        trace.args(["-p", &pid]);
    }
    assert!(run(&mut trace).status.success());
}
