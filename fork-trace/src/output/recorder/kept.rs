//! What a recorder holds in memory: lines in blocks that are compressed one by one, the oldest of which leave.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

/// Text that becomes a block at the latest: more would hardly pack better.
const BLOCK: usize = 64 << 10;

/// Blocks that a full memory has at least, so that little leaves at once.
const LEAST_BLOCKS: usize = 8;

/// Blocks into which the longest age is split at least.
const LEAST_AGES: u32 = 32;

/// The longest line that is kept: a replay reads no longer ones.
const LONGEST_LINE: usize = 1 << 20;

/// What a block takes beside its bytes.
const BESIDE: usize = 128;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nothing older than this.
    pub(super) last: Duration,
    /// No more bytes than this.
    pub(super) size: usize,
}

/// Lines that left memory, or never came into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// They became too old.
    pub age: u64,
    /// There was no more room.
    pub size: u64,
    /// They are longer than a replay reads.
    pub too_long: u64,
}

impl Left {
    /// All of them.
    pub(super) const fn all(&self) -> u64 {
        self.age + self.size + self.too_long
    }
}

/// Lines that are compressed: a gzip member that stands for itself.
#[derive(Clone, Debug)]
struct Block {
    packed: Arc<[u8]>,
    lines: u64,
    /// When the newest came.
    newest: Instant,
    /// The earliest moment of which they tell, `CLOCK_MONOTONIC`.
    earliest_ns: Option<u64>,
}

/// Lines that are not compressed yet.
#[derive(Debug, Default)]
struct Open {
    text: Vec<u8>,
    lines: u64,
    /// When the oldest and the newest came.
    times: Option<(Instant, Instant)>,
    earliest_ns: Option<u64>,
}

/// The lines that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    bounds: Bounds,
    /// The oldest first.
    blocks: VecDeque<Block>,
    /// Bytes of the blocks.
    packed: usize,
    open: Open,
    left: Left,
    /// When the newest of those came that left.
    left_until: Option<Instant>,
}

/// What was kept at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    /// Gzip members, the oldest lines first.
    pub(super) packed: Vec<Arc<[u8]>>,
    /// Lines that came after these.
    pub(super) text: Vec<u8>,
    /// The earliest moment of which the lines tell, `CLOCK_MONOTONIC`.
    pub(super) earliest_ns: Option<u64>,
    /// What came later is here; `None`: so is everything.
    pub(super) left_until: Option<Instant>,
    pub(super) left: Left,
}

