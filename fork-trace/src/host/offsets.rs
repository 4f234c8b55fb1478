//! Offsets of the struct fields that the kernel side reads, from the running kernel's BTF.

use anyhow::Result;
use fork_trace_common::settings::{ABSENT, OFFSETS};

use crate::{error::UserError, host::btf::Btf};

/// The name of the enumeration that an offset is a value of.
pub(super) fn of_enum(of: &'static str) -> Option<&'static str> {
    of.strip_prefix("enum ")
}

pub(super) fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>> {
    let resolve = |offset: &fork_trace_common::settings::Offset| {
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
