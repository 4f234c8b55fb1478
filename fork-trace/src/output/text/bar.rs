//! One bar of a waterfall, in block characters.

/// Cells to skip, and a bar to the eighth of a cell, where `cells` are the total; what does not
/// fit `most` cells becomes `▸`.
pub(super) fn blocks(
    start_ns: u64,
    dur_ns: u64,
    total_ns: u64,
    cells: usize,
    most: usize,
) -> (usize, String) {
    const LEFT: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let eighths = |ns: u64| {
        let total = u128::from(total_ns.max(1));
        let scaled = (u128::from(ns) * (cells as u128 * 8) + total / 2) / total;
        usize::try_from(scaled).unwrap_or(usize::MAX)
    };
    let full = most * 8;
    // Not past the last eighth, so that even the shortest stage shows.
    let start = eighths(start_ns).min(full.saturating_sub(1));
    let wanted = eighths(start_ns.saturating_add(dur_ns));
    let end = wanted.min(full).max(start + 1);
    let (skip, into) = (start / 8, start % 8);
    let mut bar = String::new();
    let mut at = skip * 8;
    if into >= 4 {
        bar.push(if end <= at + 8 && end - start <= 2 { '▕' } else { '▐' });
        at += 8;
    }
    while at + 8 <= end {
        bar.push('█');
        at += 8;
    }
    if let Some(part) = end.checked_sub(at + 1) {
        bar.extend(LEFT.get(part));
    }
    if wanted > full {
        bar.pop();
        bar.push('▸');
    }
    (skip, bar)
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::*;

    #[test]
    fn bars_are_drawn_to_the_eighth_of_a_cell() {
        let bar = |start_ns, dur_ns| blocks(start_ns, dur_ns, 100, 4, 4);
        assert_eq!(bar(0, 100), (0, "████".to_owned()));
        assert_eq!(bar(0, 50), (0, "██".to_owned()));
        assert_eq!(bar(25, 10), (1, "▍".to_owned()));
        assert_eq!(bar(12, 88), (0, "▐███".to_owned()));
        assert_eq!(bar(0, 0), (0, "▏".to_owned()), "even the shortest shows");
        assert_eq!(bar(100, 0), (3, "▕".to_owned()));
    }

    #[test]
    fn bars_stay_within_their_cells() {
        assert_eq!(blocks(90, 100, 100, 4, 4), (3, "▸".to_owned()));
        assert_eq!(blocks(500, 100, 100, 4, 4), (3, "▸".to_owned()));
        assert_eq!(blocks(90, 60, 100, 4, 8), (3, "▐██".to_owned()));
        assert_eq!(blocks(0, u64::MAX, 1, 4, 4), (0, "███▸".to_owned()));
        for start in 0..=100 {
            for dur in 0..=220 {
                let (skip, bar) = blocks(start, dur, 100, 24, 40);
                assert!(bar.width() >= 1 && skip + bar.width() <= 40, "{start} {dur} {bar}");
            }
        }
    }
}
