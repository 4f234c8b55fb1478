//! `rules`: the rules of the house, checked in the sources of every crate.
//!
//! This file reads the sources and reports. What a rule looks for is in `checks` and `circles`, what
//! it allows and where is data: `rooms` says which room may import which, `tables` holds the rest.

mod breach;
mod checks;
mod circles;
mod layout;
mod rooms;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use self::{
    breach::{Breach, Rule},
    layout::Layout,
    source::Source,
};

/// Checks every Rust source below `root`; returns how many there are. The error has one line for
/// each breach.
pub(crate) fn rules(root: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    read(root, Path::new(""), &mut files)?;
    if files.is_empty() {
        bail!("there are no Rust sources below {}", root.display());
    }
    let breaches = check(&files);
    if breaches.is_empty() {
        return Ok(format!("{} files", files.len()));
    }
    let lines = breaches.iter().map(ToString::to_string).collect::<Vec<_>>();
    bail!("{} breaches of the rules of the house\n{}", lines.len(), lines.join("\n"));
}

/// Every breach in these files, sorted by file and line. A path is relative to the workspace's root.
fn check(files: &BTreeMap<PathBuf, String>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut sources = BTreeMap::new();
    for (path, text) in files {
        match Source::parse(text) {
            Ok(source) => {
                sources.insert(path.clone(), source);
            }
            Err(error) => breaches.push(Breach {
                path: path.clone(),
                line: error.span().start().line,
                rule: Rule::Syntax,
                what: format!("This file cannot be parsed: {error}."),
                cure: "Run `cargo check`, and mend what it reports.".to_owned(),
            }),
        }
    }
    let layout = Layout::new(&sources);
    sources.retain(|path, _| !layout.is_unit_test(path));
    let imports = layout.imports(&sources);
    breaches.extend(checks::rooms(&sources, &layout, &imports));
    breaches.extend(circles::circles(&layout, &imports));
    for (path, source) in &sources {
        breaches.extend(checks::file(path, source));
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

/// Reads the Rust files in `root`/`folder` and below, but nothing hidden and nothing that was built.
fn read(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let whole = root.join(folder);
    let entries = fs::read_dir(&whole).with_context(|| format!("read {}", whole.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", whole.display()))?;
        let name = entry.file_name();
        let path = folder.join(&name);
        let kind = entry.file_type().with_context(|| format!("look at {}", path.display()))?;
        if kind.is_dir() {
            let left_out = name == "target" || name.to_string_lossy().starts_with('.');
            if !left_out {
                read(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?;
            files.insert(path, text);
        }
    }
    Ok(())
}
