//! Perfetto's trace format: a timeline that its viewer shows and its trace processor queries.
//!
//! Each thread that calls has a track with its calls, the stages and waits nested in them; a child's first
//! steps are on its own track, and an arrow leads there from the call. What has no place on a timeline stands
//! in the annotations of the slice it belongs to, under the names that it has in JSON.
//!
//! A packet is written as soon as its event is there, and needs nothing from those after it: a file that is cut
//! off is a trace up to there.

mod call;
mod counters;
mod proto;
mod slices;
mod tracks;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::{
    event::{
        Event,
        follow_up::{Exec, Exit, VforkDone},
        fork::{Child, Fork},
        stage::StageLine,
        start::Start,
        units::counted,
    },
    output::{
        perfetto::{
            counters::{Second, Seconds},
            proto::{Type, clock, event, packet, track},
            slices::{Slice, Step, hold, nest},
            tracks::{Latest, Process, Task, Thread, number},
        },
        protobuf::Message,
        sink::Sink,
        text::follow_up::signal_name,
    },
};

/// All packets are one sequence.
const SEQUENCE: u32 = 1;

/// Writes a Perfetto trace.
pub struct Perfetto<W> {
    to: W,
    /// The packet under way.
    message: Message,
    processes: Latest<Process>,
    threads: Latest<Thread>,
    seconds: Seconds,
    /// The tracks that belong to no process, once they are described.
    notes: Option<u64>,
    rates: Option<[u64; 2]>,
    /// The latest moment that was told of, for what has none itself.
    latest_ns: u64,
}

impl<W: Write> Perfetto<W> {
    /// Onto `writer`, which gets one whole packet at a time and should be buffered.
    pub fn new(writer: W) -> Self {
        Self {
            to: writer,
            message: Message::default(),
            processes: Latest::new(),
            threads: Latest::new(),
            seconds: Seconds::default(),
            notes: None,
            rates: None,
            latest_ns: 0,
        }
    }

    fn packet(&mut self, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        let bytes = self.message.packet(|packet| {
            packet.number(packet::SEQUENCE, SEQUENCE);
            fill(packet);
        });
        self.to.write_all(bytes)
    }

    /// An event of a track at a moment of `CLOCK_MONOTONIC`.
    fn at(
        &mut self,
        at_ns: u64,
        what: Type,
        track: u64,
        fill: impl FnOnce(&mut Message),
    ) -> io::Result<()> {
        self.packet(|packet| {
            packet.number(packet::TIMESTAMP, at_ns);
            packet.number(packet::CLOCK, clock::MONOTONIC);
            packet.message(packet::TRACK_EVENT, |one| {
                one.number(event::TYPE, what as u32);
                one.number(event::TRACK, track);
                fill(one);
            });
        })
    }

    fn instant(
        &mut self,
        at_ns: u64,
        track: u64,
        category: &str,
        name: &str,
        notes: &Value,
    ) -> io::Result<()> {
        self.at(at_ns, Type::Instant, track, |one| {
            one.text(event::CATEGORY, category);
            one.text(event::NAME, name);
            one.annotations(notes);
        })
    }

    /// Shows slices of one track. `arrow` says which field and number of a flow a slice has.
    fn slices(
        &mut self,
        track: u64,
        slices: Vec<Slice>,
        arrow: impl Fn(&Slice) -> Option<(u32, u64)>,
    ) -> io::Result<()> {
        nest(slices, |step| match step {
            Step::Begin(slice) => self.at(slice.begin_ns, Type::Begin, track, |one| {
                one.text(event::CATEGORY, slice.category);
                one.text(event::NAME, &slice.name);
                if let Some((field, number)) = arrow(slice) {
                    one.fixed(field, number);
                }
                one.annotations(&slice.notes);
            }),
            Step::End(at_ns) => self.at(at_ns, Type::End, track, |_| {}),
        })
    }

