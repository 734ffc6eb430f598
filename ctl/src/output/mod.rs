//! What casctl prints: results on standard output, words and progress on standard error.
//!
//! Each verb gives a result in three forms: for people, bare (`-q`) and as JSON (`--json`, one object a line,
//! whose keys are documented in README.md and only ever added to).

pub(crate) mod progress;
pub(crate) mod text;

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::error::{Exit, Failure};

/// How results are to be printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// One JSON object a line.
    pub(crate) json: bool,
    /// The bare result.
    pub(crate) quiet: bool,
}

/// One result in its three forms.
pub(crate) struct Line {
    /// For people.
    pub(crate) human: String,
    /// With `-q`; nothing is printed when empty.
    pub(crate) bare: String,
    /// With `--json`.
    pub(crate) json: Value,
}

impl Output {
    /// Prints one result on standard output.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that has gone away is not an error that is told: the
    /// failure ends casctl quietly.
    pub(crate) fn result(self, line: &Line) -> Result<(), Failure> {
        self.results(std::slice::from_ref(line))
    }

    /// Prints results on standard output.
    ///
    /// # Errors
    /// As [`Output::result`].
    pub(crate) fn results(self, lines: &[Line]) -> Result<(), Failure> {
        print(&self.text(lines))
    }

    /// Results as they are printed.
    pub(crate) fn text(self, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            match self {
                Self { json: true, .. } => text.push_str(&json_text(&line.json)),
                Self { quiet: true, .. } if line.bare.is_empty() => continue,
                Self { quiet: true, .. } => text.push_str(&line.bare),
                Self { .. } => text.push_str(&line.human),
            }
            text.push('\n');
        }
        text
    }

    /// Prints a result on standard error, because standard output carries the object's bytes.
    pub(crate) fn aside(self, line: &Line) {
        match self {
            Self { json: true, .. } => say(&json_text(&line.json)),
            Self { quiet: true, .. } => {}
            Self { .. } => say(&line.human),
        }
    }

    /// Says something beside the result, to people only.
    pub(crate) fn note(self, words: &str) {
        if !self.json && !self.quiet {
            say(&text::escaped(words));
        }
    }

    /// Tells a failure, unless it is the quiet one.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.exit == Exit::Done {
            return;
        }
        if self.json { say(&json_text(&failure.json())) } else { say(&failure.to_string()) }
    }
}

/// Prints results on standard output.
///
/// # Errors
/// As [`Output::result`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| stdout_failure(&error))
}

/// What a failing standard output means: nothing to tell when the reader has gone away, as `head` does.
pub(crate) fn stdout_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::local(Exit::Done, "BROKEN_PIPE", "the reader has gone away");
    }
    Failure::io("IO", "standard output", error)
}

/// Writes a line to standard error; when that is impossible there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// One line of JSON in which nothing can drive a terminal either.
fn json_text(value: &Value) -> String {
    let plain = value.to_string();
    let mut safe = String::with_capacity(plain.len());
    for c in plain.chars() {
        if text::deceives(c) {
            // Such characters stand only inside of strings, where \u escapes are allowed.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_safe_line_that_reads_back() {
        let value = serde_json::json!({ "name": "a\nb\u{9b}\u{202e}\u{e0041}\u{7f}é\"\\" });
        let text = json_text(&value);
        assert!(!text.chars().any(text::deceives), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
