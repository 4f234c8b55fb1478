//! Protocol buffers as Perfetto reads them: the few fields that are written here, by number, and the values that
//! are only Perfetto's.
//!
//! The numbers are those of `protos/perfetto/trace` in Perfetto's source. No field changes its meaning
//! there, and readers pass over what they do not know.

use serde_json::Value;

use crate::output::{protobuf::Message, text::line::printable};

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

impl Message {
    /// A trace's next packet, made by `fill`; whatever was here before is gone.
    pub(super) fn packet(&mut self, fill: impl FnOnce(&mut Self)) -> &[u8] {
        self.clear();
        self.message(PACKET, fill);
        self.bytes()
    }

    /// Adds a text, in which nothing is left that a terminal would obey: Perfetto's own shell prints it.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.raw_text(field, &printable(text));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        fill(&mut message);
        message.bytes().to_vec()
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
