//! When an attempt passed which point, and where it failed: questions asked of its records.

use fork_trace_common::{
    call_site::SITES,
    function::{FUNCTIONS, Function, ONCE},
    record::{self, ForkRecord, FunctionTimes, bits},
    stage::{Mark, ORDER, Occurs, Point, STAGES, Stage},
};

/// When an attempt passed what.
#[derive(Clone, Copy, Debug)]
pub struct Times<'a> {
    /// Its record.
    pub record: &'a ForkRecord,
    /// The functions it passed, where they are probed.
    pub functions: Option<&'a FunctionTimes>,
    /// The end of the attempt as it is shown: a vfork whose end was not seen in time has points after its wait.
    shown_until_ns: u64,
    /// Whether an allocation of it had to reclaim memory.
    reclaimed: bool,
}

/// When an attempt began, as far as it was seen.
#[must_use]
pub fn began_ns(record: &ForkRecord) -> u64 {
    Times::new(record, None).began_ns()
}

impl<'a> Times<'a> {
    /// Of a record, and of the functions that the attempt passed.
    #[must_use]
    pub fn new(record: &'a ForkRecord, functions: Option<&'a FunctionTimes>) -> Self {
        let woken = record.marks.get(Mark::SchedWakeupNew.place()).copied();
        let left = functions.and_then(|times| times.once.get(Function::WakeUpNewTask as usize));
        let left = left.map_or(0, |[_, left]| *left);
        let waits = record.has(bits::VFORK_WAIT);
        let shown_until_ns = if waits { woken.unwrap_or_default().max(left) } else { u64::MAX };
        let reclaimed = record.alloc_began_ns.iter().any(|began| *began != 0);
        Self { record, functions, shown_until_ns, reclaimed }
    }

    /// When a point was passed; `None` where it was not, or was not seen.
    #[must_use]
    pub fn at(&self, point: Point) -> Option<u64> {
        let at = match point {
            Point::Mark(mark) => self.opened(mark)?,
            Point::Enter(function) => match self.runs(function) {
                Some(runs) => runs.first_ns,
                None => *self.functions?.once.get(function as usize)?.first()?,
            },
            Point::Leave(function) => match self.runs(function) {
                Some(runs) => runs.last_ns,
                None => *self.functions?.once.get(function as usize)?.last()?,
            },
        };
        (at != 0 && self.shown(at) && !self.is_others(point, at)).then_some(at)
    }

    /// Whether a point of a function that may run for other tasks too was passed for one of those: it lies
    /// before what an attempt passes earlier.
    fn is_others(&self, point: Point, at: u64) -> bool {
        if !may_be_others(point) {
            return false;
        }
        // Nearly nothing lies later, so that is asked first.
        let mut earlier = ORDER.iter().take(point.rank());
        earlier.any(|earlier| {
            let is_later = |earlier_ns| earlier_ns > at;
            !may_be_others(*earlier)
                && self.at(*earlier).is_some_and(is_later)
                && !is_undoing(*earlier)
        })
    }

    /// Whether a moment lies before the end of the attempt as it is shown.
    const fn shown(&self, at: u64) -> bool {
        at <= self.shown_until_ns
    }

    /// When a mark's stage began: the mark, or where the allocation that it marks had to reclaim
    /// memory first, the moment when that began.
    fn opened(&self, mark: Mark) -> Option<u64> {
        let marked = self.record.marks.get(mark.place()).copied()?;
        if !self.reclaimed {
            return Some(marked);
        }
        let place = SITES.iter().position(|(_, of, _)| *of == mark);
        let began = place.and_then(|place| self.record.alloc_began_ns.get(place).copied());
        let began = began.filter(|began| *began != 0 && *began < marked);
        Some(began.unwrap_or(marked))
    }

    /// When a mark was taken; of an allocation, once it had succeeded or failed.
    pub(super) fn marked(&self, mark: Mark) -> Option<u64> {
        let marked = self.record.marks.get(mark.place()).copied();
        marked.filter(|at| *at != 0 && self.shown(*at))
    }

