//! Reads Perfetto traces as its protocol buffers define them, with nothing of the tool's own writer.

use std::{collections::BTreeMap, fmt::Write as _};

/// A field's value.
#[derive(Clone, Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number; `None` if it is cut off or no message.
struct Fields<'a>(Vec<(u64, Field<'a>)>);

impl<'a> Fields<'a> {
    fn of(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let value = match tag & 7 {
                0 => Field::Number(varint(&mut bytes)?),
                1 => {
                    let (eight, rest) = bytes.split_first_chunk()?;
                    bytes = rest;
                    Field::Number(u64::from_le_bytes(*eight))
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (inner, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    Field::Bytes(inner)
                }
                _ => return None,
            };
            fields.push((tag >> 3, value));
        }
        Some(Self(fields))
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &Field<'a>> {
        self.0.iter().filter(move |(field, _)| *field == number).map(|(_, value)| value)
    }

    fn number(&self, number: u64) -> Option<u64> {
        self.all(number).find_map(|field| match field {
            Field::Number(value) => Some(*value),
            Field::Bytes(_) => None,
        })
    }

    fn texts(&self, number: u64) -> Vec<String> {
        let bytes = self.all(number).filter_map(|field| match field {
            Field::Bytes(bytes) => Some(*bytes),
            Field::Number(_) => None,
        });
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    fn text(&self, number: u64) -> Option<String> {
        self.texts(number).into_iter().next()
    }

    fn messages(&self, number: u64) -> Vec<Self> {
        let bytes = self.all(number).filter_map(|field| match field {
            Field::Bytes(bytes) => Some(*bytes),
            Field::Number(_) => None,
        });
        bytes.map(|bytes| Fields::of(bytes).unwrap()).collect()
    }

    fn message(&self, number: u64) -> Option<Self> {
        self.messages(number).into_iter().next()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A trace as it was read: a line of text for each packet, and what holds for all of them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// A line for each packet.
    pub(crate) lines: Vec<String>,
    /// Slices that began, by name.
    pub(crate) slices: BTreeMap<String, usize>,
    /// Arrows: how many slices each comes from and leads to.
    pub(crate) arrows: BTreeMap<u64, (usize, usize)>,
    /// How many slices of each track are open.
    open: BTreeMap<u64, usize>,
    /// Numbers of tracks and arrows, in the order in which they come.
    known: BTreeMap<(char, u64), usize>,
}

impl Trace {
    /// Reads the whole packets at the beginning of `bytes`, and asserts what holds for every trace.
    pub(crate) fn read(mut bytes: &[u8]) -> Self {
        let mut trace = Self::default();
        while let Some((packet, rest)) = split_packet(bytes) {
            trace.packet(&Fields::of(packet).unwrap());
            bytes = rest;
        }
        trace
    }

    /// Asserts that no slice is left open.
    pub(crate) fn has_ended(&self) {
        assert!(self.open.values().all(|open| *open == 0), "{:?}", self.open);
    }

    fn name(&mut self, what: char, number: u64) -> String {
        let next = self.known.keys().filter(|(other, _)| *other == what).count() + 1;
        format!("{what}{}", self.known.entry((what, number)).or_insert(next))
    }

    fn packet(&mut self, packet: &Fields<'_>) {
        assert_eq!(packet.number(10), Some(1), "a sequence");
        let line = if let Some(snapshot) = packet.message(6) {
            let clocks = snapshot
                .messages(1)
                .into_iter()
                .map(|clock| format!("{}={}", clock.number(1).unwrap(), clock.number(2).unwrap()));
            let clocks: Vec<_> = clocks.collect();
            format!("clocks {} by {}", clocks.join(" "), snapshot.number(2).unwrap())
        } else if let Some(track) = packet.message(60) {
            self.track(&track)
        } else {
            let at_ns = packet.number(8).unwrap();
            assert_eq!(packet.number(58), Some(3), "CLOCK_MONOTONIC");
            let event = self.event(&packet.message(11).unwrap());
            format!("{at_ns} {event}")
        };
        self.lines.push(line);
    }

    fn track(&mut self, track: &Fields<'_>) -> String {
        let mut line = self.name('T', track.number(1).unwrap());
        if let Some(process) = track.message(3) {
            write!(line, " process {}", process.number(1).unwrap()).unwrap();
            for name in process.texts(6) {
                write!(line, " {name:?}").unwrap();
            }
            if let Some(start_ns) = process.number(7) {
                write!(line, " since {start_ns}").unwrap();
            }
            if !process.texts(2).is_empty() {
                write!(line, " {:?}", process.texts(2)).unwrap();
            }
        } else if let Some(thread) = track.message(4) {
            let (pid, tid) = (thread.number(1).unwrap(), thread.number(2).unwrap());
            write!(line, " thread {tid} of {pid}").unwrap();
            for name in thread.texts(5) {
                write!(line, " {name:?}").unwrap();
            }
        } else {
            let what = if track.message(8).is_some() { "counter" } else { "track" };
            write!(line, " {what} {:?}", track.text(2).unwrap()).unwrap();
        }
        line
    }

    fn event(&mut self, event: &Fields<'_>) -> String {
        let track = event.number(11).unwrap();
        assert!(self.known.contains_key(&('T', track)), "it was not described");
        let open = self.open.entry(track).or_default();
        let depth = "  ".repeat(*open);
        let name = event.text(23);
        let mut line = match event.number(9).unwrap() {
            1 => {
                *open += 1;
                *self.slices.entry(name.clone().unwrap()).or_default() += 1;
                format!("{depth}begin")
            }
            2 => {
                *open = open.checked_sub(1).expect("it began");
                format!("{}end", "  ".repeat(*open))
            }
            3 => format!("{depth}instant"),
            4 => format!("= {}", event.number(30).unwrap()),
            other => panic!("type {other}"),
        };
        line = format!("{} {line}", self.name('T', track));
        if let Some(name) = name {
            write!(line, " {name:?} {}", event.text(22).unwrap()).unwrap();
        }
        for (field, sign) in [(47, "->"), (48, "<-")] {
            if let Some(arrow) = event.number(field) {
                let ends = self.arrows.entry(arrow).or_default();
                let end = if field == 47 { &mut ends.0 } else { &mut ends.1 };
                *end += 1;
                write!(line, " {sign}{}", self.name('A', arrow)).unwrap();
            }
        }
        let notes: Vec<_> = event.messages(4).iter().map(named).collect();
        if !notes.is_empty() {
            write!(line, " {{{}}}", notes.join(", ")).unwrap();
        }
        line
    }
}

fn split_packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    assert_eq!(varint(&mut rest)?, 1 << 3 | 2, "a packet");
    let length = usize::try_from(varint(&mut rest)?).unwrap();
    rest.split_at_checked(length)
}

fn named(annotation: &Fields<'_>) -> String {
    format!("{}: {}", annotation.text(10).unwrap(), value(annotation))
}

fn value(annotation: &Fields<'_>) -> String {
    let number = |field| annotation.number(field);
    let entries = annotation.messages(11);
    let items = annotation.messages(12);
    if let Some(text) = annotation.text(6) {
        return format!("{text:?}");
    }
    number(2)
        .map(|value| (value == 1).to_string())
        .or_else(|| number(3).map(|value| value.to_string()))
        .or_else(|| number(4).map(|value| value.cast_signed().to_string()))
        .or_else(|| number(5).map(|value| f64::from_bits(value).to_string()))
        .unwrap_or_else(|| {
            if items.is_empty() {
                format!("{{{}}}", entries.iter().map(named).collect::<Vec<_>>().join(", "))
            } else {
                format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", "))
            }
        })
}
