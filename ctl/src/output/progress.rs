//! A progress bar, when a person is watching.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Output;
use super::text::count;

/// How far a transfer is. Does nothing unless standard error is a terminal; disappears when dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` bytes, or a counter where the total is unknown.
    pub(crate) fn new(output: Output, total: Option<u64>) -> Self {
        let watched = stderr().is_terminal() && !output.quiet && !output.json;
        let target =
            if watched { ProgressDrawTarget::stderr_with_hz(4) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => {
                "{bar:30} {binary_bytes:>10}/{binary_total_bytes} {binary_bytes_per_sec:>12} {eta:>4} {msg}"
            }
            None => "{spinner} {binary_bytes:>10} {binary_bytes_per_sec:>12} {msg}",
        };
        // A template that does not parse would only cost the style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// `bytes` more are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// `bytes` are done in all.
    pub(crate) fn reach(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// What [`Progress::add`] does, for a stream that outlives this borrow.
    pub(crate) fn adder(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let bar = self.0.clone();
        move |bytes| bar.inc(bytes)
    }

    /// As [`Progress::adder`], for a directory: bytes, and files, which are counted beside the bar.
    pub(crate) fn tree_adder(&self) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let bar = self.0.clone();
        let total = AtomicU64::new(0);
        move |bytes, files| {
            bar.inc(bytes);
            let before = total.fetch_add(files, Ordering::Relaxed);
            bar.set_message(count(before + files, "file"));
        }
    }

    /// Shows words beside the bar.
    pub(crate) fn say(&self, words: String) {
        self.0.set_message(words);
    }

    /// Takes the bar away while `print` writes to the terminal.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
