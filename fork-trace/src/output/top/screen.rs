//! What the user has chosen to see, and what each key does to that. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    event::summary::By,
    output::top::rows::{GROUPS, Label, SORTED, Sort},
};

/// Characters of a filter.
const LONGEST_FILTER: usize = 100;

/// Keys and what they do, as the help and the last line tell them.
pub(super) const KEYS: [(&str, &str, &str); 10] = [
    ("q", "quit", "quit; Ctrl-C too"),
    ("?", "help", "this help"),
    ("Enter", "details", "all that is known of the chosen row; Esc goes back"),
    (
        "b",
        "group by",
        "put programs into groups by name, program, unit, container or control group, user",
    ),
    ("s", "sort", "sort by the next column; left and right choose one too"),
    ("/", "filter", "show rows with this text in a name; Enter keeps it, Esc takes it away"),
    ("space", "pause", "the picture stands still, and counting goes on; again: it goes on too"),
    ("w", "record", "write what happens from here on to a file that `replay` reads; again: stop"),
    ("up, down", "", "choose a row; j, k, Page and Home keys too"),
    ("Esc", "", "back; without anything to go back from, forget the filter"),
];

/// What is asked of the one who holds the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Quit,
    Record,
    Pause,
}

/// What is shown.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    pub(super) by: By,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    pub(super) is_help: bool,
    pub(super) is_paused: bool,
    /// The chosen row.
    pub(super) chosen: Option<Label>,
    /// The first row that is shown.
    pub(super) first: usize,
    /// Details of this group.
    pub(super) details: Option<Label>,
    /// The first line of the details.
    pub(super) scroll: usize,
    /// What was shown last: the labels of all rows, and how many lines there are for them.
    pub(super) labels: Vec<Label>,
    pub(super) page: usize,
    /// Whether there is colour.
    pub(super) color: bool,
    /// What was said last, and whether it is an error.
    pub(super) said: Option<(String, bool)>,
    /// Where is recorded to, while it is.
    pub(super) recording: Option<String>,
    /// What is shown: a host or a recording.
    pub(super) source: String,
}

impl Screen {
    pub(super) fn new(by: By, color: bool) -> Self {
        Self {
            by,
            sort: Sort::Rate,
            filter: String::new(),
            is_typing: false,
            is_help: false,
            is_paused: false,
            chosen: None,
            first: 0,
            details: None,
            scroll: 0,
            labels: Vec::new(),
            page: 1,
            color,
            said: None,
            recording: None,
            source: String::new(),
        }
    }

    /// Takes a key; returns what is asked for by it.
    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Asked::Quit } else { Asked::Nothing };
        }
        if self.is_typing {
            self.typed(key.code);
            return Asked::Nothing;
        }
        self.said = self.said.take().filter(|(_, is_error)| *is_error);
        if std::mem::take(&mut self.is_help) && key.code != KeyCode::Char('q') {
            return Asked::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Char('w') => {
                self.said = None;
                return Asked::Record;
            }
            KeyCode::Char(' ') => return Asked::Pause,
            KeyCode::Char('?') => self.is_help = true,
            KeyCode::Char('/') if self.details.is_none() => self.is_typing = true,
            KeyCode::Char('b') => self.next_group(),
            KeyCode::Char('s') | KeyCode::Right => self.sort_by_next(1),
            KeyCode::Left => self.sort_by_next(SORTED.len() - 1),
            KeyCode::Enter if self.details.is_none() => {
                let first = self.labels.first();
                self.details = self.chosen.as_ref().or(first).cloned();
                self.scroll = 0;
            }
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-self.page()),
            KeyCode::PageDown => self.move_by(self.page()),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            _ => {}
        }
        Asked::Nothing
    }

    fn page(&self) -> isize {
        isize::try_from(self.page).unwrap_or(isize::MAX)
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn next_group(&mut self) {
        let place = GROUPS.iter().position(|by| *by == self.by).unwrap_or_default();
        self.by = GROUPS.iter().cycle().nth(place + 1).copied().unwrap_or(self.by);
        (self.chosen, self.details, self.first) = (None, None, 0);
    }

    fn sort_by_next(&mut self, steps: usize) {
        if self.details.is_some() {
            return;
        }
        let sorted = &SORTED;
        let place = sorted.iter().position(|sort| *sort == self.sort).unwrap_or_default();
        self.sort = sorted.iter().cycle().nth(place + steps).copied().unwrap_or(self.sort);
    }

    fn back(&mut self) {
        if self.details.take().is_none() {
            self.filter.clear();
        }
    }

    /// Chooses another row, or scrolls the details.
    fn move_by(&mut self, rows: isize) {
        if self.details.is_some() {
            self.scroll = self.scroll.saturating_add_signed(rows);
            return;
        }
        let last = self.labels.len().saturating_sub(1);
        let place = match self.place() {
            Some(place) => place.saturating_add_signed(rows),
            // The first row was as good as chosen.
            None => 0_usize.saturating_add_signed(rows),
        };
        self.chosen = self.labels.get(place.min(last)).cloned();
    }

    /// Where the chosen row stands.
    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        self.labels.iter().position(|label| label == chosen)
    }

    /// Takes the labels of the rows that are shown now in `page` lines; returns the place of the first of them.
    pub(super) fn show(&mut self, labels: Vec<Label>, page: usize) -> usize {
        (self.labels, self.page) = (labels, page.max(1));
        let place = self.place().unwrap_or_default();
        let most = self.labels.len().saturating_sub(self.page);
        self.first = self.first.min(most).min(place).max((place + 1).saturating_sub(self.page));
        self.first
    }
}
