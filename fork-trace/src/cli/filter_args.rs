//! Options that say which attempts are shown: `trace`, `top`, `replay` and `export` take them.

use std::time::Duration;

use clap::Args;

use crate::{
    cli::{parse, words::KINDS},
    event::{filters::Filters, values::Kind},
    output::text::line::printable,
};

/// Whose attempts, and which; as a trace and a replay take it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only forks by this process; repeatable
    #[arg(short = 'p', long = "pid", value_name = "PID", value_parser = parse::pid())]
    pub pids: Vec<u32>,
    /// With -p: by its descendants too
    #[arg(short = 'f', long, requires = "pids")]
    pub follow: bool,
    /// Only forks by children of this process; repeatable
    #[arg(short = 'P', long = "ppid", value_name = "PID", value_parser = parse::pid())]
    pub ppids: Vec<u32>,
    /// Only forks by this user: name or number; repeatable
    #[arg(short = 'u', long = "uid", value_name = "USER")]
    pub users: Vec<String>,
    /// Only forks by tasks of this name; repeatable
    ///
    /// The kernel keeps the first 15 bytes of a name, so a longer one is cut to that.
    #[arg(short = 'n', long = "comm", value_name = "NAME")]
    pub comms: Vec<String>,
    /// Only forks in or below this group; repeatable
    ///
    /// PATH is a path of a control group as this program prints it, or one below /sys/fs/cgroup. One
    /// that several hierarchies of version 1 have means the groups of all of them.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<String>,
    /// Only these kinds, separated by commas; else a trace leaves out kthread and io-worker
    #[arg(short = 'k', long = "kind", value_name = "KIND", value_delimiter = ',',
        value_parser = parse::word(KINDS))]
    pub kinds: Vec<Kind>,
    /// Only attempts that held their caller so long: 1ms
    ///
    /// It is 5, 5s, 500us or 1m30s; a number without a unit is in seconds. A vfork's wait for its child
    /// is part of that time.
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub min_duration: Option<Duration>,
    /// Only attempts that failed
    #[arg(short = 'x', long)]
    pub failed: bool,
    /// Only those that failed with this error; repeatable
    ///
    /// It is given by its name or its number.
    #[arg(short = 'e', long = "errno", value_name = "NAME", value_parser = parse::errno)]
    pub errnos: Vec<String>,
}

impl FilterArgs {
    /// What is said of names that are longer than those that the kernel keeps.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let names = self.comms.iter().map(|name| (name, parse::comm(name)));
        names.filter(|(name, cut)| *name != cut).map(|(name, cut)| {
            let (name, cut) = (printable(name), printable(&cut));
            format!("-n {name}: the kernel keeps 15 bytes of a name: {cut}")
        })
    }

    /// What is wanted, as the `start` line tells it; `command` is what is traced.
    pub(super) fn filters(&self, command: Option<Vec<String>>) -> Filters {
        Filters {
            command,
            pids: self.pids.clone(),
            follow: self.follow.then_some(true),
            ppids: self.ppids.clone(),
            users: self.users.clone(),
            comms: self.comms.iter().map(|name| parse::comm(name)).collect(),
            cgroups: self.cgroups.clone(),
            kinds: self.kinds.clone(),
            min_duration_ns: self.min_duration.map(parse::nanoseconds),
            failed: self.failed.then_some(true),
            errnos: self.errnos.clone(),
            ..Filters::default()
        }
    }
}
