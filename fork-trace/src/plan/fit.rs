//! Narrows bounded stages so that they do not overlap their neighbours and no time is counted
//! twice.

use fork_trace_common::stage::{Bounds, Occurs, Point, Row, STAGES, Side};

/// Whether the two points are the entry and the return of one function, so that the time between
/// them is exactly the stage's.
pub(super) fn exact(bounds: &Bounds) -> bool {
    matches!((bounds.opens, bounds.closes), (Point::Enter(one), Point::Leave(other)) if one == other)
}

/// Whether one of the two stages is part of the other.
pub(super) fn nested(one: &Row, other: &Row) -> bool {
    one.stage.is_within(other.stage) || other.stage.is_within(one.stage)
}

/// Narrows every bounded stage of the parent:
///
/// - It begins later where its first point lies within another stage's function, namely when that
///   function returns, or where a shorter stage begins at the same point, namely when that one
///   ends.
/// - It ends earlier where another stage begins within it.
pub(super) fn fit(all: &mut [Result<Bounds, String>]) {
    let rows = || STAGES.iter().enumerate().filter(|(_, row)| row.side == Side::Parent);
    for (place, row) in rows() {
        let Some(Ok(own)) = all.get(place).cloned().filter(|own| {
            own.as_ref().is_ok_and(|own| !exact(own)) && row.occurs != Occurs::OnFailure
        }) else {
            continue;
        };
        let others = rows().filter(|(other, candidate)| {
            *other != place && !nested(row, candidate) && candidate.occurs != Occurs::OnFailure
        });
        let others: Vec<Bounds> =
            others.filter_map(|(other, _)| all.get(other)?.as_ref().ok().copied()).collect();
        let around = others.iter().find(|other| match exact(other) {
            true => (other.opens.rank()..other.closes.rank()).contains(&own.opens.rank()),
            false => other.opens == own.opens && other.closes.rank() < own.closes.rank(),
        });
        let opens = around.map_or(own.opens, |around| around.closes);
        let begins = others
            .iter()
            .map(|other| other.opens)
            .filter(|other| (opens.rank() + 1..own.closes.rank()).contains(&other.rank()));
        let closes = begins.min_by_key(|point| point.rank()).unwrap_or(own.closes);
        if let Some(slot) = all.get_mut(place) {
            *slot = if opens.rank() < closes.rank() {
                Ok(Bounds { opens, closes, ..own })
            } else {
                Err("its marks lie within another stage's function".to_owned())
            };
        }
    }
}
