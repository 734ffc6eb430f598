//! What systemd and the daemon tell each other.
//!
//! Owns: notifications (`sd_notify(3)`), the watchdog's interval, and the API socket that `casd.socket` hands
//! over (`sd_listen_fds(3)`). Refuses: to need systemd: without its variables each call does nothing.
//! Survives a crash: nothing; but the handed-over socket is systemd's, so callers wait instead of failing
//! while a crashed daemon is started again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The longest status line: `systemctl status` shows one line, and the datagram must not be refused for size.
const MAX_STATUS: usize = 512;

/// The variables that systemd sets. Passed in, so that tests need not change their own environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    pub notify_socket: Option<OsString>,
    /// `$WATCHDOG_USEC`
    pub watchdog_usec: Option<String>,
    /// `$WATCHDOG_PID`
    pub watchdog_pid: Option<String>,
}

impl Environment {
    /// What this process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            notify_socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_usec: std::env::var("WATCHDOG_USEC").ok(),
            watchdog_pid: std::env::var("WATCHDOG_PID").ok(),
        }
    }

    /// How soon systemd ends the service when [`Notifier::alive`] is not called; `None`: it does not. Call it
    /// at a third of this.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        let for_us = match &self.watchdog_pid {
            Some(pid) => pid.parse() == Ok(std::process::id()),
            None => true,
        };
        let interval = self.watchdog_usec.as_ref()?.parse().ok().filter(|usec| *usec > 0)?;
        for_us.then(|| Duration::from_micros(interval))
    }
}

/// Tells systemd how the service is. Without a socket to tell it on, every call does nothing.
///
/// A message that cannot be sent is logged at debug level and otherwise ignored: the service is no worse
/// for it, and systemd's own timeouts say the rest.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET` where there is one.
    ///
    /// # Errors
    /// The variable names something that cannot be connected to.
    pub fn new(environment: &Environment) -> io::Result<Self> {
        let Some(name) = environment.notify_socket.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(Self { socket: None });
        };
        let socket = UnixDatagram::unbound()?;
        // systemd reads its socket whenever it runs; a full queue must not hold up the daemon.
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address(name)?)?;
        Ok(Self { socket: Some(socket) })
    }

    /// Start-up is finished, and so is a reload.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The line that `systemctl status` shows; cut at 512 bytes, control characters become spaces.
    pub fn status(&self, line: &str) {
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&[NotifyState::Status(super::telemetry::cut(&line, MAX_STATUS))]);
    }

    /// A stop has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// A reload has begun; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            // From systemd 253 on, `Type=notify-reload` needs the time in the same message.
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// Starting or stopping goes on: it may take this much longer, from now.
    pub fn extend(&self, by: Duration) {
        self.send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// The service still does its work.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: Vec<String> = states.iter().map(ToString::to_string).collect();
        if let Err(error) = socket.send(message.join("\n").as_bytes()) {
            tracing::debug!(%error, "systemd could not be notified");
        }
    }
}

/// `@name` is an abstract name, everything else a path.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(name),
    }
}

