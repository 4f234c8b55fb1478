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
        tasks,
    },
    cli::SAMPLE_HZ,
    error::UserError,
    event::{
        span::{Precision, Source},
        start::{Coverage, HostInfo, SCHEMA_VERSION},
    },
    host::{
        Host, call_sites, clock,
        libc::found,
        namespaces::{self, Namespace},
        rights, surroundings,
    },
    output::{outputs::print, text::line::printable},
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
    /// The namespaces that it runs in.
    namespaces: Vec<Place>,
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
    /// Why no samples of kernel stacks can be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_samples: Option<String>,
    coverage: Vec<Coverage>,
}

/// A namespace that this process runs in, and what follows.
#[derive(Serialize)]
struct Place {
    kind: &'static str,
    number: u64,
    /// Whether it is the initial one; absent where that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    initial: Option<bool>,
    /// What that means for tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<String>,
}

/// Prints the report; returns the exit status: 0, or 3 where this host or user cannot trace.
///
/// # Errors
/// The report cannot be written.
pub fn doctor(json: bool) -> Result<u8> {
    let report = report(Depth::Attach);
    let status = if report.can_trace { 0 } else { 3 };
    let text = if json { serde_json::to_string(&report)? + "\n" } else { text(&report) };
    print(&text)?;
    Ok(status)
}

/// How well each stage can be seen on this host, and why that may be less than a root user would get.
pub(super) fn coverage() -> (Vec<Coverage>, Option<String>) {
    let report = report(Depth::Plan);
    (report.coverage, report.problem)
}

/// How far this host is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// As far as the kernel's side of the plan needs it.
    Plan,
    /// The C library's side too; and every program of the plan is attached for a moment.
    Attach,
}

fn report(depth: Depth) -> Report {
    let mut report = Report {
        kind: "doctor",
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        host: None,
        namespaces: namespaces::own().into_iter().map(place).collect(),
        lockdown: rights::lockdown(),
        can_trace: false,
        problem: None,
        hint: None,
        no_functions: None,
        no_samples: None,
        coverage: Vec::new(),
    };
    if let Err(error) = examine(&mut report, depth) {
        report.hint = error.downcast_ref::<UserError>().map(UserError::hint);
        report.problem = Some(format!("{error:#}"));
    }
    report
}

/// What follows from a namespace.
fn place(namespace: Namespace) -> Place {
    let Namespace { kind, number, initial } = namespace;
    let follows = match (kind, initial) {
        (_, Some(true)) => None,
        ("pid", _) => Some(
            "-p and -P take the ids of this namespace; ids in the output are the host's, with ns_pid \
             beside them"
                .to_owned(),
        ),
        ("user", _) => Some("capabilities in it do not count for tracing".to_owned()),
        ("mnt", _) => {
            Some("names of users come from the /etc/passwd that is seen here".to_owned())
        }
        ("cgroup", _) => Some("paths of control groups begin at its root".to_owned()),
        ("time", _) => Some(format!(
            "its clock is shifted by {} s, which is taken into account",
            clock::shift_ns() / 1_000_000_000
        )),
        _ => None,
    };
    Place { kind, number, initial, follows }
}

fn examine(report: &mut Report, depth: Depth) -> Result<()> {
    surroundings::check()?;
    let mut host = Host::read()?;
    report.host = Some(host.info.clone());
    let permitted = rights::check_capabilities();
    if let Err(error) = permitted {
        host.facts.inner = call_sites::all_unknown("it can only be learned by one who may trace");
        let plan = Plan::new(&host.facts, Backend::Auto, &Stages::All)?;
        report.coverage = plan.coverage;
        return Err(error);
    }
    tasks::identify(&mut host)?;
    // The host's own library.
    let libc = (depth == Depth::Attach).then(|| found(&[], None, Some(&[]))).transpose()?;
    let settings = Settings {
        ring_bytes: 4096,
        filter: Filter::all(),
        sample_hz: SAMPLE_HZ,
        libc,
        ..Settings::default()
    };
    let since = Instant::now();
    let prepared = prepare(&mut host, Backend::Auto, &Stages::All, settings, since, &|| false);
    // The programs name the ring by its descriptor, so it stays open until they are loaded.
    let Prepared { mut tracer, ring: _ring, plan } = prepared?;
    report.no_samples.clone_from(&host.facts.no_samples);
    report.no_functions.clone_from(&host.facts.no_functions);
    report.coverage.clone_from(&plan.coverage);
    if depth == Depth::Attach {
        tracer.attach(&plan, &|| false)?;
        report.can_trace = true;
    }
    detach::leave(tracer)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    _ = write_text(report, &mut text);
    text
}

fn write_text(report: &Report, out: &mut String) -> fmt::Result {
    let Report { host, namespaces, lockdown, problem, hint, .. } = report;
    let Report { no_functions, no_samples, coverage: stages, version, .. } = report;
    writeln!(out, "fork-trace {version}")?;
    if let Some(host) = host {
        writeln!(out, "kernel    {} {}, {} CPUs", host.kernel, host.arch, host.cpus)?;
    }
    let mut heading = "runs in";
    for place in namespaces {
        let which = match place.initial {
            Some(true) => "the host's own",
            Some(false) => "not the host's own",
            None => "which may be the host's own",
        };
        writeln!(out, "{heading:9} {}:[{}], {which}", place.kind, place.number)?;
        if let Some(follows) = &place.follows {
            writeln!(out, "          {follows}")?;
        }
        heading = "";
    }
    let none =
        if rights::shows_lockdown() { "none" } else { "not known: securityfs is not mounted" };
    writeln!(out, "lockdown  {}", lockdown.as_deref().unwrap_or(none))?;
    match problem {
        None => writeln!(out, "tracing   works: every program was attached for a moment")?,
        Some(problem) => writeln!(out, "tracing   does not work: {}", printable(problem))?,
    }
    if let Some(hint) = hint {
        writeln!(out, "          hint: {}", printable(hint))?;
    }
    if let Some(reason) = no_functions {
        writeln!(out, "functions cannot be probed: {reason}")?;
    }
    if let Some(reason) = no_samples {
        writeln!(out, "samples   of kernel stacks cannot be taken: {reason}")?;
    }
    if stages.is_empty() {
        return Ok(());
    }
    let width = stages.iter().map(|stage| stage.name.len()).max().unwrap_or_default();
    writeln!(out, "\n{:width$}  PRECISION  SOURCE      MARKS, OR WHY NOT", "STAGE")?;
    for stage in stages {
        let precision = stage.precision.name();
        let source = stage.source.map_or("-", Source::name);
        writeln!(out, "{:width$}  {precision:9}  {source:10}  {}", stage.name, why(stage))?;
    }
    Ok(())
}

/// Between which points a stage lies on this host, or why that is not known.
pub(super) fn why(stage: &Coverage) -> String {
    let (Some(opens), Some(closes)) = (&stage.opens, &stage.closes) else {
        let reason = stage.reason.clone().unwrap_or_default();
        if stage.precision == Precision::Sampled {
            return format!("samples of the kernel stack in slow forks; {reason}");
        }
        return reason;
    };
    if stage.includes.is_empty() {
        return format!("{opens} to {closes}");
    }
    format!("{opens} to {closes}, with {}", stage.includes.join(", "))
}
