//! Protocol buffers: the bytes of a message, field by field. Which numbers mean what is known where they are
//! written.

/// How a field's bytes are laid out: the low bits of its tag.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// The bytes of a message, to which fields are added.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Whatever was here before is gone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What was added so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an unsigned number, or one that is not negative.
    pub(super) fn number(&mut self, field: u32, number: impl Into<u64>) {
        self.tag(field, VARINT);
        self.varint(number.into());
    }

    /// Adds a number that may be negative, as `sint32` and `sint64` have it.
    pub(super) fn signed(&mut self, field: u32, number: i64) {
        self.number(field, (number << 1 ^ number >> 63).cast_unsigned());
    }

    /// Adds a number of eight bytes.
    pub(super) fn fixed(&mut self, field: u32, number: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds a text as it is.
    pub(super) fn raw_text(&mut self, field: u32, text: &str) {
        self.tag(field, BYTES);
        self.varint(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Adds a message, made by `fill`.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        self.tag(field, BYTES);
        self.delimited(fill);
    }

    /// Adds a message, made by `fill`, that is no field: its length, and then itself.
    pub(super) fn delimited(&mut self, fill: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        fill(self);
        let bytes = length(self.0.len().saturating_sub(begin));
        // Its length stands before it, and is known only now.
        let end = self.0.len();
        self.varint(bytes);
        let of_length = self.0.len().saturating_sub(end);
        if let Some(moved) = self.0.get_mut(begin..) {
            moved.rotate_right(of_length);
        }
    }

    /// Adds a number of eight bytes that is no field, as in a packed row of them.
    #[cfg(feature = "otlp")]
    pub(super) fn bare_fixed(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds the fields of another message.
    #[cfg(feature = "otlp")]
    pub(super) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    fn tag(&mut self, field: u32, layout: u32) {
        self.varint(u64::from(field << 3 | layout));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        fill(&mut message);
        message.0
    }

    #[test]
    fn fields_are_as_protocol_buffers_have_them() {
        assert_eq!(bytes(|m| m.number(1, 150_u32)), [0x08, 0x96, 0x01]);
        assert_eq!(bytes(|m| m.raw_text(2, "testing")), *b"\x12\x07testing");
        assert_eq!(bytes(|m| m.message(3, |m| m.number(1, 150_u32))), [0x1a, 3, 0x08, 0x96, 0x01]);
        assert_eq!(bytes(|m| m.delimited(|m| m.number(1, 150_u32))), [3, 0x08, 0x96, 0x01]);
        assert_eq!(bytes(|m| m.fixed(47, 1)), [0xf9, 0x02, 1, 0, 0, 0, 0, 0, 0, 0]);
        let most = bytes(|m| m.number(1, u64::MAX));
        assert_eq!(most, [&[0x08][..], &[0xff; 9], &[0x01]].concat());
        for (number, zigzag) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (i64::MIN, u64::MAX)] {
            assert_eq!(bytes(|m| m.signed(1, number)), bytes(|m| m.number(1, zigzag)), "{number}");
        }
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        let long = bytes(|m| m.message(1, |m| m.raw_text(1, &"x".repeat(300))));
        assert_eq!(long[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 306);
    }
}
