//! Bytes of the ring to records; no state, no unsafe.

use anyhow::{Context as _, Result, bail};
use fork_trace_common::{
    follow_up::{ARGS_BYTES, ExecRecord, FollowUpKind, FollowUpRecord, bits},
    libc::{AtforkRecord, LibcRecord},
    program::{self, ProgramRecord},
    record::{self, ForkRecord, FunctionTimes, RecordKind, StartRecord},
    refusal::RefusalRecord,
    sample::SampleRecord,
    stack::{Frame, StackRecord},
    wait::{Wait, WaitsRecord},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// What the kernel side wrote.
#[derive(Clone, Debug)]
pub enum Record {
    /// An attempt.
    Fork(Box<ForkRecord>),
    /// A child's first return to user space.
    Start(StartRecord),
    /// The functions an attempt passed.
    Functions(Box<FunctionTimes>),
    /// The evidence of a refusal.
    Refusal(Box<RefusalRecord>),
    /// Where a task stood still; places that were not sent are zero.
    Waits(Box<WaitsRecord>),
    /// What a task was doing when a timer came; the part of the stack that was not sent is zero.
    Sample(Box<SampleRecord>),
    /// A caller's user-space stack.
    Stack(Box<Stack>),
    /// An event in a child's life.
    FollowUp(FollowUpRecord),
    /// A child runs another program, told with its name and arguments; the unused end of `args` is
    /// zero.
    Exec(Box<ExecRecord>),
    /// The program of a caller; the unused end of `args` is zero.
    Program(Box<ProgramRecord>),
    /// A run of a wrapper of the C library.
    Libc(Box<LibcRecord>),
    /// A process registers handlers, or loses them.
    Atfork(AtforkRecord),
}

/// A caller's user-space stack: a [`StackRecord`] without room for frames that it has not.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The calling thread.
    pub tid: u32,
    /// `start_ns` of its attempt.
    pub start_ns: u64,
    /// `start_code`, `start_stack` and `exe_inode` of the record.
    pub image: [u64; 3],
    /// The frames, the innermost first.
    pub frames: Box<[Frame]>,
}

/// Decodes one entry of the ring.
///
/// # Errors
/// The entry's first word names no record, or its length is not that record's.
pub fn decode(bytes: &[u8]) -> Result<Record> {
    const FORK: u32 = RecordKind::Fork as u32;
    const START: u32 = RecordKind::Start as u32;
    const FUNCTION_TIMES: u32 = RecordKind::Functions as u32;
    const REFUSAL: u32 = RecordKind::Refusal as u32;
    const WAITS: u32 = RecordKind::Waits as u32;
    const SAMPLE: u32 = RecordKind::Sample as u32;
    const RETURNED: u32 = FollowUpKind::VforkReturned as u32;
    const ENDED: u32 = FollowUpKind::Ended as u32;
    const EXECED: u32 = FollowUpKind::Execed as u32;
    const EXECED_WITH: u32 = FollowUpKind::ExecedWith as u32;
    const EXEC_FAILED: u32 = FollowUpKind::ExecFailed as u32;
    const PROGRAM: u32 = RecordKind::Program as u32;
    const LIBC: u32 = RecordKind::Libc as u32;
    const ATFORK: u32 = RecordKind::Atfork as u32;
    const STACK: u32 = RecordKind::Stack as u32;
    let kind = bytes.first_chunk().map(|kind| u32::from_ne_bytes(*kind));
    let length = || format!("record of kind {kind:?} has {} bytes", bytes.len());
    match kind {
        Some(FORK) => Ok(Record::Fork(fork(bytes).with_context(length)?)),
        Some(START) => {
            let record = StartRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Start(record))
        }
        Some(FUNCTION_TIMES) => {
            let functions = FunctionTimes::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Functions(Box::new(functions)))
        }
        Some(REFUSAL) => {
            let record = RefusalRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Refusal(Box::new(record)))
        }
        Some(WAITS) => Ok(Record::Waits(waits(bytes).with_context(length)?)),
        Some(SAMPLE) => Ok(Record::Sample(sample(bytes).with_context(length)?)),
        Some(STACK) => Ok(Record::Stack(Box::new(stack(bytes).with_context(length)?))),
        Some(RETURNED | ENDED | EXECED) => {
            let record = FollowUpRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::FollowUp(record))
        }
        Some(PROGRAM) => Ok(Record::Program(Box::new(program(bytes).with_context(length)?))),
        Some(LIBC) => {
            let record = LibcRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Libc(Box::new(record)))
        }
        Some(ATFORK) => {
            let record = AtforkRecord::read_from_bytes(bytes).ok().with_context(length)?;
            Ok(Record::Atfork(record))
        }
        Some(EXECED_WITH | EXEC_FAILED) => {
            Ok(Record::Exec(Box::new(exec(bytes).with_context(length)?)))
        }
        _ => bail!("{} is of no known kind", length()),
    }
}

