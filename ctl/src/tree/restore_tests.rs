//! Restoring whatever may be sent, beside the simplest reading of it.

use super::*;
use casd_proto::v1::tree_part::Part;
use casd_proto::v1::{TreeData, TreeEnd, TreeEnter, TreeFile, TreeLeave, TreeLink, TreeStart};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

/// Parts as a hostile daemon might send them, with names that often meet and sometimes break the rules.
fn part() -> impl Strategy<Value = Part> {
    let name = || {
        let name = prop_oneof![12 => "[abc]", 1 => Just("..".to_owned()), 1 => "[./\\\\a\u{1b}]{0,2}"];
        name.prop_map(String::from)
    };
    let bytes = || "[xy]{0,3}".prop_map(String::into_bytes);
    prop_oneof![
        3 => name().prop_map(|name| Part::Enter(TreeEnter { name })),
        3 => Just(Part::Leave(TreeLeave {})),
        4 => (name(), bytes(), any::<bool>()).prop_map(|(name, data, executable)| {
            Part::File(TreeFile { name, executable, data: data.into() })
        }),
        1 => (name(), prop::option::of(0u64..4)).prop_map(|(name, length)| {
            Part::Start(TreeStart { name, executable: false, length })
        }),
        1 => bytes().prop_map(|data| Part::Data(TreeData { data: data.into(), zeros: 0 })),
        1 => (0u64..3).prop_map(|length| Part::End(TreeEnd { length })),
        2 => (name(), "(\\.\\./)?[abc/.]{0,3}").prop_map(|(name, target)| Part::Link(TreeLink { name, target })),
    ]
}

/// What parts say, read in the simplest way; nothing when they break a rule.
fn meaning(parts: &[Part]) -> Option<BTreeMap<String, String>> {
    let (mut tree, mut open) = (BTreeMap::new(), Vec::new());
    let mut file: Option<(String, Option<u64>, String)> = None;
    for part in parts {
        let (name, node) = match (part, &mut file) {
            (Part::Data(data), Some((_, _, bytes))) if !data.data.is_empty() => {
                *bytes += str::from_utf8(&data.data).unwrap();
                continue;
            }
            (Part::End(end), Some((name, length, bytes))) => {
                let told = bytes.len() as u64;
                if end.length != told || length.is_some_and(|length| length != told) {
                    return None;
                }
                let ended = (name.clone(), format!("file {bytes}"));
                file = None;
                ended
            }
            (_, Some(_)) | (Part::Data(_) | Part::End(_), None) => return None,
            (Part::Leave(_), None) => {
                open.pop()?;
                continue;
            }
            (Part::Start(start), None) => {
                file = Some((start.name.clone(), start.length, String::new()));
                continue;
            }
            (Part::Enter(enter), None) => (enter.name.clone(), "directory".to_owned()),
            (Part::File(file), None) => {
                (file.name.clone(), format!("file {}", str::from_utf8(&file.data).unwrap()))
            }
            (Part::Link(link), None) if !link.target.is_empty() => {
                (link.name.clone(), format!("link {}", link.target))
            }
            _ => return None,
        };
        Name::new(name.clone()).ok()?;
        let path = open.iter().chain([&name]).cloned().collect::<Vec<_>>().join("/");
        if tree.insert(path, node.clone()).is_some() {
            return None;
        }
        if node == "directory" {
            open.push(name);
        }
    }
    (open.is_empty() && file.is_none()).then_some(tree)
}

/// What is on disk, in the same words.
fn found(folder: &Path, before: &str, tree: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{before}{}", entry.file_name().to_str().unwrap());
        let kind = entry.file_type().unwrap();
        let node = if kind.is_symlink() {
            format!("link {}", std::fs::read_link(entry.path()).unwrap().display())
        } else if kind.is_dir() {
            found(&entry.path(), &format!("{path}/"), tree);
            "directory".to_owned()
        } else {
            format!("file {}", std::fs::read_to_string(entry.path()).unwrap())
        };
        tree.insert(path, node);
    }
}

fn all_of(folder: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    found(folder, "", &mut tree);
    tree
}

proptest! {
    /// Whatever comes, what keeps the rules is restored as it was sent but for links that could lead out, and
    /// of anything else nothing is; and nothing around it changes.
    #[test]
    fn parts_are_restored_as_they_were_sent_or_not_at_all(parts in prop::collection::vec(part(), 0..12)) {
        let around = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(around.path().join(name), "kept").unwrap();
        }
        let before = all_of(around.path());
        let is_entry = |part: &&Part| !matches!(part, Part::Leave(_) | Part::Data(_) | Part::End(_));
        let entries = parts.iter().filter(is_entry).count() as u64;
        let bytes = parts.iter().map(|part| match part {
            Part::File(file) => file.data.len() as u64,
            Part::Data(data) => data.data.len() as u64,
            _ => 0,
        });
        let order = Order::directory(entries, bytes.sum());
        let (place, root) = Place::create(around.path(), OsStr::new("out"), 0, 0).unwrap();
        let path = around.path().join("out");
        let (send, work) = mpsc::channel(2);
        let sent = parts.iter().cloned().map(|part| TreePart { part: Some(part) }).collect();
        send.try_send(Work::Parts(sent)).unwrap_or_default();
        let finish = Finish { path: path.clone(), force: false, sync: false };
        send.try_send(Work::Finish(finish)).unwrap_or_default();
        let outcome = all(place, Restore::new(root, order, true), work, &AtomicBool::new(false));

        let expected = meaning(&parts);
        prop_assert_eq!(outcome.is_ok(), expected.is_some(), "{:?}", outcome);
        if let (Ok(restored), Some(mut expected)) = (outcome, expected) {
            let stays = |path: &String, node: &mut String| {
                let depth = path.matches('/').count();
                node.strip_prefix("link ").is_none_or(|target| {
                    Target::new(target.to_owned()).unwrap().stays_inside(depth)
                })
            };
            let sent = expected.len();
            expected.retain(stays);
            prop_assert_eq!(restored.left_out, (sent - expected.len()) as u64);
            prop_assert_eq!(all_of(&path), expected);
            std::fs::remove_dir_all(&path).unwrap();
        }
        prop_assert_eq!(all_of(around.path()), before);
    }
}
