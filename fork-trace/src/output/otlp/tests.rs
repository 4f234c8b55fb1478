use std::{
    collections::BTreeMap,
    io::Read as _,
    net::TcpListener,
    sync::{Mutex, mpsc},
};

use super::*;
use crate::{
    event::tests::{done, fork},
    output::metrics::{Counting, Metrics, Scope},
};

/// A value of a field.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message, as any decoder of protocol buffers finds them.
fn fields(mut bytes: &[u8]) -> BTreeMap<u64, Vec<Field>> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for place in 0.. {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        number
    }
    let mut found: BTreeMap<u64, Vec<Field>> = BTreeMap::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                Field::Number(u64::from_le_bytes(number.try_into().unwrap()))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (inner, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(inner.to_vec())
            }
            other => panic!("layout {other}"),
        };
        found.entry(tag >> 3).or_default().push(value);
    }
    found
}

/// All messages at a path of field numbers.
fn at(bytes: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    let Some((first, rest)) = path.split_first() else { return vec![bytes.to_vec()] };
    let found = fields(bytes).remove(first).unwrap_or_default();
    let inner = found.into_iter().flat_map(|field| match field {
        Field::Bytes(inner) => at(&inner, rest),
        Field::Number(number) => panic!("{number}"),
    });
    inner.collect()
}

fn text_at(bytes: &[u8], path: &[u64]) -> String {
    let found = at(bytes, path);
    assert_eq!(found.len(), 1, "{path:?}: {found:?}");
    String::from_utf8(found[0].clone()).unwrap()
}

fn number_at(bytes: &[u8], field: u64) -> Option<u64> {
    match fields(bytes).remove(&field)?.as_slice() {
        [Field::Number(number)] => Some(*number),
        other => panic!("{other:?}"),
    }
}

/// The attributes in a field.
fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    let pair = |bytes: &Vec<u8>| {
        let value = &at(bytes, &[2])[0];
        let value = match number_at(value, 3) {
            Some(number) => number.to_string(),
            None => text_at(value, &[1]),
        };
        (text_at(bytes, &[1]), value)
    };
    at(bytes, &[field]).iter().map(pair).collect()
}

/// A Collector that gives these answers, and what it was sent: path and body.
fn collector(answers: &'static [&'static str]) -> (Endpoint, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers.iter().chain(std::iter::repeat(&"200 OK")) {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let read = stream.read(&mut part).unwrap();
                assert!(read > 0, "cut off");
                bytes.extend_from_slice(&part[..read]);
                let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length: usize = length.unwrap().parse().unwrap();
                if bytes.len() >= end + 4 + length {
                    break (head, bytes[end + 4..].to_vec());
                }
            };
            assert!(head.contains("Content-Type: application/x-protobuf"), "{head}");
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).unwrap();
            if to.send((path, body)).is_err() {
                return;
            }
        }
    });
    (endpoint, from)
}

const START: &str = r#"{"type":"start","schema_version":2,"version":"0","ts":"2026-01-01T00:00:00Z",
    "mono_ns":50,"host":{"name":"h","kernel":"6.1","arch":"x86_64","cpus":1,"boot_id":"b"},
    "backend":"tracepoint","filters":{},"coverage":[]}"#;

const REFUSED: &str = r#","kind":"process","syscall":"clone3","errno":11,"errno_name":"EAGAIN",
    "failed_stage":"alloc_pid","total_ns":5,"cause":{"kind":"cgroup-pids","what":"too many","limit":"pids.max",
    "current":9,"max":9,"path":"/a","confidence":"certain","hint":"y"},
    "parent":{"pid":7,"tid":8,"ppid":1,"comm":"b","uid":0,"exe":"/usr/bin/bash",
    "container":{"id":"c0ffee","runtime":"docker"}}"#;

const SLOW: &str =
    r#","kind":"process","total_ns":11000000,"held_ns":12000000,"child":{"pid":2,"tid":2}"#;

const QUICK: &str = r#","kind":"process","total_ns":9,"held_ns":9,"child":{"pid":2,"tid":2}"#;

/// What counts and what sends, both told of these attempts.
fn told(otlp: &mut Otlp, forks: &[(&str, &str)]) -> Shared {
    let scope = Scope { top: 5, losses: vec!["ring_full"] };
    let metrics: Shared = Arc::new(Mutex::new(Metrics::new(&scope)));
    let mut counting = Counting(Arc::clone(&metrics));
    let mut sinks: [&mut dyn Sink; 2] = [&mut counting, otlp];
    for sink in &mut sinks {
        sink.event(&serde_json::from_str(START).unwrap()).unwrap();
        forks.iter().for_each(|(id, fields)| sink.fork(&fork(id, fields)).unwrap());
    }
    metrics
}

