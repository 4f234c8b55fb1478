//! Makes a recording.

use std::{ffi::OsString, fs, path::Path, process::Command, thread, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use fork_trace::{
    bpf::{
        detach,
        filter::Filter,
        load::Settings,
        prepare::{Prepared, prepare},
        ring::Ring,
    },
    event::filters::Filters,
    host::{Host, features},
    plan::{backend::Backend, stages::Stages},
};

use crate::recording::{append, of_one_caller};

/// The size of the ring: it is emptied only when the command has ended.
const RING_BYTES: u32 = 64 << 20;
/// After the command's end its last records are still on their way.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs `cmd` while every fork of the host is recorded, and writes to `path` what came of the process that
/// forked most.
pub(crate) fn record(path: &Path, cmd: &[OsString]) -> Result<()> {
    let mut host = Host::read()?;
    host.features = features::features(host.has_field("USER_PROCESSES"));
    let settings = Settings {
        filter: Filter::new(&Filters::default(), &host.ids)?,
        ring_bytes: RING_BYTES,
        execs: true,
        exits: true,
        ..Settings::default()
    };
    let since = Instant::now();
    let never = || false;
    let prepared = prepare(&mut host, Backend::Auto, &Stages::Default, settings, since, &never)?;
    let Prepared { mut tracer, ring, plan } = prepared;
    tracer.attach(&plan, &never)?;
    let (program, args) = cmd.split_first().context("no command")?;
    let status = Command::new(program).args(args).status().context("start the command")?;
    thread::sleep(SETTLE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let mut ring = Ring::new(ring)?;
    let mut entries = Vec::new();
    while ring.drain(usize::MAX, |entry| entries.push(entry.to_vec())) {}
    detach::leave(tracer)?;
    let mut recording = Vec::new();
    for entry in of_one_caller(entries)? {
        append(&mut recording, &entry)?;
    }
    fs::write(path, recording).with_context(|| format!("write {}", path.display()))?;
    anyhow::ensure!(status.success(), "the command ended with {status}");
    Ok(())
}