    /// All runs of a function that runs many times.
    pub(super) fn runs(&self, function: Function) -> Option<&record::Runs> {
        self.functions?.many.get((function as usize).checked_sub(ONCE)?)
    }

    /// When a mark was passed.
    #[must_use]
    pub fn mark(&self, mark: Mark) -> Option<u64> {
        self.at(Point::Mark(mark))
    }

    /// When the attempt began, as far as it was seen.
    #[must_use]
    pub fn began_ns(&self) -> u64 {
        if let Some(start_ns) = self.start_ns() {
            return start_ns;
        }
        self.record.marks.iter().rev().copied().find(|at| *at != 0).unwrap_or_default()
    }

    /// When the attempt began, if that was seen.
    #[must_use]
    pub fn start_ns(&self) -> Option<u64> {
        let seen = self.record.has(bits::ENTERED | bits::KERNEL_MADE);
        Some(self.record.start_ns).filter(|start_ns| seen && *start_ns != 0)
    }

    /// When the attempt ended for its caller: its return, or for a vfork or a task of the kernel's
    /// own the moment when the child is awake and the caller could go on.
    #[must_use]
    pub fn ended_ns(&self) -> Option<u64> {
        if self.record.has(bits::VFORK_WAIT | bits::KERNEL_MADE) {
            return self.woken_ns().or_else(|| self.at(Point::Leave(Function::CopyProcess)));
        }
        self.mark(Mark::SysExit)
    }

    fn woken_ns(&self) -> Option<u64> {
        self.at(Point::Leave(Function::WakeUpNewTask)).or_else(|| self.mark(Mark::SchedWakeupNew))
    }

    /// The function in which a failed attempt failed; `None` where it was in none that is probed.
    pub(super) fn failed_in(&self) -> Option<Function> {
        let place = self.functions?.failed.checked_sub(1)?;
        let function = FUNCTIONS.get(place as usize)?.function;
        let around = matches!(function, Function::CopyProcess | Function::KernelClone);
        (!around && !self.record.has(bits::CHILD)).then_some(function)
    }

    /// The stage whose allocation found no memory.
    pub(super) fn failed_alloc(&self) -> Option<Stage> {
        let mark = self.record.failed_alloc.checked_sub(1)?;
        let site = SITES.iter().find(|(_, of, _)| *of as u64 == mark);
        site.filter(|_| !self.record.has(bits::CHILD)).map(|(_, _, stage)| *stage)
    }
}

/// Whether a point may be passed for another task.
fn may_be_others(point: Point) -> bool {
    point.function().is_some_and(|function| function.row().last)
}

/// Whether a point is passed only while a failed attempt is undone.
fn is_undoing(point: Point) -> bool {
    let function = point.function();
    let stage = STAGES.iter().find(|row| row.function.is_some() && row.function == function);
    stage.is_some_and(|row| row.occurs == Occurs::OnFailure)
}

/// The stage that failed, where its function was seen to return an error, or its allocation to find
/// no memory.
#[must_use]
pub fn failed_stage(times: Times<'_>) -> Option<Stage> {
    let Some(function) = times.failed_in() else { return times.failed_alloc() };
    STAGES.iter().find(|row| row.function == Some(function)).map(|row| row.stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_for_another_task_does_not_count() {
        let record = ForkRecord::zeroed();
        let mut functions = FunctionTimes::zeroed();
        functions.once[Function::WakeUpNewTask as usize] = [100, 110];
        let mut put_pid = |run| {
            functions.once[Function::PutPid as usize] = run;
            let times = Times::new(&record, Some(&functions));
            let point = [Point::Enter(Function::PutPid), Point::Leave(Function::PutPid)];
            point.map(|point| times.at(point))
        };
        assert_eq!(
            put_pid([50, 60]),
            [None, None],
            "an interrupt during copy_process dropped a pid"
        );
        assert_eq!(put_pid([120, 125]), [Some(120), Some(125)]);
        assert_eq!(put_pid([0, 125]), [None, Some(125)]);
    }
}
