//! Questions about points in time: their names in output, the marks that they need, and whether an
//! attempt always reaches them.

use fork_trace_common::{
    function::Function,
    stage::{Mark, Occurs, Point, STAGES},
};

use crate::{
    event::values::Name,
    host::{functions::Probes, tracepoint::needs},
};

/// The marks among these points, and the marks without which the kernel side does not record those.
pub(super) fn marks(points: &[Point]) -> impl Iterator<Item = Mark> {
    let own = points.iter().filter_map(|point| match point {
        Point::Mark(mark) => Some(*mark),
        _ => None,
    });
    own.flat_map(|mark| std::iter::once(mark).chain(needs(mark).iter().copied()))
}

/// The name of a point in output: the name of a mark, or `enter` or `leave` with the kernel's name
/// of the function.
#[must_use]
pub fn point_name(point: Point, probes: &Probes) -> Name {
    let kernel_name = |function: Function| match probes.get(&function) {
        Some(Ok(probe)) => probe.name,
        _ => function.row().id,
    };
    match point {
        Point::Mark(mark) => Name::Borrowed(mark.name()),
        Point::Enter(function) => Name::Owned(format!("enter {}", kernel_name(function))),
        Point::Leave(function) => Name::Owned(format!("leave {}", kernel_name(function))),
    }
}

/// Whether an attempt reaches the point only at times. No other stage may end at such a point.
#[must_use]
pub fn optional(point: Point) -> bool {
    match point {
        Point::Mark(mark) => matches!(mark, Mark::LockContended | Mark::LockTaken),
        Point::Enter(function) | Point::Leave(function) => {
            let stage = STAGES.iter().find(|row| row.function == Some(function));
            stage.is_some_and(|row| row.occurs == Occurs::AtTimes)
        }
    }
}
