//! `fork-trace top`: who forks on this host, live on a terminal; or a recording, shown the same way.

use std::{path::Path, sync::Arc, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    cli::{
        replay::{self, Recording, Seen},
        top_args::TopArgs,
        trace::{of_host, traced},
    },
    error::UserError,
    event::{Event, filters::Filters, selection::Selection},
    host::{fill, process::zombies},
    live::{
        command::Caller,
        service::{Pulse, Service},
        signals::{HeldSignals, exit_status},
    },
    output::{
        options::Color,
        outputs::{Outputs, look},
        sink::send,
        top::{Folding, Options, Sources, Top, check, readings::Readings},
    },
};

/// Zombies are counted no more often.
const BETWEEN_COUNTS: Duration = Duration::from_secs(5);

/// Events of a recording between two looks at signals.
const BATCH: usize = 512;

/// How long to wait before it is looked again whether the user has had enough.
const PAUSE: Duration = Duration::from_millis(20);

/// Shows it until the user has had enough; returns the exit status.
///
/// # Errors
/// [`UserError::NoTerminal`], and what a trace or a replay may say.
pub fn top(args: &TopArgs) -> Result<u8> {
    check()?;
    match &args.replay {
        Some(file) => recorded(args, file),
        None => live(args),
    }
}

fn options(args: &TopArgs, replay: Option<&Path>) -> Result<Options> {
    let (_, color) = look(Color::Auto);
    Ok(Options {
        by: args.by,
        color,
        record: args.record.clone(),
        owner: Caller::of_sudo()?.map(|caller| caller.ids()),
        replay: replay.map(|file| file.display().to_string()),
        notes: args.filter.notes().collect(),
    })
}

fn live(args: &TopArgs) -> Result<u8> {
    let mut top = Top::new(options(args, None)?);
    let sink = top.sink();
    let traced = traced(
        &of_host(args.filter.clone(), args.stages.clone(), args.buffer, 0),
        |_, _, _| Outputs::only("top", vec![Box::new(sink)]),
        |trace| {
            let service = Service::unmanaged();
            let (pulse, ending) = (service.pulse(), service.pulse());
            let end = Box::new(move || ending.ask_for_end());
            top.start(Sources { readings: readings(pulse), end }).context("use the terminal")?;
            Ok((trace.serving(service, true), Vec::new()))
        },
    );
    let shown = top.end().context("use the terminal");
    let status = traced?;
    shown.map(|()| status)
}

/// Reads what is not told by events.
fn readings(pulse: Arc<Pulse>) -> Box<dyn FnMut(Vec<Arc<str>>) -> Readings + Send> {
    let mut zombies = zombies::Counted::new(BETWEEN_COUNTS);
    Box::new(move |groups| Readings {
        zombies: zombies.get(),
        stuck: Some(pulse.stuck()),
        limits: fill::fills(groups.iter()),
    })
}

fn recorded(args: &TopArgs, file: &Path) -> Result<u8> {
    let (mut recording, _) = replay::open(file)?;
    // Before the terminal is taken over: is it a recording at all, and does it tell what is filtered by?
    let first = recording.next_event()?;
    let filters = args.filter.filters(None);
    let is_narrowed = filters != Filters::default();
    let mut selection = is_narrowed.then(|| replay::selection(&filters, None));
    if let (Some(selection), Some(Event::Start(start))) = (&mut selection, &first) {
        selection.begin(start)?;
    }
    let held = HeldSignals::new()?;
    let mut top = Top::new(options(args, Some(file))?);
    let sink = top.sink();
    let sources = Sources { readings: Box::new(|_| Readings::default()), end: Box::new(|| ()) };
    top.start(sources).context("use the terminal")?;
    let mut reading = Reading { sink, selection, seen: Seen::default(), traced_ns: None };
    let is_over = || top.has_ended() || held.arrived().is_some();
    let read = reading.all(first, &mut recording, &is_over, &|ns| top.lasts(ns));
    if let Err(error) = &read {
        top.say(error.to_string(), true);
    }
    while !is_over() {
        sleep(PAUSE);
    }
    let signal = held.arrived();
    top.end().context("use the terminal")?;
    read.map(|()| signal.map_or(0, exit_status))
}

/// Reads a recording.
struct Reading {
    sink: Folding,
    /// `None`: everything is shown.
    selection: Option<Selection>,
    seen: Seen,
    /// How long it lasted, as its summary says.
    traced_ns: Option<u64>,
}

impl Reading {
    /// Shows all of it, until it ends or `is_over` says so; `lasts` is told how long it is so far.
    fn all(
        &mut self,
        first: Option<Event>,
        recording: &mut Recording,
        is_over: &dyn Fn() -> bool,
        lasts: &dyn Fn(Option<u64>),
    ) -> Result<()> {
        let (mut next, mut number) = (first, 0_usize);
        while let Some(event) = next {
            self.take(&event)?;
            number += 1;
            if number.is_multiple_of(BATCH) {
                lasts(self.seen.traced_ns());
                if is_over() {
                    return Ok(());
                }
            }
            next = recording.next_event()?;
        }
        lasts(self.traced_ns.or_else(|| self.seen.traced_ns()));
        if self.seen.is_whole { Ok(()) } else { Err(recording.cut_off()) }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        self.seen.add(event);
        match event {
            Event::Stage(_) => {
                let reason =
                    "the recording has stages only, which do not tell of callers".to_owned();
                return Err(UserError::Untold { option: "--replay", reason }.into());
            }
            Event::Summary(summary) => self.traced_ns = summary.traced_ns,
            Event::Start(_) => {}
            _ => {
                if let Some(selection) = &mut self.selection
                    && !selection.shows(event)?
                {
                    return Ok(());
                }
            }
        }
        send(&mut self.sink, event).context("show an event")
    }
}
