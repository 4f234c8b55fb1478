//! Attaches the probes of C libraries.

use std::{io, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{
    UProbe,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
};

use crate::{
    bpf::{
        errors::{brief, load_error},
        tracer::Tracer,
    },
    host::{facts::ProbedLibraries, libc::Library, rights},
};

/// Why a probe cannot be attached.
fn reason(error: &anyhow::Error) -> String {
    let reason = brief(error);
    let denied = error.root_cause().downcast_ref::<io::Error>();
    let denied = denied.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    match denied && !rights::has_admin() {
        true => format!("{reason}: this kernel wants CAP_SYS_ADMIN for uprobes"),
        false => reason,
    }
}

/// The programs of a handler. The return is attached first, so that no entry is seen without its return.
const HANDLER: [&str; 2] = ["uretprobe_atfork_handler", "uprobe_atfork_handler"];

impl Tracer {
    /// Probes a library beside those that are `probed`, to which it is added: all of its functions, or none.
    ///
    /// # Errors
    /// The reason why that cannot be done.
    pub fn probe_libc(
        &mut self,
        probed: &mut ProbedLibraries,
        library: &Library,
    ) -> Result<(), String> {
        let place = u64::try_from(probed.names.len()).unwrap_or(u64::MAX);
        let cookie = probed.cookies.then(|| place.saturating_add(1));
        let mut links = Vec::new();
        let all = library.functions.iter().try_for_each(|(function, offset)| {
            // The return is attached first, so that no entry is seen without its return.
            let ends: &[&str] =
                if function.returns() { &["uretprobe", "uprobe"] } else { &["uprobe"] };
            ends.iter().try_for_each(|end| {
                let program = format!("{end}_{}", function.row().id);
                links.push(self.uprobe(&program, &library.path, *offset, cookie)?);
                Ok(())
            })
        });
        match all {
            Ok(()) => {
                log::info!("probed {}", library.name);
                self.libc_links.extend(links);
                probed.add(library);
                Ok(())
            }
            Err(error) => {
                log::info!("probe {}: {error:#}", library.name);
                Err(reason(&error))
            }
        }
    }

    /// Loads the programs that take the time of handlers, so that they can be attached later.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load_handler_probes(&mut self) -> Result<()> {
        HANDLER.iter().try_for_each(|program| self.loaded(program).map(drop))
    }

    /// Probes a handler, to which user space has given a number.
    ///
    /// # Errors
    /// The reason why that cannot be done.
    pub fn probe_handler(&mut self, number: u32, path: &Path, offset: u64) -> Result<(), String> {
        let mut links = Vec::new();
        for program in HANDLER {
            let link = self.uprobe(program, path, offset, Some(number.into()));
            links.push(link.map_err(|error| reason(&error))?);
        }
        self.libc_links.extend(links);
        Ok(())
    }

    /// Loads a program, unless it is loaded, and attaches it.
    fn uprobe(
        &mut self,
        program: &str,
        path: &Path,
        offset: u64,
        cookie: Option<u64>,
    ) -> Result<UProbeLink> {
        let uprobe = self.loaded(program)?;
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let point = UProbeAttachPoint { location, cookie };
        let link = uprobe
            .attach(point, path, UProbeScope::AllProcesses)
            .map_err(|error| anyhow!(error))?;
        uprobe.take_link(link).context("keep a link")
    }

    /// A program, loaded.
    fn loaded(&mut self, program: &str) -> Result<&mut UProbe> {
        let found = self.ebpf.program_mut(program);
        let found = found.with_context(|| format!("find program {program} in the object"))?;
        let uprobe: &mut UProbe =
            found.try_into().with_context(|| format!("{program} is no uprobe"))?;
        if uprobe.fd().is_err() {
            uprobe.load().map_err(load_error)?;
        }
        Ok(uprobe)
    }
}
