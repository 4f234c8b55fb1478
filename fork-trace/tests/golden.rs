//! Streams of JSON go through every output, and the text is compared with the files in
//! `tests/golden`.
//!
//! `NAME.jsonl` is a stream, and `NAME.txt` is the text that is written for it, in several shapes;
//! there the character ESC is spelt `␛`. `NAME.perfetto` is the Perfetto trace that is written for it, read
//! back, and `stacks.folded` what is written of one stream for flame graphs. `NAME.openmetrics` are the metrics
//! that it comes to. `UPDATE_GOLDEN=1 cargo test -p
//! fork-trace --test golden` writes all but the streams anew.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod perfetto;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    io::{self, Write},
    iter,
    path::PathBuf,
    rc::Rc,
    time::Instant,
};

use fork_trace::{
    event::{
        Event,
        compare::{Printed, Recorded},
        replay::Replay,
        schema::schema,
        tally::sample::Sample,
    },
    output::{
        formats::{FORMATS, Format},
        metrics::{Metrics, Readings, Scope, open_metrics},
        notes::Notes,
        sink::{Sink, send},
        text::{Look, compare::write as write_compare},
        told::Told,
    },
};
use perfetto::Trace;
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

/// The streams in `tests/golden`.
const STREAMS: &[&str] = &[
    "simple",
    "failures",
    "causes",
    "flags",
    "namespace",
    "memory",
    "hostile",
    "notes",
    "summary",
    "groups",
    "nothing",
    "empty",
    "life",
    "records",
    "waits",
    "samples",
    "libc",
    "stacks",
    "tree",
    "stages",
];

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn events(stream: &str) -> Vec<Event> {
    let name = format!("{stream}.jsonl");
    let text = read(&name);
    let mut replay = Replay::new(text.as_bytes(), name);
    iter::from_fn(|| replay.next_event().unwrap()).collect()
}

/// Sends all events to `sink` and finishes it.
fn send_all(events: &[Event], sink: &mut dyn Sink) {
    for event in events {
        send(sink, event).unwrap();
    }
    sink.finish().unwrap();
}

/// A writer whose bytes the test can read after the sink has taken it.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `format` writes for `events`.
fn written(events: &[Event], format: &Format, look: Look) -> Vec<u8> {
    let out = Kept::default();
    send_all(events, (format.open)(Box::new(out.clone()), look).as_mut());
    out.0.take()
}

fn text(events: &[Event], look: Look) -> String {
    String::from_utf8(written(events, Format::named("text").unwrap(), look)).unwrap()
}

fn pftrace(events: &[Event]) -> Vec<u8> {
    written(events, Format::named("perfetto").unwrap(), Look::default())
}

fn look(width: Option<usize>, stages: bool, color: bool) -> Look {
    Look { width, color, told: Told::Forks, stages, summary: true, only_summary: false, utc: true }
}

fn telling(width: Option<usize>, color: bool, told: Told) -> Look {
    Look { told, ..look(width, false, color) }
}

/// The text of one stream in every shape, one below the other.
fn shapes(events: &[Event], with_tree: bool) -> String {
    let mut out = String::new();
    let mut section = |title: &str, text: &str| {
        write!(out, "== {title} ==\n{}\n", text.replace('\x1b', "␛")).unwrap();
    };
    for width in [80, 100, 160] {
        section(&format!("width {width}"), &text(events, look(Some(width), false, false)));
    }
    section("no terminal", &text(events, look(None, false, false)));
    for width in [80, 160] {
        let title = format!("width {width}, stages");
        section(&title, &text(events, look(Some(width), true, false)));
    }
    section("no terminal, stages", &text(events, look(None, true, false)));
    section("width 120, stages, colour", &text(events, look(Some(120), true, true)));
    if with_tree {
        for width in [Some(60), Some(80), Some(100), Some(120), Some(160), None] {
            let title = width.map_or("no terminal".to_owned(), |width| format!("width {width}"));
            section(&format!("{title}, tree"), &text(events, telling(width, false, Told::Tree)));
        }
        section("width 120, tree, colour", &text(events, telling(Some(120), true, Told::Tree)));
    }
    let mut notes = Vec::new();
    send_all(events, &mut Notes::new(&mut notes));
    section("notes", &String::from_utf8(notes).unwrap());
    out
}

#[test]
fn json_is_written_as_it_was_read() {
    for stream in STREAMS {
        let out = written(&events(stream), Format::named("json").unwrap(), Look::default());
        assert_eq!(String::from_utf8(out).unwrap(), read(&format!("{stream}.jsonl")), "{stream}");
    }
}

/// A new format is tested with every stream as soon as it is in the table.
#[test]
fn every_format_writes_every_stream() {
    for format in &FORMATS {
        for stream in STREAMS {
            let events = events(stream);
            let written = written(&events, format, look(None, true, false));
            // There is a stack only of an attempt.
            let has_forks = events.iter().any(|event| matches!(event, Event::Fork(_)));
            let is_empty = format.needs_stacks && !has_forks;
            assert_eq!(written.is_empty(), is_empty, "{} of {stream}", format.name);
        }
    }
}

