//! What `fork-trace explain` says of the codes of warnings and the places of losses. This file is data.

/// Codes of warnings, of the stream and of one attempt: what each means, and what to do.
pub(super) const WARNINGS: &[(&str, &str, &str)] = &[
    (
        "still-held",
        "The attempt was written while its caller was still held, so that held_ns is not in it.",
        "For a vfork, the line vfork_done with the same fork_id tells the rest.",
    ),
    (
        "entry-not-seen",
        "The call was under way when tracing began, so that its total is not known.",
        "Nothing has to be done.",
    ),
    (
        "return-not-seen",
        "The caller did not return from the call while it was traced, as when it was killed. The total is not known.",
        "Nothing has to be done.",
    ),
    (
        "no-entry",
        "The call was refused before it began, by a seccomp filter or by a tracer. Only the time of its return is \
         known.",
        "Allow the call in the seccomp profile, or ask the tracer (strace --inject, a sandbox).",
    ),
    (
        "stacks-hidden",
        "The kernel hides the addresses of its functions, so that the reasons of most waits are not known.",
        "sysctl kernel.kptr_restrict=1, or run fork-trace with CAP_SYSLOG.",
    ),
    (
        "threads-without-exec",
        "A process forked while it had threads, and its child runs on without exec. Locks that other threads held at \
         that moment stay locked in the child for ever, so that it may hang.",
        "Start such children before the threads, or with posix_spawn; in Python, with the start method spawn or \
         forkserver.",
    ),
    (
        "fork-storm",
        "A process made more than 1,000 attempts within a second.",
        "`fork-trace -S comm` tells who forks most, and `--tree` what for.",
    ),
    (
        "no-inner-marks",
        "Most stages inside copy_process cannot be told apart on this host.",
        "`fork-trace doctor` says why.",
    ),
    (
        "no-samples",
        "No samples of kernel stacks can be taken, so that a long stage is not split by function.",
        "`fork-trace doctor` says why.",
    ),
    (
        "no-clone",
        "With --libc: pthread_create or posix_spawn returned an error and had made no system call for a task. Its \
         stack could not be mapped.",
        "Look at RLIMIT_AS (ulimit -v), vm.max_map_count and vm.overcommit_memory.",
    ),
    (
        "sorted-largest-only",
        "`replay --sort` had more attempts to sort than it keeps, and shows those with the largest figures.",
        "Choose another bound with --max-events, or fewer attempts with a filter.",
    ),
    (
        "recording",
        "These lines were in the memory of `fork-trace export --record` when what is told happened. What came before \
         them had left it.",
        "Nothing has to be done; --record-last and --record-size say how much is kept.",
    ),
    (
        "output-failed",
        "One of several outputs can no longer be written, as on a full disk. The others go on.",
        "Make room, or name another file. The exit status is 1.",
    ),
];

/// Places of losses: what is missing, and what to do.
pub(super) const LOSSES: &[(&str, &str)] = &[
    ("ring_full", "Attempts are missing: the ring between the kernel and fork-trace was full."),
    (
        "in_flight_full",
        "Attempts are missing: more were under way at once than the kernel side keeps.",
    ),
    (
        "unwritten",
        "Attempts are missing: the trace was stopped, and they could not be shown within the time that a stop may take.",
    ),
    (
        "brief",
        "Attempts lack their stages, their memory and their child's start, and say brief: the ring was three quarters full.",
    ),
    ("calls_lost", "Attempts lack the times of functions."),
    (
        "child_start_ring_full",
        "Attempts lack the start of their child: the ring was three quarters full.",
    ),
    ("on_cpu_full", "Attempts lack the start of their child: too many were expected at once."),
    (
        "follow_full",
        "A child that should have been followed is not: too many processes are followed.",
    ),
    (
        "off_cpu_full",
        "Attempts may lack waits, and say waits_incomplete: too many tasks waited at once.",
    ),
    ("off_cpu_ring_full", "Attempts may lack waits, and say waits_incomplete: the ring was full."),
    ("off_cpu_missed", "Attempts may lack waits, and say waits_incomplete: an end was not seen."),
    ("stacks_lost", "Callers' user-space stacks are missing: the ring was half full."),
    ("samples_lost", "Samples of kernel stacks are missing: the ring was half full."),
    ("refusal_ring_full", "The evidence of a failed attempt is missing: the ring was full."),
    ("follow_up_ring_full", "It is not told what became of a child: the ring was full."),
    ("follow_up_unwritten", "It is not told what became of a child: the trace was stopped."),
    ("children_full", "It is not told what became of a child: too many children are followed up."),
    ("vfork_waits_full", "It is not told how long the caller of a vfork was held: too many are."),
    ("program_ring_full", "exe and argv of a caller are missing: the ring was full."),
    (
        "libc_full",
        "The C library's side is missing: too many threads were inside wrappers at once.",
    ),
    ("libc_ring_full", "The C library's side is missing: the ring was full."),
    ("watched_full", "Children were not watched for threads-without-exec: there were too many."),
];

/// What to do about a loss.
pub(super) const LOSS_CURE: &str = "Make the ring larger with --buffer, write to a file instead of a terminal, or show less: a filter, or \
     --stages=none.";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn each_word_is_there_once() {
        let codes = WARNINGS.iter().map(|(code, ..)| *code);
        let words: Vec<_> = codes.chain(LOSSES.iter().map(|(place, _)| *place)).collect();
        for (place, word) in words.iter().enumerate() {
            assert!(!words.iter().skip(place + 1).any(|other| other == word), "{word}");
        }
    }
    /// The texts of all source files below a folder.
    fn sources(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, texts);
            } else {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn each_code_that_is_written_is_explained() {
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        // In two pieces, so that this line is none of what is looked for.
        let begins = concat!("code: Name::", "Borrowed(\"");
        let codes: Vec<_> = texts.iter().flat_map(|text| text.split(begins).skip(1)).collect();
        assert!(codes.len() > 8, "{}", codes.len());
        for rest in codes {
            let code = rest.split('"').next().unwrap();
            assert!(WARNINGS.iter().any(|(known, ..)| *known == code), "{code}");
        }
    }
}
