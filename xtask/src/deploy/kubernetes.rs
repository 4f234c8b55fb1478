//! What `deploy/kubernetes` holds.

use std::path::Path;

use anyhow::Result;

pub(super) fn check(_python: &Path) -> Result<String> {
    Ok(String::new())
}
