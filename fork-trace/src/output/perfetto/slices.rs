//! Slices of time, made to lie within one another as those of a track have to.

use std::cmp::Reverse;

use serde_json::Value;

/// A part of a track's time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) name: String,
    pub(super) category: &'static str,
    /// What else is known of it, as in its JSON.
    pub(super) notes: Value,
}

/// The time in which the caller of a vfork does not run.
pub(super) fn hold(begin_ns: u64, end_ns: u64, notes: Value) -> Slice {
    Slice { begin_ns, end_ns, name: "vfork hold".to_owned(), category: "vfork", notes }
}

/// What a track shows next.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    Begin(&'a Slice),
    End(u64),
}

/// Hands the beginnings and ends of `slices` to `step`, in the order in which a track has to show them. A
/// slice that ends after the one around it goes on after that one's end, as a second piece.
pub(super) fn nest<E>(
    mut slices: Vec<Slice>,
    mut step: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let order = |slice: &Slice| (slice.begin_ns, Reverse(slice.end_ns));
    slices.sort_by_key(order);
    // The next one is the last.
    slices.reverse();
    let mut ends: Vec<u64> = Vec::new();
    while let Some(mut slice) = slices.pop() {
        while let Some(end_ns) = ends.pop_if(|end_ns| *end_ns <= slice.begin_ns) {
            step(Step::End(end_ns))?;
        }
        if let Some(around_ns) = ends.last().filter(|around_ns| **around_ns < slice.end_ns) {
            let rest = Slice { begin_ns: *around_ns, ..slice.clone() };
            slice.end_ns = *around_ns;
            let place = slices.partition_point(|other| order(other) > order(&rest));
            slices.insert(place, rest);
        }
        step(Step::Begin(&slice))?;
        ends.push(slice.end_ns);
    }
    while let Some(end_ns) = ends.pop() {
        step(Step::End(end_ns))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn slice(name: &str, begin_ns: u64, end_ns: u64) -> Slice {
        Slice { begin_ns, end_ns, name: name.to_owned(), category: "x", notes: Value::Null }
    }

    fn steps(slices: Vec<Slice>) -> Vec<String> {
        let mut steps = Vec::new();
        let Ok(()) = nest::<Infallible>(slices, |step| {
            steps.push(match step {
                Step::Begin(slice) => format!("{} {}", slice.begin_ns, slice.name),
                Step::End(end_ns) => format!("{end_ns} end"),
            });
            Ok(())
        });
        steps
    }

    #[test]
    fn stages_lie_within_the_call_and_one_after_another() {
        let slices = vec![slice("b", 5, 9), slice("call", 0, 9), slice("a", 0, 5)];
        assert_eq!(steps(slices), ["0 call", "0 a", "5 end", "5 b", "9 end", "9 end"]);
    }

    #[test]
    fn what_goes_beyond_is_told_in_two_pieces() {
        let slices = vec![slice("call", 0, 9), slice("a", 0, 5), slice("wait", 3, 7)];
        let wanted = ["0 call", "0 a", "3 wait", "5 end", "5 end", "5 wait", "7 end", "9 end"];
        assert_eq!(steps(slices), wanted);
    }

    proptest! {
        #[test]
        fn any_slices_nest_and_no_time_is_lost(
            spans in prop::collection::vec((0..40_u64, 0..20_u64), 0..20)
        ) {
            let slices: Vec<_> = spans
                .iter()
                .map(|(begin, length)| slice(&length.to_string(), *begin, begin + length))
                .collect();
            let (mut open, mut at, mut shown) = (Vec::new(), 0, 0);
            let Ok(()) = nest::<Infallible>(slices, |step| {
                match step {
                    Step::Begin(slice) => {
                        assert!(slice.begin_ns >= at);
                        assert!(open.last().is_none_or(|(_, end)| slice.end_ns <= *end));
                        at = slice.begin_ns;
                        open.push((slice.begin_ns, slice.end_ns));
                    }
                    Step::End(end_ns) => {
                        assert!(end_ns >= at);
                        at = end_ns;
                        let (begin_ns, end) = open.pop().unwrap();
                        assert_eq!(end, end_ns);
                        shown += end_ns - begin_ns;
                    }
                }
                Ok(())
            });
            assert!(open.is_empty());
            prop_assert_eq!(shown, spans.iter().map(|(_, length)| length).sum::<u64>());
        }
    }
}
