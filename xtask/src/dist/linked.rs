//! What is linked into the program: which packages, of which version and licence, and who needs whom.
//!
//! Cargo says which packages it compiled for the target, so no list is kept by hand. The kernel side is
//! built before, and is in the program as an object: its packages are those that it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::program::{MUSL, TARGET};
use crate::{
    build::toolchain::RUST,
    command::{clean_cargo, output, root},
};

/// The package of the program, and that of the kernel side.
pub(super) const TOOL: &str = "fork-trace";
const KERNEL_SIDE: &str = "fork-trace-ebpf";

/// A package.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Its licences, as SPDX writes them.
    pub(super) license: String,
    /// Its name and version for all package managers; the key of a package.
    pub(super) purl: String,
    /// SHA-256 of what was downloaded.
    pub(super) checksum: Option<String>,
    /// Where it comes from, if it is a crate of others'.
    pub(super) folder: Option<PathBuf>,
    /// The packages it needs, by purl.
    pub(super) needs: Vec<String>,
}

/// What is linked in, where cargo has compiled these.
pub(super) fn packages(compiled: &BTreeSet<String>) -> Result<Vec<Package>> {
    let mut cargo = clean_cargo();
    cargo.args(["metadata", "--locked", "--format-version=1", "--filter-platform", TARGET]);
    let metadata = serde_json::from_str(&output(&mut cargo)?).context("read cargo's metadata")?;
    let lock = fs::read_to_string(root().join("Cargo.lock")).context("read Cargo.lock")?;
    let mut packages = crates(&metadata, &checksums(&lock), compiled)?;
    let libraries = [("rust-std", RUST, "MIT OR Apache-2.0"), ("musl", MUSL, "MIT")];
    let libraries = libraries.map(|(name, version, license)| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: license.to_owned(),
        purl: format!("pkg:generic/{name}@{version}"),
        ..Package::default()
    });
    if let Some(tool) = packages.iter_mut().find(|package| package.name == TOOL) {
        tool.needs.extend(libraries.iter().map(|library| library.purl.clone()));
    }
    packages.extend(libraries);
    Ok(packages)
}

/// The crates among them, in the order of their names.
fn crates(
    metadata: &Value,
    checksums: &BTreeMap<String, String>,
    compiled: &BTreeSet<String>,
) -> Result<Vec<Package>> {
    let needs = needs(metadata);
    let listed: BTreeMap<_, _> =
        list(metadata, "/packages").map(|package| (text(package, "id"), package)).collect();
    let kernel_side = listed.values().find(|package| text(package, "name") == KERNEL_SIDE);
    let kernel_side = kernel_side.context("cargo does not know the kernel side")?;
    let mut linked: BTreeSet<_> = compiled.iter().map(String::as_str).collect();
    let mut new = vec![text(kernel_side, "id")];
    while let Some(id) = new.pop() {
        if linked.insert(id) {
            let more = needs.get(id).into_iter().flatten().copied();
            new.extend(more.filter(|id| listed.get(id).is_some_and(|package| !is_macro(package))));
        }
    }
    let mut packages = Vec::new();
    for id in &linked {
        let package = listed.get(id).with_context(|| format!("cargo does not know {id}"))?;
        let needed = needs.get(id).into_iter().flatten().filter(|id| linked.contains(*id));
        let mut needed: Vec<_> = needed.filter_map(|id| Some(purl(listed.get(id)?))).collect();
        if text(package, "name") == TOOL {
            needed.push(purl(kernel_side));
        }
        needed.sort();
        let manifest = Path::new(text(package, "manifest_path"));
        let is_ours = package.get("source").is_none_or(Value::is_null);
        packages.push(Package {
            name: text(package, "name").to_owned(),
            version: text(package, "version").to_owned(),
            // Older packages write a slash.
            license: text(package, "license").replace('/', " OR "),
            purl: purl(package),
            checksum: checksums.get(&purl(package)).cloned(),
            folder: manifest.parent().filter(|_| !is_ours).map(Path::to_owned),
            needs: needed,
        });
    }
    packages.sort_by(|a, b| a.purl.cmp(&b.purl));
    Ok(packages)
}

