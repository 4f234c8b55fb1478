use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use super::*;
use crate::{
    event::{notice::Warning, replay::Replay, summary::Summary, tests::fork},
    output::compress,
};

const REFUSED: &str = r#","errno":11,"errno_name":"EAGAIN","total_ns":5"#;
const MADE: &str = r#","kind":"process","total_ns":9,"child":{"pid":2,"tid":2}"#;

/// A folder of its own that goes away.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fork-trace-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn settings(place: &Place) -> Settings {
    Settings {
        folder: place.0.clone(),
        last: Duration::from_secs(3600),
        size: 1 << 20,
        on: Trigger::ALL.to_vec(),
        storm: 1_000_000,
        pause: Duration::from_secs(3600),
        keep: 20,
    }
}

fn started(settings: Settings) -> Recorder {
    let mut recorder = Recorder::new(settings);
    recorder.start().unwrap();
    let start = r#"{"type":"start","schema_version":2,"version":"0","ts":"2026-01-01T00:00:00Z","mono_ns":50,
        "host":{"name":"h","kernel":"6.1","arch":"x86_64","cpus":1,"boot_id":"b"},"backend":"tracepoint",
        "filters":{},"coverage":[]}"#;
    recorder.event(&serde_json::from_str(start).unwrap()).unwrap();
    recorder
}

/// Ends a recorder, and waits for what it writes, however slow the disk is.
fn end(mut recorder: Recorder) -> Handle {
    let handle = recorder.handle();
    recorder.finish().unwrap();
    while !handle.0.lock().ended {
        thread::sleep(Duration::from_millis(5));
    }
    handle
}

fn events(path: &Path) -> Vec<Event> {
    let reader = compress::reader(fs::File::open(path).unwrap()).unwrap();
    let mut replay = Replay::new(io::BufReader::new(reader), "x".to_owned());
    std::iter::from_fn(|| replay.next_event().unwrap()).collect()
}

fn summary(events: &[Event]) -> &Summary {
    let Some(Event::Summary(summary)) = events.last() else { panic!("{:?}", events.last()) };
    summary
}

