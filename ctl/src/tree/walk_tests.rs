//! Walks of directories that nobody changes, and of ones that somebody does.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;

/// More than is read ahead.
const LONG: u64 = (READ_AHEAD as u64 + 4) << 20;

/// Begins a walk of a directory in which `a` is too long to be read ahead, lets `change` change something behind
/// it, and gives the names that were sent and how it ended.
async fn walk(change: impl FnOnce(&Path)) -> (Vec<String>, Result<(), Failure>) {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("y")).unwrap();
    fs::create_dir(folder.path().join("secret")).unwrap();
    fs::write(folder.path().join("secret/key"), "secret").unwrap();
    fs::File::create(tree.join("a")).unwrap().set_len(LONG).unwrap();
    fs::write(tree.join("y/b"), "b").unwrap();
    fs::write(tree.join("z"), "z").unwrap();
    let mut messages = Walk::open(&tree).unwrap().messages(false).unwrap();
    let mut sent = Vec::new();
    let mut message = messages.recv().await;
    change(&tree);
    while let Some(next) = message {
        match next {
            Ok(next) => sent.extend(next.parts.into_iter().filter_map(|part| match part.part? {
                Part::File(file) => Some(file.name),
                Part::Start(file) => Some(file.name),
                Part::Enter(directory) => Some(directory.name),
                Part::Link(link) => Some(link.name),
                Part::Finish(finish) => Some(format!("finish {}", finish.entries)),
                _ => None,
            })),
            Err(failure) => return (sent, Err(failure)),
        }
        message = messages.recv().await;
    }
    (sent, Ok(()))
}

#[tokio::test]
async fn what_nobody_changes_is_read_whole() {
    let (sent, outcome) = walk(|_| {}).await;
    assert_eq!(sent, ["a", "y", "b", "z", "finish 4"]);
    outcome.unwrap();
}

#[tokio::test]
async fn what_changes_while_it_is_read_is_refused() {
    let length = |length| {
        move |tree: &Path| {
            fs::OpenOptions::new().write(true).open(tree.join("a")).unwrap().set_len(length).unwrap();
        }
    };
    let gone = |tree: &Path| fs::remove_file(tree.join("z")).unwrap();
    let fifo = |tree: &Path| {
        fs::remove_file(tree.join("z")).unwrap();
        rustix::fs::mkfifoat(CWD, tree.join("z"), Mode::RUSR).unwrap();
    };
    let file_link = |tree: &Path| {
        fs::remove_file(tree.join("z")).unwrap();
        symlink("../secret/key", tree.join("z")).unwrap();
    };
    let directory_link = |tree: &Path| {
        fs::remove_dir_all(tree.join("y")).unwrap();
        symlink("../secret", tree.join("y")).unwrap();
    };
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(&str, Change<'_>); 6] = [
        ("tree/a", &length(LONG + 1)),
        ("tree/a", &length(LONG - (1 << 20))),
        ("tree/z", &gone),
        ("tree/z", &fifo),
        ("tree/z", &file_link),
        ("tree/y", &directory_link),
    ];
    for (path, change) in changes {
        let (sent, outcome) = walk(change).await;
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains(&format!("{path} changed while it was read")), "{failure}");
        assert!(!sent.iter().any(|name| name == "key" || name.starts_with("finish")), "{sent:?}");
    }
}

/// B36: a million entries and one more.
#[test]
fn a_list_ends_behind_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..9 {
        fs::write(folder.path().join(number.to_string()), "").unwrap();
    }
    let directory = fs::File::open(folder.path()).unwrap();
    assert_eq!(list::entries(&directory, 3).unwrap().len(), 4);
    let directory = fs::File::open(folder.path()).unwrap();
    assert_eq!(list::entries(&directory, 9).unwrap().len(), 9);
}
