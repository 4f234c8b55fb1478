//! `cargo xtask deploy`: what `deploy/` holds, each tried with the real engine.
//!
//! `prometheus` runs Debian's Prometheus, `clickhouse` the engine as a library in one process, and `kubernetes`
//! holds the manifests against the schemas that its server has.

mod clickhouse;
mod kubernetes;
mod programs;
mod prometheus;
mod python;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    command::{is_root, root},
    deploy::programs::Programs,
};

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

/// A folder for what is made here.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/deploy").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// A part of a JSON value; null where there is none.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}
