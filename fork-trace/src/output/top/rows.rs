//! Programs in groups, sorted and filtered: the rows of the table.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use crate::{
    event::{caller::Ancestor, summary::By, values::Name},
    output::top::{
        cell::Cell,
        counts::Counts,
        model::{Model, Span},
    },
};

/// By what programs can be put into groups, in the order of the key that switches.
pub(super) const GROUPS: [By; 5] = [By::Comm, By::Exe, By::Unit, By::Cgroup, By::Uid];

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Rate,
    Total,
    Failed,
    Held,
    Longest,
    Waiting,
    Name,
}

/// By what rows can be sorted, in the order of the columns.
pub(super) const SORTED: [Sort; 7] =
    [Sort::Name, Sort::Rate, Sort::Total, Sort::Failed, Sort::Held, Sort::Longest, Sort::Waiting];

/// What a group is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Named(Arc<str>),
    /// It is not known of them.
    Unknown,
    /// All those that are not kept apart.
    Other,
}

impl Label {
    /// As text; it may hold anything.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Named(name) if name.is_empty() => "\"\"",
            Self::Named(name) => name,
            Self::Unknown => "-",
            Self::Other => "(others)",
        }
    }
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: Label,
    /// Since the start.
    pub(super) all: Counts,
    /// In the time over which rates are told.
    pub(super) recent: Counts,
    pub(super) longest_ns: Option<u64>,
    pub(super) last_failure: Option<(u64, Name)>,
    /// From which the caller descends that forked last of the program that forked most.
    pub(super) ancestors: Arc<[Ancestor]>,
    pub(super) exe: Option<Arc<str>>,
    pub(super) belongs_to: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
    /// How many programs it holds.
    pub(super) programs: usize,
    /// Some of its attempts may be among the others.
    pub(super) late: bool,
    /// Attempts of the program that its single values are of.
    most: u64,
}

/// The group that a program belongs to.
pub(super) fn label(cell: &Cell, by: By) -> Label {
    let name = match by {
        By::Exe => cell.key.exe.clone(),
        By::Unit => cell.unit.clone(),
        By::Cgroup => cell.container.clone().or_else(|| cell.key.cgroup.clone()),
        By::Uid => Some(cell.user.clone().unwrap_or_else(|| cell.key.uid.to_string().into())),
        // A row is never of a kind, a cause or a stack.
        By::Comm | By::Kind | By::Cause | By::Stack => Some(Arc::clone(&cell.key.comm)),
    };
    name.map_or(Label::Unknown, Label::Named)
}

impl Row {
    fn new(label: Label) -> Self {
        Self {
            label,
            all: Counts::default(),
            recent: Counts::default(),
            longest_ns: None,
            last_failure: None,
            ancestors: Arc::default(),
            exe: None,
            belongs_to: None,
            user: None,
            programs: 0,
            late: false,
            most: 0,
        }
    }

    fn add(&mut self, cell: &Cell, span: Span) {
        self.all.merge(&cell.all);
        self.recent.merge(&span.counts(&cell.recent, &cell.all));
        self.longest_ns = self.longest_ns.max(cell.held.max_ns());
        let last = cell.last_failure.as_ref().map(|last| (last.second, last.name.clone()));
        if last.as_ref().map(|(second, _)| second)
            > self.last_failure.as_ref().map(|(second, _)| second)
        {
            self.last_failure = last;
        }
        self.late |= cell.late;
        self.programs += 1;
        if cell.all.forks > self.most {
            self.most = cell.all.forks;
            self.ancestors = Arc::clone(&cell.ancestors);
            self.exe.clone_from(&cell.key.exe);
            self.belongs_to = cell.container.clone().or_else(|| cell.unit.clone());
            self.user.clone_from(&cell.user);
        }
    }

    /// The share of the time for which callers were held that they waited, in thousandths, and for what they waited
    /// longest: of the last seconds, or, where nobody was held in these, since the start. `None` where nobody was held.
    pub(super) fn waiting(&self) -> Option<(u64, Option<&str>)> {
        let counts = if self.recent.held_ns > 0 { &self.recent } else { &self.all };
        let share = (counts.waited_ns() * 1000).checked_div(counts.held_ns)?;
        Some((u64::try_from(share).unwrap_or(u64::MAX), counts.longest_wait()))
    }

    /// Whether it has `text` in one of its names; letters may be large or small.
    fn has(&self, text: &str) -> bool {
        let names = [&self.exe, &self.belongs_to, &self.user];
        let names = names.into_iter().flatten().map(AsRef::as_ref);
        names.chain([self.label.text()]).any(|name| name.to_lowercase().contains(text))
    }

    /// The largest first.
    fn figure(&self, sort: Sort) -> u128 {
        match sort {
            Sort::Rate => u128::from(self.recent.forks),
            Sort::Total => u128::from(self.all.forks),
            Sort::Failed => u128::from(self.all.failed),
            Sort::Held => self.recent.held_ns,
            Sort::Longest => self.longest_ns.map_or(0, |ns| u128::from(ns) + 1),
            Sort::Waiting => self.waiting().map_or(0, |(share, _)| u128::from(share) + 1),
            Sort::Name => 0,
        }
    }
}

/// The rows of `model` over `span`: groups `by` this that have `filter` in a name, sorted. The others, which are in
/// no group, come last.
pub(super) fn rows(model: &Model, span: Span, by: By, filter: &str, sort: Sort) -> Vec<Row> {
    let mut groups: BTreeMap<Label, Row> = BTreeMap::new();
    for cell in model.cells() {
        let label = label(cell, by);
        groups.entry(label.clone()).or_insert_with(|| Row::new(label)).add(cell, span);
    }
    let filter = filter.to_lowercase();
    let mut rows: Vec<Row> = groups.into_values().filter(|row| row.has(&filter)).collect();
    // It is stable: what is equal stays in the order of names.
    rows.sort_by_cached_key(|row| {
        (Reverse(row.figure(sort)), Reverse(if sort == Sort::Name { 0 } else { row.all.forks }))
    });
    if let Some(other) = model.other().filter(|_| filter.is_empty()) {
        let mut row = Row::new(Label::Other);
        row.add(other, span);
        rows.push(row);
    }
    rows
}

/// All that is known of the programs of one group, as one; `None` where there is none any more.
pub(super) fn group(model: &Model, by: By, of: &Label) -> Option<Cell> {
    if *of == Label::Other {
        return model.other().cloned();
    }
    let mut cells: Vec<&Cell> = model.cells().filter(|cell| label(cell, by) == *of).collect();
    cells.sort_by_key(|cell| Reverse(cell.all.forks));
    let (first, rest) = cells.split_first()?;
    let mut all = (*first).clone();
    for cell in rest {
        all.merge(cell);
        all.late |= cell.late;
    }
    Some(all)
}
