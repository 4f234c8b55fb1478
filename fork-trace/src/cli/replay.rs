//! `fork-trace replay`: shows a recorded trace.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::{ReplayArgs, reported, words::Order},
    error::UserError,
    event::{
        Event,
        filters::Filters,
        largest::{Largest, MOST},
        notice::{Loss, Warning},
        replay::Replay,
        selection::Selection,
        summary::Summary,
        units::count,
        values::Name,
    },
    host::process::cgroup_path,
    live::command::Caller,
    output::{
        compress,
        files::FileId,
        options::{DefaultOutput, OutputOptions},
        outputs::Outputs,
    },
};

/// A recording that is open.
pub(super) type Recording = Replay<BufReader<Box<dyn Read>>>;

/// Opens the recording in `file`; returns what that file is, where the system says it.
///
/// # Errors
/// [`UserError::Replay`].
pub(super) fn open(file: &Path) -> Result<(Recording, Option<FileId>)> {
    let name = file.display().to_string();
    let unreadable =
        |error: &io::Error| UserError::Replay { place: name.clone(), cause: error.to_string() };
    let (reader, input) = if name == "-" {
        (compress::reader(io::stdin()), FileId::of(io::stdin()))
    } else {
        let file = File::open(file).map_err(|error| unreadable(&error))?;
        let input = FileId::of(&file);
        (compress::reader(file), input)
    };
    let reader = reader.map_err(|error| unreadable(&error))?;
    Ok((Replay::new(BufReader::new(reader), name), input.ok()))
}

/// What selects by `filters`, the first `most` of these attempts.
pub(super) fn selection(filters: &Filters, most: Option<u64>) -> Selection {
    let groups = filters.cgroups.iter().map(|group| cgroup_path::from_root(group));
    Selection::new(Filters { cgroups: groups.collect(), ..filters.clone() }, most)
}

/// Shows the recording; returns the exit status.
///
/// # Errors
/// [`UserError::Replay`], [`UserError::CutOff`], [`UserError::Untold`], [`UserError::Output`] or
/// [`UserError::SameFile`].
pub fn replay(args: &ReplayArgs) -> Result<u8> {
    let output = &args.output;
    output.options().check()?;
    let (mut replay, input) = open(&args.file)?;
    let owner = Caller::of_sudo()?.map(|caller| caller.ids());
    let options = OutputOptions { owner, ..output.options() };
    // Before anything is opened for writing: is it a recording at all, and does it tell what is filtered by?
    let first = replay.next_event()?;
    let filters = args.filter.filters(None);
    let most = args.arrange.max_events;
    let largest = match args.arrange.sort {
        Order::Recorded => None,
        Order::Largest(figure) => {
            let most = most.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
            Some(Largest::new(figure, most.unwrap_or(MOST)))
        }
    };
    let first_most = most.filter(|_| largest.is_none());
    let is_narrowed = filters != Filters::default() || most.is_some() || largest.is_some();
    let mut selection = is_narrowed.then(|| selection(&filters, first_most));
    if let (Some(selection), Some(Event::Start(start))) = (&mut selection, &first) {
        selection.begin(start)?;
    }
    let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, input, &|| false)?;
    for note in args.filter.notes() {
        outputs.say(&note);
    }
    let mut shown = Shown {
        remakes: output.summary.is_some() || is_narrowed,
        filters,
        selection,
        largest,
        says_bound: most.is_none(),
        seen: Seen::default(),
        outputs: &mut outputs,
    };
    let shown = shown.all(first, &mut replay);
    reported(outputs.finish(None).failed)?;
    shown.map(|()| 0)
}

/// What is shown of a recording. Where the outputs show what the recording does not, they make summaries of
/// their own.
struct Shown<'a> {
    filters: Filters,
    /// `None`: everything is shown.
    selection: Option<Selection>,
    /// What is kept back to be sorted.
    largest: Option<Largest>,
    /// Whether it is said that not everything can be sorted.
    says_bound: bool,
    /// The summary is not that of the recording.
    remakes: bool,
    seen: Seen,
    outputs: &'a mut Outputs,
}