#[test]
fn a_failure_is_recorded_with_what_came_before_it_and_an_own_summary() {
    let place = Place::new("recorder-failure");
    let mut recorder = started(settings(&place));
    for number in 0..1_000 {
        recorder.fork(&fork(&format!("1-{number}"), MADE)).unwrap();
    }
    recorder.fork(&fork("1-9999", REFUSED)).unwrap();
    let loss =
        r#"{"type":"loss","records":3,"by":{"ring_full":3,"samples_lost":2},"since_mono_ns":7}"#;
    recorder.event(&serde_json::from_str(loss).unwrap()).unwrap();
    recorder.event(&Event::Summary(Box::default())).unwrap();
    let counts = end(recorder).counts();
    assert_eq!((counts.written, counts.failed), ([1, 0, 0, 0, 0], 0));
    let names = place.names();
    assert!(names.len() == 1 && names[0].ends_with("-failure.json.gz"), "{names:?}");
    let path = place.0.join(&names[0]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o700);
    let events = events(&path);
    let (Event::Start(start), Event::Warning(warning)) = (&events[0], &events[1]) else { panic!() };
    // Nothing has left: it is all there since the beginning.
    assert_eq!(start.mono_ns, 50);
    assert_eq!(warning.text, "this was in memory when a (1) failed: EAGAIN");
    assert_eq!(warning.fork_id.as_deref(), Some("1-9999"));
    let ids: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Fork(fork) => Some(fork.id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((ids.len(), ids[0], ids[1_000]), (1_001, "1-0", "1-9999"));
    let Summary { attempts, succeeded, failed, lost, lost_by, traced_ns, .. } = summary(&events);
    assert_eq!((*attempts, *succeeded, *failed, *lost), (1_001, 1_000, 1, 3));
    assert_eq!((lost_by["samples_lost"], lost_by["ring_full"]), (2, 3));
    assert!(traced_ns.is_some_and(|ns| ns > 0));
}

#[test]
fn what_left_is_said_and_the_start_is_that_of_what_is_there() {
    let place = Place::new("recorder-left");
    let mut recorder = started(Settings { size: 4096, ..settings(&place) });
    for number in 100..3_100_u64 {
        let mut fork = fork(&format!("1-{number}"), MADE);
        fork.mono_ns = number;
        recorder.fork(&fork).unwrap();
        assert!(recorder.shared.lock().kept.bytes() <= 4096);
    }
    let handle = recorder.handle();
    handle.signal();
    let counts = end(recorder).counts();
    assert_eq!(counts.written, [0, 0, 0, 0, 1]);
    let events = events(&place.0.join(&place.names()[0]));
    let (Event::Start(start), Event::Warning(warning)) = (&events[0], &events[1]) else { panic!() };
    let forks = events.iter().filter(|event| matches!(event, Event::Fork(_))).count();
    let left = counts.left.size;
    assert_eq!(left + u64::try_from(forks).unwrap(), 3_000);
    let wanted = format!(
        "this was in memory when SIGUSR1 came; {} before it had left memory",
        crate::event::units::counted(left, "line")
    );
    assert_eq!(warning.text, wanted);
    // The first attempt that is there: nothing begins before the start.
    assert_eq!(start.mono_ns, 100 + left);
    assert_eq!(summary(&events).attempts, 3_000 - left);
}

#[test]
fn a_host_that_fails_all_the_time_fills_neither_disk_nor_time() {
    let place = Place::new("recorder-often");
    let mut recorder = started(settings(&place));
    for number in 0..50 {
        recorder.fork(&fork(&format!("1-{number}"), REFUSED)).unwrap();
    }
    end(recorder);
    assert_eq!(place.names().len(), 1, "one for the same reason");
    for name in
        ["mine.txt", "fork-trace-mine.json.gz", "fork-trace-20200101T000000.000Z-storm.json.gz"]
    {
        fs::write(place.0.join(name), "").unwrap();
    }
    let other = place.0.join("fork-trace-20200101T000000.001Z-storm.json.gz");
    symlink(place.0.join("mine.txt"), &other).unwrap();
    fs::write(place.0.join("fork-trace-20200101T000000.000Z-storm.json.gz.unfinished"), "")
        .unwrap();
    for _ in 0..3 {
        let pause = Duration::ZERO;
        let mut recorder = started(Settings { keep: 2, pause, ..settings(&place) });
        recorder.fork(&fork("1-1", REFUSED)).unwrap();
        end(recorder);
    }
    let names = place.names();
    // Those that have other names, or are no files, are nobody's business.
    assert_eq!(names.len(), 2 + 3, "{names:?}");
    let kept =
        ["mine.txt", "fork-trace-mine.json.gz", "fork-trace-20200101T000000.001Z-storm.json.gz"];
    assert!(kept.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
}

#[test]
fn a_folder_that_is_gone_is_counted_and_the_trace_goes_on() {
    let place = Place::new("recorder-gone");
    let pause = Duration::ZERO;
    let mut recorder = started(Settings { pause, ..settings(&place) });
    fs::remove_dir_all(&place.0).unwrap();
    let handle = recorder.handle();
    recorder.fork(&fork("1-1", REFUSED)).unwrap();
    recorder
        .event(&Event::Warning(Warning {
            code: "x".into(),
            text: String::new(),
            hint: None,
            fork_id: None,
        }))
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while handle.counts().failed == 0 {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(20));
    }
    // It is there again, and so are the lines from before.
    fs::create_dir_all(&place.0).unwrap();
    recorder.fork(&fork("1-2", REFUSED)).unwrap();
    let counts = end(recorder).counts();
    assert_eq!((counts.written, counts.failed), ([1, 0, 0, 0, 0], 1));
    assert_eq!(summary(&events(&place.0.join(&place.names()[0]))).failed, 2);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_at_once() {
    let place = Place::new("recorder-file");
    fs::write(&place.0, "").unwrap();
    let error = Recorder::new(settings(&place)).start().unwrap_err();
    assert_eq!(error.exit_status(), 1);
    assert!(error.to_string().contains("cannot write"), "{error}");
    fs::remove_file(&place.0).unwrap();
}
