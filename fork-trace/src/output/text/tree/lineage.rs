//! From what is held of each process to a tree, and to its longest path.

use std::cmp::Reverse;

use foldhash::HashMap;

use crate::output::text::tree::family::{Born, Caller, Deeds, Family, LeftOut, Life};

/// A process of the tree.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it was made, as far as that is known.
    pub(super) began_ns: Option<u64>,
    /// Its name when it was made, or when it last called.
    pub(super) comm: Box<str>,
    /// Whether what becomes of it is told: it was made while tracing, or is the traced command.
    pub(super) is_followed: bool,
    pub(super) life: Life,
    pub(super) deeds: Option<Deeds>,
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) on_path: bool,
}

/// All processes, and what is to be said of them together.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) processes: Vec<Process>,
    /// Processes whose parent is not among them: the traced command first, then by the time of their start.
    pub(super) roots: Vec<usize>,
    pub(super) left_out: LeftOut,
    pub(super) lost: bool,
    pub(super) has_execs: bool,
    pub(super) has_exits: bool,
    pub(super) has_stages: bool,
    pub(super) last_ns: u64,
}

impl Lineage {
    /// The tree of what `family` holds.
    pub(super) fn of(family: Family) -> Self {
        let Family {
            born, callers, left_out, lost, has_execs, has_exits, has_stages, last_ns, ..
        } = family;
        let same = same_processes(&born, &callers);
        let mut places: HashMap<usize, usize> = HashMap::default();
        let mut command = None;
        let mut makers = Vec::with_capacity(born.len());
        let mut processes: Vec<Process> =
            born.into_iter().map(|born| child(born, &mut makers)).collect();
        for (number, caller) in callers.into_iter().enumerate() {
            let place = match same.get(&number) {
                Some(place) => {
                    if let Some(process) = processes.get_mut(*place) {
                        process.deeds = caller.deeds;
                    }
                    *place
                }
                None => {
                    if caller.is_command && command.is_none() {
                        command = Some(processes.len());
                    }
                    processes.push(stranger(caller));
                    processes.len() - 1
                }
            };
            places.insert(number, place);
        }
        let mut lineage = Self {
            processes,
            roots: Vec::new(),
            left_out,
            lost,
            has_execs,
            has_exits,
            has_stages,
            last_ns,
        };
        lineage.link(&makers, &places, command);
        if let Some(command) = command.filter(|_| !lost && left_out == LeftOut::default()) {
            lineage.mark_path(command);
        }
        lineage
    }

    /// Gives each child its parent. A parent is older than its child, so there is no circle, whatever a
    /// recording says.
    fn link(
        &mut self,
        makers: &[Option<usize>],
        places: &HashMap<usize, usize>,
        command: Option<usize>,
    ) {
        let age = |process: &Process| process.began_ns.unwrap_or_default();
        for (place, maker) in makers.iter().enumerate() {
            let parent = maker.and_then(|maker| places.get(&maker).copied());
            let ages = parent.and_then(|parent| {
                Some((age(self.processes.get(parent)?), age(self.processes.get(place)?)))
            });
            let parent = parent.filter(|_| ages.is_some_and(|(parent, child)| parent < child));
            if let Some(process) = self.processes.get_mut(place) {
                process.parent = parent;
            }
        }
        let mut by_age: Vec<usize> = (0..self.processes.len()).collect();
        by_age.sort_by_key(|place| {
            let began_ns = self.processes.get(*place).and_then(|process| process.began_ns);
            (Some(*place) != command, began_ns, *place)
        });
        for place in by_age {
            match self.processes.get(place).and_then(|process| process.parent) {
                Some(parent) => {
                    if let Some(parent) = self.processes.get_mut(parent) {
                        parent.children.push(place);
                    }
                }
                None => self.roots.push(place),
            }
        }
    }

    /// Whether a process had not ended when the trace did.
    pub(super) const fn runs(&self, process: &Process) -> bool {
        process.is_followed && process.life.end.is_none() && self.has_exits && !self.lost
    }

    /// Marks the chain of processes that determined how long the one at `place` took: of the children that ran
    /// one after the other up to its end, the one that lived longest; of that one's children likewise.
    fn mark_path(&mut self, mut place: usize) {
        loop {
            let Some(process) = self.processes.get_mut(place) else { return };
            process.on_path = true;
            let Some(next) = self.processes.get(place).and_then(|process| self.longest(process))
            else {
                return;
            };
            place = next;
        }
    }

    fn longest(&self, parent: &Process) -> Option<usize> {
        // Of a process that still runs, the end of the trace; no child that outlives its parent counts.
        let end_ns = |process: &Process| process.life.end.map(|end| end.at_ns);
        let last_ns = (self.runs(parent)).then_some(self.last_ns);
        let mut until_ns = end_ns(parent).or(last_ns)?;
        let times = |place: usize| {
            let child = self.processes.get(place)?;
            let ended_ns = end_ns(child).or(last_ns)?;
            let began_ns = child.began_ns.filter(|began_ns| *began_ns <= ended_ns)?;
            Some((ended_ns, began_ns, place))
        };
        let mut times: Vec<_> = parent.children.iter().filter_map(|place| times(*place)).collect();
        times.sort_unstable_by_key(|times| Reverse(*times));
        let mut longest = None;
        for (ended_ns, began_ns, place) in times {
            if ended_ns <= until_ns {
                until_ns = began_ns;
                longest = longest.max(Some((ended_ns - began_ns, Reverse(place))));
            }
        }
        longest.map(|(_, Reverse(place))| place)
    }
}

