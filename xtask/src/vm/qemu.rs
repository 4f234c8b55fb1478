//! A machine: it boots a kernel with a file system, its console is kept, and it is ended when it is
//! done, broken or stuck.
//!
//! This file knows what a broken kernel says, and nothing of what runs in it.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::arch::Arch;
use crate::build::apt;

/// What the kernel says when something is wrong with it; one fault may make it say several of
/// these.
const TROUBLE: [&str; 8] = [
    "Kernel panic",
    "Oops",
    "BUG: ",
    "[ cut here ]",
    "general protection fault",
    "soft lockup",
    "detected stall",
    "blocked for more than",
];

/// What the kernel says of a CPU that faults while it handles a fault.
const DOUBLE_FAULT: &str = "double fault";

/// A kernel in trouble may say why a moment later.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Nothing that runs in a guest is silent for so long.
const SILENCE: Duration = Duration::from_secs(240);

/// Emulation by one thread is slower than by two, and was never seen to hang.
const EMULATED: &str = "tcg,thread=single";

/// What is booted, and where its output goes.
pub(crate) struct Machine<'a> {
    pub(crate) arch: &'static Arch,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// The backends to run the tests for, with commas between them; where this is empty, the file
    /// system names them.
    pub(crate) backends: String,
    /// The console's output goes here, each line after the seconds since the start.
    pub(crate) log: PathBuf,
    /// What the guest tells on its second serial line goes here.
    pub(crate) told: PathBuf,
    pub(crate) limit: Duration,
}

/// How a machine ended.
pub(crate) struct End {
    /// What the guest told.
    pub(crate) told: String,
    /// What went wrong with the machine itself.
    pub(crate) trouble: Option<Trouble>,
}

/// What can be wrong with a machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its kernel says so, or QEMU.
    Broken(String),
    /// It says no more, or never comes to its end.
    Stalled(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Broken(what) | Self::Stalled(what)) = self;
        f.write_str(what)
    }
}

impl Trouble {
    /// The same, seen on a machine with this accelerator. An emulated CPU faults twice at times for no
    /// reason of the kernel's, in any code: such a guest is treated as one that stood still.
    fn of(self, accel: &str) -> Self {
        match self {
            Self::Broken(what) if accel == EMULATED && what.contains(DOUBLE_FAULT) => {
                Self::Stalled(what)
            }
            other => other,
        }
    }
}

