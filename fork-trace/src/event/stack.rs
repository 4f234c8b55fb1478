//! The caller's user-space stack.

use std::{borrow::Cow, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many frames of a stack are told in text at most, and how many bytes their names have together.
const TOLD: usize = 12;
const TOLD_BYTES: usize = 240;

/// One frame of a caller's stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The function; absent where no symbol is known.
    #[serde(rename = "fn", default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Arc<str>>,
    /// The path of the file that the code is mapped from, as the caller sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<Arc<str>>,
    /// The build id of that file, in hexadecimal, where its path is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Where the code goes on, in bytes from the beginning of that file; without `module` and `build_id` it is
    /// the address in the caller's memory.
    pub offset: u64,
    /// The source file, where the module's debug information tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl Frame {
    /// What it is called in text: its function, or else the name of its file in brackets. It is the same in
    /// each run of a program.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        match (&self.function, &self.module) {
            (Some(function), _) => Cow::Borrowed(function),
            (None, Some(module)) => {
                let name = module.rsplit('/').next().unwrap_or(module);
                Cow::Owned(format!("[{}]", name.trim_matches(['[', ']'])))
            }
            (None, None) => Cow::Borrowed("[unknown]"),
        }
    }
}

/// A stack in one line, the innermost frame first, as the stacks of waits: `fork < run_job < main`. Of one that is
/// deep, or has long names, the outer frames are left out. `None`: there is none.
#[must_use]
pub fn chain(stack: &[Frame]) -> Option<String> {
    let mut bytes = 0;
    let names = stack.iter().take(TOLD).map(Frame::name);
    let names: Vec<_> = names
        .take_while(|name| {
            let is_first = bytes == 0;
            bytes += name.len();
            is_first || bytes <= TOLD_BYTES
        })
        .collect();
    let more = if names.len() < stack.len() { " < …" } else { "" };
    (!names.is_empty()).then(|| format!("{}{more}", names.join(" < ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Frame {
        Frame { function: Some(name.into()), ..Frame::default() }
    }

    #[test]
    fn a_stack_is_told_from_the_innermost_frame_on() {
        assert_eq!(chain(&[]), None);
        let file = |path: &str| Frame { module: Some(path.into()), ..Frame::default() };
        let stack = [named("fork"), file("/lib/libc.so.6"), file("[vdso]"), Frame::default()];
        assert_eq!(chain(&stack).unwrap(), "fork < [libc.so.6] < [vdso] < [unknown]");
        let deep: Vec<_> = (0..20).map(|number| named(&format!("f{number}"))).collect();
        let told = chain(&deep).unwrap();
        assert!(told.starts_with("f0 < f1 < ") && told.ends_with(" < f10 < f11 < …"), "{told}");
        let long = [named(&"a".repeat(300)), named(&"b".repeat(100)), named("c")];
        assert_eq!(chain(&long).unwrap(), format!("{} < …", "a".repeat(300)));
        assert_eq!(chain(&long[1..]).unwrap(), format!("{} < c", "b".repeat(100)));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let frame = Frame { offset: 7, ..Frame::default() };
        assert_eq!(serde_json::to_string(&frame).unwrap(), r#"{"offset":7}"#);
        let whole = r#"{"fn":"f","module":"/m","offset":1,"file":"a.c","line":3}"#;
        let back: Frame = serde_json::from_str(whole).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), whole);
    }
}
