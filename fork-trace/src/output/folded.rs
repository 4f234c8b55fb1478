//! Folded stacks, as tools for flame graphs read them: at the end a line for each distinct stack of a caller,
//! `comm;outermost;...;innermost COUNT`, where the count is that of its attempts.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use crate::{
    event::{Event, fork::Fork},
    output::{sink::Sink, text::line::printable},
};

/// Distinct stacks that are kept.
const MOST: usize = 32_768;
/// Bytes of all of them.
const MOST_BYTES: usize = 64 << 20;

/// Counts the stacks of attempts.
pub struct Folded<W> {
    to: W,
    counts: HashMap<String, u64>,
    /// Bytes of the keys of `counts`.
    bytes: usize,
    /// Attempts for whose stacks there was no room.
    other: u64,
    is_written: bool,
}

impl<W: Write> Folded<W> {
    /// Onto `to`, which gets nothing before the end.
    pub fn new(to: W) -> Self {
        Self { to, counts: HashMap::new(), bytes: 0, other: 0, is_written: false }
    }
}

impl<W: Write> Sink for Folded<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        let stack = folded(fork);
        if let Some(count) = self.counts.get_mut(&stack) {
            *count += 1;
        } else if self.counts.len() < MOST && self.bytes + stack.len() <= MOST_BYTES {
            self.bytes += stack.len();
            self.counts.insert(stack, 1);
        } else {
            self.other += 1;
        }
        Ok(())
    }

    fn event(&mut self, _event: &Event) -> io::Result<()> {
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_written, true) {
            let mut stacks: Vec<_> = self.counts.iter().collect();
            stacks.sort_unstable();
            for (stack, count) in stacks {
                writeln!(self.to, "{stack} {count}")?;
            }
            if self.other > 0 {
                writeln!(self.to, "[other] {}", self.other)?;
            }
        }
        self.tick()
    }
}

/// The caller's name and the frames of its stack, without what would end a frame or a line.
fn folded(fork: &Fork) -> String {
    let frame = |name: &str| printable(name).replace(';', ":");
    let mut line = frame(&fork.parent.comm);
    if fork.stack.is_empty() {
        line.push_str(";[no stack]");
    }
    for of in fork.stack.iter().rev() {
        line.push(';');
        line.push_str(&frame(&of.name()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::stack::Frame;

    fn written(forks: &[Fork]) -> String {
        let mut out = Vec::new();
        let mut sink = Folded::new(&mut out);
        forks.iter().for_each(|fork| sink.fork(fork).unwrap());
        sink.finish().unwrap();
        sink.finish().unwrap();
        drop(sink);
        String::from_utf8(out).unwrap()
    }

    fn of(comm: &str, names: &[&str]) -> Fork {
        let named = |name: &&str| Frame { function: Some((*name).into()), ..Frame::default() };
        let parent = serde_json::json!({"pid": 1, "tid": 1, "ppid": 0, "comm": comm, "uid": 0});
        let ts = "2026-01-01T00:00:00Z";
        let fork = serde_json::json!({"id": "1-1", "ts": ts, "mono_ns": 1, "parent": parent});
        let fork: Fork = serde_json::from_value(fork).unwrap();
        Fork { stack: names.iter().map(named).collect(), ..fork }
    }

    #[test]
    fn each_stack_has_a_line_and_its_count() {
        let forks = [of("sh", &["fork", "main"]), of("b", &[]), of("sh", &["fork", "main"])];
        assert_eq!(written(&forks), "b;[no stack] 1\nsh;main;fork 2\n");
        assert_eq!(written(&[]), "");
    }

    #[test]
    fn no_name_ends_a_frame_or_a_line() {
        let forks = [of("a;b c\n", &["f<T>(x; y)\x1b"])];
        assert_eq!(written(&forks), "a:b c\\n;f<T>(x: y)\\x1b 1\n");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut sink = Folded::new(Vec::new());
        for number in 0..MOST + 5 {
            sink.fork(&of(&number.to_string(), &["f"])).unwrap();
        }
        sink.fork(&of("7", &["f"])).unwrap();
        sink.finish().unwrap();
        let text = String::from_utf8(sink.to).unwrap();
        assert!(text.ends_with("\n[other] 5\n") && text.contains("\n7;f 2\n"));
        assert_eq!(text.lines().count(), MOST + 1);
    }
}
