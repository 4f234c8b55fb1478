//! The right word for one that was misspelt.

/// Longer words are names of other things.
const LONGEST: usize = 64;

/// The one of `known` that `word` was most likely meant to be, upper and lower case aside; `None` where
/// none is near. Two letters that are swapped count as one mistake, and a short word may have only one.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let most = match length {
        0..=2 => 0,
        3..=5 => 1,
        6..=9 => 2,
        10..=LONGEST => 3,
        _ => return None,
    };
    let lower = word.to_lowercase();
    let mistakes = |known: &&str| strsim::osa_distance(&lower, &known.to_lowercase());
    let nearest = known.into_iter().min_by_key(mistakes)?;
    (mistakes(&nearest) <= most).then_some(nearest)
}

/// What follows a message about an unknown word: the nearest right one, as a question.
#[must_use]
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_no_stranger() {
        let known = ["replay", "stuck", "EAGAIN", "copy_mm", "copy_fs"];
        for (word, wanted) in [
            ("repaly", Some("replay")),
            ("EAGIAN", Some("EAGAIN")),
            ("eagain", Some("EAGAIN")),
            ("copy_mn", Some("copy_mm")),
            ("Stuk", Some("stuck")),
            ("make", None),
            ("ls", None),
            ("", None),
            ("\u{1b}[2J", None),
        ] {
            assert_eq!(nearest(word, known), wanted, "{word:?}");
        }
        assert_eq!(nearest(&"copy_mm".repeat(1 << 16), known), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(did_you_mean(Some("stuck")), "; did you mean stuck?");
    }
}
