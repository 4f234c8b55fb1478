//! What runs in a guest: fork-trace, its workload and its live tests, as they are built for its machine, and the shared
//! libraries that they need, beside a busybox and a script that starts them. It is made once, for all kernels.
//!
//! This file knows neither kernels nor QEMU.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{arch::Arch, cpio::Archive};
use crate::{
    build::programs::{Crossed, Target, build, fork_trace, forker, live_tests},
    command::{output, root},
};

/// What the guest does first and last.
const INIT: &[u8] = include_bytes!("init.sh");

/// Tests that no guest can run. One builds and installs the workspace, for which a guest has no cargo. Some need
/// packages of Python. Others take samples: an emulated CPU stands still where a timer interrupts it often, even a hundred times a second.
const SKIP: &str = "--skip each_command_of_the_readme_works --skip python:: --skip samples::";

/// The tests to run for a backend where none were named. An emulated CPU takes seconds to attach to
/// functions, so what is the same for every backend is tested with one backend only. Return slots, which
/// waiting callers may use up, are the kprobes' own.
const NARROWED: [(&str, &str); 4] = [
    (
        "fentry",
        "functions:: truth::every --skip functions::returns_that --skip functions::vforks_that",
    ),
    ("kprobe", "functions:: --skip functions::the_function_graph --skip functions::inner_marks"),
    ("inner", "inner:: ftrace:: causes::every"),
    (
        "tracepoint",
        "--skip functions:: --skip ftrace:: --skip causes::random --skip causes::every \
         --skip containers::doctor_says --skip truth::the_whole_host",
    ),
];

/// Tests that depend on the kernel so little that one series of it is enough, where all of them are run:
/// emulation is slow.
const ONCE: [(&str, &str); 26] = [
    ("5.10", "command_line::"),
    ("6.1", "tree::"),
    ("5.10", "files::"),
    ("5.10", "formats::"),
    ("5.10", "libc::"),
    ("5.10", "names::"),
    ("5.10", "endings::"),
    ("5.10", "rights::"),
    ("5.10", "stacks::"),
    ("5.10", "memory_bill::what_was_copied"),
    ("6.1", "hotplug::"),
    ("6.1", "little_memory::"),
    ("6.1", "stopping::"),
    ("6.1", "storm::"),
    ("6.1", "waits::a_stage"),
    ("6.1", "follow_up::each_of_many"),
    ("6.12", "around::"),
    ("6.12", "containers::"),
    ("6.12", "filters::"),
    ("6.12", "memory_bill::what_drove_the_time_is_told"),
    ("6.12", "records::"),
    ("6.12", "functions::the_function_graph"),
    ("6.12", "truth::replay_gives_back_every_byte"),
    ("7.3", "export::"),
    ("7.3", "follow_up::a_parallel_build"),
    ("7.3", "functions::inner_marks"),
];

/// Users that every host has; the tests look up no others.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The programs, once built.
pub(crate) struct Programs {
    arch: &'static Arch,
    fork_trace: PathBuf,
    forker: PathBuf,
    live: PathBuf,
}

impl Programs {
    /// Builds them from the workspace as it is.
    pub(crate) fn build(arch: &'static Arch) -> Result<Self> {
        let built = match arch.target {
            Some(target) => target.build()?,
            None => {
                build(&["--bins", "--examples"])?;
                Crossed { fork_trace: fork_trace(), forker: forker(), live: live_tests()? }
            }
        };
        let live = without_debug_info(arch, &built.live)?;
        Ok(Self { arch, fork_trace: built.fork_trace, forker: built.forker, live })
    }

    /// The names of all backends: the tool lists them when it is asked for one that does not exist. One that
    /// does not run here has the same.
    pub(crate) fn backends(&self) -> Result<Vec<String>> {
        if !self.arch.is_here() {
            return Ok(NARROWED.iter().map(|(name, _)| (*name).to_owned()).collect());
        }
        let mut command = Command::new(&self.fork_trace);
        let answer = command.args(["--backend", "?"]).output().context("run fork-trace")?;
        let answer = String::from_utf8_lossy(&answer.stderr);
        let list = answer.split_once("[possible values: ").and_then(|(_, list)| {
            let (names, _) = list.split_once(']')?;
            Some(names.split(", ").filter(|name| *name != "auto").map(str::to_owned).collect())
        });
        list.with_context(|| format!("fork-trace does not name its backends, but says: {answer}"))
    }

