//! Names are bytes: of a task, a file, a control group, a user. They are told as text, reversibly.
//!
//! UTF-8 stays as it is. A byte that is no part of it is told as `\xNN`, two lower-case hexadecimal
//! digits. A backslash is told as `\x5c`, but only where it would otherwise begin what looks like one
//! of these, so that other names with backslashes stay as they are.

/// The bytes before the first NUL, or all of them.
#[must_use]
pub fn before_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// `bytes` as two lower-case hexadecimal digits each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `bytes` as text, one spelling for each; [`bytes`] is the way back.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (valid, invalid) = match std::str::from_utf8(rest) {
            Ok(valid) => (valid, 0),
            Err(error) => {
                let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                // At the end of the bytes a character may be cut short.
                let invalid = error.error_len().unwrap_or(rest.len() - error.valid_up_to());
                (std::str::from_utf8(valid).unwrap_or_default(), invalid)
            }
        };
        push_valid(&mut out, valid);
        let (invalid, after) = rest
            .get(valid.len()..)
            .unwrap_or_default()
            .split_at_checked(invalid)
            .unwrap_or_default();
        out.extend(invalid.iter().map(|byte| format!("\\x{byte:02x}")));
        rest = after;
    }
    out
}

/// Adds text that holds no foreign byte, and spells out each backslash that would begin an escape.
fn push_valid(out: &mut String, text: &str) {
    let mut pieces = text.split('\\');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push_str(if escaped(piece.as_bytes()).is_some() { "\\x5c" } else { "\\" });
        out.push_str(piece);
    }
}

/// The bytes that [`text`] tells so. It also takes text of any other origin.
#[must_use]
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match escaped(after).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = after.get(ESCAPED..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Bytes of an escape after its backslash.
const ESCAPED: usize = 3;

/// The byte that a backslash before `rest` would tell: a backslash, or one that is not ASCII.
fn escaped(rest: &[u8]) -> Option<u8> {
    let Some([b'x', high, low]) = rest.first_chunk::<ESCAPED>() else { return None };
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let byte = digit(*high)? << 4 | digit(*low)?;
    (byte == b'\\' || !byte.is_ascii()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_name_has_one_spelling() {
        for (name, told) in [
            (&b"redis-server"[..], "redis-server"),
            ("日本語 é".as_bytes(), "日本語 é"),
            (b"a\xffb", "a\\xffb"),
            (b"\xe6\x97", "\\xe6\\x97"),
            (b"a\\b\\", "a\\b\\"),
            (b"machine-deb\\x2d12.scope", "machine-deb\\x2d12.scope"),
            (b"\\xff", "\\x5cxff"),
            (b"\\x5c", "\\x5cx5c"),
            (b"\\xFF", "\\xFF"),
            (b"\\\xff", "\\\\xff"),
            (b"", ""),
        ] {
            assert_eq!(text(name), told);
            assert_eq!(bytes(told), name, "{told}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_names(
            name in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c'), Just(b'f')],
                0..40,
            ),
        ) {
            prop_assert_eq!(bytes(&text(&name)), name);
        }

        #[test]
        fn any_text_is_taken(text in ".{0,40}") {
            prop_assert!(bytes(&text).len() <= text.len());
        }
    }
}