    fn describe(&mut self, uuid: u64, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        self.packet(|packet| {
            packet.message(packet::TRACK, |one| {
                one.number(track::UUID, uuid);
                fill(one);
            });
        })
    }

    /// The track of a task, which is described where it or its name is new.
    fn task(&mut self, task: &Task<'_>) -> io::Result<u64> {
        let same = |process: &&mut Process| {
            let both = process.start_ns.zip(task.start_ns);
            both.is_none_or(|(before, now)| before == now)
        };
        let known = self.processes.get(task.pid).filter(same).map(|process| *process);
        let mut process = known.unwrap_or_else(|| Process {
            uuid: number(("process", task.pid, task.start_ns)),
            start_ns: None,
            named: false,
        });
        let before = known;
        process.start_ns = process.start_ns.or(task.start_ns);
        let name = task.exe.and_then(|exe| exe.rsplit('/').next()).or(task.comm);
        let named = name.filter(|_| !process.named);
        process.named |= named.is_some();
        if before != Some(process) {
            self.processes.insert(task.pid, process);
            self.process(task.pid, process, named, task.argv)?;
        }
        self.thread(task, process.uuid, ("of", process.uuid))
    }

    /// The track of a process's thread; where it is new, its number comes from `origin`.
    fn thread(
        &mut self,
        task: &Task<'_>,
        process: u64,
        origin: impl std::hash::Hash,
    ) -> io::Result<u64> {
        let known = self.threads.get(task.tid).filter(|thread| thread.process == process);
        if let Some(thread) = known {
            let uuid = thread.uuid;
            if let Some(comm) = task.comm.filter(|comm| thread.comm != *comm) {
                comm.clone_into(&mut thread.comm);
                self.describe_thread(task, uuid)?;
            }
            return Ok(uuid);
        }
        let uuid = number(("thread", task.tid, origin));
        let comm = task.comm.unwrap_or_default().to_owned();
        self.threads.insert(task.tid, Thread { uuid, process, comm, held: None });
        self.describe_thread(task, uuid)?;
        Ok(uuid)
    }

    fn describe_thread(&mut self, task: &Task<'_>, uuid: u64) -> io::Result<()> {
        self.describe(uuid, |one| {
            one.message(track::THREAD, |thread| {
                thread.number(track::THREAD_PID, task.pid);
                thread.number(track::THREAD_TID, task.tid);
                if let Some(comm) = task.comm {
                    thread.text(track::THREAD_NAME, comm);
                }
            });
        })
    }

    fn process(
        &mut self,
        pid: u32,
        process: Process,
        name: Option<&str>,
        argv: &[String],
    ) -> io::Result<()> {
        self.describe(process.uuid, |one| {
            one.message(track::PROCESS, |one| {
                one.number(track::PROCESS_PID, pid);
                for word in argv {
                    one.text(track::PROCESS_CMDLINE, word);
                }
                if let Some(name) = name {
                    one.text(track::PROCESS_NAME, name);
                }
                if let Some(start_ns) = process.start_ns {
                    one.number(track::PROCESS_START, start_ns);
                }
            });
        })
    }

    /// The track of a new task.
    fn born(&mut self, fork: &Fork, child: &Child) -> io::Result<u64> {
        let origin = (fork.parent.tid, fork.mono_ns);
        let task = Task {
            comm: Some(child.comm.as_deref().unwrap_or(&fork.parent.comm)),
            ..Task::of(child.pid, child.tid)
        };
        let known = self.processes.get(child.pid).map(|process| *process);
        let ended_ns = fork.mono_ns.saturating_add(fork.total_ns.unwrap_or_default());
        // Of a child that called before this line came, the process is known already.
        let is_this = |process: &Process| {
            process.start_ns.is_some_and(|ns| (fork.mono_ns..=ended_ns).contains(&ns))
        };
        let process = match known {
            Some(process) if child.tid != child.pid || is_this(&process) => process,
            _ => {
                let uuid = number(("process", child.pid, origin));
                let process = Process { uuid, start_ns: None, named: false };
                self.processes.insert(child.pid, process);
                self.process(child.pid, process, None, &[])?;
                process
            }
        };
        self.thread(&task, process.uuid, origin)
    }

