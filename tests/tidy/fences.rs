//! Which code may name which crate, and where waiting is forbidden.

use crate::{none, sources};

/// What may be named only in some places of `daemon/src`, and why.
const FENCES: &[(&str, &[&str], &str)] = &[
    (
        "sled",
        &["store/table/lasting.rs"],
        "the index is a cache that can be replaced; one file knows what it is made of",
    ),
    ("libp2p", &["dht/"], "identities and multiaddrs have their own crates; the swarm is dht's alone"),
    ("multistream_select", &["dht/"], "the swarm is dht's alone"),
    ("libp2p_tls", &["wire/"], "certificates are the transport's business"),
    ("rustls", &["wire/"], "certificates are the transport's business"),
    ("tokio_rustls", &["wire/"], "certificates are the transport's business"),
    ("tonic", &["api/"], "rooms speak in their own types; api converts"),
    ("casd_proto", &["api/"], "rooms speak in their own types; api converts"),
    ("toml", &["config/"], "rooms take options; config reads the file"),
    ("clap", &["args.rs"], "the command line is read in one place"),
    ("reed_solomon_erasure", &["erasure/"], "one room knows the codec"),
    ("sd_notify", &["support/systemd.rs"], "one file speaks to systemd"),
    ("listenfd", &["support/systemd.rs"], "one file speaks to systemd"),
];

/// Places that decide and compute: events or bytes in, actions or bytes out. No waiting, no runtime.
const PURE: &[&str] = &["content/", "content.rs", "erasure/", "erasure.rs", "fetch/planner"];

#[test]
fn crates_are_named_only_behind_their_fences() {
    let mut complaints = Vec::new();
    for source in &sources("rs") {
        let Some(path) = source.in_daemon() else { continue };
        for (name, places, why) in FENCES {
            if places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for (at, line) in source.code().filter(|(_, line)| names_crate(line, name)) {
                let line = line.trim();
                complaints.push(format!("{}:{at}: `{line}`: {name} only in {places:?}: {why}", source.path));
            }
        }
    }
    none(&complaints);
}

#[test]
fn what_is_pure_does_not_wait() {
    let mut complaints = Vec::new();
    for source in &sources("rs") {
        if !source.in_daemon().is_some_and(|path| PURE.iter().any(|place| path.starts_with(place))) {
            continue;
        }
        for (at, line) in source.code() {
            for word in [
                "async ",
                ".await;",
                ".await?",
                ".await.",
                "tokio::",
                "Instant::now",
                "SystemTime::now",
                "std::fs::",
                "std::net::Tcp",
            ] {
                if line.contains(word) {
                    complaints.push(format!("{}:{at}: `{word}` has no place in pure code", source.path));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn casctl_knows_the_daemon_only_by_its_api() {
    let manifest = std::fs::read_to_string(crate::top().join("ctl/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("casd.") || line.starts_with("casd ")));
}

#[test]
fn every_rpc_lists_its_errors() {
    let mut complaints = Vec::new();
    for source in &sources("proto") {
        let mut comment = String::new();
        for (at, line) in source.text.lines().enumerate() {
            let line = line.trim();
            if let Some(prose) = line.strip_prefix("//") {
                comment.push_str(prose);
            } else {
                if line.starts_with("rpc ") && !comment.contains("Errors:") {
                    complaints.push(format!(
                        "{}:{}: say which errors it has, after `Errors:`",
                        source.path,
                        at + 1
                    ));
                }
                comment.clear();
            }
        }
    }
    none(&complaints);
}

/// Whether a line of code names a crate: as a path's first part, or in a `use`.
fn names_crate(line: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        let begins = !before.ends_with(|c: char| word(c) || c == '"' || c == '`') && !before.ends_with("::");
        let path = after.starts_with("::") || (before.trim() == "use" && after.starts_with([';', ' ']));
        begins && path
    })
}

#[test]
fn a_crate_is_told_from_words_like_it() {
    assert!(names_crate("use sled::Db;", "sled"));
    assert!(names_crate("fn open() -> sled::Result<()> {", "sled"));
    assert!(names_crate("use libp2p as p2p;", "libp2p"));
    assert!(!names_crate("use libp2p_identity::PeerId;", "libp2p"));
    assert!(!names_crate("let x = bob_sled::new();", "sled"));
    assert!(!names_crate("let x = \"libp2p::swarm\";", "libp2p"));
    assert!(!names_crate("use crate::sled::X;", "sled"));
}
