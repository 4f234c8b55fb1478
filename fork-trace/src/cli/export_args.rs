//! Options of `export`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args};

use crate::{
    cli::{filter_args::FilterArgs, parse},
    plan::stages::Stages,
};

/// Options of serving metrics.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Answer at this address; port 0: one that is free, which is told
    ///
    /// Nobody is asked who he is, so an address that others can reach shows them the names of programs and of
    /// control groups.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9464",
        help_heading = "Metrics"
    )]
    pub listen: SocketAddr,
    /// Tell N names of callers apart, those that fork most; the others are `other`
    #[arg(long, value_name = "N", default_value_t = 50, help_heading = "Metrics",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub top: u16,
    /// Which stages to measure: none, default, all, or names separated by commas
    #[arg(long, value_name = "SET", default_value = "none", value_parser = parse::stages,
        help_heading = "Metrics")]
    pub stages: Stages,
    /// Room for records that were not read yet: 512K, 64M, up to 1G
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse::size,
        help_heading = "Metrics")]
    pub buffer: u32,
    /// Read options from this TOML file: its keys are called as the options are, and filters are keys of its table
    /// "filters"; what is typed wins
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// Only say whether the file is right: exit status 0, or 2
    #[arg(long, requires = "config", help_heading = "Run")]
    pub check: bool,
    /// Say what is done; twice: also the verifier's words
    #[arg(short, long, action = ArgAction::Count, help_heading = "Run")]
    pub verbose: u8,
    /// Which attempts to count.
    #[command(flatten)]
    pub filter: FilterArgs,
}