    /// The track of what belongs to no process.
    fn notes(&mut self) -> io::Result<u64> {
        let uuid = number("fork-trace");
        if self.notes.replace(uuid).is_none() {
            self.describe(uuid, |one| one.text(track::NAME, "fork-trace"))?;
        }
        Ok(uuid)
    }

    /// Shows something that belongs to no process.
    fn note(&mut self, at_ns: u64, name: &str, notes: &Value) -> io::Result<()> {
        let track = self.notes()?;
        self.instant(at_ns, track, "note", name, notes)
    }

    fn rates(&mut self, seconds: Vec<Second>) -> io::Result<()> {
        const NAMES: [&str; 2] = ["forks per second", "failures per second"];
        if seconds.is_empty() {
            return Ok(());
        }
        let tracks = NAMES.map(number);
        if self.rates.replace(tracks).is_none() {
            for (name, uuid) in NAMES.into_iter().zip(tracks) {
                self.describe(uuid, |one| {
                    one.text(track::NAME, name);
                    one.message(track::COUNTER, |one| {
                        one.number(track::COUNTER_UNIT, track::COUNT);
                    });
                })?;
            }
        }
        for (at_ns, counts) in seconds {
            for (track, count) in tracks.into_iter().zip([counts.forks, counts.failures]) {
                self.at(at_ns, Type::Counter, track, |one| {
                    one.number(event::COUNTER_VALUE, count);
                })?;
            }
        }
        Ok(())
    }

    /// Shows a stage that was recorded by itself.
    fn stage(&mut self, stage: &StageLine) -> io::Result<()> {
        let caller = &stage.parent;
        let task = Task { comm: Some(&caller.comm), ..Task::of(caller.pid, caller.tid) };
        let track = self.task(&task)?;
        let name = [&*stage.span.name, stage.errno_name.as_deref().unwrap_or_default()].join(" ");
        let (name, notes) = (name.trim_end().to_owned(), json(stage)?);
        let begin_ns = stage.mono_ns;
        let Some(dur_ns) = stage.span.dur_ns.filter(|_| stage.span.start_ns.is_some()) else {
            return self.instant(begin_ns, track, "stage", &name, &notes);
        };
        let end_ns = begin_ns.saturating_add(dur_ns);
        let slice = Slice { begin_ns, end_ns, name, category: "stage", notes };
        self.slices(track, vec![slice], |_| None)
    }

    /// Says which clock the times are of, and where it stands beside the realtime clock.
    fn start(&mut self, start: &Start) -> io::Result<()> {
        let realtime_ns = u64::try_from(start.ts.0.as_nanosecond()).ok();
        let clocks = [(clock::MONOTONIC, Some(start.mono_ns)), (clock::REALTIME, realtime_ns)];
        self.packet(|packet| {
            packet.message(packet::CLOCK_SNAPSHOT, |snapshot| {
                for (id, now_ns) in clocks {
                    let Some(now_ns) = now_ns else { continue };
                    snapshot.message(clock::CLOCKS, |one| {
                        one.number(clock::ID, id);
                        one.number(clock::TIMESTAMP, now_ns);
                    });
                }
                snapshot.number(clock::PRIMARY, clock::MONOTONIC);
            });
        })?;
        self.note(start.mono_ns, "start", &json(start)?)
    }

    fn vfork_done(&mut self, done: &VforkDone) -> io::Result<()> {
        let caller = done.fork_id.split_once('-');
        let caller = caller.and_then(|(tid, ns)| Some((tid.parse().ok()?, ns.parse().ok()?)));
        let thread = caller.and_then(|(tid, began_ns): (u32, u64)| {
            let thread = self.threads.get(tid)?;
            let held = thread.held.take_if(|(began, _)| *began == began_ns);
            Some((thread.uuid, held))
        });
        let notes = json(done)?;
        match thread.filter(|_| done.orphan.is_none()) {
            Some((track, Some((_, from_ns)))) => {
                self.slices(track, vec![hold(from_ns, done.mono_ns, notes)], |_| None)
            }
            // Its hold has been shown with the call.
            Some((track, None)) => self.instant(done.mono_ns, track, "vfork", "vfork done", &notes),
            None => self.note(done.mono_ns, "vfork done", &notes),
        }
    }

