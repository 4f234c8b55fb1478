//! It stops when it is told to: whatever the load, and whatever becomes of its readers.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Background, FileTrace, Folder, HostTrace, accounted, check, fork_trace, forker, kill, lines,
    live_test, number, of_type, read, run, slowness, summary, wait,
};

/// How long a stop may take.
fn in_time() -> Duration {
    Duration::from_millis(1500).mul_f64(slowness().sqrt())
}

/// Forks as fast as this host can.
fn storm() -> [Background; 2] {
    [(); 2]
        .map(|()| Background::start(Command::new(forker()).args(["loop", "--count", "100000000"])))
}

/// Reads `bytes_per_s`, and everything once the other end is closed.
fn slow_reader(mut from: impl Read + Send + 'static, bytes_per_s: f64) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let bytes = from.read(&mut piece).unwrap();
            if bytes == 0 {
                return all;
            }
            all.extend_from_slice(&piece[..bytes]);
            sleep(Duration::from_secs_f64(bytes as f64 / bytes_per_s));
        }
    })
}

/// Waits for the end, which has to come in time after `since`.
fn ended_in_time(child: Child, since: Instant) -> Output {
    let output = wait(child, Duration::from_secs(60));
    let took = since.elapsed();
    assert!(took < in_time(), "it took {took:?}; {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Starts a trace of the host and waits until it is attached.
fn start(args: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child =
        fork_trace().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("tracing"), "{line}");
    (child, stderr)
}

/// Asserts that every task the kernel counted is somewhere in the summary.
fn sum_holds(lines: &[Value]) {
    accounted(lines);
    let summary = summary(lines);
    let field = |name: &str| number(&summary[name]);
    let known =
        field("succeeded") + field("lost_tasks") + field("filtered") + field("under_way_tasks");
    assert_eq!(known, field("kernel_forks"), "{summary}");
    let by =
        |line: &Value| -> u64 { line.as_object().map_or(0, |by| by.values().map(number).sum()) };
    let told: u64 = of_type(lines, "loss").iter().map(|loss| by(&loss["by"])).sum();
    assert_eq!(by(&summary["lost_by"]), told, "{summary}");
    let attempts: u64 = of_type(lines, "loss").iter().map(|loss| number(&loss["records"])).sum();
    assert_eq!(field("lost"), attempts, "{summary}");
}

#[test]
fn a_stuck_reader_keeps_no_signal_waiting() {
    live_test!();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let storm = storm();
        let (child, mut stderr) = start(&["--json", "--buffer", "64K"]);
        let mut told = String::new();
        while !told.contains("fork-trace: lost ") {
            assert!(stderr.read_line(&mut told).unwrap() > 0, "losses are told meanwhile: {told}");
        }
        let since = Instant::now();
        kill(child.id(), signal);
        // Nobody reads its standard output before it has ended.
        let mut child = child;
        let end = since + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(5));
        }
        assert!(since.elapsed() < in_time(), "{signal}: {:?}", since.elapsed());
        drop(storm);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert!(said.contains("standard output: nobody takes what is written"), "{said}");
        let (missing, _) = said.split_once(" after them were not written").expect(&said);
        let (bytes, events) = missing.rsplit_once(" bytes and the ").expect(&said);
        let number = |words: &str| -> u64 {
            let digits = words.rsplit(' ').next().unwrap().replace(',', "");
            digits.parse().expect(&said)
        };
        // The pipe takes no more, so events wait behind those of which bytes were made.
        let events = events.strip_suffix(" events").expect(&said);
        assert!(number(bytes) > 0 && number(events) > 0, "{said}");
        assert!(said.contains("hint: let its reader read on"), "{said}");
    }
}

#[test]
fn a_slow_reader_gets_the_summary_and_nothing_is_unaccounted_for() {
    live_test!();
    for args in [&["--json"][..], &["--json", "--exit"]] {
        let storm = storm();
        let (mut child, stderr) = start(args);
        let reader = slow_reader(child.stdout.take().unwrap(), 100_000.0);
        let notes = slow_reader(stderr, f64::INFINITY);
        sleep(Duration::from_secs(2));
        let since = Instant::now();
        kill(child.id(), Signal::SIGINT);
        let output = ended_in_time(child, since);
        drop(storm);
        assert!(output.status.success(), "{output:?}");
        let shown = lines(reader.join().unwrap());
        check(&shown);
        sum_holds(&shown);
        assert!(number(&summary(&shown)["lost_by"]["unwritten"]) > 0, "{}", summary(&shown));
        notes.join().unwrap();
    }
}

#[test]
fn a_storm_keeps_no_signal_waiting() {
    live_test!();
    let storm = storm();
    let (mut child, stderr) = start(&["--stages", "-S"]);
    let reader = slow_reader(child.stdout.take().unwrap(), f64::INFINITY);
    let notes = slow_reader(stderr, f64::INFINITY);
    sleep(Duration::from_secs(3));
    let since = Instant::now();
    kill(child.id(), Signal::SIGINT);
    let output = ended_in_time(child, since);
    drop(storm);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(reader.join().unwrap()).unwrap();
    assert!(text.contains("all accounted for"), "the summary is there");
    notes.join().unwrap();
}

