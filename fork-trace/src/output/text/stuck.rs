//! An attempt that does not end, in words.

use crate::event::{stuck::Stuck, units::duration};

/// `sh 4711: inside a fork for 10.0 s: blocked in cgroup_can_fork (cgroup_threadgroup_rwsem); stack:
/// ...`.
#[must_use]
pub fn words(stuck: &Stuck) -> String {
    let parent = &stuck.parent;
    let thread = if parent.tid == parent.pid { String::new() } else { format!("/{}", parent.tid) };
    let since = if stuck.since_ns.is_some() { "for" } else { "for at least" };
    let mut text = format!(
        "{} {}{thread}: inside a fork {since} {}: {}",
        parent.comm,
        parent.pid,
        duration(stuck.for_ns),
        stuck.state.name(),
    );
    if let Some(stage) = &stuck.stage {
        text.push_str(&format!(" in {stage}"));
    }
    if let Some(reason) = &stuck.reason {
        text.push_str(&format!(": {reason}"));
    }
    let by = stuck.by.as_ref().and_then(|by| Some((by.pid.or(by.tid)?, by.comm.as_deref())));
    match by {
        Some((id, Some(comm))) => text.push_str(&format!(", {comm} ({id})")),
        Some((id, None)) => text.push_str(&format!(", {id}")),
        None => {}
    }
    if !stuck.stack.is_empty() {
        let stack: Vec<_> = stuck.stack.iter().map(AsRef::as_ref).collect();
        text.push_str(&format!("; stack: {}", stack.join(" < ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said() {
        let stuck = |rest: &str| -> String {
            let head = r#"{"mono_ns":1,"parent":{"pid":7,"tid":8,"comm":"sh"},"for_ns":1000000000"#;
            words(&serde_json::from_str(&format!("{head},{rest}}}")).unwrap())
        };
        assert_eq!(
            stuck(
                r#""since_ns":5,"stage":"cgroup_can_fork","state":"blocked","reason":"lock",
                   "stack":["percpu_rwsem_wait","cgroup_can_fork"]"#
            ),
            "sh 7/8: inside a fork for 1.00 s: blocked in cgroup_can_fork: lock; \
             stack: percpu_rwsem_wait < cgroup_can_fork"
        );
        assert_eq!(
            stuck(r#""state":"stopped","reason":"ptrace-stop","by":{"pid":3,"comm":"gdb"}"#),
            "sh 7/8: inside a fork for at least 1.00 s: stopped: ptrace-stop, gdb (3)"
        );
        let running = stuck(r#""since_ns":5,"stage":"copy_mm","state":"running""#);
        assert_eq!(running, "sh 7/8: inside a fork for 1.00 s: running in copy_mm");
    }
}
