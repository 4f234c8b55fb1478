//! Import circles: files that cannot be read one after the other, because each needs another first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
};

use super::{
    breach::{Breach, Rule},
    layout::{Import, Layout},
};

/// The imports of each file, by the file that is imported: the first line is enough.
type Graph<'a> = BTreeMap<&'a Path, BTreeMap<&'a Path, &'a Import>>;

/// A breach for each circle, the shortest first to be found. No two circles share an import, so each
/// of them has to be cut.
pub(super) fn circles(layout: &Layout, imports: &[Import]) -> Vec<Breach> {
    let mut graph = Graph::new();
    for import in imports {
        graph.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    let mut breaches = Vec::new();
    while let Some(circle) = shortest(&graph) {
        for import in &circle {
            if let Some(arrows) = graph.get_mut(import.from.as_path()) {
                arrows.remove(import.to.as_path());
            }
        }
        breaches.extend(breach(layout, &circle));
    }
    breaches
}

/// The shortest circle there is; of several the one whose first file comes first.
fn shortest<'a>(graph: &Graph<'a>) -> Option<Vec<&'a Import>> {
    graph.keys().filter_map(|start| circle_from(graph, start)).min_by_key(Vec::len)
}

/// The shortest way from a file back to itself.
fn circle_from<'a>(graph: &Graph<'a>, start: &Path) -> Option<Vec<&'a Import>> {
    let mut reached = BTreeSet::new();
    let mut ways = VecDeque::from([(start, Vec::new())]);
    while let Some((file, way)) = ways.pop_front() {
        for (to, import) in graph.get(file).into_iter().flatten() {
            let way = [way.as_slice(), &[*import]].concat();
            if *to == start {
                return Some(way);
            }
            if reached.insert(*to) {
                ways.push_back((*to, way));
            }
        }
    }
    None
}

/// The breach at a circle's first import.
fn breach(layout: &Layout, circle: &[&Import]) -> Option<Breach> {
    let first = circle.first()?;
    let (folder, _) = layout.place(&first.from)?;
    let short = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let arrows = circle.iter().map(|import| format!("{}:{} -> ", short(&import.from), import.line));
    let way = arrows.collect::<String>() + &short(&first.from);
    Some(Breach {
        path: first.from.clone(),
        line: first.line,
        rule: Rule::Circles,
        what: format!(
            "The imports of {} files of {} go in a circle: {way}.",
            circle.len(),
            folder.display()
        ),
        cure:
            "Cut one arrow: import a name from the file that defines it rather than from one that \
               passes it on, or move what both ends need into a file below both."
                .to_owned(),
    })
}
