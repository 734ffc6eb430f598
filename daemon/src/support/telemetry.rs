//! The log: where it goes, how much of it, and what a line looks like.
//!
//! Owns: the one subscriber of the process. Refuses: to let anything that a stranger sent break a line, colour a
//! terminal or fill the log: whoever logs such a text wraps it in [`untrusted`], and text output escapes control
//! characters of whole lines besides. Survives a crash: what the journal has taken.
//!
//! `journalctl` shows a record's message and keeps its fields aside (`-o verbose`), so a message names what it is
//! about by itself; fields are there to search by.

mod once;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use rustix::fs::fstat;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

use self::once::once;

/// What is logged when `CASD_LOG` says nothing: casd's own events, and what libraries warn of, but for those
/// that warn of strangers' everyday mistakes: streams beyond a limit, tokens of a clock that is off, connections that
/// end without a word. `libp2p-mdns` calls it an error that it multicasts on an interface before that has its address;
/// that nobody can be looked for on the local network casd says itself.
const FILTER: &str = "warn,libp2p_kad=error,libp2p_swarm=error,libp2p_mdns=off,libp2p_request_response=error,\
                      libp2p_identify=error,libp2p_relay=error,quinn_udp=error,quinn_proto=error,yamux=error,casd=info";

/// The longest line of text output in bytes; the rest is cut. No event of ours comes near it.
const MAX_LINE: usize = 4096;

/// The longest text of a stranger in the log, in bytes before escaping.
const MAX_UNTRUSTED: usize = 256;

/// What decides where the log goes. Passed in, so that tests need not change their own environment.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `$CASD_LOG`: a level (`debug`), or directives such as `info,casd::store=trace,libp2p_kad=debug`.
    pub filter: Option<String>,
    /// `$JOURNAL_STREAM`: device and inode of the stream to the journal, when systemd connected one.
    pub journal_stream: Option<String>,
    /// `$SYSTEMD_EXEC_PID`: the process that systemd started.
    pub exec_pid: Option<String>,
    /// `$NO_COLOR` is set.
    pub no_colour: bool,
}

impl Settings {
    /// What this process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            filter: std::env::var("CASD_LOG").ok(),
            journal_stream: std::env::var("JOURNAL_STREAM").ok(),
            exec_pid: std::env::var("SYSTEMD_EXEC_PID").ok(),
            no_colour: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }
}

/// Starts logging. Call it once, first of all.
///
/// # Errors
/// Logging has been started before.
pub fn start(settings: &Settings) -> Result<(), TryInitError> {
    let stderr = io::stderr();
    let stream = fstat(&stderr).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino)).unwrap_or_default();
    let (filter, complaint) = filter(settings.filter.as_deref());
    let registry = tracing_subscriber::registry();
    match Output::choose(settings, &stream, stderr.is_terminal(), std::process::id()) {
        Output::Journal => match tracing_journald::layer() {
            Ok(journal) => registry.with(to_journal(journal).with_filter(once(filter))).try_init()?,
            Err(_) => {
                registry.with(to_text(Line::Prefixed, io::stderr).with_filter(once(filter))).try_init()?;
            }
        },
        Output::Text(line) => {
            registry.with(to_text(line, io::stderr).with_filter(once(filter))).try_init()?;
        }
    }
    if let Some(complaint) = complaint {
        tracing::warn!("CASD_LOG is not understood and the default holds: {complaint}");
    }
    Ok(())
}

/// Shows a text that came from outside: in quotes, escaped, at most 256 bytes of it.
///
/// ```
/// # use casd::support::telemetry::untrusted;
/// assert_eq!(untrusted("a\n\u{1b}[31mb").to_string(), r#""a\n\u{1b}[31mb""#);
/// ```
#[must_use]
pub fn untrusted(text: &str) -> impl fmt::Display + fmt::Debug + '_ {
    Untrusted(text)
}

struct Untrusted<'t>(&'t str);

/// The longest beginning of `text` that has at most `bytes` bytes and ends between characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// The journal's own protocol.
    Journal,
    /// Lines on standard error.
    Text(Line),
}

/// What a line begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// The time and the level.
    Plain,
    /// The same with colours.
    Coloured,
    /// `<N>`, as `sd-daemon(3)` has it, for whatever systemd connected to standard error; it adds the time.
    Prefixed,
}

