//! `dist --test`: Debian's package is installed in a root without a toolchain, traces there, and is removed.
//! The package for rpm is read.
//!
//! `bare_root.sh` does what takes root and writes down what it saw; this file judges it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    artefacts::{DEB, FOLDERS, RPM, named},
    files::FILES,
    release::{Release, place},
};
use crate::command::{as_root, output, root, run};

/// What is done as root.
const SCRIPT: &str = "xtask/src/dist/bare_root.sh";

/// What the manual page and the completions hold, where the package has put them; for bash, what it
/// completes `exp` to.
const PAGES: [(&str, &str); 4] = [
    ("man", ".TH fork-trace 1 "),
    ("bash", "explain\n"),
    ("zsh", "#compdef fork-trace\n"),
    ("fish", "complete -c fork-trace "),
];

/// Tries both packages.
pub(super) fn test(release: &Release) -> Result<()> {
    rpm(release)?;
    let seen = Seen { folder: release.work("bare-root") };
    fs::create_dir_all(&seen.folder).context("create a folder for the test")?;
    let mut unshare = as_root(Path::new("unshare"))?;
    unshare.args(["--mount", "--propagation", "private", "sh"]).arg(root().join(SCRIPT));
    unshare.arg(place().join("work/bare-root.tar"));
    unshare.arg(place().join(named(DEB, release.version))).arg(&seen.folder);
    run(&mut unshare).context("try Debian's package in a bare root")?;

    let places: Vec<_> = FILES.iter().filter_map(|file| file.deb).collect();
    installed(&seen.lines("before")?, &seen.lines("installed")?, &places)?;
    let changed = seen.text("verify")?;
    ensure!(changed.is_empty(), "dpkg finds other files than it was given: {changed:?}");
    let version = seen.text("version")?;
    ensure!(
        version.trim() == format!("fork-trace {}", release.version),
        "it says of itself {version:?}"
    );
    let doctor = seen.text("doctor")?;
    ensure!(doctor.contains("copy_process"), "doctor names no stages:\n{doctor}");
    let number = seen.text("number")?;
    ensure!(number.trim().parse::<u32>().is_ok_and(|number| number > 10), "wc printed {number:?}");
    let remark = traced(&seen.text("trace")?)?;
    for (name, wanted) in PAGES {
        ensure!(seen.text(name)?.contains(wanted), "the page for {name} has no {wanted:?}");
    }
    let check = seen.text("check")?;
    ensure!(check.contains("is right"), "the service's configuration: {check:?}");
    let (before, removed) = (seen.lines("before")?, seen.lines("removed")?);
    let rest: Vec<_> = before.symmetric_difference(&removed).collect();
    ensure!(rest.is_empty(), "the package was removed, but these differ from before: {rest:?}");
    println!(
        "Debian's package: {} files installed in a bare root; {remark}; removed without a rest",
        places.len()
    );
    Ok(())
}

/// What the script wrote down.
struct Seen {
    folder: PathBuf,
}

impl Seen {
    fn text(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.folder.join(name)).with_context(|| format!("read {name}"))
    }

    fn lines(&self, name: &str) -> Result<BTreeSet<String>> {
        Ok(self.text(name)?.lines().map(str::to_owned).collect())
    }
}

/// Each file stands at its place, and nothing else is new but folders above them.
fn installed(before: &BTreeSet<String>, after: &BTreeSet<String>, places: &[&str]) -> Result<()> {
    let new: BTreeSet<_> =
        after.difference(before).map(|path| path.trim_start_matches("./")).collect();
    for place in places {
        ensure!(new.contains(place), "{place} was not installed");
    }
    let is_above = |path: &str| {
        places.iter().any(|place| Path::new(place).parent().is_some_and(|up| up.starts_with(path)))
    };
    let strange: Vec<_> =
        new.iter().filter(|path| !places.contains(path) && !is_above(path)).collect();
    ensure!(strange.is_empty(), "these are new too: {strange:?}");
    let gone: Vec<_> = before.difference(after).collect();
    ensure!(gone.is_empty(), "these are gone: {gone:?}");
    Ok(())
}

