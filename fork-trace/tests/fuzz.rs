//! Fuzzing: whatever bytes come, nothing panics, nothing grows without bound, and nothing reaches a
//! terminal as more than text.
//!
//! A `cargo test` makes some hundred cases of each; `cargo xtask fuzz` makes as many as there is time
//! for. The environment says how many and which: `PROPTEST_CASES`, `PROPTEST_RNG_SEED`. What is
//! private to a room is fuzzed in its own file, by tests whose names begin with `fuzz_` too.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, io, sync::OnceLock};

use clap::Parser as _;
use fork_trace::{
    assemble::{
        decode::{Record, decode},
        follow_up::Follower,
        fork::fork,
        join::Joiner,
        samples,
        times::{Times, began_ns},
        waits,
    },
    cause::{self, Case, Window},
    cli::Cli,
    event::{Event, clock::Clock, replay::Replay, tally::Tally},
    host::{
        call_sites::all_unknown, facts::Facts, features::Features, limits::Aftermath,
        tracepoint::Tracepoint,
    },
    live::warnings::Storms,
    output::{
        json::Json,
        notes::Notes,
        sink::{Sink as _, send},
        text::{Look, Text},
        told::Told,
    },
    plan::{Plan, backend::Backend, stages::Stages},
};
use fork_trace_common::{
    follow_up::{ExecRecord, FollowUpRecord},
    function::FUNCTIONS,
    program::ProgramRecord,
    record::{ForkRecord, FunctionTimes, StartRecord},
    refusal::RefusalRecord,
    sample::SampleRecord,
    wait::{Wait, WaitsRecord},
};
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::Index};

/// A record's kind, and how long such a record is.
const RECORDS: [(u32, usize); 13] = [
    (1, size_of::<ForkRecord>()),
    (2, size_of::<StartRecord>()),
    (3, size_of::<FollowUpRecord>()),
    (4, size_of::<FollowUpRecord>()),
    (5, size_of::<FollowUpRecord>()),
    (6, size_of::<ExecRecord>()),
    (7, size_of::<FunctionTimes>()),
    (8, size_of::<RefusalRecord>()),
    (9, size_of::<ExecRecord>()),
    (10, size_of::<ProgramRecord>()),
    (11, WaitsRecord::HEAD),
    (11, WaitsRecord::HEAD + 2 * size_of::<Wait>()),
    (12, SampleRecord::HEAD + 16),
];

/// An entry of the ring: of a known kind and mostly of that kind's length. Most words are small, so
/// that records join. All are less than two years in nanoseconds: what the kernel's clock may say.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => Just(0_u64),
        4 => 0..8_u64,
        2 => 0..5_000_000_000_u64,
        2 => any::<u32>().prop_map(u64::from),
        1 => 0..1_u64 << 56,
    ];
    let length = prop_oneof![9 => Just(0_isize), 1 => -16..16_isize];
    (any::<Index>(), vec(word, 1..160), length).prop_map(|(kind, words, more)| {
        let (kind, length) = RECORDS[kind.index(RECORDS.len())];
        let mut bytes: Vec<u8> =
            words.iter().cycle().take(length / 8 + 4).flat_map(|word| word.to_ne_bytes()).collect();
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes.truncate(length.saturating_add_signed(more));
        bytes
    })
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let tracepoints = Tracepoint::ALL.iter().copied().collect();
        let inner = all_unknown("hidden");
        let facts = Facts { tracepoints, inner, ..Facts::default() };
        Plan::new(&facts, Backend::Auto, &Stages::All).unwrap()
    })
}

fn clock() -> Clock {
    Clock::new(Timestamp::from_second(1_000).unwrap(), 500_000_000_000)
}

