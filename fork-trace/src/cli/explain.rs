//! `fork-trace explain`: prints what the tables say of each word.

use anyhow::Result;

use crate::{
    cause::explain,
    error::UserError,
    event::nearest::{did_you_mean, nearest},
    output::outputs::print,
};

/// Prints what is known of each of `words`, or everything as docs/FAILURES.md; returns the exit
/// status.
///
/// # Errors
/// [`UserError::Unexplained`] or [`UserError::Output`].
pub fn explain(words: &[String], markdown: bool) -> Result<u8> {
    let known = |word: &String| {
        explain::explain(word).ok_or_else(|| {
            let words = explain::words();
            let near = nearest(word, words.iter().map(String::as_str));
            UserError::Unexplained { word: word.clone(), near: did_you_mean(near) }
        })
    };
    let texts = match markdown {
        true => vec![explain::page()],
        false => words.iter().map(known).collect::<Result<_, _>>()?,
    };
    print(&texts.join("\n"))?;
    Ok(0)
}
