//! Files are made, emptied and given away only as they should be, and are readable whatever happens.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::Command,
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    Background, Folder, HostTrace, check, fork_trace, forker, live_test, number, of_type, read,
    run, slowness, summary, tool,
};

/// A user without rights.
const NOBODY: u32 = 65_534;

#[test]
fn nothing_is_emptied_before_everything_else_was_looked_at() {
    live_test!();
    let folder = Folder::new("kept");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.file("forks.json");
    fs::write(&file, "precious").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let cases: [(&[&str], i32); 3] = [
        (&["-u", "no-such-user"], 2),
        (&["-p", "4194304"], 2),
        (&["-o", "/no/such/folder/x.json"], 1),
    ];
    for (args, status) in cases {
        let output = run(fork_trace().arg("-o").arg(&file).args(args).args(["-D", "100ms"]));
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
        assert_eq!(fs::read(&file).unwrap(), b"precious", "{args:?}");
    }
    // A user who may not trace.
    let copy = folder.file("fork-trace");
    fs::copy(tool().get_program(), &copy).unwrap();
    let new = folder.file("new.json");
    let output = run(Command::new(&copy).arg("-o").arg(&file).arg("-o").arg(&new).uid(NOBODY));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(!new.exists());
}

#[test]
fn new_files_are_private_and_belong_to_the_caller() {
    live_test!();
    let folder = Folder::new("owner");
    let (new, old) = (folder.file("new.json"), folder.file("old.txt"));
    fs::write(&old, "").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
    for _ in 0..2 {
        let output = run(fork_trace()
            .env("SUDO_UID", NOBODY.to_string())
            .env("SUDO_GID", NOBODY.to_string())
            .args(["-q", "-D", "100ms", "-o"])
            .arg(&new)
            .arg("-o")
            .arg(&old));
        assert!(output.status.success(), "{output:?}");
        let of = |path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o777)
        };
        assert_eq!(of(&new), (NOBODY, NOBODY, 0o600));
        assert_eq!(of(&old), (0, 0, 0o644));
        check(&read(&new));
    }
}

#[test]
fn a_strangers_link_in_a_shared_folder_is_not_followed() {
    live_test!();
    let folder = Folder::new("shared");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let (victim, link) = (folder.file("victim"), folder.file("forks.json"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = run(fork_trace().args(["-q", "-D", "100ms", "-o"]).arg(&link));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("user 65534 made this link") || said.contains("Permission"), "{said}");
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn an_output_that_fails_is_told_and_counted_and_the_others_go_on() {
    live_test!();
    let folder = Folder::new("failing");
    let good = folder.file("good.json");
    let trace = HostTrace::of(fork_trace().args(["-o", "/dev/full", "-o"]).arg(&good));
    assert!(Command::new(forker()).args(["loop", "--count", "300"]).status().unwrap().success());
    sleep(Duration::from_millis(300));
    assert!(Command::new(forker()).args(["loop", "--count", "7"]).status().unwrap().success());
    let output = trace.stop(Signal::SIGINT);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("warning: cannot write /dev/full: No space left on device"), "{said}");
    let shown = read(&good);
    check(&shown);
    assert!(of_type(&shown, "fork").len() >= 307);
    assert_eq!(summary(&shown)["failed_outputs"], 1);
    let warnings = of_type(&shown, "warning");
    assert!(warnings.iter().any(|warning| warning["code"] == "output-failed"), "{warnings:?}");
}

#[test]
fn a_summary_goes_to_the_terminal_beside_the_file_and_agrees_with_its_forks() {
    live_test!();
    let folder = Folder::new("summed");
    let file = folder.file("forks.json");
    let script = "for i in 1 2 3; do (true); done; echo own";
    let output = run(fork_trace()
        .args(["--as-root", "-S", "comm", "-o"])
        .arg(&file)
        .args(["--", "sh", "-c", script]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"own\n", "it belongs to the command");
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    let shown = read(&file);
    check(&shown);
    let (forks, summary) = (of_type(&shown, "fork"), summary(&shown));
    assert!(said.contains("COMM (HELD)") && said.contains("SLOWEST, BY"), "{said}");
    assert!(last.starts_with(&format!("{} shown, ", forks.len())), "{said}");
    let rows = summary["groups"]["rows"].as_array().unwrap();
    let own = rows.iter().find(|row| row["name"] == "sh").unwrap();
    assert_eq!(number(&own["count"]), 3, "{summary}");
    let held: u64 = forks.iter().filter_map(|fork| fork["held_ns"].as_u64()).sum();
    assert_eq!(rows.iter().map(|row| number(&row["held"]["sum_ns"])).sum::<u64>(), held);
    let slowest = &summary["slowest"][0];
    let longest = forks.iter().filter_map(|fork| fork["held_ns"].as_u64()).max().unwrap();
    assert_eq!(number(&slowest["held_ns"]), longest);
    assert!(number(&summary["traced_ns"]) > held, "{summary}");
}

#[test]
fn a_command_without_forks_is_told_so() {
    live_test!();
    let output = run(fork_trace().args(["--as-root", "--", "true"]));
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("0 shown, "), "{said}");
    assert!(last.ends_with(" 0 failed, 0 lost: the command made no fork"), "{said}");
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    live_test!();
    let folder = Folder::new("limit");
    let (tool, file) = (fork_trace(), folder.file("forks.json"));
    let output = run(Command::new("sh")
        .args(["-c", r#"ulimit -f 32; exec "$0" "$@""#])
        .arg(tool.get_program())
        .args(tool.get_args())
        .arg("-o")
        .arg(&file)
        .arg("--")
        .arg(forker())
        .args(["loop", "--count", "2000"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("File too large"), "{said}");
}

#[test]
fn a_recording_of_a_tracer_that_was_killed_can_be_replayed() {
    live_test!();
    let folder = Folder::new("crash");
    for (name, least) in [("forks.json", 100), ("forks.json.gz", 10), ("forks.json.zst", 10)] {
        let file = folder.file(name);
        let storm =
            Background::start(Command::new(forker()).args(["loop", "--count", "100000000"]));
        let trace = HostTrace::of(fork_trace().arg("-o").arg(&file));
        sleep(Duration::from_secs(1).mul_f64(slowness().sqrt()));
        assert_eq!(trace.stop(Signal::SIGKILL).status.signal(), Some(9));
        drop(storm);
        let output = run(tool().arg("replay").arg(&file).arg("--json"));
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("the recording is cut off here"), "{name}: {said}");
        let shown = crate::support::lines(&output.stdout);
        check(&shown);
        assert!(of_type(&shown, "fork").len() > least, "{name}");
    }
}
