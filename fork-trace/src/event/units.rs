//! Numbers as people read them: durations, sizes, shares and counts.

/// A duration with three significant digits: `812 ns`, `36.7 us`, `1.24 ms`, `97.1 s`.
pub(crate) fn duration(ns: u64) -> String {
    if ns < 1000 {
        return format!("{ns} ns");
    }
    for (unit, name) in [(1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")] {
        for (scale, decimals) in [(100, 2), (10, 1), (1, 0)] {
            let rounded = (u128::from(ns) * scale + unit / 2) / unit;
            if rounded < 1000 {
                return decimal(rounded, decimals, name);
            }
        }
    }
    format!("{} s", ns.saturating_add(500_000_000) / 1_000_000_000)
}

/// A size with three significant digits: `812 B`, `4.10 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    for (shift, name) in [(10, "KiB"), (20, "MiB"), (30, "GiB")] {
        for (scale, decimals) in [(100, 2), (10, 1), (1, 0)] {
            let rounded = (u128::from(bytes) * scale + (1 << (shift - 1))) >> shift;
            if rounded < 1000 {
                return decimal(rounded, decimals, name);
            }
        }
    }
    format!("{} GiB", bytes >> 30)
}

fn decimal(scaled: u128, decimals: usize, unit: &str) -> String {
    let digits = format!("{scaled:0>width$}", width = decimals + 1);
    let (whole, part) = digits.split_at(digits.len() - decimals);
    if part.is_empty() { format!("{whole} {unit}") } else { format!("{whole}.{part} {unit}") }
}

/// `part` of `whole` in whole percent; `<1%` for a part that would be rounded to 0%.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole.max(1)));
    match (part * 100 + whole / 2) / whole {
        0 if part > 0 => "<1%".to_owned(),
        share => format!("{share}%"),
    }
}

/// How many of `number` within `ns` came each second, with three significant digits: `3.01/s`. `None` where no
/// time passed.
pub(crate) fn per_second(number: u64, ns: u64) -> Option<String> {
    let hundredths =
        (u128::from(number) * 100_000_000_000 + u128::from(ns) / 2).checked_div(u128::from(ns))?;
    let rate = match hundredths {
        0 if number > 0 => "<0.01".to_owned(),
        0..1_000 => format!("{}.{:02}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{}", (hundredths + 5) / 100, (hundredths + 5) / 10 % 10),
        _ => count(u64::try_from((hundredths + 50) / 100).unwrap_or(u64::MAX)),
    };
    Some(rate + "/s")
}

/// A count with a comma before each three digits: `20,000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 record`, `12 records`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_significant_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (812, "812 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (1_004, "1.00 us"),
            (1_005, "1.01 us"),
            (9_995, "10.0 us"),
            (36_650, "36.7 us"),
            (99_949, "99.9 us"),
            (99_950, "100 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (1_240_000, "1.24 ms"),
            (97_123_456_789, "97.1 s"),
            (999_900_000_000, "1000 s"),
            (86_400_000_000_000, "86400 s"),
            (u64::MAX, "18446744073 s"),
        ] {
            assert_eq!(duration(ns), text, "{ns}");
        }
    }

    #[test]
    fn sizes_shares_and_counts() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1000), "0.98 KiB");
        assert_eq!(size(4_300_000), "4.10 MiB");
        assert_eq!(size(1 << 40), "1024 GiB");
        assert_eq!(percent(61, 100), "61%");
        assert_eq!(percent(1, 1000), "<1%");
        assert_eq!(percent(0, 1000), "0%");
        assert_eq!(percent(5, 0), "500%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(20_000), "20,000");
        assert_eq!(count(1_234_567), "1,234,567");
        for (number, ns, rate) in [
            (0, 1_000_000_000, "0.00/s"),
            (1, 1_000_000_000_000, "<0.01/s"),
            (3, 1_000_000_000, "3.00/s"),
            (12_344, 1_000_000_000_000, "12.3/s"),
            (99_960, 1_000_000_000_000, "100.0/s"),
            (1_234_567, 1_000_000_000, "1,234,567/s"),
        ] {
            assert_eq!(per_second(number, ns).as_deref(), Some(rate));
        }
        assert_eq!(per_second(1, 0), None);
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(1_200, "record"), "1,200 records");
    }
}
