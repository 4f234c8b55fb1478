//! `fork-trace completions` and `fork-trace man`: made from the very definitions that read the command line.

use anyhow::Result;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::{
    cli::help::{definition, subcommands},
    output::outputs::print,
};

/// Prints what completes the command line in a shell; returns the exit status.
///
/// # Errors
/// [`UserError::Output`](crate::error::UserError::Output).
pub fn completions(shell: Shell) -> Result<u8> {
    let mut text = Vec::new();
    generate(shell, &mut definition(), "fork-trace", &mut text);
    // clap_complete 4.6 spells the dash of our name in two ways in bash's text, which then knows no options
    // of the tasks.
    let text = String::from_utf8(text)?.replace("fork__subcmd__trace__", "fork__trace__");
    print(&text)?;
    Ok(0)
}

/// Prints the manual page; returns the exit status.
///
/// # Errors
/// [`UserError::Output`](crate::error::UserError::Output).
pub fn man() -> Result<u8> {
    let mut command = definition();
    command.build();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let mut page = String::from_utf8(page)?;
    // There is one page for all of them: none is named that is not there.
    for name in subcommands(&command) {
        page = page.replace(&format!("fork\\-trace\\-{name}(1)"), &format!("fork\\-trace {name}"));
    }
    print(&page)?;
    Ok(0)
}
