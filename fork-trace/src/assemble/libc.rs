//! The C library's side of an attempt, from the records of its wrapper.

use fork_trace_common::{
    libc::{LibcFunction, LibcRecord, Part, bits},
    stage::{Mark, Stage},
};

use crate::{
    assemble::joined::Joined,
    event::{
        fork::Fork,
        libc::{Libc, LibcStage},
        values::Name,
    },
};

/// Adds what the C library did. The attempt's waits, which say when its caller and its child were in
/// user space, were added before. `libraries` are the files that were probed.
pub fn add(fork: &mut Fork, joined: &Joined, libraries: &[String]) {
    let Some(caller) = joined.libc.as_deref() else { return };
    let Some(function) = LibcFunction::from_number(caller.function) else { return };
    let place = usize::try_from(caller.library).ok().and_then(|place| place.checked_sub(1));
    let library = place.and_then(|place| libraries.get(place)).or(match libraries {
        [only] => Some(only),
        _ => None,
    });
    let returned = |record: &LibcRecord| record.has(bits::RETURNED).then_some(record.returned_ns);
    let back_ns = fork.held_ns.map(|held_ns| fork.mono_ns + held_ns);
    let child = joined.child_libc.as_deref();
    let in_user_ns = child_in_user_ns(fork, joined);
    let mut stages = parts(caller, caller.entered_ns);
    if let (Some(child), Some(in_user_ns)) = (child, in_user_ns) {
        stages.extend(setup(child, in_user_ns));
        stages.extend(parts(child, in_user_ns));
    }
    fork.libc = Some(Libc {
        library: library.cloned(),
        function: Some(Name::Borrowed(function.name())),
        prepare_ns: fork.mono_ns.checked_sub(caller.entered_ns),
        parent_ns: returned(caller).zip(back_ns).and_then(|(end, back)| end.checked_sub(back)),
        child_ns: child
            .and_then(returned)
            .zip(in_user_ns)
            .and_then(|(end, in_user_ns)| end.checked_sub(in_user_ns)),
        stages,
        handlers: Vec::new(),
        reason: None,
    });
}

/// When the child first ran in user space.
fn child_in_user_ns(fork: &Fork, joined: &Joined) -> Option<u64> {
    let woken_ns = Some(joined.record.mark_ns(Mark::SchedWakeupNew)).filter(|at_ns| *at_ns != 0)?;
    let start = fork.child_start.as_ref()?;
    woken_ns.checked_add(start.to_user_ns?)
}

/// The parts that were seen whole, in order of time; their begin is counted from `from_ns`.
fn parts(record: &LibcRecord, from_ns: u64) -> Vec<LibcStage> {
    let part = |part: &Part| {
        let [entered_ns, returned_ns] = record.parts.get(*part as usize).copied()?;
        let dur_ns = returned_ns.checked_sub(entered_ns).filter(|_| entered_ns != 0)?;
        let start_ns = entered_ns.checked_sub(from_ns)?;
        let name = Name::Borrowed(part.stage().row().name);
        Some(LibcStage { name, start_ns, dur_ns })
    };
    let mut stages: Vec<_> = Part::ALL.iter().filter_map(part).collect();
    stages.sort_by_key(|stage| stage.start_ns);
    stages
}

/// What the child does first: up to the first part that is seen of it.
fn setup(child: &LibcRecord, in_user_ns: u64) -> Option<LibcStage> {
    let entries = child.parts.iter().map(|[entered_ns, _]| *entered_ns).filter(|at_ns| *at_ns != 0);
    let ends_ns = entries.min()?;
    let dur_ns = ends_ns.checked_sub(in_user_ns)?;
    Some(LibcStage { name: Name::Borrowed(Stage::ChildSetup.row().name), start_ns: 0, dur_ns })
}
