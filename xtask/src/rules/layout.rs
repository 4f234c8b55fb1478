//! Which file is which module of which crate, and so which file an import leads to.
//!
//! A folder with a `lib.rs` or `main.rs` is a crate. Where a folder has both, the modules belong to
//! `lib.rs`, and `main.rs` is a crate of one file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{source::Source, tokens::Name};

/// A module's path from its crate's root, which is the empty path.
pub(super) type Module = Vec<String>;

/// An import of one file of a crate by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    /// The file that imports.
    pub(super) from: PathBuf,
    /// The file that owns what is imported.
    pub(super) to: PathBuf,
    /// The line in `from`.
    pub(super) line: usize,
    /// What is imported, as it is written there.
    pub(super) written: String,
}

/// A file's place.
#[derive(Debug)]
struct Place {
    /// The crate's folder.
    folder: PathBuf,
    /// The module that the file is.
    module: Module,
}

/// The crates and their modules.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Every file that belongs to a crate with a folder of its own.
    places: BTreeMap<PathBuf, Place>,
    /// Of each crate, by its folder, the file of each module.
    crates: BTreeMap<PathBuf, BTreeMap<Module, PathBuf>>,
    /// Files that are compiled for tests only.
    unit_tests: BTreeSet<PathBuf>,
}

impl Layout {
    /// Sorts files into crates and modules.
    pub(super) fn new(sources: &BTreeMap<PathBuf, Source>) -> Self {
        let mut layout = Self::default();
        let is_root = |path: &Path| path.ends_with("lib.rs") || path.ends_with("main.rs");
        let roots = sources.keys().filter(|path| is_root(path)).filter_map(|path| path.parent());
        let folders = roots.collect::<BTreeSet<_>>();
        for path in sources.keys() {
            let Some(folder) = path.ancestors().skip(1).find(|up| folders.contains(up)) else {
                continue;
            };
            let own = path.ends_with("main.rs") && sources.contains_key(&folder.join("lib.rs"));
            let (folder, module) = if own {
                (path.clone(), Module::new())
            } else {
                (folder.to_path_buf(), module(path.strip_prefix(folder).unwrap_or(path)))
            };
            let modules = layout.crates.entry(folder.clone()).or_default();
            modules.insert(module.clone(), path.clone());
            layout.places.insert(path.clone(), Place { folder, module });
        }
        layout.unit_tests = layout.find_unit_tests(sources);
        layout
    }

    /// The files named `tests`, the modules declared for tests, and all that is below either.
    fn find_unit_tests(&self, sources: &BTreeMap<PathBuf, Source>) -> BTreeSet<PathBuf> {
        let mut declared = BTreeSet::new();
        for (path, source) in sources {
            let Some(place) = self.places.get(path) else { continue };
            for child in source.declared.iter().filter(|child| child.test) {
                declared
                    .insert((&place.folder, [place.module.clone(), child.path.clone()].concat()));
            }
            if source.test {
                declared.insert((&place.folder, place.module.clone()));
            }
        }
        let is_test = |place: &Place| {
            let up = (1..=place.module.len()).filter_map(|length| place.module.get(..length));
            let named = place.module.iter().any(|word| word == "tests");
            named || up.into_iter().any(|up| declared.contains(&(&place.folder, up.to_vec())))
        };
        let tests = self.places.iter().filter(|(_, place)| is_test(place));
        tests.map(|(path, _)| path.clone()).collect()
    }

    /// Whether a file is compiled for tests only, within a crate that is not.
    pub(super) fn is_unit_test(&self, path: &Path) -> bool {
        self.unit_tests.contains(path)
    }

    /// The folder of a file's crate, and the module that the file is.
    pub(super) fn place(&self, path: &Path) -> Option<(&Path, &[String])> {
        self.places.get(path).map(|place| (place.folder.as_path(), place.module.as_slice()))
    }

    /// Every import of one of these files by another, one for each pair and line.
    pub(super) fn imports(&self, sources: &BTreeMap<PathBuf, Source>) -> Vec<Import> {
        let mut imports = BTreeSet::new();
        for (path, source) in sources {
            let Some(place) = self.places.get(path) else { continue };
            let Some(modules) = self.crates.get(&place.folder) else { continue };
            let reader = Reader { place, modules, known: known_names(place, modules, source) };
            for name in &source.found.names {
                let target = reader.target(name);
                let Some(to) = target.and_then(|target| owner(modules, &target)) else { continue };
                if to != path && sources.contains_key(to) {
                    let written = name.words.join("::");
                    let (from, to) = (path.clone(), to.clone());
                    imports.insert(Import { from, to, line: name.line, written });
                }
            }
        }
        imports.into_iter().collect()
    }
}

/// A file whose names are looked up.
struct Reader<'a> {
    /// Where it is.
    place: &'a Place,
    /// The modules of its crate.
    modules: &'a BTreeMap<Module, PathBuf>,
    /// The modules that it knows by one word.
    known: BTreeMap<String, Module>,
}

impl Reader<'_> {
    /// The full path that a name leads to; none if it does not lead into this crate by itself.
    fn target(&self, name: &Name) -> Option<Module> {
        if name.words.len() < 2 {
            return None;
        }
        if let Some(target) = absolute(self.place, name) {
            return Some(target);
        }
        let (first, rest) = name.words.split_first()?;
        let here =
            [self.place.module.as_slice(), &name.within, std::slice::from_ref(first)].concat();
        let module =
            if self.modules.contains_key(&here) { &here } else { self.known.get(first)? };
        Some([module.as_slice(), rest].concat())
    }
}

/// The full path of a name that begins with `crate`, `self` or `super`.
fn absolute(place: &Place, name: &Name) -> Option<Module> {
    let mut rest = name.words.as_slice();
    let mut path = match rest.first()?.as_str() {
        "crate" => Module::new(),
        "self" | "super" => [place.module.clone(), name.within.clone()].concat(),
        _ => return None,
    };
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => {
                path.pop();
            }
            _ => break,
        }
        rest = tail;
    }
    path.extend(rest.iter().filter(|word| *word != "self").cloned());
    Some(path)
}

/// The modules that a file knows by one word, because it imports them: `use crate::host;`.
fn known_names(
    place: &Place,
    modules: &BTreeMap<Module, PathBuf>,
    source: &Source,
) -> BTreeMap<String, Module> {
    let mut known = BTreeMap::new();
    for name in source.found.names.iter().filter(|name| name.words.len() > 1) {
        let Some(target) = absolute(place, name).filter(|path| modules.contains_key(path)) else {
            continue;
        };
        if let Some(word) = name.alias.as_ref().or(target.last()) {
            known.insert(word.clone(), target.clone());
        }
    }
    known
}

/// The file of the innermost module that a path leads through.
fn owner<'a>(modules: &'a BTreeMap<Module, PathBuf>, path: &[String]) -> Option<&'a PathBuf> {
    (0..=path.len()).rev().find_map(|length| modules.get(path.get(..length)?))
}

/// The module that a file of a crate's folder is.
fn module(path: &Path) -> Module {
    let mut words = path
        .with_extension("")
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    let at_root = words.len() == 1;
    let names_folder =
        |word: &String| word == "mod" || at_root && (word == "lib" || word == "main");
    if words.last().is_some_and(names_folder) {
        words.pop();
    }
    words
}