/// Compares what was made for `file` with it, line by line, or writes it anew.
fn compare(file: &str, got: &str) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), got).unwrap();
        return;
    }
    let want = read(file);
    let mut lines = got.lines().zip(want.lines()).enumerate();
    if let Some((number, (got, want))) = lines.find(|(_, (got, want))| got != want) {
        panic!("{file}:{}\n got {got}\nwant {want}", number + 1);
    }
    assert_eq!(got.len(), want.len(), "{file}: one of the two is longer");
}

#[test]
fn text_is_as_in_the_files() {
    for stream in STREAMS {
        compare(&format!("{stream}.txt"), &shapes(&events(stream), *stream == "tree"));
    }
}

#[test]
fn folded_stacks_are_as_in_the_file() {
    let folded = Format::named("folded").unwrap();
    let written = written(&events("stacks"), folded, Look::default());
    let text = String::from_utf8(written).unwrap();
    assert!(text.lines().all(|line| !line.contains(|c: char| c.is_control())), "{text}");
    compare("stacks.folded", &text);
}

#[test]
fn perfetto_traces_are_as_in_the_files() {
    for stream in STREAMS {
        let trace = Trace::read(&pftrace(&events(stream)));
        trace.has_ended();
        compare(&format!("{stream}.perfetto"), &(trace.lines.join("\n") + "\n"));
    }
}

/// Streams of which the metrics are compared.
const COUNTED: [&str; 3] = ["failures", "hostile", "waits"];

#[test]
fn metrics_are_as_in_the_files() {
    for stream in COUNTED {
        let scope = Scope { top: 5, losses: vec!["ring_full"] };
        let (mut metrics, now) = (Metrics::new(&scope), Instant::now());
        for event in events(stream) {
            match event {
                Event::Fork(fork) => metrics.fork(&fork, now),
                event => metrics.event(&event),
            }
        }
        let readings = Readings {
            zombies: Some(vec![("a \"parent\"".to_owned(), 2)]),
            stuck: Some(0),
            kernel_forks: Some(1_234_567),
            cpu_ns: Some(1_500_000_000),
            ..Readings::default()
        };
        let text = open_metrics(&mut metrics, &readings, now);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        compare(&format!("{stream}.openmetrics"), &text);
    }
}

#[test]
fn a_perfetto_trace_that_is_cut_off_is_one_up_to_there() {
    let bytes = pftrace(&events("simple"));
    let whole = Trace::read(&bytes).lines;
    let mut read = 0;
    // Packets have other lengths, so that they are cut in other places.
    for end in (0..bytes.len()).step_by(7) {
        let lines = Trace::read(&bytes[..end]).lines;
        assert!(whole.starts_with(&lines) && lines.len() >= read, "{end}");
        read = lines.len();
    }
    assert!(read >= whole.len() - 1 && read > 50, "{read}");
}

#[test]
fn each_arrow_leads_from_one_call_to_one_child() {
    let mut arrows = 0;
    for stream in STREAMS {
        let events = events(stream);
        let ids = events.iter().filter_map(|event| match event {
            Event::Fork(fork) => Some(fork.id.as_str()),
            _ => None,
        });
        let ids: Vec<_> = ids.collect();
        if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
            // Made up, and no attempts of one boot.
            continue;
        }
        let trace = Trace::read(&pftrace(&events));
        for (arrow, (from, to)) in &trace.arrows {
            assert!(*from == 1 && *to <= 1, "{stream}: {arrow:x} from {from} to {to}");
        }
        arrows += trace.arrows.len();
    }
    assert!(arrows > 30, "{arrows}");
}

/// A stream in figures.
fn sample(stream: &str) -> (Sample, Recorded) {
    let events = events(stream);
    let Some(Event::Start(start)) = events.first() else { panic!("{stream} has no start") };
    let mut recorded = Recorded::new(format!("{stream}.json"), start);
    let mut sample = Sample::default();
    for event in &events {
        sample.add(event);
        if let Event::Summary(summary) = event {
            recorded.traced_ns = summary.traced_ns;
            recorded.lost = summary.lost;
        }
    }
    (sample, recorded)
}

/// Pairs of streams that are put beside each other.
const PAIRS: [[&str; 2]; 4] =
    [["tree", "waits"], ["failures", "causes"], ["hostile", "empty"], ["stages", "stages"]];

