//! Limits on files: length, width, what stands at their top, leftovers, and files that nothing includes.

use std::collections::HashSet;

use crate::{none, sources, top};

/// A longer file has more than one reason to change.
const MAX_LINES: usize = 450;

/// What fits beside another window. rustfmt keeps code to 110; comments and long literals need a little more.
const MAX_WIDTH: usize = 120;

/// Everything that may stand at the top of the repository, besides dotfiles.
const TOP: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "proto",
    "daemon",
    "ctl",
    "packaging",
    "systemd",
    "tests",
    "target",
];

#[test]
fn the_top_is_as_designed() {
    let complaints: Vec<_> = std::fs::read_dir(top())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str()))
        .map(|name| format!("{name}: move it into one of {}", TOP.join(", ")))
        .collect();
    none(&complaints);
}

#[test]
fn no_file_is_too_long_or_too_wide() {
    let mut complaints = Vec::new();
    for source in sources("rs").iter().chain(&sources("proto")) {
        let lines = source.text.lines().count();
        if lines > MAX_LINES && source.path.ends_with(".rs") {
            complaints.push(format!("{}: {lines} lines; split it, at most {MAX_LINES}", source.path));
        }
        for (at, line) in source.text.lines().enumerate() {
            // A long literal and a row of a table cannot be broken.
            let whole = line.contains('"') || line.trim_start().starts_with("//! |");
            if line.chars().count() > MAX_WIDTH && !whole {
                complaints.push(format!("{}:{}: wider than {MAX_WIDTH}", source.path, at + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_file_says_what_it_is_for() {
    let complaints: Vec<_> = sources("rs")
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}:1: begin with `//!`: what it owns, what it refuses", source.path))
        .collect();
    none(&complaints);
}

#[test]
fn nothing_is_left_over() {
    // Written so that this file does not find itself.
    let leftovers = [
        concat!("todo", "!("),
        concat!("dbg", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X:"),
        concat!("#[", "allow("),
        concat!("#[", "ignore"),
    ];
    let mut complaints = Vec::new();
    for source in sources("rs").iter().chain(&sources("proto")) {
        for (at, line) in source.text.lines().enumerate() {
            // What the generator writes cannot be held to our lints.
            let generated = source.path == "proto/src/lib.rs" && line.contains("allow(");
            for word in leftovers.iter().filter(|word| line.contains(**word) && !generated) {
                complaints.push(format!("{}:{}: `{word}` is left over", source.path, at + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_module_is_included() {
    let sources = sources("rs");
    let included: HashSet<String> = sources.iter().flat_map(modules).collect();
    // Entry points, which Cargo names.
    let roots = ["main", "lib", "build"];
    let complaints: Vec<_> = sources
        .iter()
        .filter(|source| {
            let stem = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
            let name = stem.rsplit('/').next().unwrap_or_default();
            !roots.contains(&name) && !included.contains(stem)
        })
        .map(|source| format!("{}: no `mod` includes it; delete it", source.path))
        .collect();
    none(&complaints);
}

/// The paths, without `.rs`, of the modules that a file declares.
fn modules(source: &crate::Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let base = if ["mod", "lib", "main"].contains(&name) { folder } else { stem };
    source
        .code()
        .filter_map(|(_, line)| {
            if let Some(named) = line.trim().strip_prefix("#[path = \"") {
                return Some(format!("{folder}/{}", named.split('.').next()?));
            }
            let declared = line.trim().strip_suffix(';')?;
            let name = declared.rsplit_once("mod ").map(|(_, name)| name)?;
            Some(format!("{base}/{name}"))
        })
        .collect()
}
