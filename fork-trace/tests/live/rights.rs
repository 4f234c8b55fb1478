//! Rights: those that the tool needs and keeps, and those that the command gets.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use nix::sys::signal::Signal;

use crate::support::{HostTrace, fork_trace, lines, live_test, of_type, run, skip, stage, tool};

const NOBODY: u32 = 65534;

#[test]
fn without_rights_it_says_cause_and_cure() {
    live_test!();
    // A copy that anybody may run: the build's own folder may be closed to others.
    let copy = std::env::temp_dir().join(format!("fork-trace-copy-{}", std::process::id()));
    fs::copy(tool().get_program(), &copy).unwrap();
    let output = run(Command::new(&copy).uid(NOBODY).args(["--", "echo", "ran"]));
    let doctor = run(Command::new(&copy).uid(NOBODY).args(["doctor", "--json"]));
    fs::remove_file(&copy).unwrap();

    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"", "the command does not run");
    let said = String::from_utf8(output.stderr).unwrap();
    let [cause, cure] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(cause.contains("CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"), "{cause}");
    assert!(cure.contains("sudo"), "{cure}");

    assert_eq!(doctor.status.code(), Some(3));
    let report = &lines(&doctor.stdout)[0];
    assert_eq!(report["can_trace"], false);
    assert!(report["coverage"].as_array().unwrap().len() > 50, "the stages are told all the same");
}

#[test]
fn the_command_runs_as_the_user_who_called_sudo() {
    live_test!();
    let script = "id -u; id -g; id -G; grep CapEff: /proc/self/status; echo $HOME";
    let as_nobody = |args: &[&str]| {
        let output = run(fork_trace()
            .env("SUDO_UID", NOBODY.to_string())
            .env("SUDO_GID", NOBODY.to_string())
            .args(args)
            .args(["--", "sh", "-c", script]));
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let user = as_nobody(&["--json"]);
    assert_eq!(user[..3], ["65534", "65534", "65534"]);
    assert!(user[3].ends_with("\t0000000000000000"), "{user:?}");
    assert_ne!(user[4], "/root");
    let root = as_nobody(&["--json", "--as-root"]);
    assert_eq!(root[0], "0");
}

#[test]
fn rights_that_are_not_needed_are_given_up() {
    live_test!();
    let trace = HostTrace::start(&["--json"]);
    let status = fs::read_to_string(format!("/proc/{}/status", trace.pid())).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
    let kept = 1 << 2 | 1 << 5 | 1 << 19 | 1 << 38 | 1 << 39;
    assert_eq!(mask("CapEff:") & !kept, 0, "{status}");
    assert_eq!(mask("CapPrm:") & !kept, 0, "{status}");
    assert!(trace.stop(Signal::SIGINT).status.success());
}

#[test]
fn doctor_tells_what_can_be_seen() {
    live_test!();
    let output = run(tool().args(["doctor", "--json"]));
    assert!(output.status.success());
    let report = &lines(&output.stdout)[0];
    assert_eq!(report["can_trace"], true);
    let stages = report["coverage"].as_array().unwrap();
    let copy = stage(report, "copy_process").unwrap();
    // Only the kernel can say whether functions can be probed; the report says whether it refused.
    let (precision, closes) = match report["no_functions"].is_string() {
        true => ("bounded", "sched_process_fork"),
        false => ("exact", "leave copy_process"),
    };
    assert_eq!(
        (copy["precision"].as_str(), copy["closes"].as_str()),
        (Some(precision), Some(closes))
    );
    assert!(
        stages.iter().all(|s| (s["precision"] == "missing" || s["precision"] == "sampled")
            == s["reason"].is_string())
    );
    let text = String::from_utf8(run(tool().arg("doctor")).stdout).unwrap();
    assert!(text.contains("copy_process") && text.contains("works"), "{text}");
}

#[test]
fn the_kernel_side_logs_when_asked() {
    live_test!();
    let output = run(fork_trace().args(["-vvv", "--json", "--", "sh", "-c", ": & wait"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("task_newtask flags 12"), "{said}");
    let output = run(fork_trace().args(["-vv", "--json", "--", "sh", "-c", ": & wait"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("task_newtask flags"), "{said}");
    let json: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(of_type(&lines(json.join("\n")), "fork").len(), 1);
}

#[test]
fn hidden_kernel_addresses_are_said_with_their_cure() {
    live_test!();
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap();
    if paranoid.trim().parse::<i32>().unwrap() <= 1 && restrict.trim() == "0" {
        skip!("every user of this host sees kernel addresses");
    }
    let without_syslog = |args: &[&str]| {
        let mut tool = tool();
        tool.args(args).args(["--", "sh", "-c", ": & wait"]);
        let drop_syslog = || {
            let dropped = caps::drop(None, caps::CapSet::Bounding, caps::Capability::CAP_SYSLOG);
            dropped.map_err(std::io::Error::other)
        };
        // SAFETY: the closure makes two system calls, which concern this thread alone.
        unsafe { tool.pre_exec(drop_syslog) };
        run(&mut tool)
    };
    let forced = without_syslog(&["--backend", "inner"]);
    assert_eq!(forced.status.code(), Some(3));
    let said = String::from_utf8(forced.stderr).unwrap();
    assert!(said.contains("addresses are hidden") && said.contains("CAP_SYSLOG"), "{said}");

    let auto = without_syslog(&["--json", "-q"]);
    let traced = lines(&auto.stderr);
    assert_eq!(of_type(&traced, "fork").len(), 1);
    let warnings = of_type(&traced, "warning");
    let warning = warnings.iter().find(|warning| warning["code"] == "no-inner-marks");
    if traced[0]["backend"] != "tracepoint" {
        // The other backends find functions by name and need no addresses.
        return assert!(warning.is_none(), "{warnings:?}");
    }
    let warning = warning.unwrap();
    assert!(warning["text"].as_str().unwrap().contains("kptr_restrict"), "{warning}");
    let files = stage(&traced[0], "copy_files").unwrap();
    assert!(files["reason"].as_str().unwrap().contains("CAP_SYSLOG"), "{files}");
}
