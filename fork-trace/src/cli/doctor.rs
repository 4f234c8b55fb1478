//! What this host lets us see, and why not more.
//!
//! Not guessed: where this process may, every program of the plan is really attached for a
//! moment.

use std::{
    fmt::{self, Write as _},
    time::Instant,
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    bpf::{
        detach,
        filter::Filter,
        load::Settings,
        prepare::{Prepared, prepare},
    },
    error::UserError,
    event::{
        span::{Precision, Source},
        start::{Coverage, HostInfo, SCHEMA_VERSION},
    },
    host::{Host, call_sites, rights},
    output::outputs::print,
    plan::{Plan, backend::Backend, stages::Stages},
};

/// What `doctor` says.
#[derive(Serialize)]
struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    schema_version: u32,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostInfo>,
    /// Kernel lockdown, the active mode in brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    lockdown: Option<String>,
    can_trace: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Why the kernel's functions cannot be probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_functions: Option<String>,
    stages: Vec<Coverage>,
}

/// Prints the report; returns the exit status: 0, or 3 where this host or user cannot trace.
///
/// # Errors
/// The report cannot be written.
pub fn doctor(json: bool) -> Result<u8> {
    let report = report();
    let status = if report.can_trace { 0 } else { 3 };
    let text = if json { serde_json::to_string(&report)? + "\n" } else { text(&report) };
    print(&text)?;
    Ok(status)
}

fn report() -> Report {
    let mut report = Report {
        kind: "doctor",
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        host: None,
        lockdown: rights::lockdown(),
        can_trace: false,
        problem: None,
        hint: None,
        no_functions: None,
        stages: Vec::new(),
    };
    if let Err(error) = examine(&mut report) {
        report.hint = error.downcast_ref::<UserError>().map(UserError::hint);
        report.problem = Some(format!("{error:#}"));
    }
    report
}

fn examine(report: &mut Report) -> Result<()> {
    let mut host = Host::read()?;
    report.host = Some(host.info.clone());
    let permitted = rights::check_capabilities();
    if let Err(error) = permitted {
        host.facts.inner = call_sites::all_unknown("it can only be learned by one who may trace");
        let plan = Plan::new(&host.facts, Backend::Auto, &Stages::All)?;
        report.stages = plan.coverage;
        return Err(error);
    }
    let settings = Settings { ring_bytes: 4096, filter: Filter::all(), ..Settings::default() };
    let prepared = prepare(&mut host, Backend::Auto, &Stages::All, settings, Instant::now());
    // The programs name the ring by its descriptor, so it stays open until they are loaded.
    let Prepared { mut tracer, ring: _ring, plan } = prepared?;
    report.no_functions.clone_from(&host.facts.no_functions);
    report.stages.clone_from(&plan.coverage);
    tracer.attach(&plan)?;
    report.can_trace = true;
    detach::leave(tracer)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    _ = write_text(report, &mut text);
    text
}

fn write_text(report: &Report, out: &mut String) -> fmt::Result {
    let Report { host, lockdown, problem, hint, no_functions, stages, version, .. } = report;
    writeln!(out, "fork-trace {version}")?;
    if let Some(host) = host {
        writeln!(out, "kernel    {} {}, {} CPUs", host.kernel, host.arch, host.cpus)?;
    }
    writeln!(out, "lockdown  {}", lockdown.as_deref().unwrap_or("none"))?;
    match problem {
        None => writeln!(out, "tracing   works: every program was attached for a moment")?,
        Some(problem) => writeln!(out, "tracing   does not work: {problem}")?,
    }
    if let Some(hint) = hint {
        writeln!(out, "          hint: {hint}")?;
    }
    if let Some(reason) = no_functions {
        writeln!(out, "functions cannot be probed: {reason}")?;
    }
    if stages.is_empty() {
        return Ok(());
    }
    let width = stages.iter().map(|stage| stage.name.len()).max().unwrap_or_default();
    writeln!(out, "\n{:width$}  PRECISION  SOURCE      MARKS, OR WHY NOT", "STAGE")?;
    for stage in stages {
        let precision = match stage.precision {
            Precision::Exact => "exact",
            Precision::Bounded => "bounded",
            Precision::Missing => "missing",
        };
        let source = stage.source.map_or("-", Source::name);
        writeln!(out, "{:width$}  {precision:9}  {source:10}  {}", stage.name, why(stage))?;
    }
    Ok(())
}

fn why(stage: &Coverage) -> String {
    let (Some(opens), Some(closes)) = (&stage.opens, &stage.closes) else {
        return stage.reason.clone().unwrap_or_default();
    };
    if stage.includes.is_empty() {
        return format!("{opens} to {closes}");
    }
    format!("{opens} to {closes}, with {}", stage.includes.join(", "))
}
