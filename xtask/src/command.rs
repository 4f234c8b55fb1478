//! Other programs: started from the workspace's root, with errors that say what was run.
//!
//! This file knows nothing of the tasks.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

/// Cargo's variables that say where it keeps and gets things. All others change what it builds.
const KEPT: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP", "CARGO_NET", "CARGO_REGISTR", "CARGO_SOURCE", "CARGO_TERM"];

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A program to be started in the workspace's root, so that the pinned toolchain applies.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Cargo, free of what the cargo that started us and the user's flags would change in a build.
pub(crate) fn clean_cargo() -> Command {
    let mut cargo = program("cargo");
    for (key, _) in env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let for_cargo = name.starts_with("CARGO") && !KEPT.iter().any(|k| name.starts_with(k));
        if for_cargo || name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS") {
            cargo.env_remove(&key);
        }
    }
    cargo
}

/// Runs it and shows its output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", line(command)))?;
    if !status.success() {
        bail!("{}: {status}", line(command));
    }
    Ok(())
}

/// Runs it and returns what it wrote to stdout; its output is shown only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let (stdout, result) = output_and_result(command)?;
    match result {
        Ok(()) => Ok(stdout),
        Err(error) => bail!("{stdout}{error}"),
    }
}

/// Runs it and returns what it wrote to stdout, and whether it did well; what it wrote to stderr is in the error.
pub(crate) fn output_and_result(command: &mut Command) -> Result<(String, Result<()>)> {
    let output = command.output().with_context(|| format!("start {}", line(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = if output.status.success() {
        Ok(())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(anyhow!("{stderr}\n{}: {}", line(command), output.status))
    };
    Ok((stdout, result))
}

/// Whether we may do what only root may.
pub(crate) fn is_root() -> Result<bool> {
    // The owner of a process's /proc directory is its effective user.
    Ok(fs::metadata("/proc/self").context("read the owner of /proc/self")?.uid() == 0)
}

/// A program to be started as root: directly if we are root, else through sudo.
pub(crate) fn as_root(path: &Path) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(path));
    }
    let dirs = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&dirs).any(|dir| dir.join("sudo").is_file()) {
        bail!("tracing needs root, and there is no sudo here: run this as root");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(path);
    Ok(sudo)
}

/// The command as one would type it, for messages.
fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy().replace('\u{1f}', " "));
    }
    line
}