impl Shown<'_> {
    /// Shows event after event, as they come.
    fn all(&mut self, first: Option<Event>, replay: &mut Recording) -> Result<()> {
        let mut next = first;
        while let Some(event) = next {
            self.seen.add(&event);
            // Without end: nothing else waits for us.
            _ = self.outputs.wait_for_room(None);
            self.take(event)?;
            if replay.would_wait() {
                self.outputs.tick();
            }
            if !self.outputs.is_open() {
                return Ok(());
            }
            next = replay.next_event()?;
        }
        if self.seen.is_whole {
            return Ok(());
        }
        let seen = &self.seen;
        let cut_off = Summary { traced_ns: seen.traced_ns(), ..seen.lost.clone() };
        self.end(cut_off);
        Err(replay.cut_off())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Start(mut start) => {
                if let Some(selection) = &mut self.selection {
                    selection.begin(&start)?;
                }
                start.filters.narrow(&self.filters);
                self.outputs.event(Event::Start(start));
            }
            Event::Summary(summary) if self.remakes => self.end(*summary),
            event => {
                let Some(selection) = &mut self.selection else {
                    self.outputs.event(event);
                    return Ok(());
                };
                if !selection.shows(&event)? {
                    return Ok(());
                }
                let id = match &event {
                    Event::Fork(fork) => fork.id.as_str(),
                    Event::Stage(stage) => stage.fork_id.as_str(),
                    _ => "",
                };
                for stuck in selection.take_stuck(id) {
                    self.outputs.event(Event::Stuck(stuck));
                }
                self.arrange(event)?;
            }
        }
        Ok(())
    }

    /// Shows an event, or keeps it back to be sorted.
    fn arrange(&mut self, event: Event) -> Result<()> {
        let Some(largest) = &mut self.largest else {
            self.outputs.event(event);
            return Ok(());
        };
        let left = match (parent_of(&event), event) {
            (_, Event::Fork(fork)) => largest.add(fork),
            (_, Event::Stage(_)) => {
                let reason = "the recording has stages only, which do not tell that".to_owned();
                return Err(UserError::Untold { option: "--sort", reason }.into());
            }
            (Some(id), event) => largest.follow_up(&id, event),
            (None, event) => {
                self.outputs.event(event);
                None
            }
        };
        if let (Some(fork), Some(selection)) = (left, &mut self.selection) {
            selection.leave_out(&fork);
        }
        Ok(())
    }

    /// Shows what was kept back, and then a summary of what is shown.
    fn end(&mut self, recorded: Summary) {
        let Some(selection) = &mut self.selection else { return self.outputs.summary(recorded) };
        for stuck in selection.take_all_stuck() {
            self.outputs.event(Event::Stuck(stuck));
        }
        let mut forgotten = 0;
        if let Some(largest) = &mut self.largest {
            let (events, left) = largest.take();
            left.iter().for_each(|fork| selection.leave_out(fork));
            let cut = selection.not_kept();
            if cut > 0 && self.says_bound {
                self.outputs.event(Event::Warning(too_many(cut)));
            }
            for event in events {
                _ = self.outputs.wait_for_room(None);
                self.outputs.event(event);
            }
            forgotten = largest.forgotten();
        }
        let mut summary = recorded;
        let left_out = selection.left_out();
        summary.filtered = summary.filtered.map(|tasks| tasks.saturating_add(left_out));
        if left_out > 0 {
            // Whether they were made by attempts that are shown is not known.
            summary.threads_left.clear();
            summary.threads_not_followed = 0;
        }
        for (name, lost) in selection.lost(forgotten) {
            let all = summary.lost_by.entry(name).or_default();
            *all = all.saturating_add(lost);
        }
        self.outputs.summary(summary);
    }
}

/// The attempt that a follow-up belongs to, unless that was lost.
fn parent_of(event: &Event) -> Option<String> {
    let (id, orphan) = match event {
        Event::VforkDone(done) => (Some(&done.fork_id), done.orphan),
        Event::Exec(exec) => (exec.fork_id.as_ref(), exec.orphan),
        Event::Exit(exit) => (exit.fork_id.as_ref(), exit.orphan),
        _ => return None,
    };
    id.filter(|_| orphan.is_none()).cloned()
}

/// Says that not everything was sorted.
fn too_many(cut: u64) -> Warning {
    Warning {
        code: Name::Borrowed("sorted-largest-only"),
        text: format!(
            "the {} attempts with the largest figures are shown, and {} others are not",
            count(u64::try_from(MOST).unwrap_or(u64::MAX)),
            count(cut)
        ),
        hint: Some(
            "choose another bound with --max-events, or fewer attempts with a filter".into(),
        ),
        fork_id: None,
    }
}

/// What was read so far of a recording, as far as its summary does not tell it.
#[derive(Default)]
pub(super) struct Seen {
    /// When it began, and the moment of the last event.
    began_ns: Option<u64>,
    last_ns: Option<u64>,
    /// What its `loss` lines say.
    pub(super) lost: Summary,
    /// Whether its own summary came last.
    pub(super) is_whole: bool,
}

impl Seen {
    pub(super) fn add(&mut self, event: &Event) {
        self.is_whole = matches!(event, Event::Summary(_));
        let at_ns = match event {
            Event::Start(start) => {
                *self = Self { began_ns: Some(start.mono_ns), ..Self::default() };
                return;
            }
            Event::Loss(Loss { records, by, .. }) => {
                self.lost.lost = self.lost.lost.saturating_add(*records);
                for (name, count) in by {
                    let lost = self.lost.lost_by.entry(name.clone()).or_default();
                    *lost = lost.saturating_add(*count);
                }
                return;
            }
            Event::Fork(fork) => fork.mono_ns,
            Event::Stage(stage) => stage.mono_ns,
            Event::VforkDone(done) => done.mono_ns,
            Event::Exec(exec) => exec.mono_ns,
            Event::Exit(exit) => exit.mono_ns,
            Event::Stuck(stuck) => stuck.mono_ns,
            Event::Warning(_) | Event::Summary(_) => return,
        };
        self.last_ns = self.last_ns.max(Some(at_ns));
    }

    /// How long it is; `None` where nothing tells.
    pub(super) fn traced_ns(&self) -> Option<u64> {
        self.last_ns?.checked_sub(self.began_ns?)
    }
}
