//! Words and numbers for people. Whatever a peer or the daemon supplied is escaped before a terminal sees it.

use std::fmt::Write;

/// `text` with everything that could drive or deceive a terminal made visible: control characters, and those
/// that reorder or hide what stands beside them.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if deceives(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Whether a character is never to reach a terminal: controls (C0, DEL, C1), line and paragraph separators,
/// directional marks, embeddings, overrides and isolates, zero-width characters, the byte order mark.
pub(crate) fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes that may be no text, such as a file's name, as text that still tells them apart: `a\xffb`.
pub(crate) fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The most of a path that is shown, in characters: its beginning and its end.
const SHOWN: (usize, usize) = (80, 200);

/// A path cut in its middle to what a person reads.
pub(crate) fn shortened(path: &str) -> String {
    let total = path.chars().count();
    if total <= SHOWN.0 + SHOWN.1 + 1 {
        return path.to_owned();
    }
    let (begin, end) = (path.chars().take(SHOWN.0), path.chars().skip(total - SHOWN.1));
    begin.chain(['…']).chain(end).collect()
}

/// The most of a message that is shown: what is longer is no longer read by anyone.
const MAX_LINE: usize = 2000;

/// `text` cut to what a person reads.
pub(crate) fn one_line(text: &str) -> String {
    match text.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A number of bytes in the unit that fits, such as `12.3 MiB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `count` things, as `1 peer` or `2 peers`.
pub(crate) fn count(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A time span in its two largest units, such as `3 d 4 h` or `12 s`.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_from_names() {
        assert_eq!(escaped("plain näme 日本"), "plain näme 日本");
        assert_eq!(escaped("a\u{1b}]0;x\u{7}"), "a\\u{1b}]0;x\\u{7}");
        assert_eq!(escaped("x\u{9b}2J\u{202e}gpj\r\n"), "x\\u{9b}2J\\u{202e}gpj\\r\\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(lossless("näme\n".as_bytes()), "näme\n");
        assert_eq!(lossless(b"a\xff\xc3b\xe2\x82"), "a\\xff\\xc3b\\xe2\\x82");
    }

    #[test]
    fn long_paths_lose_their_middle() {
        let path = format!("top/{}end", "d\u{e9}/".repeat(300));
        let short = shortened(&path);
        assert!(short.starts_with("top/d\u{e9}/") && short.ends_with("/d\u{e9}/end"), "{short}");
        assert_eq!((short.chars().count(), short.matches('…').count()), (281, 1));
        assert_eq!(shortened("top/end"), "top/end");
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1_048_575), "1.0 MiB");
        assert_eq!(size(12_897_485), "12.3 MiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn spans_for_people() {
        assert_eq!(span(999), "0 s");
        assert_eq!(span(61_000), "1 min 1 s");
        assert_eq!(span(90_061_000), "1 d 1 h");
        assert_eq!(count(1, "peer") + &count(0, "peer"), "1 peer0 peers");
    }
}
