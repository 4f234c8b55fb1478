//! Options of `export`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args};

#[cfg(feature = "otlp")]
use crate::output::otlp::Endpoint;
use crate::{
    cli::{filter_args::FilterArgs, parse, words::TRIGGERS},
    output::recorder::{Settings, Trigger},
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
    /// The flight recorder.
    #[command(flatten)]
    pub record: RecordArgs,
    /// OpenTelemetry.
    #[cfg(feature = "otlp")]
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Which attempts to count.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Options of OpenTelemetry.
#[cfg(feature = "otlp")]
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "OpenTelemetry")]
pub struct OtlpArgs {
    /// Send metrics, and slow, failed and stuck attempts as log records, to a Collector by OTLP
    ///
    /// URL is like `http://127.0.0.1:4318`. It is plain HTTP with protocol buffers, to /v1/metrics and /v1/logs below it.
    #[arg(long = "otlp", value_name = "URL")]
    pub endpoint: Option<Endpoint>,
    /// Send metrics once in this time
    #[arg(long = "otlp-every", value_name = "TIME", default_value = "60s",
        value_parser = parse::duration, requires = "endpoint")]
    pub every: Duration,
}

/// Options of the flight recorder.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Flight recorder")]
pub struct RecordArgs {
    /// Keep the last minutes in memory, and write them to a file in DIR when something goes wrong, and at SIGUSR1
    ///
    /// `fork-trace replay` shows such a file. DIR is made if it is not there.
    #[arg(long = "record", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Keep what is no older than this
    #[arg(long = "record-last", value_name = "TIME", default_value = "5m", value_parser = parse::duration,
        requires = "folder")]
    pub last: Duration,
    /// Keep no more than this, compressed
    #[arg(long = "record-size", value_name = "SIZE", default_value = "16M", value_parser = parse::size,
        requires = "folder")]
    pub size: u32,
    /// What goes wrong, separated by commas
    #[arg(long = "record-on", value_name = "WHAT", value_delimiter = ',', requires = "folder",
        default_value = "failure,limit,stuck,storm", value_parser = parse::word(TRIGGERS))]
    pub on: Vec<Trigger>,
    /// More attempts than N within a second are a storm
    #[arg(long = "record-storm", value_name = "N", default_value_t = 2000, requires = "folder",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub storm: u64,
    /// Write no second file for the same reason within this time, SIGUSR1 apart
    #[arg(long = "record-pause", value_name = "TIME", default_value = "5m",
        value_parser = parse::duration, requires = "folder")]
    pub pause: Duration,
    /// Keep the last N files; older ones that fork-trace wrote are deleted
    #[arg(long = "record-keep", value_name = "N", default_value_t = 20, requires = "folder",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: u16,
}

impl RecordArgs {
    /// What is wanted of the recorder; `None`: there is none.
    pub(super) fn settings(&self) -> Option<Settings> {
        Some(Settings {
            folder: self.folder.clone()?,
            last: self.last,
            size: self.size,
            on: self.on.clone(),
            storm: self.storm,
            pause: self.pause,
            keep: usize::from(self.keep),
        })
    }
}
