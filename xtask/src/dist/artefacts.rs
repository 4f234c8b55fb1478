//! The artefacts of a release: what each is called, and what makes it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    files::{FILES, lay},
    release::{Release, place},
    sbom,
};
use crate::{
    build::apt,
    command::{output, run},
};

/// The name of an artefact, with `VERSION` for the version, and what writes it to a path.
type Artefact = (&'static str, fn(&Release, &Path) -> Result<()>);

/// Debian's package.
pub(super) const DEB: &str = "fork-trace_VERSION-1_amd64.deb";

/// The package for rpm.
pub(super) const RPM: &str = "fork-trace-VERSION-1.x86_64.rpm";

/// All but the checksums, which are made of these.
const ARTEFACTS: [Artefact; 4] = [
    ("fork-trace-VERSION-x86_64-linux-musl.tar.gz", archive),
    (DEB, deb),
    (RPM, rpm),
    ("fork-trace-VERSION.cdx.json", bill),
];

/// The checksums of all others.
const SUMS: &str = "SHA256SUMS";

/// Writes every artefact; returns where they are.
pub(super) fn write(release: &Release) -> Result<Vec<PathBuf>> {
    apt::require("dpkg-deb", "dpkg")?;
    apt::require("rpmbuild", "rpm")?;
    let names = ARTEFACTS.map(|(name, _)| named(name, release.version));
    let mut paths = Vec::new();
    for ((_, make), name) in ARTEFACTS.iter().zip(&names) {
        let path = place().join(name);
        make(release, &path).with_context(|| format!("make {name}"))?;
        paths.push(path);
    }
    let sums = output(release.tool("sha256sum", &place()).args(&names))?;
    let path = place().join(SUMS);
    fs::write(&path, sums).with_context(|| format!("write {SUMS}"))?;
    paths.push(path);
    Ok(paths)
}

/// The name of an artefact of this version.
pub(super) fn named(name: &str, version: &str) -> String {
    name.replace("VERSION", version)
}

/// The archive, with one folder in it.
fn archive(release: &Release, path: &Path) -> Result<()> {
    let folder = named("fork-trace-VERSION-x86_64-linux-musl", release.version);
    lay(release, &folder, |file| file.tar)?;
    let mut tar = release.tool("tar", &release.work(""));
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0"]);
    tar.args(["--numeric-owner", "--use-compress-program=gzip --no-name --best"]);
    run(tar.arg(format!("--mtime=@{}", release.epoch)).arg("--file").arg(path).arg(folder))
}

/// The folders that are the package's own.
pub(super) const FOLDERS: [&str; 3] =
    ["etc/fork-trace", "usr/share/doc/fork-trace", "usr/share/licenses/fork-trace"];

/// Whether an administrator may have changed a file, which then stays as it is.
fn is_kept(place: &str) -> bool {
    place.starts_with("etc/")
}

/// Debian's package. It is compressed by xz, which every dpkg reads.
fn deb(release: &Release, path: &Path) -> Result<()> {
    let tree = lay(release, "deb", |file| file.deb)?;
    let places: Vec<_> = FILES.iter().filter_map(|file| file.deb).collect();
    let sums = output(release.tool("md5sum", &tree).args(&places))?;
    let mut bytes = 0;
    for place in &places {
        bytes += fs::metadata(tree.join(place)).with_context(|| format!("look at {place}"))?.len();
    }
    let control = include_str!("control").replace("@VERSION@", release.version);
    let control = control.replace("@KIB@", &bytes.div_ceil(1024).to_string());
    let kept = places.iter().filter(|place| is_kept(place));
    let kept: String = kept.map(|place| format!("/{place}\n")).collect();
    let about = tree.join("DEBIAN");
    fs::create_dir(&about)
        .and_then(|()| fs::write(about.join("conffiles"), kept))
        .and_then(|()| fs::write(about.join("control"), control))
        .and_then(|()| fs::write(about.join("md5sums"), sums))
        .with_context(|| format!("write {}", about.display()))?;
    run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&about))?;
    let mut dpkg = release.tool("dpkg-deb", &tree);
    output(dpkg.args(["--root-owner-group", "-Zxz", "--build", "."]).arg(path))?;
    Ok(())
}

/// The package for rpm.
fn rpm(release: &Release, path: &Path) -> Result<()> {
    let tree = lay(release, "rpm", |file| file.rpm)?;
    let list = release.work("rpm.list");
    let mut lines = String::new();
    lines.extend(FOLDERS.iter().map(|folder| format!("%dir /{folder}\n")));
    lines.extend(FILES.iter().filter_map(|file| file.rpm).map(|place| {
        let config = if is_kept(place) { "%config(noreplace) " } else { "" };
        format!("{config}/{place}\n")
    }));
    let spec = release.work("fork-trace.spec");
    fs::write(&list, lines)
        .and_then(|()| fs::write(&spec, include_str!("fork-trace.spec")))
        .with_context(|| format!("write {}", spec.display()))?;
    let top = release.work("rpmbuild");
    let mut rpmbuild = release.tool("rpmbuild", &release.work(""));
    rpmbuild.args(["-bb", "--quiet", "--target", "x86_64-linux"]);
    for (name, value) in [
        ("version", release.version),
        ("tree", &tree.to_string_lossy()),
        ("list", &list.to_string_lossy()),
        ("_topdir", &top.to_string_lossy()),
    ] {
        rpmbuild.args(["--define", &format!("{name} {value}")]);
    }
    output(rpmbuild.arg(&spec))?;
    let built = top.join("RPMS/x86_64").join(named(RPM, release.version));
    fs::copy(&built, path).with_context(|| format!("copy {}", built.display()))?;
    Ok(())
}

/// The bill of materials.
fn bill(release: &Release, path: &Path) -> Result<()> {
    let mut date = release.tool("date", &place());
    let date = date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"]);
    let time = output(date.arg(format!("@{}", release.epoch)))?;
    let document = sbom::document(&release.packages, time.trim());
    let text = serde_json::to_string_pretty(&document)?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_package_managers_expect() {
        let names = ARTEFACTS.map(|(name, _)| named(name, "1.2.3"));
        assert_eq!(
            names,
            [
                "fork-trace-1.2.3-x86_64-linux-musl.tar.gz",
                "fork-trace_1.2.3-1_amd64.deb",
                "fork-trace-1.2.3-1.x86_64.rpm",
                "fork-trace-1.2.3.cdx.json",
            ]
        );
    }

    #[test]
    fn the_specification_and_the_control_file_agree_with_the_names() {
        let spec = include_str!("fork-trace.spec");
        assert!(spec.contains("\nName: fork-trace\nVersion: %{version}\nRelease: 1\n"));
        let control = include_str!("control").replace("@VERSION@", "1.2.3");
        assert!(
            control.starts_with("Package: fork-trace\nVersion: 1.2.3-1\nArchitecture: amd64\n")
        );
    }
}
