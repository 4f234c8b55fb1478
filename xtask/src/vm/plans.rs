//! The plan of each kernel series as it should be: which marks bound which stage.
//!
//! The plans are kept in `xtask/plans/`, with a line for each stage. So a diff shows which stages a
//! change of the tool or of a kernel loses or gains.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// How a kernel's plan compares with the one that is kept.
pub(crate) enum Compared {
    /// It is the same, line for line.
    Same,
    /// No plan is kept for this series.
    New,
    /// The lines that only the kept plan has (`-`), and those that only this one has (`+`).
    Differs(Vec<String>),
}

/// The plan in a report of `fork-trace doctor`, a line for each stage that is seen.
pub(crate) fn plan(doctor: &Value) -> Option<String> {
    let mut plan = String::new();
    for stage in doctor.get("coverage")?.as_array()? {
        let field = |name| stage.get(name).and_then(Value::as_str);
        let (name, precision) = (field("name")?, field("precision")?);
        // What samples can tell depends on the kernel alone, not on the plan; and what is told of the C library depends
        // on the one that was packed.
        if matches!(precision, "missing" | "sampled") || field("source") == Some("uprobe") {
            continue;
        }
        let mut words = vec![name.to_owned(), precision.to_owned()];
        words.extend(field("source").map(str::to_owned));
        if let (Some(opens), Some(closes)) = (field("opens"), field("closes")) {
            words.push(format!("{opens}..{closes}"));
        }
        plan.push_str(&words.join(" "));
        plan.push('\n');
    }
    Some(plan)
}

/// Compares with what is kept in `dir` for this series.
pub(crate) fn compare(dir: &Path, series: &str, plan: &str) -> Compared {
    let Ok(kept) = fs::read_to_string(file(dir, series)) else { return Compared::New };
    if kept == plan {
        return Compared::Same;
    }
    let only = |sign: char, these: &str, those: &str| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut lines = only('-', &kept, plan);
    lines.extend(only('+', plan, &kept));
    if lines.is_empty() {
        lines.push("the same lines in another order".to_owned());
    }
    Compared::Differs(lines)
}

/// Keeps this plan from now on; returns where.
pub(crate) fn keep(dir: &Path, series: &str, plan: &str) -> Result<PathBuf> {
    let file = file(dir, series);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&file, plan))
        .with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

fn file(dir: &Path, series: &str) -> PathBuf {
    dir.join(format!("{series}.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_is_seen_is_a_line() {
        let doctor = serde_json::json!({"coverage": [
            {"name": "fork", "precision": "missing", "reason": "not probed"},
            {"name": "copy_files", "precision": "bounded", "source": "tracepoint",
             "opens": "a@b", "closes": "c"},
            {"name": "dup_fd", "precision": "exact", "source": "fentry"},
            {"name": "_Fork", "precision": "exact", "source": "uprobe"},
        ]});
        let lines = "copy_files bounded tracepoint a@b..c\ndup_fd exact fentry\n";
        assert_eq!(plan(&doctor).as_deref(), Some(lines));
        assert_eq!(plan(&serde_json::json!({})), None);
    }

    #[test]
    fn what_differs_is_shown_by_lines() {
        let dir = std::env::temp_dir().join(format!("xtask-plans-{}", std::process::id()));
        assert!(matches!(compare(&dir, "6.12", "a\nb\n"), Compared::New));
        keep(&dir, "6.12", "a\nb\n").unwrap();
        assert!(matches!(compare(&dir, "6.12", "a\nb\n"), Compared::Same));
        let Compared::Differs(lines) = compare(&dir, "6.12", "a\nc\n") else { panic!() };
        assert_eq!(lines, ["- b", "+ c"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
