//! Running programs to their end, within a time, and reading what they print; first of all casctl.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::programs::program;
use crate::wait::{self, LONG};

/// casctl for one daemon's socket.
#[derive(Clone, Debug)]
pub struct Ctl {
    socket: PathBuf,
}

/// A command that is being put together.
#[derive(Debug)]
pub struct Run {
    command: Command,
    /// How it is shown when it fails.
    shown: String,
    limit: Duration,
}

/// A command that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    shown: String,
    limit: Duration,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    shown: String,
}

// === impl Ctl ===

impl Ctl {
    /// For the daemon behind `socket`, which need not exist.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `casctl --socket SOCKET ARGS…`, in an environment without any of the caller's settings.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        let run = Run::new(program("casctl")).arg("--socket").arg(&self.socket);
        args.iter().fold(run, Run::arg)
    }

    /// Runs it and gives its standard output as text without the last line end. It must end with 0.
    #[track_caller]
    pub fn text<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        self.run(args).done().ok().text()
    }

    /// Runs it with `--json` and gives the objects that it prints, one a line. It must end with 0.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, args: &[A]) -> Vec<Value> {
        self.run(args).arg("--json").done().ok().json()
    }

    /// Adds one file and gives its id.
    #[track_caller]
    pub fn add(&self, path: &Path) -> String {
        self.text(&[OsStr::new("-q"), OsStr::new("add"), path.as_os_str()])
    }

    /// Adds bytes from standard input and gives their id.
    #[track_caller]
    pub fn add_bytes(&self, bytes: &[u8]) -> String {
        self.run(&["-q", "add", "-"]).input(bytes).done().ok().text()
    }

    /// The bytes of an object.
    #[track_caller]
    pub fn cat(&self, id: &str) -> Vec<u8> {
        self.run(&["cat", id]).done().ok().stdout
    }

    /// The ids of an object's data chunks, in order.
    #[track_caller]
    pub fn data_chunks(&self, id: &str) -> Vec<String> {
        let chunks = self.json(&["stat", "--chunks", id]);
        let data = chunks.iter().filter(|chunk| chunk["parity"] == false);
        data.map(|chunk| chunk["id"].as_str().expect("a chunk has an id").to_owned()).collect()
    }

    /// What the daemon says of itself.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["status"]).pop().expect("status prints one object")
    }
}

// === impl Run ===

impl Run {
    /// Any program, in an environment with nothing but `PATH`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        let name = Path::new(program.as_ref()).file_name().unwrap_or_default();
        Self { shown: name.display().to_string(), command, limit: LONG }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, arg.as_ref().display());
        self.command.arg(arg);
        self
    }

    /// One more variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// These bytes on standard input. They are kept in a file, so that they may be any number.
    #[must_use]
    pub fn input(self, bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        self.stdin(file)
    }

    /// This on standard input: a file, a pipe, another program's output.
    #[must_use]
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.command.stdin(from);
        self
    }

    /// As another user, which only root can; of the groups it keeps the first.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.command.uid(uid);
        self
    }

    /// How long it may take; one minute unless said otherwise.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Running {
        // Files, not pipes: nothing has to read them while it runs.
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        self.command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        Running { child, stdout, stderr, shown: self.shown, limit: self.limit }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn done(self) -> Done {
        self.start().done()
    }
}

// === impl Running ===

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        // It may have ended meanwhile; whoever asks for its end will see how.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn done(mut self) -> Done {
        let status = wait::until(format!("the end of `{}`", self.shown), self.limit, || {
            self.child.try_wait().unwrap()
        });
        let stderr = String::from_utf8_lossy(&read(&mut self.stderr)).into_owned();
        Done { status, stdout: read(&mut self.stdout), stderr, shown: std::mem::take(&mut self.shown) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    std::io::Read::read_to_end(file, &mut bytes).unwrap();
    bytes
}

// === impl Done ===

impl Done {
    /// Itself, when it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Itself, when it ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "`{}` said: {}", self.shown, self.stderr);
        self
    }

    /// What it printed, as text, without the last line end.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> String {
        let text =
            String::from_utf8(self.stdout.clone()).unwrap_or_else(|_| panic!("`{}`: not text", self.shown));
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// What it printed, one JSON object a line.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{}`: {e}: {line}", self.shown));
        self.text().lines().map(parse).collect()
    }

    /// Itself, when it failed as bad input should: with one of these codes, one or two lines that contain `word`, and
    /// nothing printed.
    #[track_caller]
    pub fn refused(&self, codes: &[i32], word: &str) {
        let code = self.status.code().unwrap_or(-1);
        assert!(
            codes.contains(&code),
            "`{}` ended with {code}, not one of {codes:?}: {}",
            self.shown,
            self.stderr
        );
        let said = &self.stderr;
        assert!(said.contains(word), "`{}` does not say {word:?}: {said}", self.shown);
        assert!(!said.contains("panicked"), "`{}`: {said}", self.shown);
        // clap's complaint of bad usage has its own form.
        assert!(
            code == 2 || (1..=2).contains(&said.lines().count()),
            "`{}`: more than two lines: {said}",
            self.shown
        );
        assert!(
            self.stdout.is_empty(),
            "`{}` printed: {:?}",
            self.shown,
            String::from_utf8_lossy(&self.stdout)
        );
    }
}