/// Collects an event's message and fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

// === impl Untrusted ===

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = cut(self.0, MAX_UNTRUSTED);
        let more = if shown.len() < self.0.len() { "…" } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_debug())
    }
}

impl fmt::Debug for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Output ===

impl Output {
    /// `stream` is what standard error is, as `DEVICE:INODE`.
    fn choose(settings: &Settings, stream: &str, terminal: bool, pid: u32) -> Self {
        // The variable is inherited by children whose standard error goes elsewhere: only equality counts.
        if settings.journal_stream.as_deref() == Some(stream) {
            return Self::Journal;
        }
        let of_systemd = settings.exec_pid.as_ref().is_some_and(|exec| exec.parse() == Ok(pid));
        Self::Text(match (terminal, of_systemd) {
            (true, _) if !settings.no_colour => Line::Coloured,
            (false, true) => Line::Prefixed,
            _ => Line::Plain,
        })
    }
}

/// The filter, and what was wrong with the directives when they were not understood.
fn filter(directives: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(FILTER);
    match directives {
        None | Some("") => (default(), None),
        // A bare level is about casd; for libraries, name them.
        Some(level) if level.parse::<LevelFilter>().is_ok() => {
            (EnvFilter::new(format!("{FILTER},casd={level}")), None)
        }
        Some(directives) => match EnvFilter::try_new(format!("{FILTER},{directives}")) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(error.to_string())),
        },
    }
}

fn to_journal<S>(journal: tracing_journald::Layer) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    journal
        .with_field_prefix(None)
        .with_syslog_identifier("casd".to_owned())
        // The crate's own mapping shows every info as a notice.
        .with_priority_mappings(PriorityMappings {
            error: Priority::Error,
            warn: Priority::Warning,
            info: Priority::Informational,
            debug: Priority::Debug,
            trace: Priority::Debug,
        })
}

fn to_text<S, W>(line: Line, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).event_format(line)
}

// === impl Line ===

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let (priority, colour) = match level {
            Level::ERROR => (3, "\u{1b}[31m"),
            Level::WARN => (4, "\u{1b}[33m"),
            Level::INFO => (6, "\u{1b}[32m"),
            _ => (7, "\u{1b}[2m"),
        };
        match self {
            Self::Prefixed => write!(writer, "<{priority}>")?,
            Self::Plain => {
                SystemTime.format_time(&mut writer)?;
                write!(writer, " {level:5} ")?;
            }
            Self::Coloured => {
                SystemTime.format_time(&mut writer)?;
                write!(writer, " {colour}{level:5}\u{1b}[0m ")?;
            }
        }
        let mut line = format!("{}: ", event.metadata().target());
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|f| !f.is_empty()) {
                write!(line, "{}{{{fields}}}: ", span.name())?;
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        line.push_str(&fields.message);
        line.push_str(&fields.others);
        write_escaped(&mut writer, cut(&line, MAX_LINE))?;
        writer.write_char('\n')
    }
}

/// Writes text without the characters that move a cursor, end a line or turn the direction of writing.
fn write_escaped(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => write!(writer, "{}", c.escape_unicode())?,
            c if c.is_control() => write!(writer, "{}", c.escape_default())?,
            c => writer.write_char(c)?,
        }
    }
    Ok(())
}