#[test]
fn comparisons_are_as_in_the_file_and_as_the_schema_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut out = String::new();
    for pair in PAIRS {
        let figures = Sample::compare(pair.map(sample));
        let text = |width, color| {
            let mut text = Vec::new();
            write_compare(&figures, width, color, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        for width in [Some(80), Some(100), Some(160), None] {
            let name = width.map_or("no terminal".to_owned(), |width| format!("width {width}"));
            let text = text(width, false);
            write!(out, "== {} and {}, {name} ==\n{text}\n", pair[0], pair[1]).unwrap();
        }
        write!(out, "== colour ==\n{}\n", text(Some(120), true).replace('\x1b', "␛")).unwrap();
        for width in 1..=200 {
            for line in text(Some(width), false).lines() {
                assert!(line.width() <= width && line.trim_end() == line, "at {width}: {line}");
            }
        }
        let value = serde_json::to_value(Printed::Compare(Box::new(figures.clone()))).unwrap();
        let wrong: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}: {value}");
        let mut wrong = value.clone();
        wrong["kinds"] = "many".into();
        assert!(!validator.is_valid(&wrong));
    }
    compare("compare.txt", &out);
}

#[test]
fn every_file_belongs_to_a_stream() {
    for entry in fs::read_dir(path("")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(STREAMS.contains(&name.as_str()) || name == "compare", "{name}");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_or_ends_in_blanks() {
    for stream in STREAMS {
        let events = events(stream);
        for width in 1..=220 {
            let looks = [
                look(Some(width), false, false),
                look(Some(width), true, false),
                telling(Some(width), false, Told::Tree),
                telling(Some(width), false, Told::Stages),
            ];
            for look in looks {
                for line in text(&events, look).lines() {
                    assert!(line.width() <= width, "{stream} at {width}: {line}");
                    assert_eq!(line.trim_end(), line, "{stream} at {width}");
                }
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for stream in STREAMS {
        let events = events(stream);
        let looks = [Some(80), Some(160), None].map(|width| look(width, true, true));
        let others = [Told::Tree, Told::Stages].map(|told| telling(None, true, told));
        for look in looks.into_iter().chain(others) {
            let mut bare = String::new();
            let mut colored = text(&events, look);
            while let Some((before, after)) = colored.split_once("\x1b[") {
                bare.push_str(before);
                colored = after.split_once('m').unwrap().1.to_owned();
            }
            bare.push_str(&colored);
            assert_eq!(bare, text(&events, Look { color: false, ..look }), "{stream}");
        }
    }
}

#[test]
fn no_control_character_of_a_name_reaches_the_terminal() {
    let harmful = |c: char| c != '\n' && c.is_control() || "\u{200d}\u{202e}".contains(c);
    let others = [Told::Tree, Told::Stages].map(|told| telling(Some(160), false, told));
    for look in others.into_iter().chain([look(Some(160), true, false)]) {
        for stream in ["hostile", "stacks", "tree"] {
            let text = text(&events(stream), look);
            assert_eq!(text.chars().find(|c| harmful(*c)), None, "{stream}");
        }
    }
    // Perfetto's own shell prints them too.
    let bytes = pftrace(&events("hostile"));
    for name in ["\x1b[", "\u{200d}", "\u{202e}"] {
        assert!(!bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name:?}");
    }
}

#[test]
fn stages_are_told_alike_live_and_replayed() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let [json, text] = ["json", "text"].map(|name| Format::named(name).unwrap());
    for stream in STREAMS {
        let events = events(stream);
        let look = telling(Some(160), false, Told::Stages);
        let json_of =
            |events: &[Event], look| String::from_utf8(written(events, json, look)).unwrap();
        let lines = json_of(&events, look);
        assert!(!lines.contains(r#""type":"fork""#), "{stream}");
        for line in lines.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(validator.is_valid(&value), "{stream}: {line}");
        }
        let mut replay = Replay::new(lines.as_bytes(), (*stream).to_owned());
        let again: Vec<_> = iter::from_fn(|| replay.next_event().unwrap()).collect();
        assert_eq!(json_of(&again, Look::default()), lines, "{stream}");
        assert_eq!(written(&again, text, look), written(&events, text, look), "{stream}");
        // Each attempt has a line.
        let count = |kind: &str, id: &str, text: &str| {
            let values = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let of_kind = values.filter(|value| value["type"] == kind);
            of_kind.map(|value| value[id].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        let forks = json_of(&events, Look::default());
        let mut want = count("fork", "id", &forks);
        want.extend(count("stage", "fork_id", &forks));
        assert_eq!(count("stage", "fork_id", &lines), want, "{stream}");
    }
}

#[test]
fn every_line_is_as_the_schema_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for stream in STREAMS {
        for line in read(&format!("{stream}.jsonl")).lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let wrong: Vec<_> =
                validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(wrong.is_empty(), "{stream}: {wrong:#?}: {line}");
        }
    }
}

#[test]
fn what_is_no_line_is_against_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let loss = |records: &str| {
        format!(r#"{{"type":"loss","records":{records},"by":{{}},"since_mono_ns":1}}"#)
    };
    for (line, right) in [
        (loss("1"), true),
        (loss(r#""1""#), false),
        (loss("null"), false),
        (loss("1").replace("loss", "lost"), false),
        (loss("1").replace("since_mono_ns", "since_ns"), false),
    ] {
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(validator.is_valid(&value), right, "{line}");
    }
}