#[test]
fn a_duration_holds_under_load() {
    live_test!();
    let storm = storm();
    for bytes_per_s in [f64::INFINITY, 100_000.0] {
        let (mut child, stderr) = start(&["--json", "-D", "2s"]);
        let since = Instant::now() + Duration::from_secs(2);
        let reader = slow_reader(child.stdout.take().unwrap(), bytes_per_s);
        let notes = slow_reader(stderr, f64::INFINITY);
        let output = wait(child, Duration::from_secs(60));
        assert!(output.status.success());
        assert!(since.elapsed() < in_time(), "{:?}", since.elapsed());
        let shown = lines(reader.join().unwrap());
        check(&shown);
        sum_holds(&shown);
        notes.join().unwrap();
    }
    drop(storm);
}

/// A trace of a command that forks `count` times, which is what ends it; its output goes to a pipe.
fn of_forks(count: u64) -> Child {
    let forks = format!("exec $0 loop --count {count} >/dev/null");
    let mut tool = fork_trace();
    tool.args(["--json", "-o", "-", "--", "sh", "-c", &forks]).arg(forker());
    tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_end_of_a_command_leaves_a_slow_reader_its_time() {
    live_test!();
    let began = Instant::now();
    let mut child = of_forks(500);
    let reader = slow_reader(child.stdout.take().unwrap(), 500_000.0);
    let output = wait(child, Duration::from_secs(100));
    println!("{:?}", began.elapsed());
    assert!(output.status.success(), "{output:?}");
    let shown = lines(reader.join().unwrap());
    check(&shown);
    sum_holds(&shown);
    assert_eq!((&summary(&shown)["attempts"], &summary(&shown)["lost"]), (&500.into(), &0.into()));
}

#[test]
fn a_signal_ends_the_wait_for_a_stuck_reader() {
    live_test!();
    let mut child = of_forks(1000);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // Far longer than a thousand forks take, and a stop.
    sleep(in_time().mul_f64(4.0));
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    let since = Instant::now();
    kill(child.id(), Signal::SIGINT);
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        assert!(since.elapsed() < in_time(), "{:?}", since.elapsed());
        sleep(Duration::from_millis(5));
    };
    assert_eq!(ended.code(), Some(1));
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(text.contains("standard output: nobody takes what is written"), "{text}");
}

/// A pipe that takes no more, to be given away as standard error.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let fill = writer.try_clone().unwrap();
    // The thread is stuck when there is no more room, and ends with the pipe.
    thread::spawn(move || (&fill).write_all(&vec![b'x'; 4 << 20]).ok());
    sleep(Duration::from_millis(200));
    (reader, writer)
}

#[test]
fn a_stuck_standard_error_holds_nobody_up() {
    live_test!();
    let folder = Folder::new("stuck");
    let file = folder.file("forks.json");
    let (reader, writer) = full_pipe();
    let storm = storm();
    let child = fork_trace()
        .args(["--buffer", "4K", "-D", "1s", "-v", "-o"])
        .arg(&file)
        .stderr(writer)
        .spawn()
        .unwrap();
    // Loading is part of it, and twice as slow beside a storm.
    let since = Instant::now() + Duration::from_secs(4).mul_f64(slowness());
    let output = wait(child, Duration::from_secs(60));
    assert!(since.elapsed() < in_time(), "{:?}", since.elapsed());
    drop(storm);
    assert!(output.status.success());
    sum_holds(&read(&file));
    drop(reader);
}

#[test]
fn losses_and_failing_calls_are_in_the_sum() {
    live_test!();
    let failing = Background::start(Command::new(forker()).args([
        "einval-thread",
        "einval-sighand",
        "--repeat",
        "1000000",
    ]));
    let storm = storm();
    let trace = FileTrace::start(&["--buffer", "4K", "--exit"]);
    sleep(Duration::from_secs(2));
    let shown = trace.stop();
    drop((storm, failing));
    sum_holds(&shown);
    let summary = summary(&shown);
    assert!(number(&summary["failed"]) > 0, "{summary}");
    assert!(number(&summary["lost"]) > number(&summary["lost_tasks"]), "{summary}");
    assert!(number(&summary["lost_by"]["follow_up_ring_full"]) > 0, "{summary}");
}

#[test]
fn a_follow_up_without_its_fork_is_marked() {
    live_test!();
    let output = run(fork_trace()
        .args(["--json", "--exit", "--buffer", "4K", "--fail-on-loss", "--"])
        .arg(forker())
        .args(["loop", "--count", "5000"]));
    assert_eq!(output.status.code(), Some(4));
    let (json, said): (Vec<_>, Vec<_>) = std::str::from_utf8(&output.stderr)
        .unwrap()
        .lines()
        .partition(|line| line.starts_with('{'));
    let shown = lines(json.join("\n"));
    check(&shown);
    let forks: Vec<_> = of_type(&shown, "fork").iter().map(|fork| fork["id"].clone()).collect();
    // The end of the command itself belongs to no fork.
    let mut exits = of_type(&shown, "exit");
    exits.retain(|exit| exit["fork_id"].is_string());
    let orphans = exits.iter().filter(|exit| exit["orphan"] == true).count();
    for exit in &exits {
        assert_eq!(exit["orphan"] == true, !forks.contains(&exit["fork_id"]), "{exit}");
    }
    assert!(orphans > 0 && orphans < exits.len(), "{orphans} of {}; {said:?}", exits.len());
}

