//! Directories over the API: what becomes one, what is refused, and looking into them.

mod fetching;

use casd_proto::v1::tree_part::Part as Piece;

use super::*;
use crate::content::{Entry, MAX_TREE_DEPTH, Node as Is, Tree, TreeBuilder};

fn enter(name: &str) -> Piece {
    Piece::Enter(v1::TreeEnter { name: name.to_owned() })
}

fn leave() -> Piece {
    Piece::Leave(v1::TreeLeave {})
}

fn file(name: &str, data: impl Into<Bytes>) -> Piece {
    Piece::File(v1::TreeFile { name: name.to_owned(), executable: name.ends_with(".sh"), data: data.into() })
}

fn link(name: &str, target: &str) -> Piece {
    Piece::Link(v1::TreeLink { name: name.to_owned(), target: target.to_owned() })
}

fn start(name: &str, length: Option<u64>) -> Piece {
    Piece::Start(v1::TreeStart { name: name.to_owned(), executable: false, length })
}

fn data(data: impl Into<Bytes>) -> Piece {
    Piece::Data(v1::TreeData { data: data.into(), zeros: 0 })
}

fn end(length: u64) -> Piece {
    Piece::End(v1::TreeEnd { length })
}

fn finish(entries: u64) -> Piece {
    Piece::Finish(v1::TreeFinish { entries })
}

fn message(start: Option<v1::AddTreeStart>, parts: Vec<Piece>) -> v1::AddTreeRequest {
    v1::AddTreeRequest {
        start,
        parts: parts.into_iter().map(|part| v1::TreePart { part: Some(part) }).collect(),
    }
}

fn named(name: &str) -> v1::AddTreeStart {
    v1::AddTreeStart { name: name.to_owned(), each: true, ..v1::AddTreeStart::default() }
}

impl Daemon {
    async fn add_tree(&self, messages: Vec<v1::AddTreeRequest>) -> Result<Vec<v1::AddTreeResponse>, Status> {
        let answers = client::trees(self.channel.clone()).add(stream::iter(messages)).await?;
        all(answers.into_inner()).await
    }

    async fn entries(&self, object: &str) -> Result<Vec<v1::ListedEntry>, Status> {
        let request = v1::ListTreeRequest { object: object.to_owned() };
        let pages = all(client::trees(self.channel.clone()).list(request).await?.into_inner()).await?;
        Ok(pages.into_iter().flat_map(|page| page.entries).collect())
    }

