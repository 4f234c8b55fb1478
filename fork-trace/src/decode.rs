//! Bytes of the ring to records; no state, no unsafe.

use anyhow::{Context as _, Result, bail};
use fork_trace_common::{
    record::{CallsRecord, ForkRecord, RecordKind, StartRecord},
    refusal::RefusalRecord,
};
use zerocopy::FromBytes as _;

/// What the kernel side wrote.
#[derive(Clone, Debug)]
pub enum Record {
    /// An attempt.
    Fork(Box<ForkRecord>),
    /// A child's first return to user space.
    Start(StartRecord),
    /// The functions an attempt passed.
    Calls(Box<CallsRecord>),
    /// The evidence of a refusal.
    Refusal(Box<RefusalRecord>),
}

/// Decodes one entry of the ring.
///
/// # Errors
/// The entry's first word names no record, or its length is not that record's.
pub fn decode(bytes: &[u8]) -> Result<Record> {
    const FORK: u32 = RecordKind::Fork as u32;
    const START: u32 = RecordKind::Start as u32;
    const CALLS: u32 = RecordKind::Calls as u32;
    const REFUSAL: u32 = RecordKind::Refusal as u32;
    let kind = bytes.first_chunk().map(|kind| u32::from_ne_bytes(*kind));
    let length = || format!("record of kind {kind:?} has {} bytes", bytes.len());
    match kind {
        Some(FORK) => {
            let record = ForkRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Fork(Box::new(record)))
        }
        Some(START) => {
            let record = StartRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Start(record))
        }
        Some(CALLS) => {
            let calls = CallsRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Calls(Box::new(calls)))
        }
        Some(REFUSAL) => {
            let record = RefusalRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Refusal(Box::new(record)))
        }
        _ => bail!("{} is of no known kind", length()),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn every_record_comes_back() {
        let mut fork = ForkRecord::zeroed();
        fork.ret = -11;
        let Record::Fork(back) = decode(fork.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), fork.as_bytes());

        let mut refusal = RefusalRecord::new_zeroed();
        refusal.kind = RecordKind::Refusal as u32;
        refusal.names[7][95] = 1;
        let Record::Refusal(back) = decode(refusal.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), refusal.as_bytes());

        let mut start = StartRecord::new_zeroed();
        start.kind = RecordKind::Start as u32;
        start.cpu = 7;
        let Record::Start(back) = decode(start.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), start.as_bytes());

        let mut calls = CallsRecord::zeroed();
        calls.errno = 12;
        let Record::Calls(back) = decode(calls.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), calls.as_bytes());
    }

    #[test]
    fn a_wrong_length_or_kind_is_an_error() {
        let fork = ForkRecord::zeroed();
        let bytes = fork.as_bytes();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [bytes, &[0; 8]].concat();
        assert!(decode(&longer).is_err());
        assert!(decode(&[9; 48]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            decode(&bytes).ok();
        }
    }
}
