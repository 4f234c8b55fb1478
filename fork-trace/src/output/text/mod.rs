//! Text for people: a line per fork, as wide as the terminal; below it, if asked for, its stages;
//! at the end, if asked for, the summary.

mod bar;
pub(super) mod cause;
mod cells;
mod closing;
mod columns;
pub mod compare;
pub(super) mod follow_up;
mod libc;
pub mod line;
pub mod stuck;
pub(super) mod summary;
pub(super) mod table;
mod tree;
mod waterfall;

use std::io::{self, Write};

use anstyle::Style;
use jiff::tz::TimeZone;

use crate::{
    event::{
        Event,
        filters::Filters,
        fork::Fork,
        stack,
        stage::{self, StageLine},
        summary::Summary,
        values::Ts,
    },
    output::{
        sink::Sink,
        text::{
            cells::{Cell, Context},
            columns::{Column, Slot},
            line::{DIM, Line, PLAIN, RED, YELLOW},
            tree::Tree,
        },
        told::Told,
    },
};

/// From this width on a caller's cell says what its name does not.
const NAMES_PROGRAMS: usize = 120;

/// How text looks: one of these for each output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Columns of the terminal, which no line exceeds; `None`: not a terminal, nothing is cut.
    pub width: Option<usize>,
    /// With colours.
    pub color: bool,
    /// What is told of the attempts.
    pub told: Told,
    /// With the stages below each fork.
    pub stages: bool,
    /// With the summary at the end.
    pub summary: bool,
    /// Nothing but the summary.
    pub only_summary: bool,
    /// Times in UTC instead of local time.
    pub utc: bool,
}

/// Writes text for people. Losses and warnings are left to [`Notes`](super::notes::Notes).
pub struct Text<W> {
    writer: W,
    look: Look,
    columns: Vec<Slot>,
    context: Context,
    line: Line,
    /// The tree, where it is told in place of the attempts.
    tree: Option<Tree>,
    began: bool,
    /// What the last `start` line says of them.
    filters: Filters,
}

impl<W: Write> Text<W> {
    /// Onto `writer`, which should be buffered.
    pub fn new(writer: W, look: Look) -> Self {
        let wanted = if look.told == Told::Stages { columns::OF_STAGE } else { columns::OF_FORK };
        let columns = columns::fitting(wanted, look.width);
        let zone = if look.utc { TimeZone::UTC } else { TimeZone::system() };
        let errors_in_child = columns.iter().all(|slot| slot.column != Column::Result);
        let names_programs = look.width.is_none_or(|width| width >= NAMES_PROGRAMS);
        let context = Context { zone, names_programs, errors_in_child };
        let line = Line::new(look.width, look.color);
        let tree = (look.told == Told::Tree).then(Tree::new);
        let filters = Filters::default();
        Self { writer, look, columns, context, line, tree, began: false, filters }
    }