    fn exec(&mut self, exec: &Exec) -> io::Result<()> {
        let failed = exec.errno.is_some();
        let exe = exec.exe.as_deref();
        let argv = exec.argv.as_deref().unwrap_or_default();
        let task = Task::of(exec.pid, exec.pid);
        let task = if failed { task } else { Task { exe, argv, ..task } };
        let track = self.task(&task)?;
        let words =
            ["exec", exe.unwrap_or_default(), exec.errno_name.as_deref().unwrap_or_default()];
        let name = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        self.instant(exec.mono_ns, track, "exec", &name, &json(exec)?)
    }

    fn exit(&mut self, exit: &Exit) -> io::Result<()> {
        let track = self.task(&Task::of(exit.pid, exit.pid))?;
        let name = match (exit.signal, exit.code) {
            (Some(signal), _) => format!("killed by {}", signal_name(signal)),
            (None, Some(code)) => format!("exit {code}"),
            (None, None) => "exit".to_owned(),
        };
        self.instant(exit.mono_ns, track, "exit", &name, &json(exit)?)
    }
}

/// What stands in annotations: the fields of an event's JSON, but for the moment, which the packet has.
fn json(event: &impl Serialize) -> io::Result<Value> {
    let mut value = serde_json::to_value(event)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("ts");
        fields.remove("mono_ns");
    }
    Ok(value)
}

impl<W: Write> Sink for Perfetto<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.latest_ns = self.latest_ns.max(fork.mono_ns);
        self.call(fork)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let at_ns = match event {
            Event::Start(start) => start.mono_ns,
            Event::VforkDone(done) => done.mono_ns,
            Event::Exec(exec) => exec.mono_ns,
            Event::Exit(exit) => exit.mono_ns,
            Event::Stage(stage) => stage.mono_ns,
            Event::Stuck(stuck) => stuck.mono_ns,
            Event::Loss(loss) => loss.since_mono_ns,
            Event::Fork(_) | Event::Warning(_) | Event::Summary(_) => 0,
        };
        self.latest_ns = self.latest_ns.max(at_ns);
        match event {
            Event::Fork(fork) => self.call(fork),
            Event::Start(start) => self.start(start),
            Event::VforkDone(done) => self.vfork_done(done),
            Event::Exec(exec) => self.exec(exec),
            Event::Exit(exit) => self.exit(exit),
            Event::Stage(stage) => self.stage(stage),
            Event::Stuck(stuck) => {
                let caller = &stuck.parent;
                let task = Task { comm: Some(&caller.comm), ..Task::of(caller.pid, caller.tid) };
                let track = self.task(&task)?;
                self.instant(at_ns, track, "stuck", "stuck", &json(stuck)?)
            }
            Event::Loss(loss) => {
                let name = match loss.records {
                    0 => "details lost".to_owned(),
                    records => format!("lost {}", counted(records, "record")),
                };
                self.note(at_ns, &name, &json(loss)?)
            }
            Event::Warning(warning) => {
                let name = format!("warning {}", warning.code);
                self.note(self.latest_ns, &name, &json(warning)?)
            }
            Event::Summary(summary) => self.note(self.latest_ns, "summary", &json(summary)?),
        }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        let seconds = self.seconds.finish();
        self.rates(seconds)?;
        if self.seconds.late > 0 {
            let late = counted(self.seconds.late, "attempt");
            let name = format!("the rates lack {late}, which came late");
            self.note(self.latest_ns, &name, &Value::Null)?;
        }
        self.tick()
    }
}
