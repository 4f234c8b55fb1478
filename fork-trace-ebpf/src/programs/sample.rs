//! The timer of each CPU.

use aya_ebpf::{macros::perf_event, programs::PerfEventContext};

use crate::attempt::samples;

/// The kernel's software clock on this CPU has come to the end of a period. It runs that often on
/// every CPU, so before anything else it looks whether a task that may be inside a fork runs here.
#[perf_event]
pub(crate) fn sample(ctx: PerfEventContext) -> u32 {
    samples::take(&ctx);
    0
}