/// An attempt, which may be told in brief.
fn fork(bytes: &[u8]) -> Option<Box<ForkRecord>> {
    if bytes.len() != ForkRecord::BRIEF {
        return ForkRecord::read_from_bytes(bytes).ok().map(Box::new);
    }
    let mut record = Box::new(ForkRecord::zeroed());
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    record.bits = record.bits & !record::bits::NOT_IN_BRIEF | record::bits::BRIEF;
    Some(record)
}

/// A head and the places that were used. The head alone says that a task has left its CPU. A program that
/// was preempted as it sent them may have sent fewer than there were then, and such a record lacks a wait.
fn waits(bytes: &[u8]) -> Option<Box<WaitsRecord>> {
    let mut record = Box::new(WaitsRecord::zeroed());
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    let places = bytes.len().checked_sub(WaitsRecord::HEAD)?;
    let sent = u32::try_from(places / size_of::<Wait>()).ok()?;
    let leaves = sent == 0 && record.left_ns != 0;
    if !places.is_multiple_of(size_of::<Wait>()) || sent > record.used {
        return None;
    }
    if sent < record.used && !leaves {
        record.used = sent;
        record.missed = record.missed.saturating_add(1);
    }
    Some(record)
}

/// A head and the addresses that were read.
fn sample(bytes: &[u8]) -> Option<Box<SampleRecord>> {
    let mut record = Box::new(SampleRecord::zeroed());
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    let stack = usize::try_from(record.frames).ok()?.checked_mul(8)?;
    (bytes.len().checked_sub(SampleRecord::HEAD) == Some(stack)).then_some(record)
}

/// Likewise.
fn stack(bytes: &[u8]) -> Option<Stack> {
    let mut record = Box::new(StackRecord::zeroed());
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    let sent = bytes.len().checked_sub(StackRecord::HEAD)?;
    let frames = record.stack.get(..usize::try_from(record.frames).ok()?)?;
    (size_of_val(frames) == sent).then(|| Stack {
        tid: record.tid,
        start_ns: record.start_ns,
        image: [record.start_code, record.start_stack, record.exe_inode],
        frames: frames.into(),
    })
}

/// The record of variable length: as long as its own head says.
fn exec(bytes: &[u8]) -> Option<ExecRecord> {
    let mut record = ExecRecord::zeroed();
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    let kept = kept(record.args_bytes, record.life.bits & bits::ARGS != 0);
    (bytes.len() == ExecRecord::HEAD + kept).then_some(record)
}

/// Likewise.
fn program(bytes: &[u8]) -> Option<ProgramRecord> {
    let mut record = ProgramRecord::zeroed();
    record.as_mut_bytes().get_mut(..bytes.len())?.copy_from_slice(bytes);
    let kept = kept(record.args_bytes, record.bits & program::bits::ARGS != 0);
    (bytes.len() == ProgramRecord::HEAD + kept).then_some(record)
}

/// How many bytes of arguments a record has that tells `args_bytes`, if they were read.
fn kept(args_bytes: u64, read: bool) -> usize {
    if read { usize::try_from(args_bytes).unwrap_or(usize::MAX).min(ARGS_BYTES) } else { 0 }
}

