//! The container that a cgroup path names: a pure function.

use crate::event::{caller::Container, values::Name};

/// Names of cgroups that container runtimes make: prefix and suffix around the id.
const NAMED: [(&str, &str, &str); 8] = [
    ("docker-", ".scope", "docker"),
    ("libpod-", ".scope", "podman"),
    ("cri-containerd-", ".scope", "containerd"),
    ("nerdctl-", ".scope", "containerd"),
    ("crio-", ".scope", "cri-o"),
    ("libpod-", "", "podman"),
    ("crio-", "", "cri-o"),
    ("lxc.payload.", "", "lxc"),
];

/// Cgroups whose children are named by a container's id alone.
const PARENTS: [(&str, &str); 3] =
    [("docker", "docker"), ("containerd", "containerd"), ("libpod_parent", "podman")];

/// The innermost container that a cgroup path names.
#[must_use]
pub fn container(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').collect();
    let found = |runtime: &'static str, id: &str| Container {
        id: id.to_owned(),
        runtime: Name::Borrowed(runtime),
    };
    for (place, part) in parts.iter().enumerate().rev() {
        let named = NAMED.iter().find_map(|(prefix, suffix, runtime)| {
            let id = part.strip_prefix(prefix)?.strip_suffix(suffix)?;
            let sound = *runtime == "lxc" && !id.is_empty() || is_id(id);
            sound.then(|| found(runtime, id))
        });
        if named.is_some() {
            return named;
        }
        if let Some(machine) = nspawn(part) {
            return Some(found("systemd-nspawn", &machine));
        }
        let around = place.checked_sub(1).and_then(|place| parts.get(place)).copied();
        if is_id(part) {
            let parent = PARENTS.iter().find(|(parent, _)| Some(*parent) == around);
            let pod = around.is_some_and(|around| around.starts_with("pod"));
            let runtime = match parent {
                Some((_, runtime)) => Some(*runtime),
                None if pod && path.contains("kubepods") => Some("kubernetes"),
                None => None,
            };
            if let Some(runtime) = runtime {
                return Some(found(runtime, part));
            }
        }
    }
    None
}

/// Ids are the 64 digits of a hash.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `systemd-nspawn@NAME.service`, or `machine-NAME.scope` below the machine slice; systemd escapes
/// what is special as `\xNN`.
fn nspawn(part: &str) -> Option<String> {
    let service = part.strip_prefix("systemd-nspawn@").and_then(|p| p.strip_suffix(".service"));
    let scope = || part.strip_prefix("machine-")?.strip_suffix(".scope");
    service.or_else(scope).filter(|name| !name.is_empty()).map(|name| name.replace("\\x2d", "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_by_their_paths() {
        let id = "0123456789abcdef".repeat(4);
        let pod = "kubepods-burstable-pod1234_5678.slice";
        for (path, runtime) in [
            (format!("/system.slice/docker-{id}.scope"), Some("docker")),
            (format!("/docker/{id}"), Some("docker")),
            (format!("/docker/{id}/init.scope"), Some("docker")),
            (format!("/machine.slice/libpod-{id}.scope/container"), Some("podman")),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"
                ),
                Some("podman"),
            ),
            (format!("/libpod_parent/libpod-{id}"), Some("podman")),
            (format!("/system.slice/nerdctl-{id}.scope"), Some("containerd")),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{id}.scope"),
                Some("containerd"),
            ),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/{pod}/crio-{id}.scope"),
                Some("cri-o"),
            ),
            (format!("/kubepods.slice/{pod}/docker-{id}.scope"), Some("docker")),
            (format!("/kubepods/besteffort/pod12-34/{id}"), Some("kubernetes")),
            ("/lxc.payload.web".to_owned(), Some("lxc")),
            ("/".to_owned(), None),
            ("/user.slice/user-0.slice/session-1.scope".to_owned(), None),
            ("/system.slice/docker.service".to_owned(), None),
            ("/system.slice/docker-short.scope".to_owned(), None),
            (format!("/process_api/{id}"), None),
            (format!("/kubepods/{id}"), None),
        ] {
            let found = container(&path);
            assert_eq!(found.as_ref().map(|found| found.runtime.as_ref()), runtime, "{path}");
            if let Some(found) = found.filter(|found| found.runtime != "lxc") {
                assert_eq!(found.id, id, "{path}");
            }
        }
        let machine = |path| container(path).map(|found| found.id);
        assert_eq!(
            machine("/machine.slice/machine-deb\\x2d12.scope/payload"),
            Some("deb-12".to_owned())
        );
        assert_eq!(
            machine("/machine.slice/systemd-nspawn@web.service/payload"),
            Some("web".to_owned())
        );
    }
}