/// Writes an event in every format, and asserts that a terminal obeys nothing of it; returns the JSON.
fn shown(event: &Event, look: Look) -> Vec<u8> {
    let (mut json, mut text, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    send(&mut Json::new(&mut json), event).unwrap();
    {
        let mut sink = Text::new(&mut text, look);
        send(&mut sink, event).unwrap();
        sink.finish().unwrap();
    }
    send(&mut Notes::new(&mut notes), event).unwrap();
    for text in [&text, &notes] {
        let text = std::str::from_utf8(text).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    json
}

/// Asserts that what was written as JSON is read back as the same.
fn comes_back(event: &Event) {
    let json = shown(event, Look { width: Some(80), stages: true, ..Look::default() });
    let back: Event = serde_json::from_slice(&json).unwrap();
    assert_eq!(shown(&back, Look::default()), json);
}

/// A host on which nobody is known.
struct Nobody;

impl cause::waits::Lookup for Nobody {
    fn comm(&mut self, _tid: u32) -> Option<String> {
        None
    }

    fn group(&mut self, _pid: u32, _controller: &str) -> Option<String> {
        None
    }
}

proptest! {
    // A failure names its seed.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fuzz_decode(bytes in prop_oneof![entry(), vec(any::<u8>(), 0..300)]) {
        decode(&bytes).ok();
    }

    /// Records of any content in any order become events that can be written and read back.
    #[test]
    fn fuzz_join(entries in vec((entry(), 0..3_000_000_000_u64), 1..12)) {
        let (mut joiner, mut follower) = (Joiner::default(), Follower::new(false));
        let (mut tally, mut storms) = (Tally::default(), Storms::default());
        let mut now_ns = 0;
        let mut came = 0;
        let mut shown = 0;
        for (bytes, later_ns) in &entries {
            now_ns += later_ns;
            match decode(bytes) {
                Ok(Record::FollowUp(record)) => {
                    follower.push(&record, clock(), now_ns);
                    follower.exited(&record, clock(), now_ns);
                }
                Ok(Record::Exec(record)) => follower.execed(&record, clock(), now_ns),
                Ok(record) => {
                    came += u32::from(matches!(record, Record::Fork(_)));
                    joiner.push(record, now_ns);
                }
                Err(_) => {}
            }
        }
        for joined in joiner.release_all() {
            shown += 1;
            let mut fork = fork(&joined, plan(), clock());
            let name = |address: &u64| format!("f{}", address % 8);
            let seen = waits::seen(&joined, &mut |stack| Some(stack.iter().map(name).collect()));
            waits::add(&mut fork, &joined, &seen);
            cause::waits::add(&mut fork, &joined.record, &seen, &mut Nobody);
            let sampled = &joined.samples;
            let name = |address: &u64| {
                let place = usize::try_from(address % FUNCTIONS.len() as u64).unwrap();
                FUNCTIONS[place].names[0].to_owned()
            };
            let seen = samples::seen(sampled, &mut |stack| Some(stack.iter().map(name).collect()));
            samples::add(&mut fork, began_ns(&joined.record), sampled.stride * 1000, &seen);
            if let Some(errno) = fork.errno {
                let times =
                    Times::new(&joined.record, joined.functions.as_deref());
                let case = Case {
                    errno,
                    record: &joined.record,
                    refusal: joined.refusal.as_deref(),
                    after: &Aftermath::default(),
                    features: &Features::default(),
                    window: Window::of(times, plan()),
                };
                cause::add(&mut fork, &case);
            }
            cause::slow::add(&mut fork);
            storms.add(&fork);
            tally.add(&fork);
            comes_back(&Event::Fork(Box::new(fork)));
        }
        prop_assert_eq!(shown, came, "each attempt comes out once");
        for (_, event) in follower.release(clock(), u64::MAX) {
            comes_back(&event);
        }
    }

    /// Recordings in which lines, words and bytes were changed.
    #[test]
    fn fuzz_replay(
        which in any::<Index>(),
        changes in vec((any::<Index>(), change()), 0..6),
        width in prop_oneof![Just(None), (0..200_usize).prop_map(Some)],
        stages in any::<bool>(),
        told in prop_oneof![Just(Told::Forks), Just(Told::Stages), Just(Told::Tree)],
    ) {
        let mut recording = which.get(recordings()).clone();
        for (at, change) in &changes {
            apply(&mut recording, *at, change);
        }
        let mut replay = Replay::new(&recording[..], "x".to_owned());
        let look = Look { width, stages, told, summary: true, ..Look::default() };
        loop {
            match replay.next_event() {
                Ok(Some(event)) => {
                    let json = shown(&event, look);
                    let back: Event = serde_json::from_slice(&json).unwrap();
                    prop_assert_eq!(shown(&back, look), json);
                }
                Ok(None) => break,
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    break;
                }
            }
        }
    }

    #[test]
    fn fuzz_command_line(words in vec(word(), 0..8)) {
        if let Err(error) = Cli::try_parse_from([vec!["fork-trace".to_owned()], words].concat()) {
            prop_assert!(!error.render().to_string().is_empty());
        }
    }
}