#[cfg(test)]
mod tests {
    use fork_trace_common::stage::Mark;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn every_record_comes_back() {
        let mut fork = ForkRecord::zeroed();
        fork.ret = -11;
        let Record::Fork(back) = decode(fork.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), fork.as_bytes());

        fork.bits = record::bits::CHILD | record::bits::MEMORY;
        fork.marks.fill(7);
        fork.memory_ooms = 1;
        let brief = &fork.as_bytes()[..ForkRecord::BRIEF];
        let Record::Fork(back) = decode(brief).unwrap() else { panic!() };
        assert_eq!(back.bits, record::bits::CHILD | record::bits::BRIEF);
        assert_eq!(back.mark_ns(Mark::SysExit), 7);
        assert_eq!(back.mark_ns(Mark::SchedWakeupNew), 7);
        assert_eq!(back.mark_ns(Mark::SchedProcessFork), 0);
        assert_eq!((back.ret, back.memory_ooms), (-11, 0));
        assert!(decode(&fork.as_bytes()[..ForkRecord::BRIEF + 8]).is_err());

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

        let mut functions = FunctionTimes::zeroed();
        functions.errno = 12;
        let Record::Functions(back) = decode(functions.as_bytes()).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), functions.as_bytes());
    }

    #[test]
    fn a_sample_is_as_long_as_its_head_says() {
        let mut sample = SampleRecord::zeroed();
        sample.frames = 2;
        sample.stack[1] = 7;
        let bytes = sample.as_bytes();
        let whole = SampleRecord::HEAD + 16;
        let Record::Sample(back) = decode(&bytes[..whole]).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), bytes);
        for wrong in [4, SampleRecord::HEAD, whole - 8, whole + 1, bytes.len()] {
            assert!(decode(&bytes[..wrong]).is_err(), "{wrong}");
        }
        sample.frames = u64::MAX;
        assert!(decode(sample.as_bytes()).is_err());
    }

    #[test]
    fn a_stack_is_as_long_as_its_head_says() {
        let mut record = StackRecord::zeroed();
        record.frames = 2;
        record.exe_inode = 9;
        record.stack[1].at = 7;
        let whole = StackRecord::HEAD + 64;
        let bytes = record.as_bytes();
        let Record::Stack(back) = decode(&bytes[..whole]).unwrap() else { panic!() };
        assert_eq!((back.frames.len(), back.frames[1].at, back.image), (2, 7, [0, 0, 9]));
        for wrong in [4, StackRecord::HEAD, whole - 32, whole - 1, whole + 1, bytes.len()] {
            assert!(decode(&bytes[..wrong]).is_err(), "{wrong}");
        }
        record.frames = u64::MAX;
        assert!(decode(record.as_bytes()).is_err());
    }

    #[test]
    fn an_exec_is_as_long_as_its_head_says() {
        let mut exec = ExecRecord::zeroed();
        exec.life.bits = bits::ARGS;
        exec.args_bytes = 6;
        exec.args[..6].copy_from_slice(b"ls\0/a\0");
        let bytes = exec.as_bytes();
        let Record::Exec(back) = decode(&bytes[..ExecRecord::HEAD + 6]).unwrap() else { panic!() };
        assert_eq!(back.as_bytes(), bytes);
        for wrong in [0, ExecRecord::HEAD, ExecRecord::HEAD + 5, ExecRecord::HEAD + 7] {
            assert!(decode(&bytes[..wrong]).is_err(), "{wrong}");
        }
        exec.args_bytes = 100_000;
        assert!(decode(exec.as_bytes()).is_ok(), "cut");
        let longer = [exec.as_bytes(), &[0]].concat();
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn a_wrong_length_or_kind_is_an_error() {
        let fork = ForkRecord::zeroed();
        let bytes = fork.as_bytes();
        for len in (0..bytes.len()).filter(|len| *len != ForkRecord::BRIEF) {
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