/// Sends SIGINT some time after the start, and says what came of it.
fn interrupted(after: Duration, command: &[&str]) -> Output {
    let child =
        fork_trace().args(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sleep(after);
    kill(child.id(), Signal::SIGINT);
    wait(child, Duration::from_secs(60))
}

#[test]
fn a_signal_before_the_command_starts_keeps_it_from_starting() {
    live_test!();
    let folder = Folder::new("early");
    let (mut early, mut late) = (0, 0);
    // An emulated machine takes longer for each step, so it takes fewer and longer ones.
    let (steps, step_ms) = if slowness() > 1.0 { (8, 500) } else { (40, 5) };
    for step in 1..steps {
        let file = folder.file(&format!("{step}"));
        let after = Duration::from_millis(step * step_ms);
        let output = interrupted(after, &["--", "touch", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("nvalid argument") && !said.contains("EAGAIN"), "{said}");
        match output.status.code() {
            Some(130) => {
                assert!(said.contains("fork-trace: SIGINT came before "), "{said}");
                assert!(!file.exists(), "the command was started");
                early += 1;
            }
            // It came before the tool could hold it back, or when the command ran already.
            None => assert!(!file.exists(), "the command was started"),
            Some(0) => late += u32::from(file.exists()),
            other => panic!("{other:?}: {said}"),
        }
    }
    assert!(early > 0, "{early} early, {late} late");
}

#[test]
fn an_ignored_signal_stays_ignored() {
    live_test!();
    let script = r#"trap "" HUP INT; exec "$0" "$@""#;
    let tool = fork_trace();
    let mut trace = Command::new("sh");
    trace.args(["-c", script]).arg(tool.get_program()).args(tool.get_args()).args(["--json"]);
    let trace = HostTrace::of(&mut trace);
    for signal in [Signal::SIGHUP, Signal::SIGINT] {
        kill(trace.pid(), signal);
        sleep(Duration::from_millis(300));
    }
    let output = trace.stop(Signal::SIGTERM);
    assert!(output.status.success());
    let shown = lines(&output.stdout);
    check(&shown);
    let took = number(&summary(&shown)["self"]["attach_ns"]);
    assert!(took > 0);
}

#[test]
fn the_command_begins_with_the_signals_that_we_began_with() {
    live_test!();
    let masks = ["-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];
    // Those above 31 are the C library's own.
    let below_32 = |output: Output| -> Vec<u64> {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let masks = text.lines().map(|line| line.rsplit('\t').next().unwrap());
        masks.map(|mask| u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff).collect()
    };
    let alone = below_32(Command::new("grep").args(masks).output().unwrap());
    assert_eq!(below_32(run(fork_trace().args(["-q", "--", "grep"]).args(masks))), alone);
}

#[test]
fn a_second_interrupt_leaves_the_command_and_says_so() {
    live_test!();
    for limit in [&[][..], &["--max-events", "1"]] {
        let script = "trap '' INT; (exit 0) & wait; echo $$; exec sleep 30";
        let mut child = fork_trace()
            .args(limit)
            .args(["-q", "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let command: u32 = line.trim().parse().unwrap();
        kill(child.id(), Signal::SIGINT);
        // Two signals that arrive before either is looked at are one: a trace that stops is busy for a while.
        sleep(in_time());
        assert!(child.try_wait().unwrap().is_none(), "the first is the command's");
        let since = Instant::now();
        kill(child.id(), Signal::SIGINT);
        let output = ended_in_time(child, since);
        assert_eq!(output.status.code(), Some(130), "{limit:?}");
        // It is still there.
        kill(command, Signal::SIGKILL);
    }
}

/// Many short traces beside a storm on CPUs that have too much to do: the sum holds in each.
#[test]
fn the_sum_holds_beside_hogs() {
    live_test!();
    let cpus = thread::available_parallelism().unwrap().get();
    let hog = || Background::start(Command::new("sh").args(["-c", "while :; do :; done"]));
    let _hogs: Vec<_> = (0..4 * cpus).map(|_| hog()).collect();
    let _storm = storm();
    let folder = Folder::new("hogs");
    let file: PathBuf = folder.file("forks.json");
    let rounds = if slowness() > 1.0 { 2 } else { 10 };
    for _ in 0..rounds {
        let output = run(fork_trace().args(["-q", "--max-events", "300", "-o"]).arg(&file));
        assert!(output.status.success());
        let shown = read(&file);
        check(&shown);
        assert_eq!(of_type(&shown, "fork").len(), 300);
        sum_holds(&shown);
    }
}
