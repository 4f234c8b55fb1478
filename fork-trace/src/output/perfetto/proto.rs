//! Protocol buffers as Perfetto reads them: the few fields that are written here, by number, and their bytes.
//!
//! The numbers are those of `protos/perfetto/trace` in Perfetto's source. No field changes its meaning
//! there, and readers pass over what they do not know.

use serde_json::Value;

use crate::output::text::line::printable;

/// Field of a trace: one packet.
const PACKET: u32 = 1;

/// Fields of a packet.
pub(super) mod packet {
    pub(in super::super) const CLOCK_SNAPSHOT: u32 = 6;
    pub(in super::super) const TIMESTAMP: u32 = 8;
    pub(in super::super) const SEQUENCE: u32 = 10;
    pub(in super::super) const TRACK_EVENT: u32 = 11;
    pub(in super::super) const CLOCK: u32 = 58;
    pub(in super::super) const TRACK: u32 = 60;
}

/// Fields of a clock snapshot, and of one clock in it.
pub(super) mod clock {
    pub(in super::super) const CLOCKS: u32 = 1;
    pub(in super::super) const PRIMARY: u32 = 2;
    pub(in super::super) const ID: u32 = 1;
    pub(in super::super) const TIMESTAMP: u32 = 2;
    /// `BUILTIN_CLOCK_REALTIME`.
    pub(in super::super) const REALTIME: u64 = 1;
    /// `BUILTIN_CLOCK_MONOTONIC`.
    pub(in super::super) const MONOTONIC: u64 = 3;
}

/// Fields of a track, and of the process or thread that it belongs to.
pub(super) mod track {
    pub(in super::super) const UUID: u32 = 1;
    pub(in super::super) const NAME: u32 = 2;
    pub(in super::super) const PROCESS: u32 = 3;
    pub(in super::super) const THREAD: u32 = 4;
    pub(in super::super) const COUNTER: u32 = 8;
    pub(in super::super) const PROCESS_PID: u32 = 1;
    pub(in super::super) const PROCESS_CMDLINE: u32 = 2;
    pub(in super::super) const PROCESS_NAME: u32 = 6;
    pub(in super::super) const PROCESS_START: u32 = 7;
    pub(in super::super) const THREAD_PID: u32 = 1;
    pub(in super::super) const THREAD_TID: u32 = 2;
    pub(in super::super) const THREAD_NAME: u32 = 5;
    pub(in super::super) const COUNTER_UNIT: u32 = 3;
    /// `UNIT_COUNT`.
    pub(in super::super) const COUNT: u64 = 2;
}

/// Fields of a track's event.
pub(super) mod event {
    pub(in super::super) const ANNOTATION: u32 = 4;
    pub(in super::super) const TYPE: u32 = 9;
    pub(in super::super) const TRACK: u32 = 11;
    pub(in super::super) const CATEGORY: u32 = 22;
    pub(in super::super) const NAME: u32 = 23;
    pub(in super::super) const COUNTER_VALUE: u32 = 30;
    pub(in super::super) const FLOW: u32 = 47;
    pub(in super::super) const LAST_FLOW: u32 = 48;
}

/// What a track's event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Begin = 1,
    End = 2,
    Instant = 3,
    Counter = 4,
}

/// Fields of a debug annotation: one for each kind of value.
mod annotation {
    pub(super) const BOOL: u32 = 2;
    pub(super) const UINT: u32 = 3;
    pub(super) const INT: u32 = 4;
    pub(super) const DOUBLE: u32 = 5;
    pub(super) const STRING: u32 = 6;
    pub(super) const NAME: u32 = 10;
    pub(super) const ENTRY: u32 = 11;
    pub(super) const ITEM: u32 = 12;
}

