//! `cargo xtask deploy`: what `deploy/` holds, each tried with the real engine.
//!
//! `prometheus` runs Debian's Prometheus, `clickhouse` the engine as a library in one process, and `kubernetes`
//! holds the manifests against the schemas that its server has.

mod clickhouse;
mod json;
mod kubernetes;
mod programs;
mod prometheus;
mod python;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{command::is_root, deploy::programs::Programs};

/// A part of what is tried.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Rules, metrics, alerts and the dashboard's queries
    Prometheus,
    /// Tables, ingest and queries
    Clickhouse,
    /// Manifests
    Kubernetes,
}

/// Checks a part, or everything; returns a remark. `rows` is how many rows ClickHouse's queries are timed on.
pub(crate) fn deploy(part: Option<Part>, rows: Option<u64>) -> Result<String> {
    let asked = |wanted: Part| part.is_none_or(|part| part == wanted);
    let mut remarks = Vec::new();
    ensure!(is_root()?, "tracing needs root: run this as root");
    let programs = Programs::find()?;
    if asked(Part::Kubernetes) {
        remarks.push(kubernetes::check(&programs, &python::python()?)?);
    }
    if asked(Part::Clickhouse) {
        remarks.push(clickhouse::check(&programs, &python::python()?, rows)?);
    }
    if asked(Part::Prometheus) {
        remarks.push(prometheus::check(programs)?);
    }
    Ok(remarks.join("; "))
}