fn next(from: &mpsc::Receiver<(String, Vec<u8>)>) -> (String, Vec<u8>) {
    from.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn end(otlp: &mut Otlp) {
    otlp.finish().unwrap();
    while !otlp.queue.lock().ended {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn attempts_that_failed_or_were_slow_are_records_with_attributes() {
    let (endpoint, from) = collector(&[]);
    let mut otlp = Otlp::default();
    let held = r#","kind":"vfork","syscall":"vfork","total_ns":9,"child":{"pid":3,"tid":3}"#;
    let metrics = told(
        &mut otlp,
        &[("1-1", QUICK), ("1-2", REFUSED), ("1-3", SLOW), ("1-4", held), ("1-5", held)],
    );
    otlp.event(&done("1-4", 20_000_000)).unwrap();
    otlp.event(&done("1-5", 20)).unwrap();
    let stuck = r#"{"type":"stuck","fork_id":"1-9","mono_ns":5,"for_ns":9,"state":"blocked",
        "stage":"copy_mm","parent":{"pid":7,"tid":7,"comm":"b"}}"#;
    otlp.event(&serde_json::from_str(stuck).unwrap()).unwrap();
    otlp.start(endpoint, Duration::from_secs(3600), metrics, Box::new(Readings::default)).unwrap();
    let (path, body) = next(&from);
    assert_eq!(path, "/x/v1/logs");
    let resource = attributes(&at(&body, &[1, 1])[0], 1);
    for (key, value) in [
        ("service.name", "fork-trace"),
        ("host.name", "h"),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("os.version", "6.1"),
    ] {
        assert_eq!(resource[key], value);
    }
    assert_eq!(text_at(&body, &[1, 2, 1, 1]), "fork-trace");
    let records = at(&body, &[1, 2, 2]);
    let names: Vec<_> = records.iter().map(|record| text_at(record, &[12])).collect();
    let [failed, slow] = ["fork_trace.failed", "fork_trace.slow"];
    assert_eq!(names, [failed, slow, slow, "fork_trace.stuck"]);
    let of = attributes(&records[0], 6);
    for (key, value) in [
        ("error.type", "EAGAIN"),
        ("process.pid", "7"),
        ("thread.id", "8"),
        ("thread.name", "b"),
        ("process.executable.name", "bash"),
        ("container.id", "c0ffee"),
        ("fork_trace.fork_id", "1-2"),
        ("fork_trace.kind", "process"),
        ("fork_trace.stage", "alloc_pid"),
        ("fork_trace.cause", "cgroup-pids"),
        ("fork_trace.limit.max", "9"),
        ("fork_trace.limit.path", "/a"),
    ] {
        assert_eq!(of.get(key).map(String::as_str), Some(value), "{key}: {of:?}");
    }
    assert!(!of.contains_key("fork_trace.rule"), "what is not known is absent");
    assert_eq!(text_at(&records[0], &[5, 1]), "b (7) failed: EAGAIN: too many");
    assert_eq!(number_at(&records[0], 1), Some(1_767_225_600_000_000_000));
    assert_eq!(number_at(&records[0], 2), Some(17));
    assert_eq!(attributes(&records[1], 6)["fork_trace.held_ns"], "12000000");
    let vfork = attributes(&records[2], 6);
    assert_eq!((&*vfork["fork_trace.fork_id"], &*vfork["process.pid"]), ("1-4", "1"));
    assert_eq!(attributes(&records[3], 6)["fork_trace.stage"], "copy_mm");
    end(&mut otlp);
    // The last metrics.
    assert_eq!(next(&from).0, "/x/v1/metrics");
    let counts = otlp.handle().counts();
    assert_eq!((counts.taken, counts.failed, counts.dropped), ([1, 1], [0, 0], 0));
}

#[test]
fn metrics_are_sums_gauges_and_histograms_with_their_figures() {
    let (endpoint, from) = collector(&[]);
    let mut otlp = Otlp::default();
    let metrics = told(&mut otlp, &[("1-1", QUICK), ("1-3", SLOW)]);
    // Records apart, which another test looks at.
    otlp.queue.take();
    let readings = || Readings { kernel_forks: Some(77), stuck: Some(2), ..Readings::default() };
    otlp.start(endpoint, Duration::from_millis(20), metrics, Box::new(readings)).unwrap();
    let (path, body) = next(&from);
    assert_eq!(path, "/x/v1/metrics");
    let metrics: BTreeMap<_, _> =
        at(&body, &[1, 2, 2]).into_iter().map(|it| (text_at(&it, &[1]), it)).collect();
    let began = 1_767_225_600_000_000_000;

    let attempts = &metrics["fork_trace.attempts"];
    let sum = &at(attempts, &[7])[0];
    assert_eq!((number_at(sum, 2), number_at(sum, 3)), (Some(2), Some(1)), "cumulative");
    let made = at(sum, &[1]).into_iter().find(|point| {
        let of = attributes(point, 7);
        of["kind"] == "process" && of["result"] == "ok"
    });
    let made = made.unwrap();
    assert_eq!((number_at(&made, 6), number_at(&made, 2)), (Some(2), Some(began)));
    assert!(number_at(&made, 3).is_some_and(|now| now > began));

    let held = &metrics["fork_trace.held"];
    assert_eq!(text_at(held, &[3]), "s");
    let point = &at(held, &[9, 1])[0];
    assert_eq!(attributes(point, 9)["kind"], "process");
    assert_eq!(number_at(point, 4), Some(2));
    assert_eq!(number_at(point, 5).map(f64::from_bits), Some(0.012_000_009));
    let eights = |bytes: &[u8]| -> Vec<u64> {
        let (eights, rest) = bytes.as_chunks();
        assert!(rest.is_empty());
        eights.iter().copied().map(u64::from_le_bytes).collect()
    };
    let [counts, bounds] = [6, 7].map(|field| eights(&at(point, &[field])[0]));
    assert_eq!((counts.len(), bounds.len()), (22, 21));
    assert_eq!((counts[0], counts.iter().sum::<u64>()), (1, 2));
    assert_eq!((f64::from_bits(bounds[0]), f64::from_bits(bounds[20])), (0.000_016, 16.777_216));
    let bucket = counts.iter().rposition(|count| *count > 0).unwrap();
    assert!(f64::from_bits(bounds[bucket - 1]) < 0.012 && f64::from_bits(bounds[bucket]) >= 0.012);
    assert_eq!(attributes(&at(point, &[8])[0], 7)["fork_trace.fork_id"], "1-3");

    // What began before the trace says no beginning, and what is just now has none.
    let kernel = &at(&metrics["fork_trace.kernel_forks"], &[7, 1])[0];
    assert_eq!((number_at(kernel, 6), number_at(kernel, 2)), (Some(77), None));
    assert_eq!(number_at(&at(&metrics["fork_trace.stuck"], &[5, 1])[0], 6), Some(2));
    assert!(metrics.contains_key("fork_trace.build_info"));
    assert!(!metrics.contains_key("fork_trace.zombies"), "it is not known");
    end(&mut otlp);
}

#[test]
fn what_a_collector_does_not_take_is_tried_again_or_counted() {
    let (endpoint, from) = collector(&["503 Busy", "200 OK", "400 Bad Request"]);
    let mut otlp = Otlp::default();
    let metrics = told(&mut otlp, &[("1-1", REFUSED)]);
    otlp.start(endpoint, Duration::from_secs(3600), metrics, Box::new(Readings::default)).unwrap();
    let (first, second) = (next(&from), next(&from));
    assert_eq!((&*first.0, first.1 == second.1), ("/x/v1/logs", true), "the same again");
    otlp.fork(&fork("1-2", REFUSED)).unwrap();
    next(&from);
    end(&mut otlp);
    let counts = otlp.handle().counts();
    assert_eq!((counts.taken, counts.failed, counts.dropped), ([1, 1], [0, 2], 1));
}

#[test]
fn nobody_waits_for_a_collector_that_is_not_there() {
    let mut otlp = Otlp::default();
    let metrics = told(&mut otlp, &[]);
    let began = Instant::now();
    for number in 0..20_000 {
        otlp.fork(&fork(&format!("1-{number}"), REFUSED)).unwrap();
        assert!(otlp.queue.lock().bytes <= WAITING);
    }
    let dropped = otlp.handle().counts().dropped;
    let waiting = u64::try_from(otlp.queue.lock().records.len()).unwrap();
    assert_eq!(dropped + waiting, 20_000);
    // A port where nobody listens any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}").parse().unwrap();
    otlp.start(endpoint, Duration::from_secs(3600), metrics, Box::new(Readings::default)).unwrap();
    end(&mut otlp);
    assert!(began.elapsed() < Duration::from_secs(60));
    let counts = otlp.handle().counts();
    assert_eq!((counts.taken, counts.dropped), ([0, 0], 20_000), "all of them are counted");
}