/// How a field's bytes are laid out: the low bits of its tag.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// The bytes of a message, to which fields are added.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A trace's next packet, made by `fill`; whatever was here before is gone.
    pub(super) fn packet(&mut self, fill: impl FnOnce(&mut Self)) -> &[u8] {
        self.0.clear();
        self.message(PACKET, fill);
        &self.0
    }

    /// Adds an unsigned number, or one that is not negative.
    pub(super) fn number(&mut self, field: u32, number: impl Into<u64>) {
        self.tag(field, VARINT);
        self.varint(number.into());
    }

    /// Adds a number of eight bytes.
    pub(super) fn fixed(&mut self, field: u32, number: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds a text, in which nothing is left that a terminal would obey: Perfetto's own shell prints it.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        let text = printable(text);
        self.tag(field, BYTES);
        self.varint(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Adds a message, made by `fill`.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        self.tag(field, BYTES);
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

    /// Adds each field of an object as an annotation, under its own name.
    pub(super) fn annotations(&mut self, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten().filter(|(_, it)| says(it)) {
            self.message(event::ANNOTATION, |one| one.annotation(Some(name), value));
        }
    }

    fn annotation(&mut self, name: Option<&str>, value: &Value) {
        if let Some(name) = name {
            self.text(annotation::NAME, name);
        }
        match value {
            Value::Null => {}
            Value::Bool(value) => self.number(annotation::BOOL, *value),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    self.number(annotation::UINT, number);
                } else if let Some(number) = number.as_i64() {
                    self.number(annotation::INT, number.cast_unsigned());
                } else if let Some(number) = number.as_f64() {
                    self.fixed(annotation::DOUBLE, number.to_bits());
                }
            }
            Value::String(text) => self.text(annotation::STRING, text),
            Value::Array(items) => {
                for item in items.iter().filter(|item| says(item)) {
                    self.message(annotation::ITEM, |one| one.annotation(None, item));
                }
            }
            Value::Object(entries) => {
                for (name, value) in entries.iter().filter(|(_, value)| says(value)) {
                    self.message(annotation::ENTRY, |one| one.annotation(Some(name), value));
                }
            }
        }
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

/// Whether there is anything in a value: Perfetto has no empty ones.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => items.iter().any(says),
        Value::Object(entries) => entries.values().any(says),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        fill(&mut message);
        message.0
    }

    #[test]
    fn fields_are_as_protocol_buffers_have_them() {
        assert_eq!(bytes(|m| m.number(1, 150_u32)), [0x08, 0x96, 0x01]);
        assert_eq!(bytes(|m| m.text(2, "testing")), *b"\x12\x07testing");
        assert_eq!(bytes(|m| m.message(3, |m| m.number(1, 150_u32))), [0x1a, 3, 0x08, 0x96, 0x01]);
        assert_eq!(bytes(|m| m.fixed(47, 1)), [0xf9, 0x02, 1, 0, 0, 0, 0, 0, 0, 0]);
        let most = bytes(|m| m.number(1, u64::MAX));
        assert_eq!(most, [&[0x08][..], &[0xff; 9], &[0x01]].concat());
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        let long = bytes(|m| m.message(1, |m| m.text(1, &"x".repeat(300))));
        assert_eq!(long[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 306);
    }

    #[test]
    fn any_value_is_an_annotation() {
        let value =
            json!({"a": -1, "b": [true], "c": {"d": 0.5, "n": {}}, "e": "\u{1b}[", "o": []});
        let said = bytes(|m| m.annotations(&value));
        let wanted = bytes(|m| {
            m.message(4, |m| {
                m.text(10, "a");
                m.number(4, u64::MAX);
            });
            m.message(4, |m| {
                m.text(10, "b");
                m.message(12, |m| m.number(2, true));
            });
            m.message(4, |m| {
                m.text(10, "c");
                m.message(11, |m| {
                    m.text(10, "d");
                    m.fixed(5, 0.5_f64.to_bits());
                });
            });
            m.message(4, |m| {
                m.text(10, "e");
                m.text(6, "\\x1b[");
            });
        });
        assert_eq!(said, wanted);
    }
}
