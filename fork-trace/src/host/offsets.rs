//! The offsets of the struct fields that the kernel side reads, from the running kernel's BTF.

use anyhow::Result;
use fork_trace_common::settings::{ABSENT, OFFSETS, Offset};

use crate::{error::UserError, host::btf::Btf};

/// The name of the enumeration, where a row of [`OFFSETS`] stands for the value of an enumerator
/// and not for a field.
pub(super) fn of_enum(of: &'static str) -> Option<&'static str> {
    of.strip_prefix("enum ")
}

/// For each row of [`OFFSETS`] the global of the object that holds it, and its value; [`ABSENT`]
/// where this kernel has no such field.
///
/// # Errors
/// [`UserError::KernelLacks`] where a required field is absent.
pub(super) fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>> {
    let resolve = |offset: &Offset| {
        let found = match of_enum(offset.of) {
            Some(name) => btf.value(name, offset.field)?,
            None => btf.offset(offset.of, offset.field)?,
        };
        if found.is_none() && offset.required {
            let what = format!("the field {}.{}", offset.of, offset.field);
            return Err(UserError::KernelLacks { what }.into());
        }
        Ok((offset.global, found.unwrap_or(ABSENT)))
    };
    OFFSETS.iter().map(resolve).collect()
}
