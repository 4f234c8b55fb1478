//! Each command of the README and of the pages in `docs/` works as it stands there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{Folder, kill, live_test, tool, wait};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The README, then every page in `docs/`, in the order of their names.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(workspace().join("docs")).unwrap();
    let mut pages: Vec<_> = docs.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    pages.sort();
    pages.insert(0, workspace().join("README.md"));
    pages
}

/// Lines of the blocks marked `sh`.
fn commands(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => found.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

/// A PATH whose first folder has `fork-trace`, which is the tool that is tested, and a `sudo` that
/// just runs a command.
fn programs(folder: &Folder) -> String {
    let programs = folder.file("bin");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(tool().get_program(), programs.join("fork-trace")).unwrap();
    let sudo = programs.join("sudo");
    fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", programs.display(), std::env::var("PATH").unwrap())
}

/// The same command on a terminal of its own, on which somebody presses q after three seconds.
fn on_a_terminal(line: &str) -> String {
    format!(
        "(sleep 3; printf q) | TERM=xterm script -qec 'stty cols 120 rows 30; {line}' /dev/null"
    )
}

#[test]
fn each_command_of_the_readme_works() {
    live_test!();
    let texts = pages().into_iter().map(|page| fs::read_to_string(page).unwrap());
    let commands: Vec<_> = texts.flat_map(|text| commands(&text)).collect();
    assert!(commands.len() > 30, "{commands:?}");
    let folder = Folder::new("readme");
    let path = programs(&folder);
    for line in &commands {
        // This command runs these very tests.
        if line == "cargo xtask test" {
            continue;
        }
        let of_workspace = line.starts_with("cargo ");
        let place = if of_workspace { workspace() } else { folder.path().to_owned() };
        let root = format!(" --root {}", folder.file("installed").display());
        let line =
            if line.starts_with("cargo install") { line.clone() + &root } else { line.clone() };
        // This one goes on until Ctrl-C, which a shell around it would take for its own end.
        let endless = line == "sudo fork-trace";
        let line = if endless { format!("exec {line}") } else { line };
        // This one draws on a terminal until the key q.
        let draws = line.contains("fork-trace top");
        let line = if draws { on_a_terminal(&line) } else { line };
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("PATH", &path).current_dir(place);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if endless {
            std::thread::sleep(Duration::from_secs(3));
            kill(child.id(), Signal::SIGINT);
        }
        let seconds = if of_workspace { 600 } else { 60 };
        let output = wait(child, Duration::from_secs(seconds));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {:?}\n{said}", output.status);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(!draws || shown.contains("forks/s"), "{line}: {shown:?}");
        println!("{line}: {}", output.status);
    }
    assert!(folder.file("installed/bin/fork-trace").exists());
}