/// The streams that the text is compared with, of a few lines each.
fn recordings() -> &'static [Vec<u8>] {
    static RECORDINGS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    RECORDINGS.get_or_init(|| {
        let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
        let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        let short = |file| -> io::Result<Vec<Vec<u8>>> {
            let bytes = fs::read(file)?;
            let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
            let first = lines.next().unwrap_or_default().to_vec();
            let lines: Vec<_> = lines.collect();
            Ok(lines.chunks(3).map(|lines| [first.clone(), lines.concat()].concat()).collect())
        };
        files.into_iter().flat_map(|file| short(file).unwrap()).collect()
    })
}

/// A change of a recording.
#[derive(Clone, Debug)]
enum Change {
    /// A byte becomes another.
    Byte(u8),
    /// So many bytes go.
    Cut(usize),
    /// These come in.
    Insert(Vec<u8>),
    /// A number becomes another.
    Number(&'static str),
    /// So many bytes come twice.
    Double(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let numbers = prop::sample::select(vec![
        "0",
        "-1",
        "1",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        "0.5",
        "null",
        "\"\"",
        "[]",
        "{}",
        "true",
        "9223372036854775807",
    ]);
    let text = prop::sample::select(vec![
        "\\u001b[31m",
        "\\u0000",
        "\\ud800",
        "\u{202e}",
        "\\x1b",
        "\\\\xff",
        "\"",
        "\n",
        "{",
        "}",
        ",",
        ":",
        "\\u009b",
        "🦀",
        "\\n",
        "9999999999999999999",
    ]);
    prop_oneof![
        any::<u8>().prop_map(Change::Byte),
        (1..200_usize).prop_map(Change::Cut),
        text.prop_map(|text| Change::Insert(text.as_bytes().to_vec())),
        vec(any::<u8>(), 1..8).prop_map(Change::Insert),
        numbers.prop_map(Change::Number),
        (1..200_usize).prop_map(Change::Double),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: Index, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    match change {
        Change::Byte(byte) => bytes[at] = *byte,
        Change::Cut(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
        Change::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
        Change::Number(number) => {
            let digit = |byte: &u8| byte.is_ascii_digit();
            let Some(begin) = bytes[at..].iter().position(digit).map(|place| at + place) else {
                return;
            };
            let end = bytes[begin..].iter().position(|byte| !digit(byte));
            let end = end.map_or(bytes.len(), |count| begin + count);
            drop(bytes.splice(begin..end, number.bytes()));
        }
        Change::Double(count) => {
            let again = bytes[at..(at + count).min(bytes.len())].to_vec();
            drop(bytes.splice(at..at, again));
        }
    }
}

/// A word of a command line: an option, a value that is right for some, or anything.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "-p",
        "-P",
        "-f",
        "-u",
        "-n",
        "--cgroup",
        "-k",
        "--min-duration",
        "-x",
        "-e",
        "--backend",
        "--exec",
        "--exit",
        "-D",
        "--max-events",
        "--buffer",
        "--fail-on-loss",
        "--stages",
        "--stages=",
        "--stages=all",
        "--stages=copy_mm,",
        "--format",
        "--json",
        "-o",
        "-S",
        "-S=comm",
        "--summary=",
        "comm",
        "--color",
        "--utc",
        "-q",
        "-v",
        "-vvv",
        "--",
        "replay",
        "doctor",
        "explain",
        "--as-root",
        "-D1e19",
        "-D1e400",
        "-D-1s",
        "-D99999999999999999999h",
        "-DNaN",
        "-Dinf",
        "-p-1",
        "-p4294967296",
        "--buffer=4K",
        "--buffer=18446744073709551615G",
        "--buffer=é",
        "-ko,x",
        "--min-duration=1e9h",
        "--min-duration=9223372036854775807s",
        "1ms",
        "EAGAIN",
        "0",
        "12",
        "process",
        "auto",
        "text",
        "\u{1b}[31m",
        "é",
        "-\u{202e}",
        "",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,12}", 1 => "-{1,2}[a-zA-Z=,]{0,10}"]
}
