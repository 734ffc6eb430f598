//! Making calls of the system fail, or be a process's last, with strace.
//!
//! Owns: strace's command line, and which calls of a program there are to choose from. Refuses: calls that concern no
//! file below one folder. strace counts them by thread and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ctl::Run;

/// Calls that go together, as strace names them; `?`: where this machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Calls(pub &'static [&'static str]);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The process is killed before it is done.
    Kill,
    /// It is not done, and gives this error.
    Error(&'static str),
    /// It and all that follow.
    ErrorFromThenOn(&'static str),
}

/// One fault: the `when`th call of its kind that a thread makes.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Of which calls.
    pub calls: Calls,
    /// What becomes of it.
    pub fate: Fate,
    /// Which one, from 1.
    pub when: usize,
}

/// strace for one program that works in one folder.
#[derive(Clone, Debug)]
pub struct Strace {
    /// The files of the folder, relative to it, as the program named them.
    files: BTreeSet<PathBuf>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fate, on) = match self.fate {
            Fate::Kill => ("signal=KILL".to_owned(), ""),
            Fate::Error(error) => (format!("error={error}"), ""),
            Fate::ErrorFromThenOn(error) => (format!("error={error}"), "+"),
        };
        write!(f, "{}:{fate}:when={}{on}", self.calls.0.join(","), self.when)
    }
}

impl Strace {
    /// Whether strace is there and may trace.
    #[must_use]
    pub fn is_there() -> bool {
        let done = Command::new("strace").args(["-f", "-o", "/dev/null", "/bin/true"]).output();
        done.is_ok_and(|done| done.status.success())
    }

    /// Runs `command`, which is to work in `folder`, once, to learn which files it uses there.
    #[track_caller]
    #[must_use]
    pub fn learn(folder: &Path, command: &[OsString], scratch: &Path) -> Self {
        let run = Run::new("strace").arg("-f").arg("-e").arg("trace=%file").arg("-o").arg(scratch);
        command.iter().fold(run, Run::arg).done().ok();
        let trace = std::fs::read_to_string(scratch).unwrap();
        let quoted = trace.split('"').skip(1).step_by(2);
        let below = quoted.filter_map(|path| Path::new(path).strip_prefix(folder).ok());
        Self { files: below.map(Path::to_owned).chain([PathBuf::new(), "index.bad".into()]).collect() }
    }

    fn trace(&self, folder: &Path, calls: &[Calls], scratch: &Path) -> Run {
        let names: Vec<_> = calls.iter().flat_map(|calls| calls.0).copied().collect();
        let run = Run::new("strace").arg("-f").arg("-y").arg("-o").arg(scratch);
        let run = run.arg("-e").arg(format!("trace={}", names.join(",")));
        let path = |file: &PathBuf| match file.as_os_str().is_empty() {
            true => folder.to_owned(),
            false => folder.join(file),
        };
        self.files.iter().fold(run, |run, file| run.arg("-P").arg(path(file)))
    }

    /// How often each of these calls is made, by the thread that makes it most often.
    #[track_caller]
    #[must_use]
    pub fn count(
        &self,
        folder: &Path,
        calls: &[Calls],
        command: &[OsString],
        scratch: &Path,
    ) -> BTreeMap<Calls, usize> {
        command.iter().fold(self.trace(folder, calls, scratch), Run::arg).done().ok();
        let trace = std::fs::read_to_string(scratch).unwrap();
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in trace.lines() {
            let made = line
                .split_once(' ')
                .and_then(|(thread, call)| Some((thread, call.trim_start().split_once('(')?.0)));
            if let Some((thread, name)) = made {
                *counts.entry((thread, name)).or_default() += 1;
            }
        }
        let most = |calls: &Calls| {
            let of = |name: &&str| calls.0.iter().any(|call| call.trim_start_matches('?') == *name);
            counts.iter().filter(|((_, name), _)| of(name)).map(|(_, count)| *count).max().unwrap_or(0)
        };
        calls.iter().map(|calls| (*calls, most(calls))).collect()
    }

    /// `command` with a fault. What strace writes to `scratch` tells which calls failed: see [`failed`].
    #[must_use]
    pub fn run(&self, folder: &Path, fault: &Fault, command: &[OsString], scratch: &Path) -> Run {
        let run = self.trace(folder, &[fault.calls], scratch).arg("-e").arg(format!("inject={fault}"));
        // Makes it quicker; but a signal is not sent then.
        let run = if fault.fate == Fate::Kill { run } else { run.arg("--seccomp-bpf") };
        command.iter().fold(run, Run::arg)
    }
}

/// The calls that were made to fail, as strace writes them: with the names of their files.
#[must_use]
pub fn failed(scratch: &Path) -> Vec<String> {
    let trace = std::fs::read_to_string(scratch).unwrap_or_default();
    trace.lines().filter(|line| line.contains("(INJECTED)")).map(str::to_owned).collect()
}