    fn header(&mut self) -> io::Result<()> {
        for slot in &self.columns {
            let title = line::shorten(slot.column.title(), slot.width);
            if slot.column.is_right_aligned() {
                self.line.push_right(DIM, &title, slot.start + slot.width);
            } else {
                self.line.pad_to(slot.start);
                self.line.push(DIM, &title);
            }
        }
        self.line.end(&mut self.writer)?;
        if self.look.stages && self.look.told == Told::Forks {
            waterfall::legend(&mut self.line, &mut self.writer)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.began && self.tree.is_none() {
            self.header()?;
            self.began = true;
        }
        Ok(())
    }

    fn write(&mut self, fork: &Fork) -> io::Result<()> {
        self.begin()?;
        self.row(|column, room, context| cells::cell(column, fork, room, context))?;
        self.remarks(fork)?;
        if self.look.stages {
            waterfall::write(fork, &mut self.line, &mut self.writer)?;
        }
        Ok(())
    }

    fn stage(&mut self, stage: &StageLine) -> io::Result<()> {
        if self.look.told != Told::Stages {
            // A recording of stages: its columns are others than those of attempts.
            self.look.told = Told::Stages;
            self.columns = columns::fitting(columns::OF_STAGE, self.look.width);
            self.began = false;
        }
        self.begin()?;
        self.row(|column, room, context| cells::stage_cell(column, stage, room, context))?;
        for (label, text) in cause::lines_of_stage(stage) {
            self.remark(RED, label, &text)?;
        }
        Ok(())
    }

    /// One line, of the text of each column.
    fn row(&mut self, cell: impl Fn(Column, usize, &Context) -> Cell) -> io::Result<()> {
        for slot in &self.columns {
            let room = self.room(slot);
            let cell = cell(slot.column, room, &self.context);
            if slot.column.is_right_aligned() {
                let text: String = cell.iter().map(|(_, text)| text.as_str()).collect();
                let style = cell.first().map_or(PLAIN, |(style, _)| *style);
                self.line.push_right(style, &line::shorten(&text, room), slot.start + slot.width);
                continue;
            }
            self.line.pad_to(slot.start);
            let mut left = room;
            for (style, text) in cell {
                let text = line::printable(&text);
                let before = self.line.column();
                self.line.push(style, &line::shorten(&text, left));
                left = left.saturating_sub(self.line.column() - before);
            }
            self.line.pad_to(self.line.column() + columns::GAP);
        }
        self.line.end(&mut self.writer)
    }

    /// One line of what became of a child, at moment `ts`.
    fn follow_up(
        &mut self,
        ts: Ts,
        write: impl FnOnce(&follow_up::Place<'_>, &mut Line, &mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        self.begin()?;
        let timed = self.columns.iter().find(|slot| slot.column == Column::Time);
        let start = timed.map_or(0, |slot| slot.start + slot.width + columns::GAP);
        let time = timed.map(|_| cells::time(ts, &self.context.zone));
        let place = follow_up::Place { time: time.as_deref(), start };
        write(&place, &mut self.line, &mut self.writer)
    }

    /// The end: the summary if it was asked for, and the line that every text ends with.
    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        let Self { writer, line, look, filters, .. } = self;
        // A waterfall ends in a blank line by itself.
        if self.began && !(look.stages && look.told == Told::Forks) {
            line.end(writer)?;
        }
        if look.summary {
            summary::write(summary, line, writer)?;
        }
        closing::write(summary, filters, line, writer)
    }

    /// The columns a cell may take.
    fn room(&self, slot: &Slot) -> usize {
        if self.look.width.is_some() { slot.width } else { usize::MAX }
    }

    /// Why a fork failed and what is odd about it, a line each.
    fn remarks(&mut self, fork: &Fork) -> io::Result<()> {
        for (label, text) in cause::lines(fork) {
            self.remark(RED, label, &text)?;
        }
        if let Some(slow) = &fork.slow {
            self.remark(YELLOW, "why:", &slow.text)?;
        }
        if let Some(text) = fork.libc.as_ref().and_then(libc::words) {
            self.remark(YELLOW, "libc:", &text)?;
        }
        if let Some(text) = stack::chain(&fork.stack) {
            self.remark(DIM, "stack:", &text)?;
        }
        let result = self.columns.iter().find(|slot| slot.column == Column::Result);
        let shown = result.is_some_and(|slot| cells::shows_restarts(fork, self.room(slot)));
        let restarts = if shown { None } else { cells::restarts_in_words(fork) };
        let warnings = fork.warnings.iter().map(|warning| warning.text.as_str());
        for (label, text) in restarts
            .as_deref()
            .map(|text| ("note:", text))
            .into_iter()
            .chain(warnings.map(|text| ("warning:", text)))
        {
            self.remark(YELLOW, label, text)?;
        }
        Ok(())
    }

    fn remark(&mut self, style: Style, label: &str, text: &str) -> io::Result<()> {
        self.line.pad_to(waterfall::INDENT);
        self.line.push(style, label);
        let indent = self.line.column() + 1;
        self.line.pad_to(indent);
        self.line.push_words(&mut self.writer, PLAIN, text, indent)?;
        self.line.end(&mut self.writer)
    }
}

impl<W: Write> Sink for Text<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        if self.look.only_summary {
            return Ok(());
        }
        match (self.look.told, &mut self.tree) {
            (_, Some(tree)) => tree.fork(fork),
            (Told::Stages, _) => {
                for line in stage::lines(fork) {
                    self.stage(&line)?;
                }
            }
            _ => self.write(fork)?,
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if let Some(tree) = &mut self.tree {
            tree.event(event);
            match event {
                Event::Summary(_) => {
                    tree.write(&mut self.line, &mut self.writer)?;
                    self.began = true;
                }
                // What hangs is told while it does.
                Event::Stuck(_) => {}
                _ => return Ok(()),
            }
        }
        match event {
            Event::VforkDone(_) | Event::Exec(_) | Event::Exit(_) | Event::Stuck(_)
                if self.look.only_summary =>
            {
                Ok(())
            }
            Event::Stage(stage) => self.stage(stage),
            Event::VforkDone(done) => self.follow_up(done.ts, |place, line, out| {
                follow_up::vfork_done(done, place, line, out)
            }),
            Event::Exec(exec) => {
                self.follow_up(exec.ts, |place, line, out| follow_up::exec(exec, place, line, out))
            }
            Event::Exit(exit) => {
                self.follow_up(exit.ts, |place, line, out| follow_up::exit(exit, place, line, out))
            }
            Event::Stuck(stuck) => {
                self.begin()?;
                self.remark(YELLOW, "stuck:", &stuck::words(stuck))
            }
            Event::Start(start) => {
                self.filters = start.filters.clone();
                Ok(())
            }
            Event::Summary(summary) => self.end(summary),
            Event::Fork(_) | Event::Loss(_) | Event::Warning(_) => Ok(()),
        }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(tree) = &mut self.tree {
            tree.write(&mut self.line, &mut self.writer)?;
        }
        self.tick()
    }
}
