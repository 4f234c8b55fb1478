//! The systemd unit that a cgroup path names: a pure function.

/// Endings of the units in which processes run.
const OF_PROCESSES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The ending of a unit that holds other units.
const OF_UNITS: &str = ".slice";

/// The innermost unit that a cgroup path names, a slice only where there is no other. Its name is as it stands in
/// the path, with systemd's escapes.
#[must_use]
pub fn unit(path: &str) -> Option<&str> {
    let parts = || path.rsplit('/');
    let is = |part: &str, ending: &str| part.len() > ending.len() && part.ends_with(ending);
    let holds = |part: &&str| OF_PROCESSES.iter().any(|ending| is(part, ending));
    parts().find(holds).or_else(|| parts().find(|part| is(part, OF_UNITS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_is_named_and_a_slice_only_alone() {
        let app = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        let id = "0123456789abcdef".repeat(4);
        for (path, wanted) in [
            ("/system.slice/cron.service".to_owned(), Some("cron.service")),
            (format!("{app}/app-foo\\x2dbar.scope"), Some("app-foo\\x2dbar.scope")),
            (app.to_owned(), Some("user@1000.service")),
            (format!("{app}/dbus.socket/inner"), Some("dbus.socket")),
            ("/user.slice/user-0.slice".to_owned(), Some("user-0.slice")),
            ("/system.slice/dev-sda1.swap".to_owned(), Some("dev-sda1.swap")),
            ("/system.slice/var-lib.mount".to_owned(), Some("var-lib.mount")),
            ("/init.scope".to_owned(), Some("init.scope")),
            (format!("/system.slice/docker-{id}.scope"), Some(&*format!("docker-{id}.scope"))),
            (format!("/docker/{id}/system.slice/web.service"), Some("web.service")),
            (format!("/docker/{id}"), None),
            ("/".to_owned(), None),
            ("/.service/.slice".to_owned(), None),
            ("/services/scope".to_owned(), None),
        ] {
            assert_eq!(unit(&path), wanted, "{path}");
        }
    }
}