    async fn remove(&self, object: &str) -> v1::RemoveResponse {
        let request = v1::RemoveRequest { object: object.to_owned(), force: false };
        self.objects().remove(request).await.unwrap().into_inner()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_one_object_with_everything_in_it() {
    bounded(async {
        let daemon = Daemon::start().await;
        let large = sample(1, 2 * CHUNK + 5);
        let mut parts =
            vec![file("b.sh", "echo"), enter("sub"), file("x", sample(2, 3000)), file("none", "")];
        parts.extend([link("l", "../b.sh"), leave(), start("a.bin", Some(large.len() as u64))]);
        let chunks = in_chunks(&large);
        let messages = vec![
            message(Some(named("tree")), parts),
            message(None, vec![data(chunks[0].clone())]),
            message(None, vec![data(chunks[1].clone())]),
            message(
                None,
                vec![data(chunks[2].clone()), end(large.len() as u64), enter("empty"), leave(), finish(7)],
            ),
        ];
        let answers = daemon.add_tree(messages.clone()).await.unwrap();
        let files: Vec<_> =
            answers.iter().flat_map(|answer| &answer.files).map(|file| file.id.clone()).collect();
        assert_eq!(files, [id_of(b"echo"), id_of(&sample(2, 3000)), id_of(b""), id_of(&large)]);
        let tree = answers.last().unwrap().tree.clone().unwrap();
        assert_eq!((tree.files, tree.directories, tree.links, tree.created), (4, 2, 1, true));
        assert_eq!(tree.size, 4 + 3000 + large.len() as u64);

        // The order of the walk is of no account.
        let again = daemon.add_tree(messages).await.unwrap().pop().unwrap().tree.unwrap();
        assert_eq!((&again.id, again.created), (&tree.id, false));

        let listed = daemon.list("").await.unwrap();
        assert_eq!(listed.len(), 1, "what is in it is not listed by itself");
        assert_eq!((listed[0].kind(), listed[0].name.as_str()), (v1::ObjectKind::Directory, "tree"));
        let request = v1::ListRequest { object: String::new(), parts: true };
        let parts = all(daemon.objects().list(request).await.unwrap().into_inner()).await.unwrap();
        assert_eq!(parts.iter().map(|page| page.objects.len()).sum::<usize>(), 6);

        let entries = daemon.entries(&format!("dir:{}", tree.id)).await.unwrap();
        let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind())).collect();
        use v1::EntryKind::{Directory, Executable, File, Link};
        assert_eq!(names, [("a.bin", File), ("b.sh", Executable), ("empty", Directory), ("sub", Directory)]);
        let inner = daemon.entries(&format!("{}/sub", tree.id)).await.unwrap();
        let inner: Vec<_> =
            inner.iter().map(|entry| (entry.name.as_str(), entry.kind(), entry.size)).collect();
        assert_eq!(inner, [("l", Link, 0), ("none", File, 0), ("x", File, 3000)]);
        assert_eq!(daemon.entries("tree").await.unwrap(), entries);

        let path = |rest: &str| format!("dir:{}/{rest}", tree.id);
        assert_eq!(daemon.cat(&path("sub/x"), 0, None).await.unwrap(), sample(2, 3000));
        assert_eq!(daemon.cat(&path("a.bin"), CHUNK as u64, Some(9)).await.unwrap(), large[CHUNK..CHUNK + 9]);
        assert_eq!(daemon.cat(&path("sub/none"), 0, None).await.unwrap(), b"");
        for (expected, object) in [
            ("NO_SUCH_PATH", path("nope")),
            ("NO_SUCH_PATH", path("sub/x/y")),
            ("NO_SUCH_PATH", path("sub/l")),
            ("NO_SUCH_PATH", path("../etc/passwd")),
            ("IS_DIRECTORY", path("sub")),
            ("IS_DIRECTORY", tree.id.clone()),
            ("IS_DIRECTORY", format!("dir:{}", id_of(b"?"))),
            ("NOT_FOUND", format!("{}/x", &id_of(b"?")[..9])),
            ("NOT_FOUND", "nobody/sub/x".to_owned()),
        ] {
            assert_eq!(reason(daemon.cat(&object, 0, None).await), expected, "{object}");
        }
        assert_eq!(reason(daemon.entries(&path("sub/x")).await), "NOT_DIRECTORY");

        // Its bytes are what the format says.
        let list = list_of(&daemon, &tree.id).await;
        assert_eq!(list.len(), 4);

        let kept = daemon.remove(&id_of(b"echo")).await;
        assert!(!kept.removed && kept.in_directory);
        let gone = daemon.remove("tree").await;
        assert!(gone.removed && gone.freed_bytes > 2 * CHUNK as u64);
        let request = v1::ListRequest { object: String::new(), parts: true };
        assert!(all(daemon.objects().list(request).await.unwrap().into_inner()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_directory_is_named_from_its_id_a_prefix_or_a_name() {
    bounded(async {
        let daemon = Daemon::start().await;
        let parts =
            vec![enter("sub"), file("x", "bytes"), file("none", ""), link("l", "x"), leave(), finish(4)];
        let added = daemon.add_tree(vec![message(Some(named("tree")), parts)]).await.unwrap();
        let id = added.last().unwrap().tree.clone().unwrap().id;
        let path = |rest: &str| format!("dir:{id}/{rest}");
        for root in [&id, "tree", "dir:tree", &id[..8], &format!("dir:{}", &id[..63])] {
            assert_eq!(daemon.cat(&format!("{root}/sub//x"), 0, None).await.unwrap(), b"bytes"[..], "{root}");
            assert_eq!(daemon.entries(&format!("{root}/")).await.unwrap()[0].name, "sub", "{root}");
        }
        for (word, object) in [
            ("there is no \"nope\"", path("nope")),
            ("\"l\" is a symbolic link", path("sub/l")),
            ("\"l\" is a symbolic link", "tree/sub/l/x".to_owned()),
            ("\"x\" is a file, not a directory", path("sub/x/y")),
            ("\"none\" is a file, not a directory", path("sub/none/y")),
            ("is a directory", path("sub")),
            ("there is no object \"tre\"", "tre/sub".to_owned()),
        ] {
            let status = daemon.cat(&object, 0, None).await.unwrap_err();
            assert!(status.message().contains(word), "{object}: {}", status.message());
        }

        let kept = daemon.remove("tree/sub/x").await;
        assert!(kept.in_directory && !kept.unpinned && kept.kind() == v1::ObjectKind::File);
        let pinned = v1::PinRequest { object: path("sub") };
        let pinned = daemon.objects().pin(pinned).await.unwrap().into_inner();
        assert_eq!((pinned.changed, pinned.kind()), (true, v1::ObjectKind::Directory));
        let kept = daemon.remove("tree/sub").await;
        assert!(kept.in_directory && kept.unpinned && kept.kind() == v1::ObjectKind::Directory);
    })
    .await;
}

/// The directory's list, put together from what is told of it: the one of its id.
async fn list_of(daemon: &Daemon, id: &str) -> Tree {
    let mut tree = TreeBuilder::default();
    for entry in daemon.entries(&format!("dir:{id}")).await.unwrap() {
        let node = match entry.kind() {
            v1::EntryKind::Link => Is::Link { target: &entry.target },
            v1::EntryKind::Directory => Is::Directory { id: entry.id.parse().unwrap(), length: entry.size },
            kind => Is::File {
                id: entry.id.parse().unwrap(),
                length: entry.size,
                executable: kind == v1::EntryKind::Executable,
            },
        };
        tree.push(Entry { name: &entry.name, node }).unwrap();
    }
    let tree = tree.finish().unwrap();
    assert_eq!(id_of(tree.bytes()), id);
    tree
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_out_of_order_or_with_names_that_lead_out_become_nothing() {
    let deep = |depth: usize| {
        let mut parts: Vec<Piece> = (0..depth).map(|_| enter("d")).collect();
        parts.extend((0..depth).map(|_| leave()));
        parts.push(finish(depth as u64));
        parts
    };
    bounded(async {
        let daemon = Daemon::start().await;
        let mut cases = vec![
            ("NO_FINISH", vec![file("a", "1")]),
            ("INVALID_STREAM", vec![leave(), finish(0)]),
            ("INVALID_STREAM", vec![enter("a"), finish(1)]),
            ("INVALID_STREAM", vec![data("x"), finish(0)]),
            ("INVALID_STREAM", vec![end(0), finish(0)]),
            ("INVALID_STREAM", vec![start("a", None), file("b", ""), end(0), finish(2)]),
            ("INVALID_STREAM", vec![start("a", None), finish(1)]),
            ("INVALID_STREAM", vec![finish(0), file("a", "1")]),
            ("INVALID_STREAM", vec![finish(0), finish(0)]),
            ("INVALID_STREAM", vec![start("a", None), data(""), end(0), finish(1)]),
            ("LENGTH_MISMATCH", vec![file("a", "1"), finish(2)]),
            ("LENGTH_MISMATCH", vec![start("a", None), data("abc"), end(2), finish(1)]),
            ("LENGTH_MISMATCH", vec![start("a", Some(2)), data("abc"), end(3), finish(1)]),
            ("INVALID_NAME", vec![file("a", "1"), file("a", "2"), finish(2)]),
            ("INVALID_NAME", vec![file("a", "1"), enter("a"), leave(), finish(2)]),
            ("INVALID_NAME", vec![link("a", ""), finish(1)]),
            ("INVALID_NAME", vec![link("a", &"x".repeat(4096)), finish(1)]),
            ("INVALID_NAME", vec![link("a", "b\0c"), finish(1)]),
            ("TOO_LARGE", deep(MAX_TREE_DEPTH)),
            ("TOO_LARGE", vec![start("a", Some(u64::MAX))]),
        ];
        // B33, of every kind of entry.
        for name in ["", ".", "..", "a/b", "/abs", "C:\\x", "a\0b", "a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            cases.push(("INVALID_NAME", vec![file(name, "1"), finish(1)]));
            cases.push(("INVALID_NAME", vec![enter(name), leave(), finish(1)]));
            cases.push(("INVALID_NAME", vec![link(name, "x"), finish(1)]));
            cases.push(("INVALID_NAME", vec![start(name, None), end(0), finish(1)]));
        }
        for (expected, parts) in cases {
            let result = daemon.add_tree(vec![message(Some(named("t")), parts.clone())]).await;
            assert_eq!(reason(result), expected, "{parts:?}");
        }
        let twins = vec![message(
            Some(v1::AddTreeStart { portable: true, ..named("t") }),
            vec![file("A", "1"), file("a", "2"), finish(2)],
        )];
        assert_eq!(reason(daemon.add_tree(twins).await), "INVALID_NAME");
        let device = vec![message(
            Some(v1::AddTreeStart { portable: true, ..named("t") }),
            vec![enter("a"), enter("b"), file("CON", "1"), leave(), leave(), finish(3)],
        )];
        let status = daemon.add_tree(device).await.unwrap_err();
        assert!(status.message().starts_with("in a/b, the name \"CON\""), "{}", status.message());
        for messages in [
            vec![],
            vec![message(None, vec![finish(0)])],
            vec![message(Some(named("t")), vec![]), message(Some(named("t")), vec![finish(0)])],
            vec![message(Some(named("t")), vec![finish(0)]), message(None, vec![])],
            vec![message(Some(named("t")), vec![file("a", vec![1; CHUNK]), file("b", "x"), finish(2)])],
            vec![message(Some(named("t")), (0..1025).map(|n| file(&n.to_string(), "")).collect())],
        ] {
            let result = reason(daemon.add_tree(messages.clone()).await);
            assert!(
                matches!(result.as_str(), "INVALID_STREAM" | "NO_FINISH"),
                "{result}: {}",
                messages.len()
            );
        }
        assert_eq!(
            reason(daemon.add_tree(vec![message(Some(named("a/b")), vec![finish(0)])]).await),
            "INVALID_NAME"
        );
        assert_eq!(daemon.list("").await.unwrap(), []);
        // As deep as can be, and empty, are both fine.
        let deepest =
            daemon.add_tree(vec![message(Some(named("d")), deep(MAX_TREE_DEPTH - 1))]).await.unwrap();
        assert_eq!(deepest.last().unwrap().tree.as_ref().unwrap().directories, 63);
        let empty = daemon.add_tree(vec![message(Some(named("")), vec![finish(0)])]).await.unwrap();
        assert_eq!(empty[0].tree.as_ref().unwrap().id, id_of(b"casdtree\x01\0\0\0\0"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_more_than_a_chunk_is_an_object_like_any_other() {
    bounded(async {
        let daemon = Daemon::start().await;
        let name = |n: usize| format!("{n:06}{}", "n".repeat(200));
        let mut messages = vec![message(Some(named("wide")), Vec::new())];
        for page in (0..6000).collect::<Vec<usize>>().chunks(1000) {
            messages.push(message(None, page.iter().map(|n| file(&name(*n), "same")).collect()));
        }
        messages.push(message(None, vec![finish(6000)]));
        let added = daemon.add_tree(messages).await.unwrap().pop().unwrap().tree.unwrap();
        let entries = daemon.entries("wide").await.unwrap();
        assert_eq!(entries.len(), 6000);
        assert!(entries.iter().all(|entry| entry.id == id_of(b"same")));
        let stat = v1::StatRequest { object: format!("dir:{}", added.id) };
        let stat = daemon.objects().stat(stat).await.unwrap().into_inner();
        assert_eq!((stat.kind(), stat.chunks), (v1::ObjectKind::Directory, 2));
        assert_eq!(list_of(&daemon, &added.id).await.len(), 6000);
        assert!(daemon.remove("wide").await.removed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_long_links_is_listed_page_by_page() {
    bounded(async {
        let daemon = Daemon::start().await;
        let target = "x".repeat(4095);
        let names: Vec<String> = (0..1000).map(|number| format!("l{number:04}")).collect();
        let mut messages = vec![message(Some(named("links")), Vec::new())];
        for names in names.chunks(200) {
            messages.push(message(None, names.iter().map(|name| link(name, &target)).collect()));
        }
        messages.push(message(None, vec![finish(1000)]));
        let tree = daemon.add_tree(messages).await.unwrap().pop().unwrap().tree.unwrap();
        let request = v1::ListTreeRequest { object: tree.id };
        let pages = client::trees(daemon.channel.clone()).list(request).await.unwrap().into_inner();
        let pages = all(pages).await.unwrap();
        let bytes = |page: &v1::ListTreeResponse| {
            page.entries.iter().map(|entry| entry.name.len() + entry.target.len()).sum::<usize>()
        };
        assert!(pages.iter().all(|page| bytes(page) <= 256 << 10), "{:?}", pages.iter().map(bytes).max());
        let entries: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
        assert!(entries.iter().all(|entry| entry.target == target));
        assert_eq!(entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), names);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_are_open_at_once_have_a_limit_in_all() {
    bounded(async {
        let daemon = Daemon::start().await;
        let target = "x".repeat(4095);
        let fill = |level: usize| {
            let name = move |number: usize| format!("{level}-{number:04}");
            let links = move |from: usize| (from..from + 200).map(name).collect::<Vec<_>>();
            let target = &target;
            (0..25).map(move |from| {
                message(None, links(from * 200).iter().map(|name| link(name, target)).collect())
            })
        };
        // 20 MiB a level: six are fewer than 128 MiB, seven are not.
        let walk = |levels: usize| {
            let mut messages = vec![message(Some(named("deep")), Vec::new())];
            for level in 0..levels {
                messages.push(message(None, vec![enter("in")]));
                messages.extend(fill(level));
            }
            messages
        };
        let error = daemon.add_tree(walk(7)).await.unwrap_err();
        let failure = Failure::from(&error);
        assert_eq!((failure.reason.as_str(), failure.message.contains("128 MiB")), ("TOO_LARGE", true));
        // With less it is the finish that is missed.
        assert_eq!(reason(daemon.add_tree(walk(6)).await), "NO_FINISH");
    })
    .await;
}