    /// Writes the guest's file system; `tests` are names for the live tests to be narrowed to.
    pub(crate) fn pack(
        &self,
        busybox: &Path,
        backends: &[String],
        tests: &[String],
    ) -> Result<PathBuf> {
        let named = tests.join(" ");
        if named.contains('\'') {
            bail!("a test's name has no quotes");
        }
        let tests = |backend: &str| {
            let narrowed = NARROWED.iter().find(|(name, _)| *name == backend);
            let narrowed = narrowed.filter(|_| named.is_empty()).map(|(_, tests)| *tests);
            format!("TESTS_{backend}='{} {SKIP}'\n", narrowed.unwrap_or(&named))
        };
        let mut archive = Archive::default();
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            archive.directory(name)?;
        }
        archive.device("dev/console", (5, 1))?;
        archive.file("init", INIT, true)?;
        archive.file("etc/passwd", USERS.as_bytes(), false)?;
        archive.file("etc/group", GROUPS.as_bytes(), false)?;
        let mut settings = format!("BACKENDS='{}'\n", backends.join(" "));
        settings.extend(backends.iter().map(|backend| tests(backend)));
        let once =
            ONCE.iter().filter(|(_, name)| named.is_empty() && !self.arch.own_tests.contains(name));
        let once: Vec<_> = once.map(|(series, name)| format!("{series}={name}")).collect();
        settings.push_str(&format!("ONCE='{}'\n", once.join(" ")));
        archive.file("etc/guest", settings.as_bytes(), false)?;
        let programs = [
            ("fork-trace", self.fork_trace.as_path()),
            ("forker", &self.forker),
            ("live", &self.live),
        ];
        let mut folders = BTreeSet::new();
        for (place, library) in libraries(self.arch, programs.iter().map(|(_, program)| *program))?
        {
            let place = place.strip_prefix("/").context("a library's place begins with /")?;
            // A folder stands before what is in it.
            let above: Vec<_> = place.ancestors().skip(1).collect();
            for folder in above.iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
                if folders.insert(folder.to_path_buf()) {
                    archive.directory(&folder.to_string_lossy())?;
                }
            }
            archive.file(&place.to_string_lossy(), &bytes(&library)?, true)?;
        }
        for (name, program) in programs.into_iter().chain([("busybox", busybox)]) {
            archive.file(&format!("bin/{name}"), &bytes(program)?, true)?;
        }
        // The script makes links for all else that it can be.
        archive.link("bin/sh", "busybox")?;
        let path = place().join(format!("{}.cpio", self.arch.own("initramfs")));
        fs::write(&path, archive.finish()?).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// Where everything of this task is.
pub(crate) fn place() -> PathBuf {
    root().join("target/vm")
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// A copy of a program without debug information, which a guest's memory has no room for; returns where it is.
fn without_debug_info(arch: &Arch, program: &Path) -> Result<PathBuf> {
    fs::create_dir_all(place()).with_context(|| format!("make {}", place().display()))?;
    let copy = place().join(arch.own("live"));
    let mut strip = Command::new(arch.target.map_or("strip".to_owned(), |to| to.tool("strip")));
    strip.args(["--strip-debug", "-o"]).arg(&copy).arg(program);
    output(&mut strip)
        .context("take debug information out of the live tests: is binutils installed?")?;
    Ok(copy)
}

/// The shared libraries that programs need, the one that loads them included: the paths under which they are
/// looked for in a guest, and where they are here.
fn libraries<'a>(
    arch: &Arch,
    programs: impl Iterator<Item = &'a Path>,
) -> Result<BTreeMap<PathBuf, PathBuf>> {
    if let Some(target) = arch.target {
        return crossed_libraries(arch, target, programs.map(Path::to_owned).collect());
    }
    let mut libraries = BTreeMap::new();
    for program in programs {
        let list = output(Command::new("ldd").arg(program)).context("list shared libraries")?;
        // A line is `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; what the kernel maps itself has no path.
        let words = list.lines().flat_map(str::split_whitespace);
        let paths = words.filter(|word| word.starts_with('/')).map(PathBuf::from);
        libraries.extend(paths.map(|path| (path.clone(), path)));
    }
    Ok(libraries)
}

/// The same for another machine, whose loader does not run here.
fn crossed_libraries(
    arch: &Arch,
    target: &Target,
    mut files: Vec<PathBuf>,
) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut libraries = BTreeMap::new();
    while let Some(file) = files.pop() {
        let mut readelf = Command::new(target.tool("readelf"));
        let dynamic = output(readelf.arg("-dW").arg(&file)).context("list shared libraries")?;
        // A line is `0x1 (NEEDED) Shared library: [NAME]`.
        let names = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
        for name in names.filter_map(|line| line.split_once('[')?.1.split_once(']')) {
            let name = name.0;
            let folder = format!("/lib/{}-linux-gnu", arch.name);
            let folder = if name.starts_with("ld-linux") { "/lib" } else { &folder };
            let here = Path::new(target.libraries).join(name);
            if libraries.insert(Path::new(folder).join(name), here.clone()).is_none() {
                files.push(here);
            }
        }
    }
    Ok(libraries)
}
