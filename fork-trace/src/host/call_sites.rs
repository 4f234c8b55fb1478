//! Which call site is which mark: pure, from what the kernel side wrote down while this process
//! made one fork, one vfork and one thread.
//!
//! Sites inside `copy_process` are told apart by their order and by which of the three attempts
//! pass them, never by the name of a slab cache: caches merge. A mark whose place is not certain is
//! not taken.

use std::{collections::BTreeMap, ops::Range};

use fork_trace_common::{
    call_site::{
        ALLOCATING_FUNCTIONS, COPY_PROCESS, IN_COPY_PROCESS, MODE_REL_HARD, OF_THREAD, OF_VFORK,
        Observation, ObservationKind,
    },
    stage::Mark,
};

/// Where functions lie, by name.
pub type Symbols = BTreeMap<&'static str, Range<u64>>;

/// What is known of each inner mark: its call site (0 for one that has none), or why it cannot be
/// taken.
pub type InnerMarks = BTreeMap<Mark, Result<u64, String>>;

/// What the kernel side saw of this process's own forks.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// Of a fork.
    pub fork: Vec<Observation>,
    /// Of a vfork.
    pub vfork: Vec<Observation>,
    /// Of a thread.
    pub thread: Vec<Observation>,
}

/// Finds the place of each inner mark.
#[must_use]
pub fn identify(lessons: &Observations, symbols: &Symbols) -> InnerMarks {
    let mut marks = InnerMarks::new();
    for (mark, site) in IN_COPY_PROCESS.iter().zip(in_copy_process(lessons, symbols)) {
        marks.insert(*mark, site);
    }
    for (function, mark) in ALLOCATING_FUNCTIONS {
        marks.insert(*mark, of_function(&lessons.fork, symbols, function));
    }
    in_order(&lessons.fork, &mut marks);
    others(&lessons.fork, &mut marks);
    marks
}

/// As [`identify`] where nothing could be learned.
#[must_use]
pub fn all_unknown(reason: &str) -> InnerMarks {
    Mark::ALL
        .iter()
        .filter(|mark| is_inner(**mark))
        .map(|mark| (*mark, Err(reason.to_owned())))
        .collect()
}

/// Whether the place of a mark has to be learned.
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

/// Call sites within some functions, each once, in order.
fn sites(lessons: &[Observation], symbols: &Symbols, functions: &[&str]) -> Vec<u64> {
    let ranges: Vec<_> = functions.iter().filter_map(|name| symbols.get(name)).collect();
    let mut found = Vec::new();
    for [kind, site] in lessons {
        let slab = *kind == ObservationKind::Slab as u64;
        if slab && ranges.iter().any(|range| range.contains(site)) && !found.contains(site) {
            found.push(*site);
        }
    }
    found
}

/// The four allocations in `copy_process`: all or none.
fn in_copy_process(lessons: &Observations, symbols: &Symbols) -> [Result<u64, String>; 4] {
    let of = |lessons: &[Observation]| sites(lessons, symbols, COPY_PROCESS);
    let fork = of(&lessons.fork);
    let same = |other: Vec<u64>, count: usize| fork.get(..count) == Some(other.as_slice());
    match <[u64; 4]>::try_from(fork.as_slice()) {
        Ok(found) if same(of(&lessons.vfork), OF_VFORK) && same(of(&lessons.thread), OF_THREAD) => {
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

/// Where a site was first passed.
fn place_of_site(fork: &[Observation], site: u64) -> Option<usize> {
    fork.iter().position(|lesson| *lesson == [ObservationKind::Slab as u64, site])
}

/// Sites have to be passed in the order of their marks; one that is not is no mark.
fn in_order(fork: &[Observation], marks: &mut InnerMarks) {
    let mut last = 0;
    for site in marks.values_mut() {
        let place = site.as_ref().ok().and_then(|site| place_of_site(fork, *site));
        match place {
            Some(place) if place >= last => last = place,
            Some(_) => *site = Err("it is passed in another order on this kernel".to_owned()),
            None => {}
        }
    }
}

/// Marks that are no allocation are taken only where they lie between the right ones.
fn others(fork: &[Observation], marks: &mut InnerMarks) {
    let place = |mark: Mark| -> Result<usize, String> {
        let site = marks.get(&mark).cloned().unwrap_or_else(|| Err("not learned".to_owned()))?;
        place_of_site(fork, site).ok_or_else(|| "not learned".to_owned())
    };
    let between = |what: &str, lesson: Observation, after: Mark, before: Mark| {
        let range = place(after)?..place(before)?;
        let inside = fork.get(range).is_some_and(|lessons| lessons.contains(&lesson));
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

    fn lessons() -> Observations {
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
    fn each_mark_has_its_place() {
        let marks = identify(&lessons(), &symbols());
        assert!(marks.values().all(Result::is_ok), "{marks:?}");
        assert_eq!(marks.len(), all_unknown("").len());
        let site = |mark| marks[&mark].clone().unwrap();
        assert_eq!(
            IN_COPY_PROCESS.map(site),
            [0x1010, 0x1020, 0x1030, 0x1040],
            "told apart by order"
        );
        assert_eq!(site(Mark::PidAlloc), 0x5010);
    }

    #[test]
    fn what_is_not_certain_is_no_mark() {
        let failed = |change: fn(&mut Observations)| {
            let mut lessons = lessons();
            change(&mut lessons);
            let marks = identify(&lessons, &symbols());
            marks
                .into_iter()
                .filter(|(_, site)| site.is_err())
                .map(|(mark, _)| mark)
                .collect::<Vec<_>>()
        };
        assert_eq!(failed(|_| ()), []);
        let all = failed(|lessons| lessons.vfork.push([SLAB, 0x1050]));
        assert!(IN_COPY_PROCESS.iter().all(|mark| all.contains(mark)), "{all:?}");
        assert!(!all.contains(&Mark::FilesAlloc), "{all:?}");
        assert!(all.contains(&Mark::MmapLockStart), "its place depends on the mm's");
        assert_eq!(failed(|lessons| lessons.fork.retain(|lesson| *lesson != FPU)), [Mark::FpuCopy]);
        // Before 6.1 the FPU state is copied with the task.
        assert_eq!(
            failed(|lessons| {
                lessons.fork.retain(|lesson| *lesson != FPU);
                lessons.fork.insert(2, FPU);
            }),
            [Mark::FpuCopy]
        );
        assert_eq!(
            failed(|lessons| lessons.fork.push([SLAB, 0x4020])),
            [Mark::FsAlloc],
            "two places in one function"
        );
        let all = failed(|lessons| lessons.fork.clear());
        assert_eq!(all.len(), all_unknown("").len());
    }
}