/// How many children of the same id are looked at for one that is a caller.
const NEAREST: usize = 64;

/// Which callers are children, by their places among both.
fn same_processes(born: &[Born], callers: &[Caller]) -> HashMap<usize, usize> {
    let from_ns = |place: usize| born.get(place).map_or(u64::MAX, |born| born.within_ns.0);
    let mut by_pid: HashMap<u32, Vec<usize>> = HashMap::default();
    for (place, born) in born.iter().enumerate() {
        by_pid.entry(born.pid).or_default().push(place);
    }
    by_pid.values_mut().for_each(|places| places.sort_by_key(|place| from_ns(*place)));
    let same = callers.iter().enumerate().filter_map(|(number, caller)| {
        let (pid, start_ns) = caller.key;
        let places = by_pid.get(&pid)?;
        let at_ns = start_ns.unwrap_or(caller.seen_ns);
        let earlier = places.get(..places.partition_point(|place| from_ns(*place) <= at_ns))?;
        // Where more than one fits, the youngest.
        let fits = |place: &&usize| {
            born.get(**place).is_some_and(|born| is(born, start_ns, caller.seen_ns))
        };
        let place = earlier.iter().rev().take(NEAREST).find(fits)?;
        Some((number, *place))
    });
    same.collect()
}

/// Whether a child is the caller of its id that started at `start_ns` or, where that is not known, was there
/// at `seen_ns`.
fn is(born: &Born, start_ns: Option<u64>, seen_ns: u64) -> bool {
    let (from_ns, until_ns) = born.within_ns;
    match (start_ns, born.life.start_ns) {
        (Some(start_ns), Some(known_ns)) => start_ns == known_ns,
        (Some(start_ns), None) => (from_ns..=until_ns).contains(&start_ns),
        (None, _) => from_ns <= seen_ns && born.life.end.is_none_or(|end| seen_ns <= end.at_ns),
    }
}

fn child(born: Born, makers: &mut Vec<Option<usize>>) -> Process {
    makers.push(born.caller);
    Process {
        pid: born.pid,
        began_ns: born.life.start_ns.or(Some(born.within_ns.0)),
        comm: born.comm,
        is_followed: true,
        life: born.life,
        deeds: None,
        parent: None,
        children: Vec::new(),
        on_path: false,
    }
}

