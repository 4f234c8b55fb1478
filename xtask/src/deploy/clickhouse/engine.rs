//! The engine: a process of Python with ClickHouse as a library, which answers one statement after the other.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{command::root, deploy::json::at};

/// What stands for it.
pub(super) struct Engine {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What it says to a statement.
pub(super) struct Answer {
    pub(super) rows: Vec<Value>,
    pub(super) seconds: f64,
}

impl Engine {
    /// Starts it on the data in a folder, which it makes if there is none.
    pub(super) fn start(python: &Path, data: &Path) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(root().join("xtask/src/deploy/clickhouse/statements.py"))
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start Python")?;
        let questions = child.stdin.take().context("take its standard input")?;
        let answers = BufReader::new(child.stdout.take().context("take its standard output")?);
        Ok(Self { child, questions, answers })
    }

    /// What it says to a statement.
    pub(super) fn ask(&mut self, sql: &str) -> Result<Answer> {
        writeln!(self.questions, "{}", json!({ "sql": sql })).context("ask ClickHouse")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("read what ClickHouse says")?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("read {line:?}"))?;
        if let Some(error) = at(&answer, "/error").as_str() {
            bail!("ClickHouse: {error}");
        }
        let seconds = at(&answer, "/seconds").as_f64().context("find how long it took")?;
        let rows = answer.get_mut("rows").map(Value::take);
        let Some(Value::Array(rows)) = rows else { bail!("there are no rows in {line}") };
        Ok(Answer { rows, seconds })
    }

    /// The one row of an answer.
    pub(super) fn one(&mut self, sql: &str) -> Result<Value> {
        let mut rows = self.ask(sql)?.rows;
        ensure!(rows.len() == 1, "{sql}: {} rows", rows.len());
        rows.pop().context("take the row")
    }

    /// Sets a parameter of the statements that follow.
    pub(super) fn set(&mut self, parameter: &str, value: &str) -> Result<()> {
        self.ask(&format!("SET param_{parameter} = '{value}'")).map(drop)
    }

    /// Its version.
    pub(super) fn version(&mut self) -> Result<String> {
        let row = self.one("SELECT version() AS version")?;
        Ok(at(&row, "/version").as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
