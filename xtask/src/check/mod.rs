//! Checks of the workspace: formatting, lints, docs, the eBPF object and every test.

pub(crate) mod deny;
pub(crate) mod docs;
mod live;
pub(crate) mod outcome;
pub(crate) mod test;
mod walkthrough;
