//! `fork-trace schema`: prints the JSON Schema of a stream's lines.

use anyhow::Result;

use crate::{event::schema, output::outputs::print};

/// Prints it; returns the exit status.
///
/// # Errors
/// [`UserError::Output`](crate::error::UserError::Output).
pub fn schema() -> Result<u8> {
    let text = serde_json::to_string_pretty(&schema::schema())?;
    print(&(text + "\n"))?;
    Ok(0)
}
