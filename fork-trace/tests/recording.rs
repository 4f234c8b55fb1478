//! The recording that `cargo xtask bench consumer` feeds has the records of this version.

use fork_trace::assemble::decode::{Record, decode};
use fork_trace_common::record::bits;

/// If this fails because a record has changed, make the recording anew, as docs/PERFORMANCE.md says.
#[test]
fn each_record_is_read_and_is_of_a_plain_fork() {
    let mut bytes: &[u8] = include_bytes!("../examples/consumer/plain.ring");
    let (mut forks, mut starts, mut ends) = (0, 0, 0);
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let (entry, rest) = rest.split_at(length);
        match decode(entry).unwrap() {
            Record::Fork(fork) => {
                forks += 1;
                assert!(fork.has(bits::CHILD | bits::ENTERED) && !fork.has(bits::WAITED));
            }
            Record::Start(_) => starts += 1,
            Record::FollowUp(_) => ends += 1,
            Record::Program(_) => {}
            other => panic!("{other:?}"),
        }
        bytes = rest;
    }
    assert_eq!((forks, starts, ends), (64, 64, 64));
}