impl Machine<'_> {
    /// Boots it and waits for its end. `accel` is the accelerator's name for QEMU.
    pub(crate) fn boot(&self, accel: &str) -> Result<End> {
        fs::write(&self.told, "").with_context(|| format!("write {}", self.told.display()))?;
        let log = File::create(&self.log);
        let log = log.with_context(|| format!("write {}", self.log.display()))?;
        let mut qemu =
            self.command(accel).spawn().with_context(|| format!("start {}", self.arch.qemu.0))?;
        let console = qemu.stdout.take().context("QEMU has no output")?;
        let messages = qemu.stderr.take().context("QEMU has no errors")?;
        let trouble = watch(&lines(console), &lines(messages), log, self.limit)
            .map(|trouble| trouble.map(|trouble| trouble.of(accel)));
        // It may have ended by itself; even then it has to be waited for, or it stays a zombie.
        stop(&mut qemu)?;
        let told = fs::read(&self.told);
        let told = told.with_context(|| format!("read {}", self.told.display()))?;
        Ok(End { told: String::from_utf8_lossy(&told).into_owned(), trouble: trouble? })
    }

    fn command(&self, accel: &str) -> Command {
        let mut qemu = Command::new(self.arch.qemu.0);
        let cpu = if accel == EMULATED { self.arch.plain_cpu } else { "max" };
        qemu.args(["-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "1500"]);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        // A comma inside an option of QEMU's is written twice.
        let told = self.told.to_string_lossy().replace(',', ",,");
        qemu.args(["-chardev", &format!("file,id=told,path={told}")]).args(self.arch.board);
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // The kernel hands arguments that it does not know to the first process.
        let backends = &self.backends;
        let (console, told) = self.arch.lines;
        let append = "loglevel=5 panic=-1 oops=panic softlockup_panic=1";
        qemu.args(["-append", &format!("console={console} {append} ONLY={backends} TOLD={told}")]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        qemu
    }
}

/// The kernel's own virtual machines if one can boot by them, else emulation.
pub(crate) fn accel(trial: &Machine<'_>) -> Result<&'static str> {
    if !trial.arch.is_here() {
        println!("emulating, because this machine is no {}", trial.arch.name);
        return Ok(EMULATED);
    }
    let openable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if openable && trial.boot("kvm")?.told.lines().any(|line| line == "done") {
        return Ok("kvm");
    }
    let why = if openable { "a guest does not get through by KVM" } else { "there is no KVM" };
    println!("emulating, because {why} here");
    Ok(EMULATED)
}

/// Makes sure that QEMU is here.
pub(crate) fn require(arch: &Arch) -> Result<()> {
    apt::require(arch.qemu.0, arch.qemu.1)
}

/// Each line of a stream, as it comes.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Follows the console to its end, or until something is wrong; returns what.
fn watch(
    console: &Receiver<String>,
    messages: &Receiver<String>,
    mut log: File,
    limit: Duration,
) -> Result<Option<Trouble>> {
    let began = Instant::now();
    let mut trouble: Option<(String, Instant)> = None;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let patience = match &trouble {
            Some((_, until)) => until.saturating_duration_since(Instant::now()),
            None => SILENCE.min(left),
        };
        if patience.is_zero() {
            let timeout = || Trouble::Stalled(format!("not through after {} s", limit.as_secs()));
            return Ok(Some(trouble.map_or_else(timeout, |(what, _)| Trouble::Broken(what))));
        }
        match console.recv_timeout(patience) {
            Ok(line) => {
                writeln!(log, "{:7.1} {line}", began.elapsed().as_secs_f64())
                    .context("write the console's log")?;
                if trouble.is_none() && TROUBLE.iter().any(|word| line.contains(word)) {
                    trouble = Some((line, Instant::now() + LAST_WORDS));
                }
            }
            Err(RecvTimeoutError::Timeout) if trouble.is_none() && patience == SILENCE => {
                let silent = format!("silent for {} s", SILENCE.as_secs());
                return Ok(Some(Trouble::Stalled(silent)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            // QEMU has ended; it says something itself only where it could not make the machine.
            Err(RecvTimeoutError::Disconnected) => {
                let said = messages.iter().last().map(|line| format!("QEMU says: {line}"));
                return Ok(trouble.map(|(what, _)| what).or(said).map(Trouble::Broken));
            }
        }
    }
}

/// Ends the program if it has not ended.
fn stop(qemu: &mut Child) -> Result<()> {
    if qemu.try_wait().context("wait for QEMU")?.is_none() {
        // A program that has closed its output is about to end.
        thread::sleep(Duration::from_millis(300));
        qemu.kill().context("end QEMU")?;
        qemu.wait().context("wait for QEMU")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a machine ends whose console has these lines, and whose QEMU says these.
    fn ended(console: &[&str], messages: &[&str], limit: Duration) -> Option<Trouble> {
        let channel = |lines: &[&str]| {
            let (sender, receiver) = channel();
            lines.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
            receiver
        };
        let log = File::options().write(true).open("/dev/null").unwrap();
        watch(&channel(console), &channel(messages), log, limit).unwrap()
    }

    #[test]
    fn a_kernel_in_trouble_is_found_by_its_first_words() {
        let lines = ["[ 1.0] BUG: unable to handle", "[ 1.1] Kernel panic - not syncing"];
        assert_eq!(ended(&lines, &[], SILENCE), Some(Trouble::Broken(lines[0].to_owned())));
        assert_eq!(ended(&["reboot: Power down"], &[], SILENCE), None);
    }

    #[test]
    fn a_double_fault_is_the_emulator_s() {
        let fault = || Trouble::Broken("Oops: double fault: 0000 [#1] PREEMPT SMP".to_owned());
        assert!(matches!(fault().of(EMULATED), Trouble::Stalled(_)));
        assert_eq!(fault().of("kvm"), fault());
        let other = || Trouble::Broken("BUG: unable to handle".to_owned());
        assert_eq!(other().of(EMULATED), other());
    }

    #[test]
    fn a_machine_that_could_not_be_is_told_by_qemu() {
        let said = ended(&[], &["qemu: no such machine"], SILENCE);
        assert_eq!(said.unwrap().to_string(), "QEMU says: qemu: no such machine");
    }

    #[test]
    fn a_machine_has_no_more_than_its_time() {
        let late = ended(&["on and on"], &[], Duration::ZERO);
        assert_eq!(late, Some(Trouble::Stalled("not through after 0 s".to_owned())));
    }
}