impl Kept {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            blocks: VecDeque::new(),
            packed: 0,
            open: Open::default(),
            left: Left::default(),
            left_until: None,
        }
    }

    /// Takes a line, with its end, that tells of the moment `at_ns`.
    pub(super) fn push(&mut self, line: &[u8], at_ns: Option<u64>, now: Instant) {
        if line.len() > LONGEST_LINE {
            self.left.too_long += 1;
            return;
        }
        let open = &mut self.open;
        open.text.extend_from_slice(line);
        open.lines += 1;
        open.earliest_ns = earlier(open.earliest_ns, at_ns);
        let (oldest, _) = *open.times.insert((open.times.map_or(now, |(oldest, _)| oldest), now));
        let is_full = open.text.len() >= BLOCK.min(self.bounds.size / LEAST_BLOCKS);
        if is_full || now.saturating_duration_since(oldest) >= self.bounds.last / LEAST_AGES {
            self.seal(now);
        }
        self.leave(now);
    }

    /// Makes a block of the lines that are in none.
    fn seal(&mut self, now: Instant) {
        let Open { text, lines, times, earliest_ns } = std::mem::take(&mut self.open);
        let Ok(packed) = pack(&text) else {
            // In memory nothing fails; if it did, the lines would be gone, and counted.
            self.left.size += lines;
            self.left_until = Some(now);
            return;
        };
        let newest = times.map_or(now, |(_, newest)| newest);
        self.packed += packed.len() + BESIDE;
        self.blocks.push_back(Block { packed: packed.into(), lines, newest, earliest_ns });
    }

    /// Lets go of what is too old or too much at `now`.
    pub(super) fn leave(&mut self, now: Instant) {
        let is_old = |newest: Instant| now.saturating_duration_since(newest) > self.bounds.last;
        while let Some(block) = self.blocks.front() {
            let count = match is_old(block.newest) {
                true => &mut self.left.age,
                false if self.bytes() > self.bounds.size => &mut self.left.size,
                false => return,
            };
            *count += block.lines;
            self.left_until = Some(block.newest);
            self.packed -= block.packed.len() + BESIDE;
            self.blocks.pop_front();
        }
        let Some((_, newest)) = self.open.times else { return };
        let count = match is_old(newest) {
            true => &mut self.left.age,
            false if self.bytes() > self.bounds.size => &mut self.left.size,
            false => return,
        };
        *count += self.open.lines;
        self.left_until = Some(newest);
        self.open = Open::default();
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.packed + self.open.text.len()
    }

    pub(super) const fn left(&self) -> Left {
        self.left
    }

    /// What is kept at `now`. Blocks are shared, not copied.
    pub(super) fn copied(&mut self, now: Instant) -> Copied {
        self.leave(now);
        let earliest = self.blocks.iter().map(|block| block.earliest_ns);
        Copied {
            packed: self.blocks.iter().map(|block| Arc::clone(&block.packed)).collect(),
            text: self.open.text.clone(),
            earliest_ns: earliest.fold(self.open.earliest_ns, earlier),
            left_until: self.left_until,
            left: self.left,
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}

/// Text as a gzip member. At this level it takes a third of the time that Zstandard takes here, and a tenth more
/// room.
///
/// # Errors
/// None: all of it is in memory.
pub(super) fn pack(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
    packing.write_all(text)?;
    packing.finish()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;
    use crate::output::compress;

    fn lines_of(copied: &Copied) -> Vec<String> {
        let mut text = String::new();
        for packed in &copied.packed {
            let packed = Cursor::new(packed.to_vec());
            compress::reader(packed).unwrap().read_to_string(&mut text).unwrap();
        }
        text.push_str(std::str::from_utf8(&copied.text).unwrap());
        text.lines().map(str::to_owned).collect()
    }

    fn line(number: u64) -> String {
        // It packs badly, so that size counts.
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{number} {noise:x}{:x}\n", noise.rotate_left(17) ^ 0x5555)
    }

    const ALWAYS: Duration = Duration::from_secs(3600);

    #[test]
    fn memory_stays_within_its_bound_and_what_left_is_counted() {
        let size = 100_000;
        let (mut kept, now) = (Kept::new(Bounds { last: ALWAYS, size }), Instant::now());
        let pushed = 200_000;
        for number in 0..pushed {
            kept.push(line(number).as_bytes(), Some(number + 5), now);
            assert!(kept.bytes() <= size, "{}", kept.bytes());
        }
        let copied = kept.copied(now);
        let lines = lines_of(&copied);
        let count = u64::try_from(lines.len()).unwrap();
        // The last ones, all of them, in order.
        let wanted: Vec<_> =
            (pushed - count..pushed).map(|number| line(number).trim().to_owned()).collect();
        assert_eq!(lines, wanted);
        assert!(count > 2_000, "{count}");
        assert_eq!(copied.left, Left { age: 0, size: pushed - count, too_long: 0 });
        assert_eq!(copied.earliest_ns, Some(pushed - count + 5));
        assert!(copied.left_until.is_some());
    }

    #[test]
    fn what_is_old_leaves_also_where_nothing_comes_any_more() {
        let last = Duration::from_secs(32);
        let (mut kept, began) = (Kept::new(Bounds { last, size: 1 << 20 }), Instant::now());
        let at = |ms: u64| began + Duration::from_millis(ms);
        for number in 0..1_000 {
            kept.push(line(number).as_bytes(), None, at(number * 100));
        }
        let copied = kept.copied(at(99_900));
        let lines = lines_of(&copied);
        // 32 s are 320 lines, and one block more at most.
        assert!((320..=332).contains(&lines.len()), "{}", lines.len());
        assert_eq!(copied.left.age + u64::try_from(lines.len()).unwrap(), 1_000);
        assert!(at(99_900) - copied.left_until.unwrap() >= last);
        let copied = kept.copied(at(99_900) + last + Duration::from_millis(1));
        assert_eq!((lines_of(&copied).len(), copied.left.age), (0, 1_000));
        assert_eq!((kept.bytes(), copied.earliest_ns), (0, None));
        // After a pause it goes on.
        kept.push(b"x\n", Some(1), at(500_000));
        assert_eq!(lines_of(&kept.copied(at(500_000))), ["x"]);
    }

    #[test]
    fn a_line_that_nobody_could_read_is_not_kept_and_one_too_large_for_memory_leaves() {
        let (mut kept, now) = (Kept::new(Bounds { last: ALWAYS, size: 4096 }), Instant::now());
        kept.push(&vec![b'x'; LONGEST_LINE + 1], None, now);
        assert_eq!((kept.bytes(), kept.left().too_long), (0, 1));
        let noise: Vec<_> = (0..400).map(line).collect();
        kept.push(noise.concat().as_bytes(), None, now);
        assert_eq!((kept.bytes(), kept.left().size), (0, 1));
        kept.push(b"y\n", None, now);
        let copied = kept.copied(now);
        assert_eq!((lines_of(&copied), copied.left.all()), (vec!["y".to_owned()], 2));
    }
}
