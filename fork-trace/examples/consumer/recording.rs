//! A recording: the entries of the ring as they came, each behind its length in four bytes,
//! little-endian.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use fork_trace::assemble::decode::{Record, decode};
use fork_trace_common::record::TaskIds;

/// Appends an entry.
pub(crate) fn append(recording: &mut Vec<u8>, entry: &[u8]) -> Result<()> {
    let length = u32::try_from(entry.len()).context("an entry is too long")?;
    recording.extend_from_slice(&length.to_le_bytes());
    recording.extend_from_slice(entry);
    Ok(())
}

/// The entries of a recording.
pub(crate) fn entries(mut recording: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    while !recording.is_empty() {
        let (length, rest) = recording.split_first_chunk().context("a length is cut off")?;
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (entry, rest) = rest.split_at_checked(length).context("an entry is cut off")?;
        entries.push(entry.to_vec());
        recording = rest;
    }
    Ok(entries)
}

/// What the process that forked most did: its attempts and its program, and what became of its children.
/// The rest of the host is left out.
pub(crate) fn of_one_caller(entries: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let records = entries.iter().map(|entry| decode(entry)).collect::<Result<Vec<_>>>()?;
    let mut attempts: HashMap<u32, u64> = HashMap::new();
    for record in &records {
        if let Record::Fork(fork) = record {
            *attempts.entry(fork.parent.tgid).or_default() += 1;
        }
    }
    let most = attempts.into_iter().max_by_key(|(_, count)| *count);
    let (caller, _) = most.context("the recording has no attempt")?;
    let key = |child: &TaskIds| (child.tid, child.start_ns);
    let children: HashSet<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Fork(fork) if fork.parent.tgid == caller => Some(key(&fork.child)),
            _ => None,
        })
        .collect();
    let is_kept = |record: &Record| match record {
        Record::Fork(fork) => fork.parent.tgid == caller,
        Record::Program(program) => program.tgid == caller,
        Record::Start(start) => children.contains(&key(&start.child)),
        Record::FollowUp(record) => children.contains(&key(&record.born.child)),
        Record::Exec(exec) => children.contains(&key(&exec.life.born.child)),
        // Most attempts have none, and a plain one is what is measured.
        Record::Functions(_)
        | Record::Refusal(_)
        | Record::Waits(_)
        | Record::Sample(_)
        | Record::Libc(_)
        | Record::Atfork(_)
        | Record::Stack(_) => false,
    };
    let kept = entries.into_iter().zip(&records).filter(|(_, record)| is_kept(record));
    Ok(kept.map(|(entry, _)| entry).collect())
}
