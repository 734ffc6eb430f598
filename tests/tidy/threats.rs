//! The table of the threat model's rows: it is whole, and names tests that exist.

use crate::{none, sources, top};

/// The rows that must be in it, besides others.
fn rows() -> Vec<String> {
    let all = [('B', 37), ('F', 13), ('P', 12), ('T', 8), ('U', 7)];
    all.into_iter().flat_map(|(kind, last)| (1..=last).map(move |row| format!("{kind}{row:02}"))).collect()
}

#[test]
fn every_row_of_the_threats_has_tests_that_exist() {
    let table = std::fs::read_to_string(top().join("tests/THREATS.md")).unwrap();
    let sources = sources("rs");
    let is_test = |name: &str| {
        let declared = format!("fn {name}(");
        sources.iter().any(|source| {
            let at = source.text.find(&declared);
            at.is_some_and(|at| {
                let before: Vec<&str> = source.text[..at].lines().rev().take(4).collect();
                before.iter().any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
            })
        })
    };
    let mut complaints = Vec::new();
    let mut seen = Vec::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, row, _, _, tests, _] = cells[..] else { continue };
        let numbered = row.strip_prefix(['B', 'F', 'P', 'T', 'U']);
        if !numbered.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit())) {
            continue;
        }
        seen.push(row.to_owned());
        // A test's name has several words; a target's has one, or is the corpus of a decoder.
        let names: Vec<&str> =
            tests.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
        if names.is_empty() {
            complaints.push(format!("{row}: no test"));
        }
        complaints.extend(
            names
                .iter()
                .filter(|name| !is_test(name))
                .map(|name| format!("{row}: there is no test `{name}`")),
        );
    }
    complaints.extend(rows().iter().filter(|row| !seen.contains(row)).map(|row| format!("{row} is missing")));
    none(&complaints);
}
