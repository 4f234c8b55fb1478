//! The kernel's own type information (BTF), as far as fork-trace needs it: byte offsets of struct
//! fields, values of enumerations, which BTF tracepoints exist, and the parameters of functions.
//!
//! One pass over the data records where each type lies; a look-up then walks the members. A kind of
//! type that this parser does not know is an error and is never skipped: its size is not known, so
//! everything after it would be misread.
//!
//! KERNEL: include/uapi/linux/btf.h.

use std::{collections::HashMap, ffi::CStr};

use anyhow::{Context as _, Result, bail, ensure};

use crate::event::bytes::text;

/// The name of a BTF tracepoint's typedef begins with this.
/// KERNEL: kernel/bpf/verifier.c `bpf_check_attach_target`.
const TRACEPOINT: &str = "btf_trace_";
const MAGIC: u16 = 0xeb9f;
const INT: u8 = 1;
const POINTER: u8 = 2;
const ARRAY: u8 = 3;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const FORWARD: u8 = 7;
const TYPEDEF: u8 = 8;
const FUNC: u8 = 12;
const FUNC_PROTO: u8 = 13;
const ENUM: u8 = 6;
/// The kinds that only name another type: typedef, volatile, const, restrict, type tag.
const MODIFIERS: [u8; 5] = [TYPEDEF, 9, 10, 11, 18];
/// How deep unnamed members and modifiers may be nested; deeper nesting means that the data is
/// broken.
const MAX_DEPTH: usize = 32;
/// How many members are looked at for one field, those of unnamed members included, before the data
/// counts as broken. The largest struct of a kernel has some hundreds.
const MOST_MEMBERS: usize = 100_000;

/// Parsed type information.
pub(super) struct Btf {
    data: Vec<u8>,
    /// Where the strings begin in `data`.
    strings: usize,
    /// Where the header of each type begins in `data`, by the type's id; type 0 is void.
    types: Vec<u32>,
    /// The id of each struct, by name.
    structs: HashMap<String, u32>,
    /// The id of each tracepoint's typedef, by the tracepoint's name.
    tracepoints: HashMap<String, u32>,
    /// The ids of all functions of a name: several functions may have the same one.
    functions: HashMap<String, Vec<u32>>,
    /// The id of each enumeration, by name.
    enums: HashMap<String, u32>,
}

/// The parameters of a function, and whether it returns a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// The types of the parameters, separated by commas: `name*` for a pointer to a struct, `int*`,
    /// `fn*` or `void*` for other pointers, `int` for everything else.
    pub(super) parameters: String,
    /// How many parameters it has.
    pub(super) arity: u8,
    /// Whether it returns a value.
    pub(super) returns: bool,
}

/// A type's header.
#[derive(Clone, Copy)]
struct Header {
    name: u32,
    kind: u8,
    vlen: usize,
    /// Whether the members of a struct or union have a bit-field size beside their offset.
    kind_flag: bool,
    /// The type's size in bytes, or the id of the type that a modifier, pointer or function names.
    size_or_type: u32,
}

impl Btf {
    /// Parses the bytes of `/sys/kernel/btf/vmlinux`. Of the many structs, enumerations,
    /// tracepoints and functions in it, only those can be looked up whose name is `wanted`.
    ///
    /// # Errors
    /// The data is cut short, has another byte order, or holds a kind of type that is not known.
    pub(super) fn parse(data: Vec<u8>, wanted: impl Fn(&[u8]) -> bool) -> Result<Self> {
        let magic = data.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        ensure!(magic == Some(MAGIC), "no BTF of this machine's byte order (magic {magic:x?})");
        let header_len = word(&data, 4)? as usize;
        let types_at = header_len + word(&data, 8)? as usize;
        let types_end = types_at + word(&data, 12)? as usize;
        let strings = header_len + word(&data, 16)? as usize;
        ensure!(types_end <= data.len() && strings <= data.len(), "BTF is cut short");
        let mut btf = Self {
            data,
            strings,
            types: vec![0],
            structs: HashMap::new(),
            tracepoints: HashMap::new(),
            functions: HashMap::new(),
            enums: HashMap::new(),
        };
        let mut at = types_at;
        while at < types_end {
            let header = btf.header(at)?;
            let id = u32::try_from(btf.types.len()).context("too many types")?;
            btf.types.push(u32::try_from(at).context("too many types")?);
            if let Some(name) = btf.name(header)?.filter(|name| wanted(name)) {
                let name = text(name);
                match header.kind {
                    TYPEDEF => _ = btf.tracepoints.insert(name, id),
                    FUNC => btf.functions.entry(name).or_default().push(id),
                    // Several structs may have one name; the first is the kernel's own.
                    STRUCT => _ = btf.structs.entry(name).or_insert(id),
                    ENUM => _ = btf.enums.entry(name).or_insert(id),
                    _ => {}
                }
            }
            at += 12 + extra_bytes(header)?;
        }
        Ok(btf)
    }

