//! docs/WALKTHROUGH.md: the text is written by hand, and the output beside it is made from the recording
//! docs/walkthrough.json, which is of the program that the page shows.
//!
//! A block of output stands below a marker: `<!-- head -->` is the heading and the first row, `<!-- stages: A; B -->` are
//! the rows of these stages. A name with a space and a word in brackets, `walk+ (prepare)`, stands for a row that
//! begins with the first and has the second in it, for an address between them is not known beforehand.

use anyhow::{Context as _, Result, bail};

/// The page with its blocks made anew from `output`.
pub(super) fn page(page: &str, output: &str) -> Result<String> {
    let mut new = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        new.push_str(line);
        new.push('\n');
        let Some(marker) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        if lines.next() != Some("```text") {
            bail!("no block stands below {line}");
        }
        if !lines.by_ref().any(|line| line == "```") {
            bail!("the block below {line} does not end");
        }
        let rows = rows(marker, output).with_context(|| format!("make the block below {line}"))?;
        new.push_str(&format!("```text\n{rows}```\n"));
    }
    Ok(new)
}

/// The rows of the output that a marker asks for.
fn rows(marker: &str, output: &str) -> Result<String> {
    let mut rows = String::new();
    let mut add = |line: &str| {
        rows.push_str(line.trim_end());
        rows.push('\n');
    };
    match marker.strip_prefix("stages: ") {
        None if marker == "head" => {
            let first_row = output.lines().skip_while(|line| !line.is_empty()).nth(1);
            output.lines().take(1).chain(first_row).for_each(add);
        }
        None => bail!("the marker {marker:?} is not known"),
        Some(names) => {
            for name in names.split("; ") {
                let row = output.lines().find(|line| is_row(line.trim_start(), name));
                let row = row.with_context(|| format!("the recording has no row {name:?}"))?;
                add(row.strip_prefix("    ").unwrap_or(row));
            }
        }
    }
    Ok(rows)
}

/// Whether a row is that of `name`.
fn is_row(row: &str, name: &str) -> bool {
    match name.split_once(" (") {
        Some((begin, word)) => row.starts_with(begin) && row.contains(&format!("({word}")),
        None => {
            row.strip_prefix(name).is_some_and(|rest| rest.starts_with("  ") || name.ends_with(':'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
TIME  PARENT
a note

1     walk 5
    fork                  7 ms
    fork: before the call  1 ms
      walk+0x1169 (prepare)  1 ms
    copied: 3 mappings
";

    #[test]
    fn blocks_are_made_anew() {
        let old = "a\n\n<!-- stages: fork; walk+ (prepare); copied: -->\n```text\nold\n```\nb\n";
        let new = page(old, OUTPUT).unwrap();
        let wanted = "a\n\n<!-- stages: fork; walk+ (prepare); copied: -->\n```text\n\
            fork                  7 ms\n  walk+0x1169 (prepare)  1 ms\ncopied: 3 mappings\n```\nb\n";
        assert_eq!(new, wanted);
        assert_eq!(page(&new, OUTPUT).unwrap(), new);
        assert!(
            page("<!-- head -->\n```text\n```\n", OUTPUT)
                .unwrap()
                .contains("TIME  PARENT\n1     walk 5\n")
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let of = |text: &str| page(text, OUTPUT).unwrap_err().to_string();
        assert!(of("<!-- stages: none -->\n```text\n```\n").contains("make the block"));
        assert!(of("<!-- other -->\n```text\n```\n").contains("make the block"));
        assert!(of("<!-- head -->\ntext\n").contains("no block"));
        assert!(of("<!-- head -->\n```text\n").contains("does not end"));
    }
}
