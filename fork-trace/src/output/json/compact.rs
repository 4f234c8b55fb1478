//! Values to compact JSON: the same bytes as `serde_json` writes, in a fourth of the instructions.
//!
//! A `fork` line is mostly names of fields, names from tables, and numbers. `serde_json` looks at each
//! byte of the names for one that has to be escaped, and that is most of what a line costs. The name of
//! a field or a variant in the source needs no escaping, and other strings are looked at once. What is
//! seldom, a string with such a byte or a fraction, is left to `serde_json`.

use std::{
    fmt::{self, Display, Write as _},
    io,
};

use serde::{Serialize, Serializer, ser};
use serde_json::{Error, Result};

/// Appends `value` to `out`.
///
/// # Errors
/// A value says that it cannot be written, as a map whose keys are no strings.
pub(super) fn append(out: &mut Line, value: &(impl Serialize + ?Sized)) -> Result<()> {
    value.serialize(Compact(out))
}

/// Whether JSON has another spelling for a byte inside a string.
const fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Whether one of eight bytes is such a byte.
///
/// Where the highest bit of a byte is clear, taking `n` from the byte sets that bit if the byte is less
/// than `n`. A borrow reaches only bytes behind one that is found.
const fn is_one_escaped(bytes: [u8; 8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    const fn less(word: u64, than: u64) -> u64 {
        word.wrapping_sub(than * ONES) & !word & HIGH
    }
    let word = u64::from_le_bytes(bytes);
    let [quote, backslash] = [word ^ (0x22 * ONES), word ^ (0x5c * ONES)];
    less(word, 0x20) | less(quote, 1) | less(backslash, 1) != 0
}

/// The bytes of a line. Its room is only ever added to, and all of it is bytes already, so that to add a few costs
/// no more than to look whether there is room.
#[derive(Debug)]
pub(super) struct Line {
    room: Vec<u8>,
    used: usize,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { room: Vec::new(), used: 0 }
    }

    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.room.get(..self.used).unwrap_or_default()
    }

    /// Takes everything back.
    pub(super) const fn clear(&mut self) {
        self.used = 0;
    }

    /// Takes back what was written after so many bytes.
    fn truncate(&mut self, used: usize) {
        self.used = self.used.min(used);
    }

    /// The next `length` bytes, for the caller to write.
    #[inline(always)]
    fn take(&mut self, length: usize) -> &mut [u8] {
        let start = self.used;
        let end = start + length;
        if end > self.room.len() {
            self.grow(end);
        }
        self.used = end;
        self.room.get_mut(start..end).unwrap_or_default()
    }

    #[cold]
    fn grow(&mut self, end: usize) {
        self.room.resize(end.next_power_of_two().max(4096), 0);
    }

    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) {
        if let [place] = self.take(1) {
            *place = byte;
        }
    }

    #[inline]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds text that needs no escaping, in quotes.
    #[inline]
    fn quoted(&mut self, text: &str) {
        if let [first, place @ .., last] = self.take(text.len() + 2) {
            *first = b'"';
            *last = b'"';
            place.copy_from_slice(text.as_bytes());
        }
    }

    /// Adds the name of a field. It is a constant where this is called, so that the copy is an instruction or two.
    #[inline(always)]
    fn key(&mut self, key: &str) {
        if let [first, place @ .., last, colon] = self.take(key.len() + 3) {
            *first = b'"';
            *last = b'"';
            *colon = b':';
            place.copy_from_slice(key.as_bytes());
        }
    }

    /// Puts `byte` in the place of the one there.
    pub(super) fn replace(&mut self, place: usize, byte: u8) {
        if let Some(place) = self.room.get_mut(place) {
            *place = byte;
        }
    }

    /// How many bytes were written.
    pub(super) const fn len(&self) -> usize {
        self.used
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a byte of the text has to be escaped.
fn has_escaped(text: &[u8]) -> bool {
    let (eights, rest) = text.as_chunks::<8>();
    if eights.iter().copied().any(is_one_escaped) {
        return true;
    }
    // Of a longer text the last eight are looked at together, some of them for the second time.
    match text.last_chunk::<8>() {
        Some(last) => !rest.is_empty() && is_one_escaped(*last),
        None => rest.iter().copied().any(is_escaped),
    }
}

fn string(out: &mut Line, text: &str) -> Result<()> {
    if has_escaped(text.as_bytes()) {
        return serde_json::to_writer(out, text);
    }
    out.quoted(text);
    Ok(())
}

/// Writes one value.
struct Compact<'a>(&'a mut Line);

impl<'a> Compact<'a> {
    #[inline]
    fn number(self, number: impl itoa::Integer) {
        self.0.add(itoa::Buffer::new().format(number).as_bytes());
    }

    #[inline(always)]
    fn open(self, opening: u8, closing: u8) -> Parts<'a> {
        self.0.push(opening);
        Parts { out: self.0, is_first: true, closing, in_variant: false }
    }

    /// Opens a variant that holds something: an object of one entry.
    fn open_variant(self, variant: &str, opening: u8, closing: u8) -> Parts<'a> {
        self.0.push(b'{');
        self.0.key(variant);
        Parts { in_variant: true, ..self.open(opening, closing) }
    }
}