/// The trace of `sh -c 'ls / | wc -l'`: the shell's two forks, and every fork accounted for.
fn traced(text: &str) -> Result<String> {
    let mut forks = Vec::new();
    let mut summary = None;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        match value.get("type").and_then(Value::as_str) {
            Some("fork") => forks.push(value),
            Some("summary") => summary = Some(value),
            _ => {}
        }
    }
    let by_shell = |fork: &Value| {
        fork.pointer("/parent/comm") == Some(&"sh".into()) && fork.get("child").is_some()
    };
    if forks.len() != 2 || !forks.iter().all(by_shell) {
        bail!("these are not the shell's two forks:\n{text}");
    }
    let summary = summary.context("the trace has no summary")?;
    let attempts = summary.get("attempts").and_then(Value::as_u64);
    ensure!(attempts == Some(2), "the summary counts other forks: {summary}");
    let accounted = summary.get("accounted").and_then(Value::as_bool);
    ensure!(accounted == Some(true), "not every fork is accounted for: {summary}");
    Ok("2 forks of 2 traced, accounted for".to_owned())
}

/// The package for rpm has every file, and asks for no library.
fn rpm(release: &Release) -> Result<()> {
    let path = place().join(named(RPM, release.version));
    let ask = |what: &str| {
        output(release.tool("rpm", &place()).args(["--query", what, "--package"]).arg(&path))
    };
    let listed = ask("--list")?;
    let listed: BTreeSet<_> = listed.lines().map(str::to_owned).collect();
    let places = FILES.iter().filter_map(|file| file.rpm).map(|place| format!("/{place}"));
    let folders = FOLDERS.map(|folder| format!("/{folder}"));
    let wanted: BTreeSet<_> = places.chain(folders).collect();
    let other: Vec<_> = listed.symmetric_difference(&wanted).collect();
    ensure!(other.is_empty(), "the package for rpm differs in: {other:?}");
    let requires = ask("--requires")?;
    let asks = requires.lines().find(|line| !line.starts_with("rpmlib("));
    ensure!(asks.is_none(), "the package for rpm requires: {requires}");
    println!("package for rpm: {} files and folders, no library required", listed.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forks_of_the_shell_are_wanted_and_an_account() {
        let fork = |comm: &str| {
            format!(r#"{{"type":"fork","parent":{{"comm":"{comm}"}},"child":{{"pid":7}}}}"#)
        };
        let summary = |attempts: u32, accounted: bool| {
            format!(r#"{{"type":"summary","attempts":{attempts},"accounted":{accounted}}}"#)
        };
        let trace = |lines: &[String]| traced(&lines.join("\n"));
        let (shell, right) = (fork("sh"), summary(2, true));
        let start = r#"{"type":"start"}"#.to_owned();
        trace(&[start, shell.clone(), shell.clone(), right.clone()]).unwrap();
        for wrong in [
            vec![shell.clone(), right.clone()],
            vec![shell.clone(), fork("ls"), right.clone()],
            vec![shell.clone(), shell.clone(), shell.clone(), right],
            vec![shell.clone(), shell.clone(), summary(3, true)],
            vec![shell.clone(), shell.clone(), summary(2, false)],
            vec![shell.clone(), shell],
        ] {
            trace(&wrong).unwrap_err();
        }
    }

    #[test]
    fn a_package_brings_its_files_and_no_more() {
        let tree = |paths: &[&str]| paths.iter().map(|path| format!("./{path}")).collect();
        let before = tree(&["usr", "usr/bin"]);
        let places = ["usr/bin/tool", "usr/share/doc/tool/page"];
        let all = [
            "usr",
            "usr/bin",
            "usr/bin/tool",
            "usr/share",
            "usr/share/doc",
            "usr/share/doc/tool",
            "usr/share/doc/tool/page",
        ];
        installed(&before, &tree(&all), &places).unwrap();
        installed(&before, &tree(&all[..6]), &places).unwrap_err();
        installed(&before, &tree(&all[1..]), &places).unwrap_err();
        installed(&before, &tree(&[&all[..], &["etc"]].concat()), &places).unwrap_err();
    }
}
