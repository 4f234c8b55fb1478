//! Attaches the probes of C libraries.

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
    host::libc::Library,
};

impl Tracer {
    /// Probes a library, which is number `place` of those that are probed: all of its functions, or
    /// none. With `cookies` the kernel side is told which library it is.
    ///
    /// # Errors
    /// The reason why that cannot be done.
    pub fn probe_libc(
        &mut self,
        place: u32,
        library: &Library,
        cookies: bool,
    ) -> Result<(), String> {
        let mut links = Vec::new();
        let probed = library.functions.iter().try_for_each(|(function, offset)| {
            // The return is attached first, so that no entry is seen without its return.
            let ends: &[&str] =
                if function.returns() { &["uretprobe", "uprobe"] } else { &["uprobe"] };
            ends.iter().try_for_each(|end| {
                let program = format!("{end}_{}", function.row().id);
                let cookie = cookies.then_some(u64::from(place) + 1);
                links.push(self.uprobe(&program, library, *offset, cookie)?);
                Ok(())
            })
        });
        match probed {
            Ok(()) => {
                log::info!("probed {}", library.name);
                self.libc_links.extend(links);
                Ok(())
            }
            Err(error) => {
                log::info!("probe {}: {error:#}", library.name);
                Err(brief(&error))
            }
        }
    }

    /// Loads a program, unless it is loaded, and attaches it.
    fn uprobe(
        &mut self,
        program: &str,
        library: &Library,
        offset: u64,
        cookie: Option<u64>,
    ) -> Result<UProbeLink> {
        let found = self.ebpf.program_mut(program);
        let found = found.with_context(|| format!("find program {program} in the object"))?;
        let uprobe: &mut UProbe =
            found.try_into().with_context(|| format!("{program} is no uprobe"))?;
        if uprobe.fd().is_err() {
            uprobe.load().map_err(load_error)?;
        }
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let point = UProbeAttachPoint { location, cookie };
        let link = uprobe
            .attach(point, &library.path, UProbeScope::AllProcesses)
            .map_err(|error| anyhow!(error))?;
        uprobe.take_link(link).context("keep a link")
    }
}