/// The parts of a value that has several.
struct Parts<'a> {
    out: &'a mut Line,
    is_first: bool,
    closing: u8,
    /// Whether it stands in an object of one entry, which ends with it.
    in_variant: bool,
}

impl Parts<'_> {
    #[inline(always)]
    fn part(&mut self) {
        if !self.is_first {
            self.out.push(b',');
        }
        self.is_first = false;
    }

    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.part();
        append(self.out, value)
    }

    #[inline(always)]
    fn field(&mut self, key: &'static str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.part();
        self.out.key(key);
        append(self.out, value)
    }

    #[inline(always)]
    fn close(self) {
        self.out.push(self.closing);
        if self.in_variant {
            self.out.push(b'}');
        }
    }
}

macro_rules! numbers {
    ($($method:ident: $number:ty),*) => {
        $(fn $method(self, number: $number) -> Result<()> {
            self.number(number);
            Ok(())
        })*
    };
}

impl<'a> Serializer for Compact<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    );

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.0.add(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_char(self, value: char) -> Result<()> {
        string(self.0, value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        string(self.0, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        serde_json::to_writer(self.0, value)
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.0.add(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<()> {
        self.0.quoted(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let mut parts = self.open(b'{', b'}');
        parts.field(variant, value)?;
        parts.close();
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Parts<'a>> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Parts<'a>> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>> {
        Ok(self.open_variant(variant, b'[', b']'))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Parts<'a>> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>> {
        Ok(self.open_variant(variant, b'{', b'}'))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<()> {
        let start = self.0.len();
        self.0.push(b'"');
        write!(Text(self.0), "{value}").map_err(ser::Error::custom)?;
        let written = self.0.bytes().get(start + 1..).unwrap_or_default();
        if has_escaped(written) {
            self.0.truncate(start);
            return string(self.0, &value.to_string());
        }
        self.0.push(b'"');
        Ok(())
    }
}

/// Takes formatted text as it is.
struct Text<'a>(&'a mut Line);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.add(text.as_bytes());
        Ok(())
    }
}

/// Parts that have a key are fields of an object, and the others are elements of an array.
macro_rules! parts {
    ($($of_parts:ident: $method:ident($($key:ident)?) by $part:ident;)*) => {
        $(impl ser::$of_parts for Parts<'_> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: &'static str,)?
                value: &T,
            ) -> Result<()> {
                self.$part($($key,)? value)
            }

            #[inline(always)]
            fn end(self) -> Result<()> {
                self.close();
                Ok(())
            }
        })*
    };
}

parts!(
    SerializeSeq: serialize_element() by element;
    SerializeTuple: serialize_element() by element;
    SerializeTupleStruct: serialize_field() by element;
    SerializeTupleVariant: serialize_field() by element;
    SerializeStruct: serialize_field(key) by field;
    SerializeStructVariant: serialize_field(key) by field;
);

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.part();
        let start = self.out.len();
        append(self.out, key)?;
        let is_string = self.out.bytes().get(start) == Some(&b'"');
        is_string.then_some(()).ok_or_else(|| ser::Error::custom("a key is no string"))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.out.push(b':');
        append(self.out, value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// Every shape that a contract can have.
    #[derive(Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(String),
        Tuple(i64, Option<bool>),
        Struct { a: u8, b: Vec<Self> },
    }

    #[derive(Serialize)]
    struct Flat<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        map: &'a BTreeMap<String, (i8, char, f64)>,
        unit: (),
        shape: Shape,
    }

    fn same(value: &impl Serialize) {
        let mut line = Line::new();
        append(&mut line, value).unwrap();
        assert_eq!(str::from_utf8(line.bytes()).unwrap(), serde_json::to_string(value).unwrap());
    }

    #[test]
    fn each_shape_is_written_as_by_serde_json() {
        let map =
            BTreeMap::from([("k\"".to_owned(), (-1, '\\', 0.1)), (String::new(), (7, 'ä', 1e300))]);
        let inner =
            vec![Shape::Unit, Shape::Newtype("\u{1}\n".to_owned()), Shape::Tuple(i64::MIN, None)];
        let shape = Shape::Struct { a: 255, b: inner };
        same(&Flat { r#type: "x", map: &map, unit: (), shape });
        same(&format_args!("{} \t {}", 1, "\u{7f}\u{2028}"));
        for byte in 0..0x80_u8 {
            for place in 0..8 {
                let mut bytes = [b'z'; 8];
                bytes[place] = byte;
                assert_eq!(is_one_escaped(bytes), is_escaped(byte), "{byte} at {place}");
                same(&String::from_utf8(bytes.to_vec()).unwrap());
            }
        }
        append(&mut Line::new(), &BTreeMap::from([(1, 2)])).unwrap_err();
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                proptest::collection::btree_map(".*", inner, 0..8)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_by_serde_json(value in json()) {
            same(&value);
        }
    }
}
