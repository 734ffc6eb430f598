//! Real daemons in temporary folders.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::ctl::{Ctl, Done, Run};
use crate::programs::program;
use crate::settings::Settings;
use crate::wait::{self, LONG};

/// A folder with a settings file in which a daemon runs, again and again where a test wants it. Removed at the end,
/// unless `CASD_KEEP` is set.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    settings: Settings,
    /// What is handed to the daemon besides `PATH`.
    environment: Vec<(String, String)>,
    /// What the daemon's command begins with, to run it elsewhere.
    runs_on: Vec<String>,
    /// Which program the daemon is.
    program: &'static str,
}

/// A running daemon that has said it is ready. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ctl: Ctl,
    log: PathBuf,
}

// === impl Home ===

impl Home {
    /// With [`Settings::alone`].
    #[must_use]
    pub fn new() -> Self {
        Self::with(|settings| settings)
    }

    /// With [`Settings::alone`], changed.
    #[must_use]
    pub fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let keeps = std::env::var_os("CASD_KEEP").is_some();
        let folder = tempfile::Builder::new().prefix("casd-").disable_cleanup(keeps).tempdir().unwrap();
        let settings = change(Settings::alone(folder.path()));
        Self { folder, settings, environment: Vec::new(), runs_on: Vec::new(), program: "casd" }
    }

    /// Changes the settings for the next start.
    pub fn change(&mut self, change: impl FnOnce(Settings) -> Settings) {
        self.settings = change(std::mem::take(&mut self.settings));
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where the next start is to be: what the command begins with there, which must become the daemon.
    pub fn runs_on(&mut self, machine: Vec<String>) {
        self.runs_on = machine;
    }

    /// Which program the next start is of, one that takes casd's settings.
    pub fn runs(&mut self, program: &'static str) {
        self.program = program;
    }

    /// Somewhere for a test's own files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The state folder that [`Settings::alone`] names.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The socket that [`Settings::alone`] names.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("casd.sock")
    }

    /// The settings file, written anew.
    pub fn config(&self) -> PathBuf {
        let path = self.path("casd.toml");
        std::fs::write(&path, self.settings.toml()).unwrap();
        path
    }

    /// `casd --config FILE`, to be run to an end that is expected.
    #[must_use]
    pub fn run(&self) -> Run {
        let run = Run::new(program("casd")).arg("--config").arg(self.config());
        self.environment.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// Runs a daemon that is to refuse to start, to its end.
    #[track_caller]
    pub fn fail(&self) -> Done {
        self.run().done()
    }

    /// Starts a daemon and waits until it is ready.
    #[track_caller]
    #[must_use]
    pub fn start(&self) -> Daemon {
        let mut daemon = self.launch();
        wait::until(format!("{daemon} to be ready"), LONG, || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended at start with {status}:\n{}", daemon.log());
            }
            daemon.is_ready().then_some(())
        });
        daemon
    }

    /// Starts a daemon and does not wait. Its log goes on where that of the last one ended.
    #[must_use]
    pub fn launch(&self) -> Daemon {
        let log = self.path("casd.log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let words = self.runs_on.iter().map(OsString::from).chain([program(self.program).into_os_string()]);
        let words: Vec<_> = words.collect();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(self.config())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stderr.try_clone().unwrap())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Daemon { child, ctl: Ctl::new(&self.socket()), log }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Daemon ===

impl Daemon {
    /// casctl for it.
    #[must_use]
    pub fn ctl(&self) -> &Ctl {
        &self.ctl
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it answers and says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if !self.ctl.socket().exists() {
            return false;
        }
        let done = self.ctl.run(&["status", "--json"]).done();
        done.status.success() && done.json().first().is_some_and(|status| status["ready"] == true)
    }

    /// Its peer id.
    #[track_caller]
    #[must_use]
    pub fn peer_id(&self) -> String {
        self.ctl.status()["peer_id"].as_str().expect("status has a peer_id").to_owned()
    }

    /// Where it gives chunks, as `ID@HOST:PORT`.
    #[track_caller]
    #[must_use]
    pub fn chunk_address(&self) -> String {
        let at = texts(&self.ctl.status()["listen"]["chunk"]);
        format!("{}@{}", self.peer_id(), at.first().expect("it listens for chunks"))
    }

    /// Where its DHT listens, fit for another's `network.bootstrap`.
    #[track_caller]
    #[must_use]
    pub fn dht_addresses(&self) -> Vec<String> {
        texts(&self.ctl.status()["listen"]["dht"])
    }

    /// Where it logs.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All that it has logged, and those before it in the same home.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of its log that contains `words`, and gives it.
    #[track_caller]
    #[must_use]
    pub fn logged(&self, words: &str) -> String {
        wait::until(format!("{words:?} in the log"), LONG, || {
            self.log().lines().find(|line| line.contains(words)).map(str::to_owned)
        })
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon runs");
    }

    /// Asks it to stop, and gives how it ended. It must end within `limit`.
    #[track_caller]
    pub fn stop(self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(limit)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {self}");
        wait::until(what, limit, || self.child.try_wait().unwrap())
    }

    /// Ends it as a power cut would, as far as the process is concerned.
    #[track_caller]
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "casd (process {}, log {})", self.child.id(), self.log.display())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both do nothing when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("the last lines of {}:", Path::new(&self.log).display());
            last.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