// === impl Fields ===

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // What the `log` bridge adds about a library's source.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(line: Line, directives: Option<&str>, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = to_text(line, move || writer.clone()).with_filter(once(filter(directives).0));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_journal_is_used_only_for_the_stream_that_it_was_meant_for() {
        let settings = Settings {
            journal_stream: Some("8:1234".into()),
            exec_pid: Some("77".into()),
            ..Settings::default()
        };
        assert_eq!(Output::choose(&settings, "8:1234", false, 77), Output::Journal);
        assert_eq!(Output::choose(&settings, "8:99", false, 77), Output::Text(Line::Prefixed));
        assert_eq!(Output::choose(&settings, "8:99", false, 78), Output::Text(Line::Plain), "a child of it");
        assert_eq!(Output::choose(&settings, "8:99", true, 77), Output::Text(Line::Coloured));
        let plain = Settings { no_colour: true, ..Settings::default() };
        assert_eq!(Output::choose(&plain, "8:99", true, 1), Output::Text(Line::Plain));
        assert_eq!(Output::choose(&Settings::default(), "", false, 1), Output::Text(Line::Plain));
    }

    #[test]
    fn under_systemd_each_line_has_its_priority_and_no_time() {
        let lines = logged(Line::Prefixed, Some("trace"), || {
            tracing::error!(target: "casd", "e");
            tracing::warn!(target: "casd", "w");
            tracing::info!(target: "casd", "i");
            tracing::debug!(target: "casd", "d");
            tracing::trace!(target: "casd", "t");
        });
        assert_eq!(lines, "<3>casd: e\n<4>casd: w\n<6>casd: i\n<7>casd: d\n<7>casd: t\n");
    }

    #[test]
    fn plain_lines_have_time_level_spans_and_fields_and_no_colour() {
        let lines = logged(Line::Plain, None, || {
            let _span = tracing::info_span!("fetch", job = 7).entered();
            tracing::info!(peer = "p1", bytes = 3, "done");
        });
        let (time, rest) = lines.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(rest, "INFO  casd::support::telemetry::tests: fetch{job=7}: done peer=\"p1\" bytes=3\n");
    }

    #[test]
    fn what_strangers_send_stays_on_its_line() {
        let evil = "a\n<3>casd: forged \u{1b}[2J\u{202e}\r\0";
        let lines = logged(Line::Prefixed, None, || {
            tracing::info!(target: "casd", name = %evil, "name {evil}");
            tracing::info!(target: "casd", "name {}", untrusted(evil));
            let _span = tracing::info_span!(target: "casd", "s", name = %evil).entered();
            tracing::info!(target: "casd", "x");
        });
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(lines.lines().all(|line| line.starts_with("<6>casd: ")), "{lines}");
        assert!(!lines.contains(['\u{1b}', '\u{202e}', '\r', '\0']), "{lines}");
        let long = untrusted(&"ü".repeat(1000)).to_string();
        assert_eq!(long.len(), 256 + 2 + "…".len());
        let line = logged(Line::Prefixed, None, || tracing::info!(target: "casd", "{}", "x".repeat(99_999)));
        assert_eq!(line.len(), "<6>".len() + MAX_LINE + 1);
    }

    #[test]
    fn what_a_library_repeats_is_logged_once() {
        let events = || {
            for address in 0..3 {
                tracing::error!(target: "libp2p_mdns::iface", address, "no network");
                tracing::info!(target: "libp2p_mdns::iface", "found");
                tracing::error!(target: "casd", "ours");
            }
            tracing::error!(target: "libp2p_mdns::iface", "another trouble");
        };
        // Nobody is told unless he names it.
        for (directives, times) in [(None, 0), (Some("libp2p_mdns=error"), 1)] {
            let lines = logged(Line::Prefixed, directives, events);
            let said = |words| lines.matches(words).count();
            assert_eq!(
                (said("no network"), said("another"), said("found"), said("ours")),
                (times, times, 0, 3),
                "{lines}"
            );
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let events = || {
            tracing::debug!(target: "casd::store", "ours");
            tracing::info!(target: "h2::codec", "theirs");
            tracing::debug!(target: "libp2p_kad::query", "kad");
        };
        let heard = |directives| {
            let lines = logged(Line::Prefixed, directives, events);
            lines.lines().filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(heard(None).is_empty());
        let everyday = || {
            tracing::warn!(target: "libp2p_request_response::handler", "capacity");
            tracing::warn!(target: "quinn_proto::bloom_token_log", "token");
            tracing::warn!(target: "yamux::connection", "closing");
            tracing::warn!(target: "h2::codec", "theirs");
        };
        let lines = logged(Line::Prefixed, None, everyday);
        assert!(lines.lines().count() == 1 && lines.contains("theirs"), "{lines}");
        assert_eq!(heard(Some("debug")), ["ours"]);
        assert_eq!(heard(Some("libp2p_kad=debug,casd::store=trace")), ["ours", "kad"]);
        assert_eq!(heard(Some("info")), [""; 0]);
        assert_eq!(
            heard(Some("debug,libp2p_kad=off,h2=info")),
            ["theirs"],
            "bare levels in a list are for all"
        );
        assert!(filter(Some("casd=loud")).1.is_some());
    }
}
