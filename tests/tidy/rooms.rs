//! Who may use whom inside the daemon: the table of ARCHITECTURE.md, checked.

use crate::{Source, none, sources};

/// Each room with the rooms that it may use, lowest first. `lib`, `main`, `app`, `args` and the fuzz targets stand
/// outside.
const ROOMS: &[(&str, &[&str])] = &[
    ("support", &[]),
    ("content", &[]),
    ("erasure", &["content"]),
    ("store", &["content", "support"]),
    ("peer", &["content", "support"]),
    ("session", &["content", "peer", "support"]),
    ("dht", &["content", "peer", "support"]),
    ("wire", &["peer", "support"]),
    ("ingest", &["content", "erasure", "store", "support"]),
    ("fetch", &["content", "erasure", "store", "peer", "session", "support"]),
    ("serve", &["content", "erasure", "store", "peer", "session", "support"]),
    ("upkeep", &["content", "erasure", "store", "peer", "session", "ingest", "fetch", "serve", "support"]),
    (
        "node",
        &["content", "erasure", "store", "peer", "session", "ingest", "fetch", "serve", "upkeep", "support"],
    ),
    ("api", &["node", "content", "support"]),
    (
        "config",
        &[
            "content", "erasure", "store", "peer", "session", "dht", "wire", "ingest", "fetch", "serve",
            "upkeep",
        ],
    ),
];

#[test]
fn rooms_use_only_rooms_below_them() {
    let mut complaints = Vec::new();
    // A room's tests may build the rooms around it: real parts instead of stand-ins.
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    for source in sources("rs").iter().filter(|source| !is_test(&source.path)) {
        let Some((room, uses)) = room_of(source) else { continue };
        for (at, line) in source.code() {
            for used in used_rooms(line).filter(|used| *used != room && !uses.contains(used)) {
                let may = if uses.is_empty() { "no other room".to_owned() } else { uses.join(", ") };
                complaints.push(format!("{}:{at}: {room} may not use {used}; it may use {may}", source.path));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_room_is_in_the_table() {
    let lib = sources("rs").into_iter().find(|source| source.path == "daemon/src/lib.rs").unwrap();
    let outside = ["app", "args", "fuzzing"];
    let complaints: Vec<_> = lib
        .code()
        .filter_map(|(at, line)| Some((at, line.strip_prefix("pub mod ")?.strip_suffix(';')?)))
        .filter(|(_, name)| !outside.contains(name) && !ROOMS.iter().any(|(room, _)| room == name))
        .map(|(at, name)| format!("daemon/src/lib.rs:{at}: {name} is no room; put it into one"))
        .collect();
    none(&complaints);
}

fn room_of(source: &Source) -> Option<(&'static str, &'static [&'static str])> {
    let first = source.in_daemon()?.split(['/', '.']).next()?;
    ROOMS.iter().find(|(room, _)| *room == first).copied()
}

/// The names directly below the crate that a line of code goes to. A list in braces must not span lines: with one
/// `use` a room, a line tells which room a file leans on.
fn used_rooms(line: &str) -> impl Iterator<Item = &str> {
    let after =
        |prefix: &'static str| line.match_indices(prefix).map(move |(at, _)| &line[at + prefix.len()..]);
    let names = |rest: &'_ str| -> usize {
        rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
    };
    let listed = after("crate::{").flat_map(|rest| rest.split('}').next().unwrap_or_default().split(','));
    let single = after("crate::").filter(|rest| !rest.starts_with('{'));
    let upwards = after("super::super::");
    single
        .chain(listed.map(str::trim_start))
        .chain(upwards)
        .map(move |rest| &rest[..names(rest)])
        .filter(|name| ROOMS.iter().any(|(room, _)| room == name) || *name == "app")
}

#[test]
fn every_way_of_naming_a_room_is_seen() {
    let used = |line: &'static str| used_rooms(line).collect::<Vec<_>>();
    assert_eq!(used("use crate::store::Store;"), ["store"]);
    assert_eq!(used("    let x = crate::dht::Dht::new(crate::peer::Key);"), ["dht", "peer"]);
    assert_eq!(used("use crate::{store::Store, app};"), ["store", "app"]);
    assert_eq!(used("use super::super::wire::Dial;"), ["wire"]);
    assert_eq!(used("use crate::storage;"), [""; 0]);
    assert_eq!(used("pub(crate) fn store() {}"), [""; 0]);
}