    /// The name by which a type is looked up; `None` for a kind that is never looked up.
    fn name(&self, header: Header) -> Result<Option<&[u8]>> {
        Ok(match header.kind {
            STRUCT | ENUM | FUNC => Some(self.bytes(header.name)?),
            TYPEDEF => self.bytes(header.name)?.strip_prefix(TRACEPOINT.as_bytes()),
            _ => None,
        })
    }

    /// Whether a BTF program can attach to tracepoint `name`.
    #[must_use]
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoints.contains_key(name)
    }

    /// Whether the kernel has a function of this name.
    #[must_use]
    pub(super) fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// The signature of function `name`; `None` where the kernel has no function of this name, or
    /// more than one.
    ///
    /// # Errors
    /// The type data is broken.
    pub(super) fn signature(&self, name: &str) -> Result<Option<Signature>> {
        let Some([id]) = self.functions.get(name).map(Vec::as_slice) else {
            return Ok(None);
        };
        let prototype = self.header(self.place(*id)?)?.size_or_type;
        let at = self.place(prototype)?;
        let header = self.header(at)?;
        ensure!(header.kind == FUNC_PROTO, "function {name} has no prototype");
        let parameters = (0..header.vlen)
            .map(|place| self.brief(word(&self.data, at + 12 + 8 * place + 4)?, 0))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Signature {
            arity: u8::try_from(parameters.len()).context("too many parameters")?,
            parameters: parameters.join(","),
            returns: header.size_or_type != 0,
        }))
    }

    /// BTF data that holds only the types that programs attach to, tracepoints and functions, under
    /// the same ids as here. It is read in a fraction of the time that the whole data takes.
    #[must_use]
    pub(super) fn attachable(&self) -> Vec<u8> {
        const HEADER_BYTES: u32 = 24;
        let anonymous = [0, u32::from(FORWARD) << 24, 0];
        let mut types = vec![anonymous; self.types.len()];
        let mut strings = vec![0];
        let mut keep = |name: &str, id: u32, kind: u8| {
            let at = u32::try_from(strings.len()).unwrap_or_default();
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
            if let Some(slot) = types.get_mut(id as usize) {
                *slot = [at, u32::from(kind) << 24, 0];
            }
        };
        for (name, id) in &self.tracepoints {
            keep(&format!("{TRACEPOINT}{name}"), *id, TYPEDEF);
        }
        for (name, ids) in &self.functions {
            ids.iter().for_each(|id| keep(name, *id, FUNC));
        }
        // Type 0 is void and has no header in the data.
        let types: Vec<u8> = types.iter().skip(1).flatten().flat_map(|w| w.to_le_bytes()).collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default();
        let (types_len, strings_len) = (length(&types), length(&strings));
        let head = [HEADER_BYTES, 0, types_len, types_len, strings_len];
        let head = head.iter().flat_map(|word| word.to_le_bytes());
        // The data begins with the magic number, version 1 and no flags.
        let [low, high] = MAGIC.to_le_bytes();
        [low, high, 1, 0].into_iter().chain(head).chain(types).chain(strings).collect()
    }

    /// The short name of a parameter's type, as in [`Signature::parameters`].
    fn brief(&self, id: u32, depth: usize) -> Result<String> {
        ensure!(depth < MAX_DEPTH, "types are nested too deep");
        let Some((_, pointer)) = self.behind(id)?.filter(|(_, header)| header.kind == POINTER)
        else {
            return Ok("int".to_owned());
        };
        let Some((_, target)) = self.behind(pointer.size_or_type)? else {
            return Ok("void*".to_owned());
        };
        Ok(match target.kind {
            STRUCT | UNION | FORWARD => format!("{}*", self.string(target.name)?),
            FUNC_PROTO => "fn*".to_owned(),
            POINTER => format!("{}*", self.brief(pointer.size_or_type, depth + 1)?),
            _ => "int*".to_owned(),
        })
    }

    /// The type that typedefs and qualifiers stand for: where its header lies, and the header;
    /// `None` for void.
    fn behind(&self, mut id: u32) -> Result<Option<(usize, Header)>> {
        for _ in 0..MAX_DEPTH {
            if id == 0 {
                return Ok(None);
            }
            let at = self.place(id)?;
            let header = self.header(at)?;
            if !MODIFIERS.contains(&header.kind) {
                return Ok(Some((at, header)));
            }
            id = header.size_or_type;
        }
        bail!("types are nested too deep")
    }

    /// As [`Self::behind`], for a type that cannot be void.
    fn resolve(&self, id: u32) -> Result<(usize, Header)> {
        self.behind(id)?.context("a type is void where it cannot be")
    }

    /// The byte offset of the field `path` in struct `of`; dots in `path` lead into nested structs, and
    /// `name[3]` is an element of an array of numbers. The struct's size where `path` is empty; `None` where
    /// this kernel has no such struct or field.
    ///
    /// # Errors
    /// The type data is broken, or the field is a bit field, which has no byte offset.
    pub(super) fn offset(&self, of: &str, path: &str) -> Result<Option<u32>> {
        let Some(mut id) = self.structs.get(of).copied() else {
            return Ok(None);
        };
        if path.is_empty() {
            return Ok(Some(self.resolve(id)?.1.size_or_type));
        }
        let mut offset = 0;
        for name in path.split('.') {
            let mut steps = MOST_MEMBERS;
            let (name, index) = element(name).unwrap_or((name, None));
            let Some((bits, member)) = self.member(id, name, 0, &mut steps)? else {
                return Ok(None);
            };
            ensure!(bits % 8 == 0, "{of}.{path} is a bit field");
            offset = u32::saturating_add(offset, bits / 8);
            id = member;
            if let Some(index) = index {
                let Some(bytes) = self.element_bytes(id, index)? else { return Ok(None) };
                offset = u32::saturating_add(offset, u32::saturating_mul(bytes, index));
            }
        }
        Ok(Some(offset))
    }

    /// The size of an element of an array of numbers; `None` for another type, or where the array has no element
    /// of this index.
    fn element_bytes(&self, id: u32, index: u32) -> Result<Option<u32>> {
        let (at, array) = self.resolve(id)?;
        if array.kind != ARRAY || word(&self.data, at + 20)? <= index {
            return Ok(None);
        }
        let (_, number) = self.resolve(word(&self.data, at + 12)?)?;
        Ok((number.kind == INT).then_some(number.size_or_type))
    }

    /// The value of `enumerator` in enumeration `of`; `None` where this kernel has none.
    ///
    /// # Errors
    /// The type data is broken.
    pub(super) fn value(&self, of: &str, enumerator: &str) -> Result<Option<u32>> {
        let Some(id) = self.enums.get(of) else {
            return Ok(None);
        };
        let (at, header) = self.resolve(*id)?;
        for index in 0..header.vlen {
            let one = at + 12 + index * 8;
            if self.bytes(word(&self.data, one)?)? == enumerator.as_bytes() {
                return word(&self.data, one + 4).map(Some);
            }
        }
        Ok(None)
    }

    /// The bit offset and the type of member `name`, which may lie in an unnamed struct or union.
    fn member(
        &self,
        id: u32,
        name: &str,
        depth: usize,
        steps: &mut usize,
    ) -> Result<Option<(u32, u32)>> {
        ensure!(depth < MAX_DEPTH, "types are nested too deep");
        let (at, header) = self.resolve(id)?;
        if header.kind != STRUCT && header.kind != UNION {
            return Ok(None);
        }
        for index in 0..header.vlen {
            *steps = steps.checked_sub(1).context("a struct has too many members")?;
            let member = at + 12 + index * 12;
            let member_name = self.bytes(word(&self.data, member)?)?;
            let member_type = word(&self.data, member + 4)?;
            let mut bits = word(&self.data, member + 8)?;
            if header.kind_flag {
                let bit_field_size = bits >> 24;
                bits &= 0x00ff_ffff;
                ensure!(
                    bit_field_size == 0 || member_name != name.as_bytes(),
                    "field {name} is a bit field"
                );
            }
            if member_name == name.as_bytes() {
                return Ok(Some((bits, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1, steps)?
            {
                return Ok(Some((bits.saturating_add(inner), found)));
            }
        }
        Ok(None)
    }

    fn header(&self, at: usize) -> Result<Header> {
        let info = word(&self.data, at + 4)?;
        let [_, _, _, top] = info.to_le_bytes();
        Ok(Header {
            name: word(&self.data, at)?,
            kind: top & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: word(&self.data, at + 8)?,
        })
    }

    /// Where the header of a type begins in the data.
    fn place(&self, id: u32) -> Result<usize> {
        Ok(*self.types.get(id as usize).context("a type id is out of range")? as usize)
    }

    fn string(&self, offset: u32) -> Result<String> {
        Ok(text(self.bytes(offset)?))
    }

    fn bytes(&self, offset: u32) -> Result<&[u8]> {
        let bytes = self.data.get(self.strings + offset as usize..).context("BTF is cut short")?;
        Ok(CStr::from_bytes_until_nul(bytes).context("BTF is cut short")?.to_bytes())
    }
}

/// The name and the index of an element: `name[3]`.
fn element(path: &str) -> Option<(&str, Option<u32>)> {
    let (name, index) = path.strip_suffix(']')?.split_once('[')?;
    Some((name, Some(index.parse().ok()?)))
}

/// How many bytes follow a type's header.
fn extra_bytes(header: Header) -> Result<usize> {
    let n = header.vlen;
    Ok(match header.kind {
        // int, variable, declaration tag
        INT | 14 | 17 => 4,
        // pointer, forward, modifiers, function, float
        2 | 7..=12 | 16 | 18 => 0,
        // array
        ARRAY => 12,
        // struct, union, data section, 64-bit enum
        STRUCT | UNION | 15 | 19 => 12 * n,
        // enum, function prototype
        6 | 13 => 8 * n,
        kind => bail!("BTF holds kind {kind}, which this version of fork-trace does not know"),
    })
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let bytes = data.get(at..).and_then(<[u8]>::first_chunk).context("BTF is cut short")?;
    Ok(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    /// Data with these types: `struct inner { int e; int f:3; }`,
    /// `struct outer { int a; struct { int b; union { int c; }; }; const struct inner d; }`,
    /// `typedef ... btf_trace_x`, `int takes(const struct outer *, void *, int, int **)`, two
    /// functions `void twice(void)`, `enum color { red, blue = 7 }`, and
    /// `struct regs { int e; int f[5]; }`.
    fn blob() -> Vec<u8> {
        let mut strings = vec![0];
        let mut name = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let [int, outer, inner, x] = ["int", "outer", "inner", "btf_trace_x"].map(&mut name);
        let [color, red, blue] = ["color", "red", "blue"].map(&mut name);
        let [a, b, c, d, e, f] = ["a", "b", "c", "d", "e", "f"].map(&mut name);
        let [takes, twice, regs] = ["takes", "twice", "regs"].map(&mut name);
        let info = |kind: u32, vlen: u32| kind << 24 | vlen;
        #[rustfmt::skip]
        let types: Vec<u32> = vec![
            int, info(1, 0), 4, 32,                                              // 1
            0, info(5, 1), 4,  c, 1, 0,                                          // 2 union
            0, info(4, 2), 8,  b, 1, 0,  0, 2, 32,                               // 3 unnamed struct
            inner, info(4, 2) | 1 << 31, 8,  e, 1, 0,  f, 1, 3 << 24 | 32,       // 4
            0, info(10, 0), 4,                                                   // 5 const inner
            outer, info(4, 3), 20,  a, 1, 0,  0, 3, 32,  d, 5, 96,               // 6
            x, info(8, 0), 1,                                                    // 7 typedef
            0, info(10, 0), 6,                                                   // 8 const outer
            0, info(2, 0), 8,  0, info(2, 0), 0,                                 // 9, 10 pointers
            0, info(2, 0), 1,  0, info(2, 0), 11,                                // 11, 12
            0, info(13, 4), 1,  0, 9,  0, 10,  0, 1,  0, 12,                     // 13
            takes, info(12, 1), 13,                                              // 14
            0, info(13, 0), 0,  twice, info(12, 0), 15,  twice, info(12, 0), 15, // 15 to 17
            color, info(6, 2), 4,  red, 0,  blue, 7,                             // 18
            0, info(3, 0), 0,  1, 1, 5,                                          // 19 array
            regs, info(4, 2), 24,  e, 1, 0,  f, 19, 32,                          // 20
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut data = vec![0x9f, 0xeb, 1, 0];
        let len = u32::try_from(types.len()).unwrap();
        let strings_len = u32::try_from(strings.len()).unwrap();
        for word in [24, 0, len, len, strings_len] {
            data.extend_from_slice(&word.to_le_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    /// Types with one function, whose parameters point to these structs, and which returns an int
    /// or nothing.
    pub(crate) fn function(name: &str, parameters: &[&str], returns: bool) -> Btf {
        let mut strings = vec![0];
        let mut text = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let count = u32::try_from(parameters.len()).unwrap();
        let mut types: Vec<u32> = vec![text("int"), 1 << 24, 4, 32];
        for (place, parameter) in (1..).zip(parameters) {
            types.extend([text(parameter), 7 << 24, 0, 0, 2 << 24, 2 * place]);
        }
        types.extend([0, 13 << 24 | count, u32::from(returns)]);
        types.extend((1..=count).flat_map(|place| [0, 2 * place + 1]));
        types.extend([text(name), 12 << 24, 2 * count + 2]);
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut data = vec![0x9f, 0xeb, 1, 0];
        let len = u32::try_from(types.len()).unwrap();
        for word in [24, 0, len, len, u32::try_from(strings.len()).unwrap()] {
            data.extend_from_slice(&word.to_le_bytes());
        }
        data.extend(types);
        data.extend(strings);
        Btf::parse(data, |_| true).unwrap()
    }

    #[test]
    fn finds_fields_through_unnamed_members_and_modifiers() {
        let btf = Btf::parse(blob(), |_| true).unwrap();
        let offset = |of, path| btf.offset(of, path).unwrap();
        assert_eq!(offset("outer", "a"), Some(0));
        assert_eq!(offset("outer", "b"), Some(4));
        assert_eq!(offset("outer", "c"), Some(8));
        assert_eq!(offset("outer", "d"), Some(12));
        assert_eq!(offset("outer", "d.e"), Some(12));
        assert_eq!(offset("outer", ""), Some(20));
        assert_eq!(offset("regs", "f[0]"), Some(4));
        assert_eq!(offset("regs", "f[4]"), Some(20));
        for nothing in ["f[5]", "e[0]", "f[", "f[x]", "f[-1]", "f]"] {
            assert_eq!(offset("regs", nothing), None, "{nothing}");
        }
        assert_eq!(offset("outer", "nothing"), None);
        assert_eq!(offset("outer", "a.nothing"), None);
        assert_eq!(offset("nobody", "a"), None);
        assert!(btf.offset("outer", "d.f").is_err(), "a bit field has no byte offset");
        let value = |of, name| btf.value(of, name).unwrap();
        assert_eq!(value("color", "blue"), Some(7));
        assert_eq!(value("color", "green"), None);
        assert_eq!(value("nobody", "red"), None);
        assert!(btf.has_tracepoint("x"));
        assert!(!btf.has_tracepoint("y"));
    }

    #[test]
    fn a_signature_holds_the_parameters() {
        let btf = Btf::parse(blob(), |_| true).unwrap();
        let takes = btf.signature("takes").unwrap().unwrap();
        assert_eq!(takes.parameters, "outer*,void*,int,int**");
        assert_eq!((takes.arity, takes.returns), (4, true));
        assert!(btf.has_function("twice"));
        assert_eq!(btf.signature("twice").unwrap(), None, "two functions have this name");
        assert_eq!(btf.signature("nobody").unwrap(), None);
    }

    #[test]
    fn only_wanted_names_can_be_looked_up() {
        let btf = Btf::parse(blob(), |name| [&b"outer"[..], b"x"].contains(&name)).unwrap();
        // The members of a wanted struct are found, although their types are not wanted.
        assert_eq!(btf.offset("outer", "d.e").unwrap(), Some(12));
        assert!(btf.has_tracepoint("x"));
        assert_eq!(btf.offset("inner", "e").unwrap(), None);
        assert_eq!(btf.value("color", "blue").unwrap(), None);
        assert!(!btf.has_function("takes"));
    }

    #[test]
    fn attachable_types_keep_their_ids() {
        let whole = Btf::parse(blob(), |_| true).unwrap();
        let kept = Btf::parse(whole.attachable(), |_| true).unwrap();
        assert_eq!(kept.types.len(), whole.types.len());
        assert_eq!(kept.tracepoints, whole.tracepoints);
        assert_eq!(kept.functions, whole.functions);
        assert!(kept.structs.is_empty() && kept.enums.is_empty());
    }

    #[test]
    fn broken_data_is_an_error_at_every_length() {
        let whole = blob();
        for len in 0..whole.len() {
            // Where only the strings are cut short, that shows when a name is looked up.
            if let Ok(btf) = Btf::parse(whole[..len].to_vec(), |_| true) {
                btf.offset("outer", "d.e").ok();
                btf.signature("takes").ok();
            }
        }
        assert!(Btf::parse(vec![0; 64], |_| true).is_err());
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let mut data = blob();
        data[24 + 4 + 3] = 31;
        let error = Btf::parse(data, |_| true).err().unwrap();
        assert!(error.to_string().contains("kind 31"), "{error}");
    }

    #[test]
    fn reads_the_running_kernel() {
        let btf = Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").unwrap(), |_| true).unwrap();
        for offset in fork_trace_common::settings::OFFSETS {
            let found = btf.offset(offset.of, offset.field).unwrap();
            assert!(found.is_some() || !offset.required, "{offset:?}");
        }
        assert!(btf.value("cgroup_subsys_id", "pids_cgrp_id").unwrap().is_some());
        assert_eq!(btf.offset("task_struct", "thread_info.flags").unwrap(), Some(0));
        assert!(btf.has_tracepoint("task_newtask"));
        let newest = |row: &&fork_trace_common::function::FunctionRow| {
            let signature = row.names.first().and_then(|name| btf.signature(name).unwrap());
            signature.is_some_and(|found| row.parameters.contains(&found.parameters.as_str()))
        };
        let known = fork_trace_common::function::FUNCTIONS.iter().filter(newest).count();
        assert!(known > 30, "{known} functions are as the table has them");
    }

    proptest! {
        /// Data in which words and bytes were changed: it is read or refused.
        #[test]
        fn fuzz_btf(
            changes in proptest::collection::vec((any::<Index>(), change()), 0..6),
            cut in prop_oneof![8 => Just(None), 1 => any::<Index>().prop_map(Some)],
        ) {
            let mut data = blob();
            for (at, change) in &changes {
                let at = at.index(data.len() - 4);
                match change {
                    Ok(byte) => data[at] = *byte,
                    Err(word) => data[at / 4 * 4..at / 4 * 4 + 4].copy_from_slice(&word.to_le_bytes()),
                }
            }
            if let Some(cut) = cut {
                data.truncate(cut.index(data.len()));
            }
            let Ok(btf) = Btf::parse(data, |_| true) else { return Ok(()) };
            for (of, path) in [("outer", "a"), ("outer", "c"), ("outer", "d.e"), ("inner", ""), ("inner", "f"), ("regs", "f[4]")] {
                btf.offset(of, path).ok();
            }
            btf.value("color", "blue").ok();
            btf.signature("takes").ok();
            btf.signature("twice").ok();
            // What is attached to keeps its id.
            let small = Btf::parse(btf.attachable(), |_| true).unwrap();
            prop_assert_eq!(small.tracepoints.len(), btf.tracepoints.len());
        }
    }

    fn change() -> impl Strategy<Value = Result<u8, u32>> {
        prop_oneof![
            any::<u8>().prop_map(Ok),
            (0..40_u32).prop_map(Err),
            (0..20_u32, 0..70_000_u32, any::<bool>())
                .prop_map(|(kind, vlen, flag)| Err(kind << 24 | vlen | u32::from(flag) << 31)),
            any::<u32>().prop_map(Err),
        ]
    }
}
