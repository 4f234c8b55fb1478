//! The columns of a fork's line and of a stage's, and which of them a terminal has room for.

/// A column; the order is that on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    Time,
    Parent,
    Child,
    Kind,
    Stage,
    Start,
    Total,
    Own,
    OffCpu,
    Shared,
    Slowest,
    ChildWait,
    Result,
}

/// A column with its narrowest useful and its full width.
type Need = (Column, usize, usize);

/// The columns of a fork, in the order in which they get room.
pub(super) const OF_FORK: &[Need] = &[
    (Column::Parent, 17, 23),
    (Column::Child, 7, 7),
    (Column::Total, 7, 7),
    (Column::Time, 15, 15),
    (Column::Kind, 7, 7),
    (Column::Slowest, 17, 23),
    (Column::Result, 6, 14),
    (Column::ChildWait, 10, 24),
    (Column::Shared, 14, 24),
];

/// The columns of a stage, in the order in which they get room.
pub(super) const OF_STAGE: &[Need] = &[
    (Column::Parent, 17, 23),
    (Column::Stage, 19, 25),
    (Column::Total, 8, 8),
    (Column::Result, 8, 24),
    (Column::Time, 15, 15),
    (Column::Child, 7, 7),
    (Column::Own, 7, 7),
    (Column::OffCpu, 7, 7),
    (Column::Start, 7, 7),
    (Column::Kind, 7, 7),
];

/// Room for a thread id or a unit beside the process id, on wide terminals.
const PARENT_MORE: usize = 8;

/// Between two columns.
pub(super) const GAP: usize = 2;

impl Column {
    /// Its name in the header.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::Parent => "PARENT",
            Self::Child => "CHILD",
            Self::Kind => "KIND",
            Self::Stage => "STAGE",
            Self::Start => "START",
            Self::Total => "TOTAL",
            Self::Own => "SELF",
            Self::OffCpu => "OFF CPU",
            Self::Shared => "SHARED / NEW",
            Self::Slowest => "SLOWEST STAGE",
            Self::ChildWait => "CHILD WAIT",
            Self::Result => "RESULT",
        }
    }

    /// Whether its cells end, rather than begin, below each other.
    pub(super) const fn is_right_aligned(self) -> bool {
        matches!(self, Self::Start | Self::Total | Self::Own | Self::OffCpu)
    }
}

/// A column on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The column.
    pub(super) column: Column,
    /// Where it begins.
    pub(super) start: usize,
    /// How wide it is.
    pub(super) width: usize,
}

/// Those of `columns` that fit, left to right; without a width all, at their full width.
pub(super) fn fitting(columns: &[Need], width: Option<usize>) -> Vec<Slot> {
    let mut room = width.unwrap_or(usize::MAX);
    let mut chosen: Vec<Need> = Vec::new();
    for &(column, least, full) in columns {
        let gap = if chosen.is_empty() { 0 } else { GAP };
        if chosen.is_empty() && least > room {
            return vec![Slot { column, start: 0, width: room }];
        }
        if least + gap > room {
            break;
        }
        room -= least + gap;
        chosen.push((column, least, full));
    }
    for (_, width, full) in &mut chosen {
        let more = full.saturating_sub(*width).min(room);
        *width += more;
        room -= more;
    }
    if let Some((_, width, _)) = chosen.first_mut() {
        *width += room.min(PARENT_MORE);
    }
    chosen.sort_by_key(|(column, ..)| *column);
    let mut start = 0;
    let slot = |(column, width, _)| {
        let slot = Slot { column, start, width };
        start += width + GAP;
        slot
    };
    chosen.into_iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_width() {
        for (columns, width) in
            [OF_FORK, OF_STAGE].into_iter().flat_map(|of| (0..250).map(move |width| (of, width)))
        {
            let slots = fitting(columns, Some(width));
            let last = slots.last().unwrap();
            assert!(last.start + last.width <= width, "{width}: {slots:?}");
            for pair in slots.windows(2) {
                assert!(pair[0].start + pair[0].width + GAP == pair[1].start, "{width}");
            }
        }
    }

    #[test]
    fn what_each_width_shows() {
        use Column::{Child, ChildWait, Kind, Parent, Result, Shared, Slowest, Time, Total};
        let columns = |width| -> Vec<Column> {
            fitting(OF_FORK, width).into_iter().map(|slot| slot.column).collect()
        };
        let all = [Time, Parent, Child, Kind, Total, Shared, Slowest, ChildWait, Result];
        assert_eq!(columns(None), all);
        assert_eq!(columns(Some(160)), all);
        let wide = [Time, Parent, Child, Kind, Total, Slowest, ChildWait, Result];
        assert_eq!(columns(Some(100)), wide);
        assert_eq!(columns(Some(80)), [Time, Parent, Child, Kind, Total, Slowest]);
        assert_eq!(columns(Some(40)), [Parent, Child, Total]);
        assert_eq!(columns(Some(5)), [Parent]);
    }
}