/// A process whose fork was not seen.
fn stranger(caller: Caller) -> Process {
    let (pid, start_ns) = caller.key;
    Process {
        pid,
        began_ns: start_ns,
        comm: caller.deeds.as_ref().map(|deeds| deeds.comm.clone()).unwrap_or_default(),
        is_followed: caller.is_command,
        life: caller.life,
        deeds: caller.deeds,
        parent: None,
        children: Vec::new(),
        on_path: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        output::text::{line::Line, tree::draw},
    };

    const TS: &str = r#""ts":"2026-01-01T00:00:00Z""#;

    fn event(json: &str) -> Event {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    /// An attempt at `ns` by process `parent`, which started at `start_ns`; its child starts 1 ns later.
    fn fork(ns: u64, (parent, start_ns): (u32, u64), child: u32) -> Event {
        event(&format!(
            r#"{{"type":"fork","id":"{parent}-{ns}",{TS},"mono_ns":{ns},"kind":"process","syscall":"fork",
            "parent":{{"pid":{parent},"tid":{parent},"ppid":1,"comm":"sh","uid":0,"start_ns":{start_ns}}},
            "child":{{"pid":{child},"tid":{child}}},"total_ns":2,"held_ns":2}}"#
        ))
    }

    /// The end at `ns` of the child of the attempt `id`, or of the command.
    fn exit(ns: u64, id: Option<&str>, pid: u32, start_ns: u64) -> Event {
        let id = id.map_or_else(String::new, |id| format!(r#""fork_id":"{id}","#));
        let lifetime_ns = ns - start_ns;
        event(&format!(
            r#"{{"type":"exit",{id}{TS},"mono_ns":{ns},"pid":{pid},"lifetime_ns":{lifetime_ns},"code":0,
            "execed":true}}"#
        ))
    }

    fn lineage(events: &[Event]) -> Lineage {
        let mut family = Family::default();
        events.iter().for_each(|event| family.event(event));
        Lineage::of(family)
    }

    fn drawn(lineage: &Lineage, width: Option<usize>) -> String {
        let mut out = Vec::new();
        draw::write(lineage, &mut Line::new(width, false), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Process ids with those of their parents.
    fn parents(lineage: &Lineage) -> Vec<(u32, Option<u32>)> {
        let pid = |place: usize| lineage.processes[place].pid;
        lineage.processes.iter().map(|one| (one.pid, one.parent.map(pid))).collect()
    }

    #[test]
    fn an_id_that_comes_again_is_another_process() {
        let root = (1, 5);
        let lineage = lineage(&[
            fork(10, root, 7),
            fork(20, (7, 11), 8),
            exit(30, Some("1-10"), 7, 11),
            fork(40, root, 7),
            fork(50, (7, 41), 9),
            // Neither of the two: its own fork was not seen.
            fork(60, (7, 35), 10),
        ]);
        let forks: Vec<_> =
            lineage.processes.iter().map(|one| one.deeds.as_ref().map(|d| d.forks)).collect();
        assert_eq!(forks[..2], [Some(1), None], "{lineage:?}");
        assert_eq!(
            parents(&lineage),
            [
                (7, Some(1)),
                (8, Some(7)),
                (7, Some(1)),
                (9, Some(7)),
                (10, Some(7)),
                (1, None),
                (7, None)
            ]
        );
        let parent = |place: usize| lineage.processes[place].parent.unwrap();
        assert_eq!((parent(1), parent(3), parent(4)), (0, 2, 6));
    }

    #[test]
    fn a_line_that_comes_before_that_of_its_callers_fork_finds_it() {
        let lineage = lineage(&[fork(20, (7, 11), 8), fork(10, (1, 5), 7)]);
        assert_eq!(parents(&lineage), [(8, Some(7)), (7, Some(1)), (1, None)]);
    }

    #[test]
    fn processes_that_claim_to_have_made_each_other_are_shown_once_each() {
        let circle = |ns, parent: (u32, u64), child| {
            let Event::Fork(mut fork) = fork(ns, parent, child) else { unreachable!() };
            fork.total_ns = None;
            Event::Fork(fork)
        };
        let lineage =
            lineage(&[circle(10, (8, 10), 7), circle(10, (7, 10), 8), circle(9, (9, 9), 9)]);
        let text = drawn(&lineage, None);
        assert_eq!(text.matches("sh\n").count(), lineage.processes.len(), "{text}");
    }

    #[test]
    fn the_path_follows_the_longest_of_those_that_ran_one_after_the_other() {
        let root = (1, 5);
        let mut events = vec![exit(1000, None, 1, 5)];
        let mut child = |ns: u64, end_ns: Option<u64>, pid: u32| {
            events.push(fork(ns, root, pid));
            let id = format!("1-{ns}");
            events.extend(end_ns.map(|end_ns| exit(end_ns, Some(&id), pid, ns + 1)));
        };
        // The longest ends while the last is under way, and so determined nothing.
        child(10, Some(810), 20);
        child(11, Some(400), 21);
        child(500, Some(990), 22);
        // Neither does one that outlives the command.
        child(12, None, 23);
        let on_path = |lineage: &Lineage| -> Vec<u32> {
            lineage.processes.iter().filter(|one| one.on_path).map(|one| one.pid).collect()
        };
        assert_eq!(on_path(&lineage(&events)), [22, 1]);
        let lost = r#"{"type":"loss","records":1,"by":{"ring_full":1},"since_mono_ns":1}"#;
        events.push(event(lost));
        let lossy = lineage(&events);
        assert!(on_path(&lossy).is_empty(), "what is lost may have taken longer");
        assert!(!drawn(&lossy, None).contains("runs"), "its end may be lost");
        assert!(drawn(&lossy, None).contains("records were lost"));
    }

    #[test]
    fn a_chain_of_ten_thousand_is_drawn_within_its_width() {
        let mut events = vec![exit(1_000_000, None, 1, 5)];
        for number in 1..10_000_u32 {
            let ns = u64::from(number) * 10;
            let start_ns = if number == 1 { 5 } else { ns - 9 };
            events.push(fork(ns, (number, start_ns), number + 1));
            events.push(exit(900_000 - ns, Some(&format!("{number}-{ns}")), number + 1, ns + 1));
        }
        let lineage = lineage(&events);
        for width in [Some(80), None] {
            let text = drawn(&lineage, width);
            let most = width.unwrap_or(200);
            assert!(text.lines().all(|line| line.chars().count() <= most));
            assert!(text.contains("\u{2026}9,999 * sh\n"), "{}", &text[text.len() - 500..]);
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains("longest path: 10,000 processes"));
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_path_is_not_told() {
        let mut family = Family::default();
        family.event(&exit(9_000_000, None, 1, 5));
        for number in 0..100_003 {
            family.event(&fork(10 + number, (1, 5), 50));
        }
        let lineage = Lineage::of(family);
        assert_eq!(lineage.left_out, LeftOut { processes: 3, attempts: 0 });
        let text = drawn(&lineage, None);
        assert!(
            text.contains("the tree is full: 3 processes more"),
            "{}",
            &text[text.len() - 300..]
        );
        assert!(!text.contains('*'));
    }
}
