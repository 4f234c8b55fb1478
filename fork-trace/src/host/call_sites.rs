//! Which call site belongs to which mark. It is concluded from what the kernel side observed while
//! this process made one fork, one vfork and one thread of its own; the module is pure.
//!
//! The call sites inside `copy_process` are distinguished by their order and by which of the three
//! attempts reach them. The names of slab caches do not help, because the kernel merges caches. A
//! mark whose call site is not certain is not used.

use std::{collections::BTreeMap, ops::Range};

use fork_trace_common::{
    call_site::{
        ALLOCATING_FUNCTIONS, COPY_PROCESS, IN_COPY_PROCESS, MODE_REL_HARD, OF_THREAD, OF_VFORK,
        Observation, ObservationKind,
    },
    stage::Mark,
};

/// The addresses of each function, by its name.
pub type Symbols = BTreeMap<&'static str, Range<u64>>;

/// What is known of each inner mark: the address of its call site (0 for a mark that is no
/// allocation), or the reason why the mark cannot be used.
pub type InnerMarks = BTreeMap<Mark, Result<u64, String>>;

/// What the kernel side observed of this process's own attempts, each in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// The observations of a fork.
    pub fork: Vec<Observation>,
    /// The observations of a vfork.
    pub vfork: Vec<Observation>,
    /// The observations of a thread.
    pub thread: Vec<Observation>,
}

/// Finds the call site of each inner mark.
#[must_use]
pub fn identify(observations: &Observations, symbols: &Symbols) -> InnerMarks {
    let mut marks = InnerMarks::new();
    for (mark, site) in IN_COPY_PROCESS.iter().zip(in_copy_process(observations, symbols)) {
        marks.insert(*mark, site);
    }
    for (function, mark) in ALLOCATING_FUNCTIONS {
        marks.insert(*mark, of_function(&observations.fork, symbols, function));
    }
    in_order(&observations.fork, &mut marks);
    others(&observations.fork, &mut marks);
    marks
}

/// The result of [`identify`] where nothing could be observed, for `reason`.
#[must_use]
pub fn all_unknown(reason: &str) -> InnerMarks {
    Mark::ALL
        .iter()
        .filter(|mark| is_inner(**mark))
        .map(|mark| (*mark, Err(reason.to_owned())))
        .collect()
}

/// Whether a mark lies inside the fork, so that its call site has to be learned.
#[must_use]
pub const fn is_inner(mark: Mark) -> bool {
    matches!(
        mark,
        Mark::TaskAlloc
            | Mark::CredAlloc
            | Mark::SchedForkTimer
            | Mark::FilesAlloc
            | Mark::FsAlloc
            | Mark::SighandAlloc
            | Mark::SignalAlloc
            | Mark::MmAlloc
            | Mark::MmapLockStart
            | Mark::MmapLockTaken
            | Mark::ChildMmapReleased
            | Mark::ParentMmapReleased
            | Mark::FpuCopy
            | Mark::PidAlloc
            | Mark::LockContended
            | Mark::LockTaken
    )
}

/// The call sites of allocations within these functions, each once, in the order of time.
fn sites(observations: &[Observation], symbols: &Symbols, functions: &[&str]) -> Vec<u64> {
    let ranges: Vec<_> = functions.iter().filter_map(|name| symbols.get(name)).collect();
    let mut found = Vec::new();
    for [kind, site] in observations {
        let slab = *kind == ObservationKind::Slab as u64;
        if slab && ranges.iter().any(|range| range.contains(site)) && !found.contains(site) {
            found.push(*site);
        }
    }
    found
}

/// The call sites of the four allocations in `copy_process`. Either all are known or none: they can
/// be distinguished only if a fork reaches exactly four and the vfork and the thread reach as many
/// of them as expected.
fn in_copy_process(observations: &Observations, symbols: &Symbols) -> [Result<u64, String>; 4] {
    let of = |observations: &[Observation]| sites(observations, symbols, COPY_PROCESS);
    let fork = of(&observations.fork);
    let same = |other: Vec<u64>, count: usize| fork.get(..count) == Some(other.as_slice());
    match <[u64; 4]>::try_from(fork.as_slice()) {
        Ok(found)
            if same(of(&observations.vfork), OF_VFORK)
                && same(of(&observations.thread), OF_THREAD) =>
        {
            found.map(Ok)
        }
        _ => std::array::from_fn(|_| {
            Err(format!(
                "the allocations inside copy_process cannot be told apart ({} seen)",
                fork.len()
            ))
        }),
    }
}

/// The call site of the only allocation in `function`.
fn of_function(
    fork: &[Observation],
    symbols: &Symbols,
    function: &'static str,
) -> Result<u64, String> {
    match sites(fork, symbols, &[function])[..] {
        [site] => Ok(site),
        [] => Err(format!("no allocation was seen in {function}")),
        _ => Err(format!("{function} allocates at more than one place")),
    }
}

/// The place of the first observation of a call site.
fn first_place(fork: &[Observation], site: u64) -> Option<usize> {
    fork.iter().position(|observation| *observation == [ObservationKind::Slab as u64, site])
}

/// A fork has to reach the call sites in the order of their marks; a mark that is out of order
/// cannot be used.
fn in_order(fork: &[Observation], marks: &mut InnerMarks) {
    let mut last = 0;
    for site in marks.values_mut() {
        let place = site.as_ref().ok().and_then(|site| first_place(fork, *site));
        match place {
            Some(place) if place >= last => last = place,
            Some(_) => {
                *site = Err("its call site is reached in another order on this kernel".to_owned());
            }
            None => {}
        }
    }
}

