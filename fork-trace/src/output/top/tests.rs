//! What is folded, drawn and asked for by keys.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    Folding, Options, Top, lock,
    model::Model,
    readings::Readings,
    record::{self, Recording},
    rows::{self, GROUPS, Label, Sort},
    screen::{Asked, Screen},
    view,
};
use crate::{
    event::{
        Event,
        fill::Fill,
        fork::Fork,
        replay::Replay,
        summary::By,
        tests::{done, fork},
        values::Name,
    },
    output::sink::{Sink as _, send},
};

/// A picture of this size.
fn picture(
    model: &Model,
    screen: &mut Screen,
    readings: &Readings,
    now: Instant,
    (width, height): (u16, u16),
) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(model, screen, readings, now, frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let mut text = String::new();
        let mut skip = 0;
        for x in 0..width {
            let symbol = buffer.cell((x, y)).unwrap().symbol();
            if skip == 0 {
                text.push_str(symbol);
                skip = unicode_width::UnicodeWidthStr::width(symbol);
            }
            skip = usize::saturating_sub(skip, 1);
        }
        text.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn called(comm: &str, rest: &str) -> String {
    let comm = serde_json::to_string(comm).unwrap();
    let parent = format!(r#""pid":7,"tid":7,"ppid":1,"comm":{comm},"uid":0,"user":"root""#);
    format!(r#","parent":{{{parent},"exe":"/usr/bin/x","unit":"x.service","cgroup":"/x"}}{rest}"#)
}

fn process(held_ns: u64) -> String {
    format!(
        r#","kind":"process","syscall":"clone","total_ns":{held_ns},"held_ns":{held_ns},
        "child":{{"pid":9,"tid":9}}"#
    )
}

fn at(began: Instant, ms: u64) -> Instant {
    began + Duration::from_millis(ms)
}

/// A host on which somebody builds, a service cannot fork, and a shell waits for its children.
fn host(began: Instant) -> Model {
    let mut model = Model::new(began);
    let parent = |comm: &str, more: &str| {
        format!(r#","parent":{{"pid":4711,"tid":4711,"ppid":812,"comm":"{comm}"{more}}}"#)
    };
    let make = parent(
        "make",
        r#","exe":"/usr/bin/make","uid":1000,"user":"ann","unit":"session-4.scope",
        "cgroup":"/user.slice/session-4.scope""#,
    );
    let ancestors = r#","ancestors":[{"pid":812,"comm":"bash"},{"pid":700,"comm":"sshd"},
        {"pid":1,"comm":"systemd"}]"#;
    let vfork = r#","kind":"vfork","syscall":"vfork","total_ns":60000,"held_ns":1200000,
        "child":{"pid":9,"tid":9},"waits":[{"at_ns":70000,"dur_ns":1100000,"state":"blocked","reason":"vfork"}]"#;
    let php = parent(
        "php-fpm8.2",
        r#","exe":"/usr/sbin/php-fpm8.2","uid":33,"user":"www-data","unit":"php8.2-fpm.service",
        "cgroup":"/system.slice/php8.2-fpm.service""#,
    );
    let refused = r#","kind":"process","syscall":"clone","total_ns":9000,"held_ns":9000,"errno":11,
        "errno_name":"EAGAIN","failed_stage":"cgroup_can_fork","cause":{"kind":"cgroup-pids",
        "what":"the group is full","limit":"pids.max","current":512,"max":512,
        "path":"/system.slice/php8.2-fpm.service","confidence":"certain",
        "hint":"raise TasksMax= of the unit"}"#;
    let java = parent(
        "java",
        r#","exe":"/opt/jdk/bin/java","uid":998,"user":"tomcat","unit":"docker-0f3c.scope",
        "cgroup":"/system.slice/docker-0f3c.scope","container":{"id":"0f3c9a7b21d4","runtime":"docker"}"#,
    );
    let thread = r#","kind":"thread","syscall":"clone3","total_ns":31000,"held_ns":31000,
        "child":{"pid":4711,"tid":9}"#;
    let slow = r#","kind":"process","syscall":"clone","total_ns":48000000,"held_ns":48000000,
        "child":{"pid":9,"tid":9},"waits":[{"at_ns":9,"dur_ns":46500000,"state":"blocked","reason":"mmap_lock"}],
        "slow":{"kind":"wait:mmap_lock","share":0.968,
        "text":"97% waiting for mmap_lock: 46.5 ms of 48.0 ms, held by thread java (4720)"}"#;
    for second in 1..=6 {
        let now = at(began, second * 1000 + 100);
        for number in 0..40 {
            let id = format!("1-{second}{number:02}");
            model.fork(&fork(&id, &format!("{make}{ancestors}{vfork}")), now);
            if number % 4 == 0 {
                model.fork(&fork(&id, &format!("{java}{thread}")), now);
            }
            if number % 10 == 0 {
                model.fork(&fork(&id, &format!("{php}{refused}")), now);
            }
        }
    }
    model.fork(&fork("1-999", &format!("{java}{slow}")), at(began, 6_500));
    model
}

fn readings() -> Readings {
    Readings {
        zombies: Some(vec![("node".to_owned(), 12), ("sh".to_owned(), 1)]),
        stuck: Some(1),
        limits: vec![
            Fill {
                limit: Name::Borrowed("kernel.pid_max"),
                path: None,
                current: 300,
                max: 4_194_304,
                is_bytes: false,
            },
            Fill {
                limit: Name::Borrowed("pids.max"),
                path: Some("/system.slice/php8.2-fpm.service".to_owned()),
                current: 510,
                max: 512,
                is_bytes: false,
            },
        ],
    }
}

fn shown(size: (u16, u16)) -> (Vec<String>, Screen) {
    let began = Instant::now();
    let mut screen = Screen::new(By::Comm, true);
    screen.source = "web1, 6.12.0".to_owned();
    let model = host(began);
    (picture(&model, &mut screen, &readings(), at(began, 7_000), size), screen)
}

#[test]
fn each_width_shows_what_matters_most() {
    let all = [
        "FORKS/S",
        "FAILED",
        "HELD/S",
        "WAITING",
        "FORKS",
        "LAST FAILURE",
        "LONGEST",
        "PARENTS",
        "UNIT",
        "PROGRAM",
        "USER",
    ];
    for (width, columns) in [(80, 5), (120, 7), (160, 9), (200, 11)] {
        let (lines, _) = shown((width, 20));
        let head = lines.iter().find(|line| line.starts_with("COMM")).unwrap();
        for (place, title) in all.iter().enumerate() {
            assert_eq!(head.contains(title), place < columns, "{width}: {title}\n{head}");
        }
        let text = lines.join("\n");
        assert!(text.contains("54.2 forks/s"), "{text}");
        for word in
            ["1 stuck", "13 zombies (node 12)", "pids.max of /system.slice/php8.2-fpm.service"]
        {
            assert!(text.contains(word), "{width}: {word}\n{text}");
        }
        assert!(!text.contains("pid_max"), "it is not near: {text}");
        let widths = lines.iter().map(|line| unicode_width::UnicodeWidthStr::width(line.as_str()));
        assert!(widths.max().unwrap() <= usize::from(width), "{text}");
        let make = lines.iter().find(|line| line.starts_with("make")).unwrap();
        assert!(make.contains("40.0") && make.contains("92% vfork"), "{make}");
        let php = lines.iter().find(|line| line.starts_with("php-fpm8.2")).unwrap();
        assert!(php.contains("24"), "{php}");
        assert_eq!(php.contains("cgroup-pids"), width >= 120, "{php}");
        assert!(lines.last().unwrap().starts_with("q quit  ? help"), "{text}");
    }
}

#[test]
fn no_size_is_too_small() {
    let began = Instant::now();
    let (model, now) = (host(began), at(began, 7_000));
    let sizes = (0..60).flat_map(|width| [0, 1, 2, 3, 5, 9].map(|height| (width, height)));
    for size in sizes {
        let mut screen = Screen::new(By::Comm, true);
        for code in [KeyCode::Down, KeyCode::Enter, KeyCode::Char('?'), KeyCode::Esc] {
            picture(&model, &mut screen, &readings(), now, size);
            screen.key(KeyEvent::from(code));
        }
    }
}

#[test]
fn rates_are_of_the_last_seconds_and_totals_of_all() {
    let began = Instant::now();
    let model = host(began);
    let of = |ms: u64| {
        let rows = rows::rows(&model, model.span(at(began, ms)), By::Comm, "make", Sort::Rate);
        (rows[0].recent.forks, rows[0].all.forks)
    };
    assert_eq!(of(7_000), (200, 240), "seconds 2 to 6");
    assert_eq!(of(10_500), (80, 240), "seconds 5 and 6");
    assert_eq!(of(12_500), (0, 240));
    let early = rows::rows(&model, model.span(at(began, 500)), By::Comm, "", Sort::Rate);
    assert_eq!(model.span(at(began, 500)).ns(), None, "no second has ended");
    assert_eq!(early.len(), 3);
}

#[test]
fn a_vfork_that_is_told_while_it_is_held_counts_when_it_is_over() {
    let began = Instant::now();
    let mut model = Model::new(began);
    let vfork = r#","kind":"vfork","syscall":"vfork","total_ns":9,"child":{"pid":2,"tid":2}"#;
    model.fork(&fork("1-1", &called("sh", vfork)), began);
    let row =
        |model: &Model| rows::rows(model, model.span(began), By::Comm, "", Sort::Rate).remove(0);
    assert_eq!((row(&model).longest_ns, row(&model).waiting()), (None, None));
    model.event(&done("1-1", 700), began);
    model.event(&done("1-1", 900), began);
    let after = row(&model);
    assert_eq!((after.longest_ns, after.all.held_ns, after.all.forks), (Some(700), 700, 1));
    assert_eq!(after.waiting(), Some((1, Some("vfork"))));
    for number in 0..5_000 {
        model.fork(&fork(&format!("2-{number}"), &called("sh", vfork)), began);
    }
    assert_eq!(model.unfollowed, 5_000 - 4_096);
}

#[test]
fn many_programs_are_bounded_and_nothing_is_lost() {
    let began = Instant::now();
    let mut model = Model::new(began);
    for number in 0..3_000 {
        model.fork(&fork("1-1", &called(&format!("once{number}"), &process(5))), began);
        model.fork(&fork("1-2", &called(&format!("often{}", number % 30), &process(7))), began);
    }
    assert!(model.cells().count() <= 1024);
    let rows = rows::rows(&model, model.span(began), By::Comm, "", Sort::Total);
    assert_eq!(rows.last().unwrap().label, Label::Other);
    assert_eq!(rows.iter().map(|row| row.all.forks).sum::<u64>(), 6_000);
    assert_eq!(rows.iter().map(|row| row.all.held_ns).sum::<u128>(), 3_000 * 12);
    assert_eq!(rows.iter().map(|row| row.recent.forks).sum::<u64>(), 0, "the second has not ended");
    let later = rows::rows(&model, model.span(at(began, 1_000)), By::Comm, "", Sort::Total);
    assert_eq!(later.iter().map(|row| row.recent.forks).sum::<u64>(), 6_000);
    assert!(
        rows[..30].iter().all(|row| row.label.text().starts_with("often") && row.all.forks == 100)
    );
    let late = rows.iter().find(|row| row.label.text() == "once2999").unwrap();
    assert!(late.late && !rows[0].late);
    model.fork(&fork("1-3", &called("new", &process(7))), began);
    let mut screen = Screen::new(By::Comm, false);
    let lines = picture(&model, &mut screen, &Readings::default(), began, (80, 2_000));
    let new = lines.iter().find(|line| line.starts_with("new ")).unwrap();
    assert!(new.starts_with("new +"), "{new}");
    assert!(lines.iter().any(|line| line.starts_with("(others)")));
}

#[test]
fn programs_are_put_into_groups_by_what_they_have_in_common() {
    let began = Instant::now();
    let model = host(began);
    let labels = |by| -> Vec<String> {
        let rows = rows::rows(&model, model.span(at(began, 7_000)), by, "", Sort::Name);
        rows.iter().map(|row| row.label.text().to_owned()).collect()
    };
    assert_eq!(labels(By::Comm), ["java", "make", "php-fpm8.2"]);
    assert_eq!(labels(By::Exe), ["/opt/jdk/bin/java", "/usr/bin/make", "/usr/sbin/php-fpm8.2"]);
    assert_eq!(labels(By::Uid), ["ann", "tomcat", "www-data"]);
    let groups = labels(By::Cgroup);
    assert!(groups.contains(&"docker:0f3c9a7b21d4".to_owned()), "{groups:?}");
    let mut model = model;
    model.fork(&fork("5-1", &process(4)), began);
    let rows = rows::rows(&model, model.span(began), By::Unit, "", Sort::Name);
    assert!(rows.iter().any(|row| row.label == Label::Unknown), "of one no unit is known");
}

#[test]
fn keys_sort_filter_drill_and_go_back() {
    let began = Instant::now();
    let (model, now) = (host(began), at(began, 7_000));
    let mut screen = Screen::new(By::Comm, true);
    let press = |screen: &mut Screen, codes: &[KeyCode]| {
        let asked: Vec<_> = codes.iter().map(|code| screen.key(KeyEvent::from(*code))).collect();
        let lines = picture(&model, screen, &Readings::default(), now, (120, 40));
        (asked, lines)
    };
    let first = |lines: &[String]| -> String {
        let head = lines.iter().position(|line| line.contains("FORKS/S")).unwrap();
        lines[head + 1].split_whitespace().next().unwrap_or_default().to_owned()
    };
    let typed = |text: &str| -> Vec<KeyCode> { text.chars().map(KeyCode::Char).collect() };
    assert_eq!(first(&press(&mut screen, &[]).1), "make");
    // The columns one after the other, and back.
    let mut sorts = Vec::new();
    for _ in 0..rows::SORTED.len() {
        let lines = press(&mut screen, &[KeyCode::Char('s')]).1;
        sorts.push((screen.sort, first(&lines)));
    }
    let of = |sort| sorts.iter().find(|(of, _)| *of == sort).unwrap().1.as_str();
    assert_eq!(
        (of(Sort::Failed), of(Sort::Longest), of(Sort::Name)),
        ("php-fpm8.2", "java", "java")
    );
    press(&mut screen, &[KeyCode::Left, KeyCode::Left, KeyCode::Right]);
    assert_eq!(screen.sort, Sort::Name);
    // A filter, of any name of a row; while it is typed no key means anything else.
    let lines = press(
        &mut screen,
        &[&[KeyCode::Char('/')][..], &typed("Tomq"), &[KeyCode::Backspace]].concat(),
    )
    .1;
    assert!(lines.last().unwrap().starts_with("filter: Tom"), "{lines:?}");
    let lines = press(&mut screen, &[KeyCode::Enter]).1;
    assert_eq!((first(&lines).as_str(), screen.labels.len()), ("java", 1));
    assert!(lines[0].contains("only \"Tom\""), "{lines:?}");
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(screen.labels.len(), 3);
    // Details of the chosen row.
    press(&mut screen, &[KeyCode::End, KeyCode::Up, KeyCode::Enter]);
    let lines = press(&mut screen, &[]).1.join("\n");
    for words in [
        "name       make",
        "parents    make 4711 < bash 812 < sshd 700 < systemd 1",
        "40.0/s; 240 in all: 240 vfork",
        "288 ms in all; 240 forks: half up to 1.20 ms",
        "WAITED FOR",
        "vfork",
    ] {
        assert!(lines.contains(words), "{words}\n{lines}");
    }
    press(&mut screen, &[KeyCode::Esc, KeyCode::End, KeyCode::Enter]);
    let lines = press(&mut screen, &[]).1.join("\n");
    for words in ["24 (100%)", "cgroup-pids", "EAGAIN in cgroup_can_fork", "pids.max", "TasksMax="]
    {
        assert!(lines.contains(words), "{words}\n{lines}");
    }
    press(&mut screen, &[KeyCode::Esc, KeyCode::Home, KeyCode::Enter]);
    let lines = press(&mut screen, &[]).1.join("\n");
    assert!(lines.contains("97% waiting for mmap_lock: 46.5 ms of 48.0 ms"), "{lines}");
    // The groups, one after the other.
    for by in GROUPS.iter().cycle().skip(1).take(GROUPS.len()) {
        press(&mut screen, &[KeyCode::Char('b')]);
        assert_eq!((screen.by, screen.details.clone()), (*by, None));
    }
    let (asked, lines) = press(&mut screen, &[KeyCode::Char('?')]);
    assert_eq!(asked, [Asked::Nothing]);
    assert!(lines.iter().any(|line| line.contains("the picture stands still")), "{lines:?}");
    let asked = press(
        &mut screen,
        &[KeyCode::Esc, KeyCode::Char(' '), KeyCode::Char('w'), KeyCode::Char('q')],
    )
    .0;
    assert_eq!(asked, [Asked::Nothing, Asked::Pause, Asked::Record, Asked::Quit]);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(interrupt), Asked::Quit);
}

#[test]
fn the_chosen_row_stays_chosen_and_in_sight() {
    let began = Instant::now();
    let mut model = Model::new(began);
    for number in 0..50 {
        for _ in 0..=number {
            model.fork(&fork("1-1", &called(&format!("n{number:02}"), &process(1))), began);
        }
    }
    let mut screen = Screen::new(By::Comm, true);
    let show = |screen: &mut Screen, model: &Model| {
        picture(model, screen, &Readings::default(), at(began, 1_000), (80, 15))
    };
    show(&mut screen, &model);
    for _ in 0..30 {
        screen.key(KeyEvent::from(KeyCode::Down));
    }
    let lines = show(&mut screen, &model);
    assert_eq!(screen.chosen, Some(Label::Named("n19".into())));
    assert!(lines.iter().any(|line| line.starts_with("n19")), "{lines:?}");
    for _ in 0..100 {
        model.fork(&fork("1-1", &called("n19", &process(1))), began);
    }
    let lines = show(&mut screen, &model);
    assert_eq!((screen.place(), screen.first), (Some(0), 0), "{lines:?}");
}

#[test]
fn hostile_names_are_only_shown() {
    let began = Instant::now();
    let mut model = Model::new(began);
    let names = [
        "\u{1b}[2J\u{1b}]0;a\u{7}",
        "\u{202e}evil",
        "a\nb\tc",
        "漢字漢字漢字漢字漢字",
        "",
        "e\u{301}\u{301}",
    ];
    for name in names {
        model
            .fork(&fork("1-1", &called(name, r#","errno":11,"errno_name":"EA\u001bGAIN""#)), began);
    }
    let mut screen = Screen::new(By::Comm, true);
    screen.source = "\u{1b}[31mfile".to_owned();
    screen.filter = String::new();
    for width in [30, 80, 200] {
        let lines = picture(&model, &mut screen, &Readings::default(), began, (width, 15));
        let text = lines.join("\n");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
        assert!(text.contains("\\x1b[2J"), "{text}");
        assert!(text.contains("\"\"") && text.contains("漢字"), "{text}");
        for line in lines {
            assert!(
                unicode_width::UnicodeWidthStr::width(line.as_str()) <= usize::from(width),
                "{line}"
            );
        }
    }
    screen.key(KeyEvent::from(KeyCode::Enter));
    let text = picture(&model, &mut screen, &Readings::default(), began, (80, 30)).join("\n");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn without_colour_there_is_none() {
    let began = Instant::now();
    let mut screen = Screen::new(By::Comm, false);
    let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
    let (model, readings) = (host(began), readings());
    terminal
        .draw(|frame| {
            view::draw(&model, &mut screen, &readings, at(began, 7_000), frame.buffer_mut());
        })
        .unwrap();
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == ratatui::style::Color::Reset));
}

#[test]
fn a_recording_is_told_as_a_whole() {
    let began = Instant::now();
    let mut model = Model::whole(began);
    for id in ["1-1", "1-2", "1-3"] {
        model.fork(&fork(id, &called("sh", &process(1_000_000))), began);
    }
    let mut screen = Screen::new(By::Comm, true);
    let text = |model: &Model, screen: &mut Screen| {
        picture(model, screen, &Readings::default(), began, (80, 10)).join("\n")
    };
    assert!(text(&model, &mut screen).contains("- forks/s"), "its length is not known");
    model.lasts(Some(2_000_000_000));
    let text = text(&model, &mut screen);
    assert!(text.contains("1.50 forks/s") && text.contains("1.50 ms"), "{text}");
    assert!(!text.contains("zombies"), "{text}");
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("fork-trace-top-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn start() -> Event {
    let text = include_str!("../../../tests/golden/simple.jsonl");
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

/// The events of a recording, which is whole.
fn read(path: &Path) -> Vec<Event> {
    let text = fs::read(path).unwrap();
    let mut replay = Replay::new(text.as_slice(), "it".to_owned());
    std::iter::from_fn(|| replay.next_event().unwrap()).collect()
}

fn top() -> (Top, Folding) {
    let options = Options {
        by: By::Comm,
        color: false,
        record: None,
        owner: None,
        replay: None,
        notes: Vec::new(),
    };
    let top = Top::new(options);
    let sink = top.sink();
    (top, sink)
}

#[test]
fn what_is_recorded_from_a_moment_on_is_a_whole_recording() {
    let (top, mut sink) = top();
    send(&mut sink, &start()).unwrap();
    let folder = folder("record");
    let path = folder.join("x.jsonl");
    let (start, seen) = top.shared.with(|model| model.begun()).unwrap();
    let recording = Recording::begin(path.clone(), None, &start, seen).unwrap();
    lock(&top.shared.recording).recording = Some(recording);
    let later = start.mono_ns + 60_000_000_000;
    let of = |id: &str, mono_ns: u64| -> Fork {
        Fork { mono_ns, ..*fork(id, &called("sh", &process(5))) }
    };
    sink.fork(&of("1-5", 5)).unwrap();
    sink.fork(&of(&format!("1-{later}"), later)).unwrap();
    send(&mut sink, &done("1-5", 9)).unwrap();
    send(&mut sink, &done(&format!("1-{later}"), 9)).unwrap();
    let loss = r#"{"type":"loss","records":3,"by":{"ring_full":3},"since_mono_ns":1}"#;
    send(&mut sink, &serde_json::from_str(loss).unwrap()).unwrap();
    sink.tick().unwrap();
    lock(&top.shared.recording).end();
    assert!(lock(&top.shared.recording).said.as_ref().unwrap().0.ends_with("x.jsonl"));
    sink.fork(&of("1-9", later)).unwrap();
    let events = read(&path);
    let [
        Event::Start(begun),
        Event::Fork(fork),
        Event::VforkDone(_),
        Event::Loss(_),
        Event::Summary(summary),
    ] = &events[..]
    else {
        panic!("{events:#?}")
    };
    assert!(begun.mono_ns >= start.mono_ns && fork.mono_ns == later);
    assert_eq!((summary.attempts, summary.lost), (1, 3), "what was before and after is not in it");
    assert!(summary.traced_ns.is_some());
    assert_eq!(top.shared.with(|model| (model.all.forks, model.lost)), (3, 3));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let (top, mut sink) = top();
    send(&mut sink, &start()).unwrap();
    let (start, seen) = top.shared.with(|model| model.begun()).unwrap();
    let recording = Recording::begin("/dev/full".into(), None, &start, seen).unwrap();
    lock(&top.shared.recording).recording = Some(recording);
    let later = start.mono_ns + 60_000_000_000;
    let until = Instant::now() + Duration::from_secs(20);
    let mut forks = 0;
    while lock(&top.shared.recording).recording.is_some() {
        assert!(Instant::now() < until, "it never ends");
        let fork = Fork { mono_ns: later, ..*fork("1-1", &called("sh", &process(5))) };
        sink.fork(&fork).unwrap();
        sink.tick().unwrap();
        forks += 1;
    }
    let (said, is_error) = lock(&top.shared.recording).said.take().unwrap();
    assert!(is_error && said.contains("/dev/full") && said.contains("No space left"), "{said}");
    assert_eq!(top.shared.with(|model| model.all.forks), forks);
    assert!(Recording::begin("/no/such/folder/x".into(), None, &start, seen).is_err());
}

#[test]
fn each_recording_has_a_file_of_its_own() {
    let file = |asked: &str, number| record::file(Some(Path::new(asked)), number);
    assert_eq!(file("a/x.jsonl.gz", 0), Path::new("a/x.jsonl.gz"));
    assert_eq!(file("a/x.jsonl.gz", 1), Path::new("a/x-2.jsonl.gz"));
    assert_eq!(file("x", 2), Path::new("x-3"));
    let dated = record::file(None, 0).display().to_string();
    assert!(dated.starts_with("fork-trace-20") && dated.ends_with(".jsonl"), "{dated}");
    assert_eq!((record::began_ns("12-345"), record::began_ns("x")), (Some(345), None));
}

/// The pictures in docs/TOP.md are those that are drawn. `UPDATE_GOLDEN=1` draws them anew.
#[test]
fn the_page_shows_what_is_drawn() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/TOP.md");
    let old = fs::read_to_string(page).unwrap();
    let (table, mut screen) = shown((100, 11));
    screen.chosen = Some(Label::Named("java".into()));
    screen.key(KeyEvent::from(KeyCode::Enter));
    let began = Instant::now();
    let details = picture(&host(began), &mut screen, &readings(), at(began, 7_000), (100, 24));
    let mut new = old.clone();
    for (name, lines) in [("table", table), ("details", details)] {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
        let (before, rest) = new.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        let lines = lines.join("\n");
        new = format!("{before}{begin}```text\n{}\n```\n{end}{after}", lines.trim_end());
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(page, &new).unwrap();
    } else {
        assert!(new == old, "run UPDATE_GOLDEN=1 cargo test -p fork-trace --lib top");
    }
}
