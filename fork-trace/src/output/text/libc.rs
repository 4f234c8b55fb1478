//! What the C library did for long around an attempt, in one line.

use std::cmp::Reverse;

use crate::event::{
    libc::{Libc, When},
    units::duration,
};

/// From this time on it is worth a line: a thousand times what the library does without handlers.
const LONG_NS: u64 = 1_000_000;

/// What took the C library long; `None`: nothing did.
pub(super) fn words(libc: &Libc) -> Option<String> {
    let function = libc.function.as_ref()?;
    let side = |ns: Option<u64>, name: &str, when: When| {
        let ns = ns.filter(|ns| *ns >= LONG_NS)?;
        let mut parts: Vec<_> =
            libc.parts(when).filter(|part| part.dur_ns >= LONG_NS / 10).collect();
        parts.sort_by_key(|part| Reverse(part.dur_ns));
        let parts: Vec<_> =
            parts.iter().map(|part| format!("{} {}", part.name, duration(part.dur_ns))).collect();
        let parts =
            if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
        Some(format!("{} {name}{parts}", duration(ns)))
    };
    let told = [
        side(libc.prepare_ns, "before the call", When::Before),
        side(libc.parent_ns, "after it", When::After),
        side(libc.child_ns, "in the child", When::Child),
    ];
    let told: Vec<_> = told.into_iter().flatten().collect();
    let library =
        libc.library.as_deref().map(|library| format!(" of {library}")).unwrap_or_default();
    (!told.is_empty()).then(|| format!("{function}{library}: {}", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{libc::LibcStage, values::Name};

    fn libc(times: [u64; 3], stages: &[(&'static str, u64, u64)]) -> Libc {
        let [prepare_ns, parent_ns, child_ns] = times.map(Some);
        let stages = stages
            .iter()
            .map(|(name, start_ns, dur_ns)| LibcStage {
                name: Name::Borrowed(name),
                start_ns: *start_ns,
                dur_ns: *dur_ns,
            })
            .collect();
        Libc {
            library: Some("/l/libc.so.6".to_owned()),
            function: Some(Name::Borrowed("fork")),
            prepare_ns,
            parent_ns,
            child_ns,
            stages,
            reason: None,
        }
    }

    #[test]
    fn only_what_took_long_is_told() {
        assert_eq!(words(&libc([1000, 2000, 3000], &[])), None);
        let slow = libc(
            [300_000_000, 200_000_000, 4000],
            &[
                ("__run_prefork_handlers", 10, 299_000_000),
                ("_Fork", 299_999_000, 500_000),
                ("__run_postfork_handlers", 300_500_000, 199_000_000),
                ("atfork_run_child", 10, 1000),
            ],
        );
        assert_eq!(
            words(&slow).unwrap(),
            "fork of /l/libc.so.6: 300 ms before the call (__run_prefork_handlers 299 ms), 200 ms \
             after it (__run_postfork_handlers 199 ms)"
        );
    }
}
