//! The bill of materials: what is linked into the program, as `CycloneDX` 1.5 writes it.
//!
//! This file knows nothing of cargo.

use serde_json::{Value, json};

use super::linked::{Package, TOOL};

/// The document; `time` is when the release was made, by RFC 3339.
pub(super) fn document(packages: &[Package], time: &str) -> Value {
    let (tool, others): (Vec<_>, Vec<_>) =
        packages.iter().partition(|package| package.name == TOOL);
    let tool = tool.first().map(|tool| component(tool, "application"));
    let others: Vec<_> = others.into_iter().map(|other| component(other, "library")).collect();
    let needs = |package: &Package| json!({"ref": package.purl, "dependsOn": package.needs});
    let needs: Vec<_> = packages.iter().map(needs).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time, "component": tool},
        "components": others,
        "dependencies": needs,
    })
}

/// A package as a component.
fn component(package: &Package, kind: &str) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "licenses": [{"expression": package.license}],
        "purl": package.purl,
    });
    if let (Some(sum), Some(component)) = (&package.checksum, component.as_object_mut()) {
        component.insert("hashes".to_owned(), json!([{"alg": "SHA-256", "content": sum}]));
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_a_component_and_a_row_of_the_graph() {
        let package = |name: &str, needs: &[&str], checksum: Option<&str>| Package {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            license: "MIT".to_owned(),
            purl: format!("pkg:cargo/{name}@1.0"),
            checksum: checksum.map(str::to_owned),
            folder: None,
            needs: needs.iter().map(|name| format!("pkg:cargo/{name}@1.0")).collect(),
        };
        let packages = [package(TOOL, &["libc"], None), package("libc", &[], Some("ab12"))];
        let made = document(&packages, "2026-01-01T00:00:00Z");
        assert_eq!(
            made,
            json!({
                "bomFormat": "CycloneDX",
                "specVersion": "1.5",
                "version": 1,
                "metadata": {
                    "timestamp": "2026-01-01T00:00:00Z",
                    "component": {
                        "type": "application",
                        "bom-ref": "pkg:cargo/fork-trace@1.0",
                        "name": "fork-trace",
                        "version": "1.0",
                        "licenses": [{"expression": "MIT"}],
                        "purl": "pkg:cargo/fork-trace@1.0",
                    },
                },
                "components": [{
                    "type": "library",
                    "bom-ref": "pkg:cargo/libc@1.0",
                    "name": "libc",
                    "version": "1.0",
                    "licenses": [{"expression": "MIT"}],
                    "purl": "pkg:cargo/libc@1.0",
                    "hashes": [{"alg": "SHA-256", "content": "ab12"}],
                }],
                "dependencies": [
                    {"ref": "pkg:cargo/fork-trace@1.0", "dependsOn": ["pkg:cargo/libc@1.0"]},
                    {"ref": "pkg:cargo/libc@1.0", "dependsOn": []},
                ],
            })
        );
    }
}
