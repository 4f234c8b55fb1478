//! Which files are in the artefacts, where each stands in which, and where it comes from.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{notices::notices, release::Release};
use crate::{
    build::toolchain::Toolchain,
    command::{output, root, run},
};

/// A file of a release.
pub(super) struct File {
    /// Its place in the archive; where there is none, it is not in it.
    pub(super) tar: Option<&'static str>,
    /// Its place in Debian's package. What ends with `.gz` is compressed.
    pub(super) deb: Option<&'static str>,
    /// Its place in the package for rpm.
    pub(super) rpm: Option<&'static str>,
    /// Its mode.
    mode: u32,
    /// What is in it.
    content: fn(&Release) -> Result<Vec<u8>>,
}

/// A column of the table of files.
pub(super) type Column = fn(&File) -> Option<&'static str>;

/// A row; a place is empty where the file is not in that artefact.
const fn file(
    mode: u32,
    [tar, deb, rpm]: [&'static str; 3],
    content: fn(&Release) -> Result<Vec<u8>>,
) -> File {
    const fn place(place: &'static str) -> Option<&'static str> {
        if place.is_empty() { None } else { Some(place) }
    }
    File { tar: place(tar), deb: place(deb), rpm: place(rpm), mode, content }
}

/// Every file.
#[rustfmt::skip]
pub(super) const FILES: [File; 15] = [
    file(0o755, ["fork-trace", "usr/bin/fork-trace", "usr/bin/fork-trace"],
        |release| read(&release.program)),
    file(0o644, ["fork-trace.1", "usr/share/man/man1/fork-trace.1.gz", "usr/share/man/man1/fork-trace.1.gz"],
        |release| printed(release, &["man"])),
    file(0o644, ["completions/fork-trace.bash",
          "usr/share/bash-completion/completions/fork-trace",
          "usr/share/bash-completion/completions/fork-trace"],
        |release| printed(release, &["completions", "bash"])),
    // Debian's zsh and Fedora's look into different folders.
    file(0o644, ["completions/_fork-trace",
          "usr/share/zsh/vendor-completions/_fork-trace",
          "usr/share/zsh/site-functions/_fork-trace"],
        |release| printed(release, &["completions", "zsh"])),
    file(0o644, ["completions/fork-trace.fish",
          "usr/share/fish/vendor_completions.d/fork-trace.fish",
          "usr/share/fish/vendor_completions.d/fork-trace.fish"],
        |release| printed(release, &["completions", "fish"])),
    file(0o644, ["systemd/fork-trace.service",
          "usr/lib/systemd/system/fork-trace.service",
          "usr/lib/systemd/system/fork-trace.service"],
        |_| workspace("deploy/systemd/fork-trace.service")),
    // An administrator changes it, and keeps it.
    file(0o644, ["systemd/export.toml", "etc/fork-trace/export.toml", "etc/fork-trace/export.toml"],
        |_| workspace("deploy/systemd/export.toml")),
    file(0o644, ["README.md", "usr/share/doc/fork-trace/README.md", "usr/share/doc/fork-trace/README.md"],
        |_| workspace("README.md")),
    file(0o644, ["CHANGELOG.md", "usr/share/doc/fork-trace/changelog.gz", "usr/share/doc/fork-trace/changelog.gz"],
        |_| workspace("CHANGELOG.md")),
    file(0o644, ["LICENSE-MIT", "usr/share/doc/fork-trace/LICENSE-MIT", "usr/share/licenses/fork-trace/LICENSE-MIT"],
        |_| workspace("LICENSE-MIT")),
    file(0o644, ["LICENSE-APACHE", "usr/share/doc/fork-trace/LICENSE-APACHE", "usr/share/licenses/fork-trace/LICENSE-APACHE"],
        |_| workspace("LICENSE-APACHE")),
    file(0o644, ["LICENSE-GPL-2.0-only",
          "usr/share/doc/fork-trace/LICENSE-GPL-2.0-only",
          "usr/share/licenses/fork-trace/LICENSE-GPL-2.0-only"],
        |_| workspace("LICENSE-GPL-2.0-only")),
    file(0o644, ["THIRD-PARTY-LICENSES",
          "usr/share/doc/fork-trace/THIRD-PARTY-LICENSES.gz",
          "usr/share/licenses/fork-trace/THIRD-PARTY-LICENSES.gz"],
        |release| Ok(notices(&release.packages)?.into_bytes())),
    file(0o644, ["COPYRIGHT-library.html",
          "usr/share/doc/fork-trace/COPYRIGHT-library.html.gz",
          "usr/share/licenses/fork-trace/COPYRIGHT-library.html.gz"],
        |_| read(&Toolchain::find()?.sysroot.join("share/doc/rust/COPYRIGHT-library.html"))),
    file(0o644, ["", "usr/share/doc/fork-trace/copyright", ""], |_| copyright()),
];

/// Writes the files that have a place in this column into a new folder, each at its place.
pub(super) fn lay(release: &Release, name: &str, column: Column) -> Result<PathBuf> {
    let folder = release.work(name);
    let shown = folder.display();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {shown}"))?;
    }
    for file in &FILES {
        let Some(place) = column(file) else { continue };
        let mut path = folder.join(place);
        let compressed = path.extension().is_some_and(|ending| ending == "gz");
        if compressed {
            path.set_extension("");
        }
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::write(&path, (file.content)(release)?)
            .with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))
            .with_context(|| format!("set the mode of {}", path.display()))?;
        if compressed {
            run(Command::new("gzip").args(["--no-name", "--best"]).arg(&path))?;
        }
    }
    // Folders have the modes that the caller's umask gave them.
    run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&folder))?;
    Ok(folder)
}

/// What the program prints, whatever this machine's settings are.
fn printed(release: &Release, args: &[&str]) -> Result<Vec<u8>> {
    Ok(output(Command::new(&release.program).args(args).env_clear())?.into_bytes())
}

fn workspace(name: &str) -> Result<Vec<u8>> {
    read(&root().join(name))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Debian's page about licences: the head, and the text of the MIT licence as a field of it, where an empty
/// line is a dot.
fn copyright() -> Result<Vec<u8>> {
    let text = String::from_utf8(workspace("LICENSE-MIT")?)?;
    let mut page = String::from(include_str!("copyright"));
    let body = text.lines().skip_while(|line| !line.starts_with("Permission"));
    for line in body {
        page.push_str(&format!(" {}\n", if line.is_empty() { "." } else { line }));
    }
    Ok(page.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_one_files_own() {
        let columns: [Column; 3] = [|file| file.tar, |file| file.deb, |file| file.rpm];
        for column in columns {
            let mut places: Vec<_> = FILES.iter().filter_map(column).collect();
            let all = places.len();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), all, "{places:?}");
        }
    }

    #[test]
    fn both_packages_have_each_file_but_debians_page() {
        let lacking: Vec<_> =
            FILES.iter().filter(|file| file.deb.is_none() || file.rpm.is_none()).collect();
        let lacking: Vec<_> = lacking.iter().map(|file| file.deb).collect();
        assert_eq!(lacking, [Some("usr/share/doc/fork-trace/copyright")]);
    }

    #[test]
    fn debians_page_has_the_whole_licence() {
        let page = String::from_utf8(copyright().unwrap()).unwrap();
        let licence = page.split_once("License: Expat\n").unwrap().1;
        assert!(licence.starts_with(" Permission is hereby granted"), "{licence}");
        assert!(licence.contains("\n .\n The above copyright notice"), "{licence}");
        assert!(licence.lines().all(|line| line.starts_with(' ')), "{licence}");
    }
}
