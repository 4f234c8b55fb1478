//! What the C library did for long around an attempt, in one line.

use std::cmp::Reverse;

use crate::event::{
    libc::{Libc, LibcHandler, LibcStage, Turn, When},
    units::duration,
};

/// From this time on it is worth a line: a thousand times what the library does without handlers.
const LONG_NS: u64 = 1_000_000;

/// How many handlers are named that were not timed.
const NAMED: usize = 3;

/// What took the C library long; `None`: nothing did.
pub(super) fn words(libc: &Libc) -> Option<String> {
    let function = libc.function.as_ref()?;
    let side = |ns: Option<u64>, name: &str, when: When| {
        let ns = ns.filter(|ns| *ns >= LONG_NS)?;
        let mut parts: Vec<_> =
            libc.parts(when).filter(|part| part.dur_ns >= LONG_NS / 10).collect();
        parts.sort_by_key(|part| Reverse(part.dur_ns));
        let part = |part: &&LibcStage| {
            let of = part.runs().and_then(|turn| handlers(libc, turn)).unwrap_or_default();
            format!("{} {}{of}", part.name, duration(part.dur_ns))
        };
        let mut told: Vec<_> = parts.iter().map(part).collect();
        if parts.iter().all(|part| part.runs().is_none()) {
            let untold = when.turn().and_then(|turn| handlers(libc, turn));
            told.extend(untold.map(|text| format!("handlers{text}")));
        }
        let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
        Some(format!("{} {name}{told}", duration(ns)))
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

/// Which handlers took the time: those that did, where they were timed; otherwise all that may have.
fn handlers(libc: &Libc, turn: Turn) -> Option<String> {
    let all: Vec<_> = libc.handlers_of(turn).collect();
    let mut timed: Vec<_> =
        all.iter().filter_map(|handler| Some((handler, handler.dur_ns?))).collect();
    timed.retain(|(_, dur_ns)| *dur_ns >= LONG_NS / 10);
    timed.sort_by_key(|(_, dur_ns)| Reverse(*dur_ns));
    if !timed.is_empty() {
        let one = |(handler, dur_ns): &(&&LibcHandler, u64)| {
            format!("{} {}", handler.place(), duration(*dur_ns))
        };
        let told = timed.iter().take(NAMED).map(one).collect::<Vec<_>>();
        return Some(format!(": {}", told.join(", ")));
    }
    let untimed: Vec<_> = all.iter().filter(|handler| handler.dur_ns.is_none()).collect();
    let names: Vec<_> = untimed.iter().take(NAMED).map(|handler| handler.place()).collect();
    match (names.as_slice(), untimed.len().saturating_sub(NAMED)) {
        ([], _) => None,
        // Others may have run that were registered unseen.
        ([only], _) => Some(format!(": {only} is registered")),
        (_, 0) => Some(format!(": {} are registered", names.join(", "))),
        (_, more) => Some(format!(": {} and {more} more are registered", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::values::Name;

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
            handlers: Vec::new(),
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
    #[test]
    fn handlers_are_named() {
        let handler = |turn, function: Option<&str>, dur_ns| LibcHandler {
            turn,
            module: "/opt/x/libfoo.so".into(),
            offset: 0x1139,
            function: function.map(Into::into),
            dur_ns,
        };
        let mut slow = libc([300_000_000, 0, 0], &[("__run_prefork_handlers", 10, 299_000_000)]);
        slow.handlers = vec![handler(Turn::Prepare, None, None), handler(Turn::Child, None, None)];
        assert_eq!(
            words(&slow).unwrap(),
            "fork of /l/libc.so.6: 300 ms before the call (__run_prefork_handlers 299 ms: \
             libfoo.so+0x1139 is registered)"
        );
        slow.handlers = vec![
            handler(Turn::Prepare, Some("prep"), Some(298_000_000)),
            handler(Turn::Prepare, None, Some(10)),
        ];
        assert_eq!(
            words(&slow).unwrap(),
            "fork of /l/libc.so.6: 300 ms before the call (__run_prefork_handlers 299 ms: \
             libfoo.so+0x1139 (prep) 298 ms)"
        );
        slow.stages.clear();
        assert_eq!(
            words(&slow).unwrap(),
            "fork of /l/libc.so.6: 300 ms before the call (handlers: libfoo.so+0x1139 (prep) 298 ms)"
        );
    }
}
