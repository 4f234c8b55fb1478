//! The rules' lists, but for the table of rooms. This file is data.
//!
//! Places are paths from the workspace's root without `.rs`: one stands for the file of that name, or
//! for the folder and all that is in it.

/// Names of a crate that may be used in one place only.
#[derive(Debug)]
pub(super) struct Confined {
    /// The crate's name in code.
    pub(super) name: &'static str,
    /// The sources in which the rule holds.
    pub(super) within: &'static str,
    /// The one place.
    pub(super) place: &'static str,
    /// What to do about a use elsewhere.
    pub(super) cure: &'static str,
}

/// What to do about aya outside its room.
const AYA_CURE: &str = "Move this into bpf/, and return a type of our own from there.";

/// Crates that one room knows alone.
pub(super) const CONFINED: [Confined; 3] = [
    Confined { name: "aya", within: "fork-trace/src", place: "fork-trace/src/bpf", cure: AYA_CURE },
    Confined {
        name: "aya_log",
        within: "fork-trace/src",
        place: "fork-trace/src/bpf",
        cure: AYA_CURE,
    },
    Confined {
        name: "clap",
        within: "fork-trace/src",
        place: "fork-trace/src/cli",
        cure: "Move the argument or its parser into cli/, and pass on the value as a type of the \
               room that needs it.",
    },
];

/// The crate in which files of the kernel and standard output have rooms of their own.
pub(super) const TOOL: &str = "fork-trace/src";

/// Where paths of the kernel's own file systems stand.
pub(super) const KERNEL_FILES: [&str; 1] = ["fork-trace/src/host"];

/// The file systems that this rule is about.
pub(super) const KERNEL_FILE_SYSTEMS: [&str; 2] = ["/proc", "/sys"];

/// Where standard output is written.
pub(super) const STDOUT: [&str; 2] = ["fork-trace/src/output", "fork-trace/src/cli"];

/// The sources in which a kernel function or stage is named by a table only.
pub(super) const NAMED_BY_TABLES: [&str; 3] =
    ["fork-trace/src", "fork-trace-ebpf/src", "fork-trace-common/src"];

/// Where stages, kernel functions and tracepoints are named, each with the reason.
pub(super) const TABLES_OF_NAMES: [(&str, &str); 11] = [
    ("fork-trace-common/src/stage", "It is the table of stages."),
    ("fork-trace-common/src/function", "It is the table of functions."),
    ("fork-trace-common/src/libc", "It is the table of functions of C libraries."),
    (
        "fork-trace-common/src/point",
        "It is the table of marks, which are named as tracepoints are.",
    ),
    ("fork-trace-common/src/call_site", "It is the table of functions that allocate."),
    ("fork-trace-common/src/callee", "It is the table of functions that tell a stage on a stack."),
    ("fork-trace-ebpf/src/programs", "A program's attribute has to name its tracepoint."),
    ("fork-trace/src/cause/rules", "A row names the stage that its failure comes from."),
    ("fork-trace/src/cause/limits", "A row names the stage that enforces its limit."),
    ("fork-trace/src/cause/reasons", "A row names the functions by which a wait is recognised."),
    ("fork-trace/src/host/tracepoint", "It is the table of tracepoints."),
];

/// Names of stages that are also words of another meaning, and so no breach; each with that meaning.
pub(super) const ORDINARY_WORDS: [(&str, &str); 1] =
    [("fork", "the kind of an attempt, the type of an event")];

/// How many lines a file may have, without its tests.
pub(super) const MOST_LINES: usize = 450;

/// Files that may be longer, each with the reason.
pub(super) const LONG_TABLES: [(&str, &str); 3] = [
    ("fork-trace-common/src/stage", "It holds one row for each stage."),
    ("fork-trace/src/cause/rules", "It holds one row for each reason of a failure."),
    ("fork-trace/src/cause/limits", "It holds one row for each limit."),
];
