//! Every failure that a user can cause or cure: what it is, and what to do.
//!
//! The first line says the cause, the second the cure. It also owns the exit codes.

use std::fmt;

/// A failure with a cure.
#[derive(Debug)]
pub enum UserError {
    /// Effective capabilities do not suffice.
    NotPermitted {
        /// What the process has of what it needs.
        has: String,
        /// Whether it is root in a pid namespace of its own, as in a container.
        in_container: bool,
    },
    /// The kernel does not show what other tasks do.
    CannotLook {
        /// What the system said.
        cause: String,
    },
    /// The kernel offers no type information.
    NoBtf {
        /// What was tried, and what the system said.
        cause: String,
    },
    /// The kernel lacks something without which nothing can be traced.
    KernelLacks {
        /// What.
        what: String,
    },
    /// The kernel refused a program although the capabilities are there.
    Refused {
        /// What was tried, and what the kernel said.
        what: String,
        /// Content of `/sys/kernel/security/lockdown`, if there is one.
        lockdown: Option<String>,
        /// It was memory for the maps, of which this process may lock no more than so many bytes.
        /// From 5.11 on the kernel does not look at that limit.
        locked_bytes: Option<u64>,
    },
    /// Something around this process is missing, or keeps it from tracing.
    Surroundings {
        /// What.
        what: String,
        /// What to do about it.
        cure: String,
    },
    /// This process may not have enough open files.
    TooFewFiles {
        /// How many it may have.
        limit: u64,
    },
    /// A variable of the environment holds what it cannot.
    Environment {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A backend was asked for that this host does not have.
    Backend {
        /// Its name.
        name: &'static str,
        /// Why not.
        reason: String,
    },
    /// A filter names what there is not.
    Filter {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A recording does not tell what an option asks for.
    Untold {
        /// The option.
        option: &'static str,
        /// Why not.
        reason: String,
    },
    /// The tree of processes was asked for, and no output can draw it.
    NoTree,
    /// An output cannot be opened or written.
    Output {
        /// Where to.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// Nothing can be exposed at an address.
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// A configuration file cannot be read, or says what it cannot.
    Configuration {
        /// Which file, and which line of it.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// An output took no more when the trace was stopped.
    Stuck {
        /// Where to.
        path: String,
        /// How much it did not take.
        missing: String,
    },
    /// A file would be written twice, or written while it is read.
    SameFile {
        /// Where to.
        path: String,
        /// What else it is.
        other: String,
    },
    /// A terminal would get what only programs can read.
    Terminal {
        /// Which output.
        path: String,
        /// The format's name.
        format: &'static str,
        /// An ending of its files.
        ending: &'static str,
    },
    /// There is no terminal to draw on.
    NoTerminal,
    /// There is no program with which a command could begin.
    NoProgram {
        /// How it is called.
        name: String,
        /// Whether it was looked for on PATH.
        bare: bool,
        /// The subcommand that may have been meant.
        meant: Option<String>,
        /// Where it is on the PATH of the user who called sudo.
        elsewhere: Option<String>,
    },
    /// The command cannot be run.
    Command {
        /// The command.
        name: String,
        /// What the system said.
        cause: String,
        /// 127: not found; 126: found, and not to be run.
        status: u8,
    },
    /// The file to replay cannot be read or is not the tool's own JSON.
    Replay {
        /// Which file, and which line of it.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// A recording ends before its summary.
    CutOff {
        /// Which file, and after which line of it.
        place: String,
    },
    /// Nothing is known under this name.
    Unexplained {
        /// The name.
        word: String,
        /// Which one may have been meant, as a question; or nothing.
        near: String,
    },
    /// There is no help about this.
    NoTopic {
        /// The word.
        word: String,
        /// Which one may have been meant, as a question; or nothing.
        near: String,
    },
    /// Records were lost, and `--fail-on-loss` was given.
    Lost {
        /// How many.
        records: u64,
    },
}

impl UserError {
    /// The process's exit status.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::NotPermitted { .. }
            | Self::CannotLook { .. }
            | Self::NoBtf { .. }
            | Self::KernelLacks { .. }
            | Self::Surroundings { .. }
            | Self::TooFewFiles { .. }
            | Self::Backend { .. }
            | Self::Refused { .. } => 3,
            Self::Output { .. }
            | Self::Listen { .. }
            | Self::Stuck { .. }
            | Self::Replay { .. }
            | Self::CutOff { .. } => 1,
            Self::Filter { .. }
            | Self::Configuration { .. }
            | Self::Untold { .. }
            | Self::NoTree
            | Self::SameFile { .. }
            | Self::Terminal { .. }
            | Self::NoTerminal
            | Self::Environment { .. } => 2,
            Self::Command { status, .. } => *status,
            Self::NoProgram { .. } => 127,
            Self::Unexplained { .. } | Self::NoTopic { .. } => 2,
            Self::Lost { .. } => 4,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotPermitted { in_container: true, .. } => "give the container both: docker run \
                --cap-add BPF --cap-add PERFMON, with --cap-add SYSLOG for more stages and --cap-add SYS_PTRACE for names of programs; or \
                trace \
                from the host"
                .to_owned(),
            Self::NotPermitted { .. } => "run it with sudo, or grant the program both, with \
                cap_syslog for more stages and names of kernel functions: \
                sudo setcap cap_bpf,cap_perfmon,cap_syslog+ep \"$(command -v fork-trace)\""
                .to_owned(),
            Self::CannotLook { .. } => {
                "run it with sudo: it reads the system calls and kernel stacks of all tasks".to_owned()
            }
            Self::NoBtf { .. } => "use a kernel built with CONFIG_DEBUG_INFO_BTF=y: those of \
                Debian 11, Ubuntu 20.10, Fedora 31 and later are"
                .to_owned(),
            Self::KernelLacks { .. } => {
                "fork-trace needs Linux 5.10 or later with CONFIG_FTRACE_SYSCALLS=y".to_owned()
            }
            Self::Surroundings { cure, .. } => cure.clone(),
            Self::TooFewFiles { .. } => {
                "raise the limit of open files: ulimit -n 1024, or docker run --ulimit nofile=1024"
                    .to_owned()
            }
            Self::Environment { .. } => {
                "set it right or unset it; sudo sets it for the user who called".to_owned()
            }
            Self::Backend { .. } => "leave --backend out to take the best this host has; \
                `fork-trace doctor` shows which stages it can bound"
                .to_owned(),
            Self::Refused { lockdown: Some(mode), .. } if mode.contains("[confidentiality]") => {
                "kernel lockdown is set to confidentiality: boot with lockdown=integrity or none"
                    .to_owned()
            }
            Self::Refused { locked_bytes: Some(_), .. } => "up to Linux 5.10, raise the limit of locked \
                memory: ulimit -l unlimited, or docker run --ulimit memlock=-1; else a security policy \
                or a container's seccomp filter may forbid bpf(2)"
                .to_owned(),
            Self::Refused { .. } => "a security policy or a container's seccomp filter may forbid \
                bpf(2): try outside the container; `fork-trace doctor` shows more"
                .to_owned(),
            Self::Filter { .. } => "see `fork-trace --help all` for what each filter takes".to_owned(),
            Self::Untold { option, .. } => {
                format!("leave {option} out, or record again without what is named here")
            }
            Self::NoTree => "leave --tree out, for the lines fork, exec and exit of the JSON say all that the \
                tree is drawn from; or add a text output such as -o FILE.txt"
                .to_owned(),
            Self::Output { .. } => {
                "choose another place with -o FILE, or make room there".to_owned()
            }
            Self::Listen { .. } => "choose another address with --listen, such as 127.0.0.1:9465, or stop what \
                has that port: `ss -ltnp` lists the programs that listen"
                .to_owned(),
            Self::Configuration { .. } => "`fork-trace help export` says what each key takes: they are the \
                options' names; `fork-trace export --check --config FILE` looks at a file and does nothing else"
                .to_owned(),
            Self::Stuck { .. } => "let its reader read on until it ends, or write to a file with -o \
                FILE, which no reader can stop; a pager or a stopped terminal reads nothing"
                .to_owned(),
            Self::SameFile { .. } => {
                "give each output a file of its own, and none that is read".to_owned()
            }
            Self::Terminal { ending, .. } => {
                format!("write it to a file with -o FILE.{ending}, or into a pipe")
            }
            Self::NoTerminal => "run it on a terminal; `fork-trace -S` sums up a trace as text, and \
                `fork-trace export` serves figures while it lasts"
                .to_owned(),
            Self::NoProgram { elsewhere: Some(path), .. } => format!(
                "sudo looks for programs where its secure_path says, and not on your own PATH, where \
                 it is {path}: give that path"
            ),
            Self::NoProgram { meant: Some(name), .. } => {
                format!("a subcommand comes first: fork-trace {name}; `fork-trace --help` lists them")
            }
            Self::NoProgram { .. } | Self::Command { status: 127, .. } => {
                "check its spelling, or give its full path".to_owned()
            }
            Self::Command { .. } => "check its permissions and those of its folder".to_owned(),
            Self::Replay { .. } => {
                "give a file that fork-trace wrote with --json or -o FILE.json".to_owned()
            }
            Self::CutOff { .. } => {
                "what is there is shown, and a summary made of it; the rest is lost, or still being \
                 written"
                    .to_owned()
            }
            Self::Unexplained { .. } => "give a stage (`fork-trace doctor` lists them), a \
                function, a call, a CLONE_ flag, a flags word such as 0x1200011, an errno, a word of the JSON, \
                or an option"
                .to_owned(),
            Self::NoTopic { .. } => "`fork-trace help all` describes every option; `fork-trace explain \
                WHAT` says what a stage, a flag or an error is"
                .to_owned(),
            Self::Lost { .. } => {
                "give the ring more room, for example with --buffer 64M".to_owned()
            }
        }
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted { has, .. } => write!(
                f,
                "tracing needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN; this process has {has}"
            ),
            Self::CannotLook { cause } => write!(f, "the system calls of other tasks: {cause}"),
            Self::NoBtf { cause } => write!(f, "this kernel shows no type information: {cause}"),
            Self::KernelLacks { what } => write!(f, "this kernel lacks {what}"),
            Self::Surroundings { what, .. } => f.write_str(what),
            Self::TooFewFiles { limit } => {
                write!(f, "this process may have only {limit} open files, too few to trace")
            }
            Self::Environment { name, value, reason } => write!(f, "{name} is {value}: {reason}"),
            Self::Refused { what, .. } => write!(f, "the kernel refused to {what}"),
            Self::Backend { name, reason } => {
                write!(f, "backend {name} cannot be used here: {reason}")
            }
            Self::Filter { option, value, reason } => write!(f, "{option} {value}: {reason}"),
            Self::Untold { option, reason } => write!(f, "{option}: {reason}"),
            Self::NoTree => f.write_str("--tree is drawn as text, and no output is text"),
            Self::Output { path, cause } => write!(f, "cannot write {path}: {cause}"),
            Self::Listen { address, cause } => write!(f, "cannot listen at {address}: {cause}"),
            Self::Configuration { place, cause } => write!(f, "{place}: {cause}"),
            Self::Stuck { path, missing } => write!(
                f,
                "{path}: nobody takes what is written; when the trace was stopped, {missing} were not \
                 written"
            ),
            Self::SameFile { path, other } => write!(f, "{path} and {other} are the same file"),
            Self::NoProgram { name, bare: false, .. } => write!(f, "there is no program {name}"),
            Self::NoProgram { name, meant, .. } => {
                write!(f, "no program `{name}` is on PATH")?;
                match meant {
                    Some(meant) => write!(f, "; did you mean the subcommand `{meant}`?"),
                    None => Ok(()),
                }
            }
            Self::Terminal { path, format, .. } => write!(
                f,
                "{path} is a terminal, on which nobody can read what is written for programs ({format})"
            ),
            Self::NoTerminal => {
                f.write_str("`top` draws on a terminal, and standard output is none")
            }
            Self::Command { name, cause, .. } => write!(f, "cannot run {name}: {cause}"),
            Self::Replay { place, cause } => write!(f, "{place}: {cause}"),
            Self::CutOff { place } => write!(f, "{place}: the recording is cut off here"),
            Self::Unexplained { word, near } => write!(f, "nothing is called {word}{near}"),
            Self::NoTopic { word, near } => write!(f, "there is no help about {word}{near}"),
            Self::Lost { records } => write!(f, "{records} records were lost"),
        }
    }
}

impl std::error::Error for UserError {}