/// For each package those that it needs when it runs; what builds and tests it is left out.
fn needs(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let needs = list(metadata, "/resolve/nodes").map(|node| {
        let needed = list(node, "/deps").filter(|needed| {
            list(needed, "/dep_kinds").any(|kind| kind.get("kind").is_some_and(Value::is_null))
        });
        (text(node, "id"), needed.map(|needed| text(needed, "pkg")).collect())
    });
    needs.collect()
}

/// Whether a package runs in the compiler, and is not linked.
fn is_macro(package: &Value) -> bool {
    list(package, "/targets")
        .any(|target| list(target, "/kind").any(|kind| kind.as_str() == Some("proc-macro")))
}

/// The checksums in a Cargo.lock, by purl. Cargo writes each value on a line of its own.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        let name = value(package, "name")?;
        let version = value(package, "version")?;
        Some((format!("pkg:cargo/{name}@{version}"), value(package, "checksum")?))
    });
    packages.collect()
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
}

/// The values of a list.
fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A text in an object; nothing where it has none.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A package as cargo describes it; `kind` is that of its target.
    fn package(name: &str, license: &str, kind: &str) -> Value {
        let source = (!name.starts_with(TOOL)).then_some("registry");
        json!({"id": name, "name": name, "version": "1.0.0", "license": license, "source": source,
               "manifest_path": format!("/r/{name}/Cargo.toml"), "targets": [{"kind": [kind]}]})
    }

    #[test]
    fn only_what_is_linked_is_listed_with_what_it_needs() {
        let normal = json!([{"kind": null}]);
        let deps = |ids: &[(&str, &str)]| -> Value {
            let kinds = |kind| match kind {
                "" => normal.clone(),
                kind => json!([{"kind": kind}]),
            };
            ids.iter().map(|(id, kind)| json!({"pkg": id, "dep_kinds": kinds(*kind)})).collect()
        };
        let metadata = json!({
            "packages": [
                package("fork-trace", "MIT", "bin"),
                package("fork-trace-ebpf", "MIT", "bin"),
                package("libc", "MIT/Apache-2.0", "lib"),
                package("unused", "MIT", "lib"),
                package("tests", "MIT", "lib"),
                package("derive", "MIT", "proc-macro"),
                package("bpf", "MIT", "lib"),
            ],
            "resolve": {"nodes": [
                {"id": "fork-trace", "deps": deps(&[("libc", ""), ("unused", ""), ("tests", "dev"), ("derive", "")])},
                {"id": "fork-trace-ebpf", "deps": deps(&[("bpf", "")])},
                {"id": "bpf", "deps": deps(&[("derive", ""), ("tests", "build")])},
                {"id": "libc", "deps": []},
            ]},
        });
        let compiled = ["fork-trace", "libc"].map(str::to_owned).into();
        let lock = "version = 4\n\n[[package]]\nname = \"libc\"\nversion = \"1.0.0\"\n\
                    source = \"registry\"\nchecksum = \"ab12\"\n\n\
                    [[package]]\nname = \"fork-trace\"\nversion = \"1.0.0\"\n";
        let packages = crates(&metadata, &checksums(lock), &compiled).unwrap();
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["bpf", "fork-trace-ebpf", "fork-trace", "libc"]);
        let find = |name| packages.iter().find(|package| package.name == name).unwrap();
        assert_eq!(find("libc").license, "MIT OR Apache-2.0");
        assert_eq!(find("libc").checksum.as_deref(), Some("ab12"));
        assert_eq!(find("libc").folder.as_deref(), Some(Path::new("/r/libc")));
        assert_eq!(
            find("fork-trace").needs,
            ["pkg:cargo/fork-trace-ebpf@1.0.0", "pkg:cargo/libc@1.0.0"]
        );
        assert_eq!(find("fork-trace").checksum, None);
        assert_eq!(find("fork-trace").folder, None);
        assert_eq!(find("fork-trace-ebpf").needs, ["pkg:cargo/bpf@1.0.0"]);
    }
}
