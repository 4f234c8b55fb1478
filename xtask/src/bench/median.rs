//! The middle of many runs.

/// The middle of the numbers; where two are in the middle, their mean.
pub(super) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([5.0, 9.0, 1.0].into_iter()), 5.0);
        assert_eq!(median([5.0, 9.0, 1.0, 6.0].into_iter()), 5.5);
    }
}
