//! The table of rooms: what each room of a crate may import. This file is data.
//!
//! A room is a top-level folder of a crate's sources, or a file beside those folders. An entry of
//! `may` is the path of a module without `crate::`, and stands for all that is below it: `host` is a
//! whole room, `host::limits` one file or folder of it. Note that `crate::host::Name` is an import of
//! `host/mod.rs`, even if that passes on a name of `host::limits`.

/// What one room may import.
#[derive(Debug)]
pub(super) struct Room {
    /// The folder's name, or the file's without its ending.
    pub(super) name: &'static str,
    /// The modules it may import besides itself; [`ALL`] for everything.
    pub(super) may: &'static [&'static str],
    /// What to do about an import of anything else.
    pub(super) cure: &'static str,
}

/// The rooms of one crate.
#[derive(Debug)]
pub(super) struct House {
    /// The folder of the crate's sources.
    pub(super) folder: &'static str,
    /// Every room.
    pub(super) rooms: &'static [Room],
}

/// A room with this in its row may import every other.
pub(super) const ALL: &str = "crate";

/// The crates that have rooms.
pub(super) const HOUSES: [House; 2] = [
    House {
        folder: "fork-trace/src",
        rooms: &[
            Room { name: "main", may: &[ALL], cure: "Nothing is forbidden here." },
            Room { name: "lib", may: &[ALL], cure: "Nothing is forbidden here." },
            Room {
                name: "cli",
                may: &[
                    "live", "output", "cause", "bpf", "assemble", "plan", "host", "event", "error",
                ],
                cure: "Move what the crate's root holds into the room that owns it.",
            },
            Room {
                name: "live",
                may: &["output", "cause", "bpf", "assemble", "plan", "host", "event", "error"],
                cure: "Hand over from cli/ what was typed, as a type of live/ or of a room below it.",
            },
            Room {
                name: "cause",
                may: &["assemble", "plan", "host", "event", "error"],
                cure: "Keep cause/ pure: take the value as an argument from live/, or move the type \
                       to event/.",
            },
            Room {
                name: "bpf",
                may: &["plan", "host", "event", "error"],
                cure: "Return the value to live/, which knows both rooms, or move the type to event/ \
                       or plan/.",
            },
            Room {
                name: "assemble",
                may: &["plan", "event", "error"],
                cure: "Keep assemble/ pure: take the value as an argument from live/, or move the \
                       type to event/ or plan/.",
            },
            Room {
                name: "plan",
                may: &["host", "event", "error"],
                cure: "Take the value as an argument, or move the type to host/ or event/.",
            },
            Room {
                name: "host",
                may: &["event", "error"],
                cure: "Let the caller pass in what host/ has to look for, or move the type to event/.",
            },
            Room {
                name: "output",
                may: &["event", "error"],
                cure: "Put what is to be shown into a type of event/, and let live/ fill it in.",
            },
            Room {
                name: "error",
                may: &[],
                cure: "Turn the other room's value into text where the error is made.",
            },
            Room {
                name: "event",
                may: &["error"],
                cure: "Move the type into event/, where all rooms may import it, or the code that \
                       needs it out of event/.",
            },
        ],
    },
    House {
        folder: "fork-trace-ebpf/src",
        rooms: &[
            Room { name: "main", may: &[ALL], cure: "Nothing is forbidden here." },
            Room {
                name: "programs",
                may: &[
                    "attempt",
                    "evidence",
                    "follow_up",
                    "filter",
                    "learn",
                    "kernel",
                    "maps",
                    "ring",
                    "current",
                    "global_functions",
                ],
                cure: "Move what the crate's root holds into the room that owns it.",
            },
            Room {
                name: "attempt",
                may: &[
                    "evidence",
                    "follow_up",
                    "filter",
                    "kernel",
                    "maps",
                    "ring",
                    "current",
                    "global_functions",
                ],
                cure: "Let the program in programs/ pass in the value.",
            },
            Room {
                name: "evidence",
                may: &["kernel", "maps", "ring", "current", "global_functions"],
                cure: "Let attempt/ pass in the value.",
            },
            Room {
                name: "follow_up",
                may: &["filter", "kernel", "maps", "ring", "current", "global_functions"],
                cure: "Let the caller pass in the value.",
            },
            Room {
                name: "filter",
                may: &["kernel", "maps", "current"],
                cure: "Let the caller pass in the value.",
            },
            Room {
                name: "learn",
                may: &["kernel", "maps", "current"],
                cure: "Let the program in programs/ pass in the value.",
            },
            Room {
                name: "kernel",
                may: &["current"],
                cure: "Return what was read, and let the caller store it.",
            },
            Room {
                name: "ring",
                may: &["maps", "current"],
                cure: "Let the caller pass in what is submitted.",
            },
            Room {
                name: "maps",
                may: &[],
                cure: "Move the type that the map holds here or to fork-trace-common.",
            },
            Room { name: "current", may: &[], cure: "Let the caller pass in the value." },
            Room {
                name: "global_functions",
                may: &[],
                cure: "Keep only the macro here: each function stands in the room of its topic.",
            },
        ],
    },
];