/// A mark that is no allocation is used only where it was observed between the right allocations.
fn others(fork: &[Observation], marks: &mut InnerMarks) {
    let place = |mark: Mark| -> Result<usize, String> {
        let site = marks.get(&mark).cloned().unwrap_or_else(|| Err("not learned".to_owned()))?;
        first_place(fork, site).ok_or_else(|| "not learned".to_owned())
    };
    let between = |what: &str, observation: Observation, after: Mark, before: Mark| {
        let range = place(after)?..place(before)?;
        let inside =
            fork.get(range).is_some_and(|observations| observations.contains(&observation));
        if inside { Ok(0) } else { Err(format!("{what} is not where it is expected")) }
    };
    let timer = between(
        "the timer of sched_fork",
        [ObservationKind::Timer as u64, MODE_REL_HARD],
        Mark::CredAlloc,
        Mark::FilesAlloc,
    );
    let own_lock = [ObservationKind::MmapLock as u64, 1];
    let lock = between("the parent's mmap_lock", own_lock, Mark::MmAlloc, Mark::PidAlloc);
    let fpu = place(Mark::MmAlloc).and_then(|_| {
        between(
            "the copy of the FPU state",
            [ObservationKind::Fpu as u64, 0],
            Mark::MmAlloc,
            Mark::PidAlloc,
        )
    });
    let contention = place(Mark::PidAlloc).map(|_| 0);
    for mark in [
        Mark::MmapLockStart,
        Mark::MmapLockTaken,
        Mark::ChildMmapReleased,
        Mark::ParentMmapReleased,
    ] {
        marks.insert(mark, lock.clone());
    }
    marks.insert(Mark::SchedForkTimer, timer);
    marks.insert(Mark::FpuCopy, fpu);
    for mark in [Mark::LockContended, Mark::LockTaken] {
        marks.insert(mark, contention.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLAB: u64 = ObservationKind::Slab as u64;
    const TIMER: Observation = [ObservationKind::Timer as u64, MODE_REL_HARD];
    const LOCK: Observation = [ObservationKind::MmapLock as u64, 1];
    const FPU: Observation = [ObservationKind::Fpu as u64, 0];

    fn symbols() -> Symbols {
        BTreeMap::from([
            ("copy_process", 0x1000..0x2000),
            ("prepare_creds", 0x2000..0x2100),
            ("dup_fd", 0x3000..0x3100),
            ("copy_fs_struct", 0x4000..0x4100),
            ("alloc_pid", 0x5000..0x5100),
        ])
    }

    fn slab(sites: &[u64]) -> Vec<Observation> {
        sites.iter().map(|site| [SLAB, *site]).collect()
    }

    fn observations() -> Observations {
        let mut fork = slab(&[0x9999, 0x1010, 0x2010]);
        fork.extend([TIMER, TIMER]);
        fork.extend(slab(&[0x3010, 0x4010, 0x1020, 0x1030, 0x1040]));
        fork.extend([[ObservationKind::MmapLock as u64, 0], LOCK]);
        fork.extend(slab(&[0x7777, 0x7777]));
        fork.push(FPU);
        fork.extend(slab(&[0x5010]));
        Observations {
            fork,
            vfork: slab(&[0x1010, 0x2010, 0x3010, 0x4010, 0x1020, 0x1030, 0x5010]),
            thread: slab(&[0x1010, 0x5010]),
        }
    }

    #[test]
    fn each_mark_has_its_call_site() {
        let marks = identify(&observations(), &symbols());
        assert!(marks.values().all(Result::is_ok), "{marks:?}");
        assert_eq!(marks.len(), all_unknown("").len());
        let site = |mark| marks[&mark].clone().unwrap();
        assert_eq!(
            IN_COPY_PROCESS.map(site),
            [0x1010, 0x1020, 0x1030, 0x1040],
            "distinguished by their order"
        );
        assert_eq!(site(Mark::PidAlloc), 0x5010);
    }

    #[test]
    fn a_mark_that_is_not_certain_is_not_used() {
        let failed = |change: fn(&mut Observations)| {
            let mut observations = observations();
            change(&mut observations);
            let marks = identify(&observations, &symbols());
            marks
                .into_iter()
                .filter(|(_, site)| site.is_err())
                .map(|(mark, _)| mark)
                .collect::<Vec<_>>()
        };
        assert_eq!(failed(|_| ()), []);
        let all = failed(|observations| observations.vfork.push([SLAB, 0x1050]));
        assert!(IN_COPY_PROCESS.iter().all(|mark| all.contains(mark)), "{all:?}");
        assert!(!all.contains(&Mark::FilesAlloc), "{all:?}");
        assert!(all.contains(&Mark::MmapLockStart), "it has to follow the allocation of the mm");
        assert_eq!(
            failed(|observations| observations.fork.retain(|observation| *observation != FPU)),
            [Mark::FpuCopy]
        );
        // Before 6.1 the FPU state is copied when the task is allocated.
        assert_eq!(
            failed(|observations| {
                observations.fork.retain(|observation| *observation != FPU);
                observations.fork.insert(2, FPU);
            }),
            [Mark::FpuCopy]
        );
        assert_eq!(
            failed(|observations| observations.fork.push([SLAB, 0x4020])),
            [Mark::FsAlloc],
            "two call sites in one function"
        );
        let all = failed(|observations| observations.fork.clear());
        assert_eq!(all.len(), all_unknown("").len());
    }
}
