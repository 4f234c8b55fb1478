//! Options of `top`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{filter_args::FilterArgs, parse, words::TOP_GROUPS},
    event::summary::By,
    plan::stages::Stages,
};

/// Options of the view on a terminal.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Show this recording in place of the host; it needs no root; - is standard input
    #[arg(long, value_name = "FILE", help_heading = "View", conflicts_with_all = ["stages", "buffer", "record"])]
    pub replay: Option<PathBuf>,
    /// By what programs are put into groups at first; the key b chooses another
    #[arg(long, value_name = "BY", default_value = "comm", value_parser = parse::word(TOP_GROUPS),
        help_heading = "View")]
    pub by: By,
    /// Where the key w records to; without this, to fork-trace-DATE.jsonl in this folder
    #[arg(long, value_name = "FILE", value_parser = parse::recording(), help_heading = "View")]
    pub record: Option<PathBuf>,
    /// Which stages to measure: none, default, all, or names separated by commas
    ///
    /// The details of a program show them. Without any it costs the traced programs least.
    #[arg(long, value_name = "SET", default_value = "none", value_parser = parse::stages,
        help_heading = "View")]
    pub stages: Stages,
    /// Room for records that were not read yet: 512K, 64M, up to 1G
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse::size,
        help_heading = "View")]
    pub buffer: u32,
    /// Which attempts to count.
    #[command(flatten)]
    pub filter: FilterArgs,
}