/// The API socket, when systemd hands one over: the one that is named `api` (`FileDescriptorName=` in
/// `casd.socket`), else the first Unix stream socket. It is non-blocking.
///
/// Call it once, before other threads are started: it takes `$LISTEN_FDS` out of the environment, so that no
/// child takes the socket for its own.
///
/// # Errors
/// A socket was handed over, but none is a Unix stream socket.
pub fn api_socket() -> io::Result<Option<UnixListener>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    if handed.len() == 0 {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..handed.len()).collect();
    if let Some(named) = names.split(':').position(|name| name == "api").filter(|at| *at < order.len()) {
        order.remove(named);
        order.insert(0, named);
    }
    for at in order {
        // Sockets of other kinds are left alone.
        if let Ok(Some(listener)) = handed.take_unix_listener(at) {
            listener.set_nonblocking(true)?;
            return Ok(Some(listener));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "systemd handed over sockets, but no Unix stream socket"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    fn notifier(name: impl Into<OsString>) -> Notifier {
        let environment = Environment { notify_socket: Some(name.into()), ..Environment::default() };
        Notifier::new(&environment).unwrap()
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_real_socket_hears_each_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&path);
        notifier.extend(Duration::from_secs(3));
        assert_eq!(heard(&systemd), "EXTEND_TIMEOUT_USEC=3000000");
        notifier.ready();
        assert_eq!(heard(&systemd), "READY=1");
        notifier.status("42 peers\nREADY=1");
        assert_eq!(heard(&systemd), "STATUS=42 peers READY=1", "one line, whatever it contains");
        notifier.status(&"ü".repeat(1000));
        assert_eq!(heard(&systemd).len(), "STATUS=".len() + MAX_STATUS);
        notifier.reloading();
        let reloading = heard(&systemd);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().is_ok_and(|usec| usec > 0));
        notifier.alive();
        assert_eq!(heard(&systemd), "WATCHDOG=1");
        notifier.stopping();
        assert_eq!(heard(&systemd), "STOPPING=1");
        drop(systemd);
        notifier.ready();
    }

    #[test]
    fn abstract_names_work_and_nothing_is_needed() {
        let name = format!("casd-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(format!("@{name}")).ready();
        assert_eq!(heard(&systemd), "READY=1");
        Notifier::new(&Environment::default()).unwrap().ready();
        let gone =
            Environment { notify_socket: Some("/nonexistent/notify".into()), ..Environment::default() };
        assert!(Notifier::new(&gone).is_err());
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let with = |usec: &str, pid: Option<u32>| Environment {
            watchdog_usec: Some(usec.to_owned()),
            watchdog_pid: pid.map(|pid| pid.to_string()),
            ..Environment::default()
        };
        let us = std::process::id();
        assert_eq!(with("60000000", Some(us)).watchdog(), Some(Duration::from_secs(60)));
        assert_eq!(with("60000000", None).watchdog(), Some(Duration::from_secs(60)));
        assert_eq!(with("60000000", Some(us + 1)).watchdog(), None);
        assert_eq!(with("0", None).watchdog(), None);
        assert_eq!(with("soon", None).watchdog(), None);
        assert_eq!(Environment::default().watchdog(), None);
    }

    const CHILD: &str = "CASD_TEST_LISTEN_CHILD";

    /// What the child does: it says which socket it took. Run by itself it does nothing.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let taken = match api_socket() {
            Ok(Some(listener)) => listener.local_addr().unwrap().as_pathname().unwrap().display().to_string(),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("took {taken}.");
        assert!(std::env::var_os("LISTEN_FDS").is_none());
    }

    /// Starts this test binary as systemd would, with `sockets` (three of them) as 3, 4 and 5.
    fn hand_over(sockets: [OwnedFd; 3], pid: &str, names: &str) -> String {
        let [a, b, c] = sockets;
        let script = format!(
            "exec 3<&0 4<&1 5<&2 0</dev/null 1>\"$1\" 2>&1; LISTEN_PID={pid} exec \"$0\" \
                              --exact support::systemd::tests::child --nocapture"
        );
        let output = tempfile::NamedTempFile::new().unwrap();
        let done = Command::new("/bin/sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .arg(output.path())
            .envs([(CHILD, "1"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", names)])
            .stdin(Stdio::from(a))
            .stdout(Stdio::from(b))
            .stderr(Stdio::from(c))
            .status()
            .unwrap();
        let output = std::fs::read_to_string(output.path()).unwrap();
        assert!(done.success(), "{output}");
        let (_, taken) = output.split_once("took ").unwrap();
        taken.split_once(".\n").unwrap().0.to_owned()
    }

    #[test]
    fn the_socket_named_api_is_taken_else_the_first_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let sockets = |round: &str| -> [OwnedFd; 3] {
            [
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
                UnixListener::bind(path(&format!("first{round}"))).unwrap().into(),
                UnixListener::bind(path(&format!("second{round}"))).unwrap().into(),
            ]
        };
        let shown = |name: &str| path(name).display().to_string();
        assert_eq!(hand_over(sockets("1"), "$$", "web:other:api"), shown("second1"));
        assert_eq!(hand_over(sockets("2"), "$$", "unknown:unknown:unknown"), shown("first2"));
        assert_eq!(hand_over(sockets("3"), "$$", ""), shown("first3"));
        assert_eq!(hand_over(sockets("4"), "1", "web:other:api"), "none", "they are for another process");
        let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        let refused = hand_over([tcp(), tcp(), tcp()], "$$", "api:b:c");
        assert_eq!(refused, "systemd handed over sockets, but no Unix stream socket");
    }
}
