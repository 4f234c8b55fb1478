//! The licences of what is linked into the program: each text once, and who has it.
//!
//! The texts are those that stand in the packages. Two files of the toolchain's are not here: the standard
//! library has a page of its own, and musl comes without a text.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::linked::Package;

/// How the names of files with licences begin, in capitals.
const BEGINNINGS: [&str; 5] = ["LICENSE", "LICENCE", "UNLICENSE", "COPYING", "NOTICE"];

/// The licence of musl.
const MUSL: &str = include_str!("musl-license");

/// A licence's text, and the packages that have it.
type Text = (String, Vec<String>);

/// The page.
pub(super) fn notices(packages: &[Package]) -> Result<String> {
    let mut page = String::from("fork-trace contains these packages of others':\n\n");
    let mut texts: Vec<Text> = vec![(MUSL.trim().to_owned(), vec!["musl".to_owned()])];
    for package in packages {
        if let Some(folder) = &package.folder {
            let name = format!("{} {}", package.name, package.version);
            page.push_str(&format!("  {name}: {}\n", package.license));
            for text in files(folder)? {
                add(&mut texts, text, &name);
            }
        }
    }
    page.push_str(
        "\nand the standard library of Rust, and musl. The texts of their licences follow.\n",
    );
    for (text, names) in texts {
        let line = "-".repeat(80);
        page.push_str(&format!("\n{line}\n{}\n{line}\n\n{text}\n", names.join(", ")));
    }
    Ok(page)
}

/// Adds a text, or a name to one that is there.
fn add(texts: &mut Vec<Text>, text: String, name: &str) {
    match texts.iter_mut().find(|(known, _)| *known == text) {
        Some((_, names)) if names.last().is_some_and(|last| last == name) => {}
        Some((_, names)) => names.push(name.to_owned()),
        None => texts.push((text, vec![name.to_owned()])),
    }
}

/// The texts in a package's folder, in the order of their files' names.
fn files(folder: &Path) -> Result<Vec<String>> {
    let shown = folder.display();
    let entries = fs::read_dir(folder).with_context(|| format!("list {shown}"))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    });
    paths.sort();
    let text = |path: &Path| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.replace("\r\n", "\n").trim().to_owned())
    };
    paths.iter().map(|path| text(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_two_packages_have_stands_once() {
        let mut texts = Vec::new();
        add(&mut texts, "MIT".to_owned(), "a 1");
        add(&mut texts, "MIT".to_owned(), "a 1");
        add(&mut texts, "Zlib".to_owned(), "a 1");
        add(&mut texts, "MIT".to_owned(), "b 2");
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let wanted =
            [("MIT".to_owned(), names(&["a 1", "b 2"])), ("Zlib".to_owned(), names(&["a 1"]))];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn licences_are_found_by_name() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let found = files(workspace).unwrap();
        let firsts: Vec<_> = found.iter().filter_map(|text| text.lines().next()).collect();
        assert_eq!(firsts.len(), 3, "{firsts:?}");
        assert!(firsts.contains(&"MIT License"), "{firsts:?}");
    }
}
