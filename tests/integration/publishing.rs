//! Names that leave a node, and those that do not: real daemons, asked through casctl.

use std::path::PathBuf;
use std::time::Duration;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::programs;
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Home, Node, nodes, skip};
use serde_json::Value;

/// A file of that many MiB in a node's folder, and its id.
fn file(node: &Node, name: &str, seed: u64, mib: u64) -> (PathBuf, String) {
    let path = node.home.path(name);
    let id = corpus::file(&path, seed, mib * MIB + 17);
    (path, id)
}

/// Adds it; gives back when the network has been told.
fn add(node: &Node, path: &PathBuf, how: &[&str]) {
    node.ctl().run(&["-q", "add", "--wait-announced"]).args(how).arg(path).done().ok();
}

/// Adds arguments to a run.
trait Args {
    fn args(self, args: &[&str]) -> Self;
}

impl Args for Run {
    fn args(self, args: &[&str]) -> Self {
        args.iter().fold(self, Run::arg)
    }
}

/// What others say of an object, as a node that has nothing of it tells; nothing when it knows of none.
fn claims(ctl: &Ctl, id: &str) -> Option<Value> {
    let done = ctl.run(&["--json", "stat", id]).done();
    if done.status.code() == Some(4) {
        return None;
    }
    let stat = done.ok().json().pop().unwrap();
    assert_eq!((&stat["claimed"], &stat["local_chunks"]), (&true.into(), &0.into()), "{stat}");
    Some(stat)
}

/// (publisher, name) of what others say.
fn names(ctl: &Ctl, id: &str) -> Vec<(String, String)> {
    let said =
        claims(ctl, id).map(|stat| stat["descriptions"].as_array().unwrap().clone()).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut names: Vec<_> = said.iter().map(|said| (text(&said["publisher"]), text(&said["name"]))).collect();
    names.sort();
    names
}

fn until_named(ctl: &Ctl, id: &str, expected: &[(String, String)]) {
    wait::until(format!("{id} to be called {expected:?}"), LONG, || {
        (names(ctl, id) == expected).then_some(())
    });
}

/// Names that a search finds, by source; none where nobody answered.
fn found(ctl: &Ctl, args: &[&str]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let done = ctl.run(args).arg("--json").done();
    let lines = if done.status.code() == Some(4) { Vec::new() } else { done.ok().json() };
    let mut found: Vec<_> = lines.iter().map(|line| (text(&line["source"]), text(&line["name"]))).collect();
    found.sort();
    found
}

#[test]
fn a_name_is_seen_where_nothing_of_it_is_before_anything_is_fetched() {
    let nodes = nodes::network(3, |_, settings| settings);
    let (publisher, other) = (&nodes[1], &nodes[2]);
    let (path, id) = file(publisher, "holiday \u{fc} 2026.bin", 1, 3);
    add(publisher, &path, &["--publish"]);
    let stat = wait::until("it to be described", LONG, || claims(other.ctl(), &id));
    let expected = [
        ("id", Value::from(id.as_str())),
        ("name", "holiday \u{fc} 2026.bin".into()),
        ("kind", "file".into()),
        ("size", (3 * MIB + 17).into()),
        ("chunks", 4.into()),
        ("parity", "16+4".into()),
        ("publisher", publisher.id().into()),
    ];
    for (key, value) in expected {
        assert_eq!(stat[key], value, "{key}: {stat}");
    }
    let shown = other.ctl().run(&["stat", &id]).done().ok();
    assert!(shown.text().contains(&format!("said by   {}, as ", publisher.id())), "{}", shown.text());
    assert!(shown.stderr.contains("nothing of it is proved"), "{}", shown.stderr);
    assert_eq!(other.ctl().status()["objects"], 0, "nothing was fetched");
    assert_eq!(publisher.ctl().json(&["stat", &id])[0]["published"], true);

    // Once it is here, what is here is told, and not another's word; the fetcher publishes nothing.
    other.ctl().run(&["-q", "fetch", &id, "-o"]).arg(other.home.path("out")).done().ok();
    let stat = other.ctl().json(&["stat", &id]).pop().unwrap();
    assert_eq!((&stat["claimed"], &stat["published"]), (&false.into(), &false.into()));
    assert_eq!(found(nodes[0].ctl(), &["ls", "--network", "--peer", &other.id()]), []);

    // A directory is described as one.
    let folder = publisher.home.path("album");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), b"a").unwrap();
    add(publisher, &folder, &["-r", "--publish"]);
    let id = publisher.ctl().json(&["stat", "album"])[0]["id"].as_str().unwrap().to_owned();
    let stat = wait::until("it to be described", LONG, || claims(nodes[0].ctl(), &id));
    assert_eq!(
        (&stat["kind"], &stat["name"], &stat["id"]),
        (&"directory".into(), &"album".into(), &id.into())
    );
}

#[test]
fn no_name_leaves_a_node_unless_it_is_published_and_nothing_that_is_private() {
    let nodes = nodes::network(3, |_, settings| settings);
    let (owner, other) = (&nodes[1], &nodes[2]);
    let (plain, plain_id) = file(owner, "secret-plain", 1, 1);
    let (private, private_id) = file(owner, "secret-private", 2, 1);
    add(owner, &plain, &[]);
    owner.ctl().run(&["-q", "add", "--private"]).arg(&private).done().ok();
    let (public, public_id) = file(owner, "public", 3, 1);
    add(owner, &public, &["--publish"]);
    // When that one is known, so would be what was announced before it.
    wait::until("the published one to be described", LONG, || claims(other.ctl(), &public_id));
    for ctl in [nodes[0].ctl(), other.ctl()] {
        assert_eq!(names(ctl, &plain_id), []);
        assert_eq!(names(ctl, &private_id), []);
        assert_eq!(found(ctl, &["search", "SECRET"]), []);
        let all = found(ctl, &["ls", "--network"]);
        assert!(!all.is_empty() && all.iter().all(|(_, name)| name == "public"), "{all:?}");
    }
    assert_eq!(other.ctl().json(&["providers", &plain_id]).len(), 1, "it is announced");
    other.ctl().run(&["providers", &private_id]).done().refused(&[4], &private_id);
    // What is private cannot be published, in whatever way it is asked for.
    owner.ctl().run(&["publish", &private_id]).done().refused(&[1, 2], "private");
    let both = owner.ctl().run(&["add", "--private", "--publish"]).arg(&private).done();
    both.refused(&[2], "--private");
    let both = owner.ctl().run(&["add", "--private", "--wait-announced"]).arg(&private).done();
    both.refused(&[2], "--private");
    for ctl in [nodes[0].ctl(), other.ctl()] {
        assert_eq!(names(ctl, &private_id), []);
    }
    // Here it is found by its name, as this node's own word.
    let here =
        [("local".to_owned(), "secret-plain".to_owned()), ("local".to_owned(), "secret-private".to_owned())];
    assert_eq!(found(owner.ctl(), &["search", "secret"]), here);
}

#[test]
fn publishers_stand_side_by_side_and_each_takes_back_its_own() {
    let nodes = nodes::network(4, |_, settings| settings);
    let (one, two, other) = (&nodes[1], &nodes[2], &nodes[3]);
    let (path, id) = file(one, "of one", 1, 1);
    add(one, &path, &["--publish"]);
    let again = two.home.path("of two");
    std::fs::copy(&path, &again).unwrap();
    add(two, &again, &[]);
    let (first, second) = ((one.id(), "of one".to_owned()), (two.id(), "renamed".to_owned()));
    until_named(other.ctl(), &id, std::slice::from_ref(&first));
    // Announced already, it is published under a new name.
    let line = two.ctl().json(&["publish", &id, "--name", "renamed"]).pop().unwrap();
    assert_eq!(
        (&line["published"], &line["changed"], &line["name"]),
        (&true.into(), &true.into(), &"renamed".into())
    );
    two.ctl().run(&["publish", &id, "--name", ""]).done().refused(&[2], "a name is empty");
    let mut both = [first, second.clone()];
    both.sort();
    until_named(other.ctl(), &id, &both);
    let said = other.ctl().json(&["stat", &id]).pop().unwrap();
    assert!(said["publisher"].is_null() && said["name"].is_null(), "neither stands for both: {said}");
    other.ctl().run(&["stat", "of one"]).done().refused(&[4], "casctl search \"of one\"");

    assert_eq!(one.ctl().json(&["publish", "--withdraw", &id])[0]["changed"], true);
    one.ctl().run(&["publish", "--withdraw", &id]).done().refused(&[1], "was not published");
    until_named(other.ctl(), &id, std::slice::from_ref(&second));
    assert_eq!(other.ctl().json(&["providers", &id]).len(), 2, "both still hold it");
    // A node that starts again publishes what it published, and no more than that.
    let mut nodes = nodes;
    let two = nodes.remove(2).restart(|_| {});
    let (one, other) = (&nodes[1], &nodes[2]);
    wait::until("it to publish", LONG, || {
        let listed = found(other.ctl(), &["ls", "--network", "--peer", &two.id()]);
        (listed == [("peer".to_owned(), "renamed".to_owned())]).then_some(())
    });
    until_named(other.ctl(), &id, &[second]);
    two.ctl().run(&["rm", &id]).done().ok();
    until_named(other.ctl(), &id, &[]);
    assert_eq!(found(other.ctl(), &["ls", "--network", "--peer", &two.id()]), []);
    assert_eq!(names(one.ctl(), "00".repeat(32).as_str()), []);
}

#[test]
fn a_search_goes_through_the_store_what_is_kept_and_what_peers_publish() {
    let nodes = nodes::network(3, |number, settings| {
        // One that keeps nothing for others: what it finds, it was told.
        if number == 2 { settings.text("network.dht", "client") } else { settings }
    });
    let (publisher, asker) = (&nodes[1], &nodes[2]);
    for number in 0..150 {
        let path = publisher.home.path(&format!("Film {number}"));
        std::fs::write(path, format!("film {number}")).unwrap();
    }
    let films = (0..150).map(|number| publisher.home.path(&format!("Film {number}")));
    films.fold(publisher.ctl().run(&["-q", "add", "--publish"]), Run::arg).done().ok();
    publisher.ctl().add_bytes(b"without a name");
    let own = asker.home.path("my film");
    std::fs::write(&own, b"mine").unwrap();
    asker.ctl().add(&own);

    wait::until("the asker to be connected to the publisher", LONG, || {
        let peers = asker.ctl().json(&["peers"]);
        peers.iter().any(|peer| peer["peer_id"] == publisher.id().as_str()).then_some(())
    });
    let all = wait::until("all to be found", LONG, || {
        let all = found(asker.ctl(), &["search", "fILM"]);
        (all.len() == 151).then_some(all)
    });
    assert_eq!(all[0], ("local".to_owned(), "my film".to_owned()));
    assert!(all[1..].iter().all(|(source, name)| source == "peer" && name.starts_with("Film ")), "{all:?}");
    assert_eq!(found(asker.ctl(), &["search", "film 14"]).len(), 11);
    // Bounded, and said so.
    let few = asker.ctl().run(&["search", "film", "--limit", "7"]).done().ok();
    assert_eq!(few.text().lines().count(), 8, "seven of others and one of its own");
    assert!(few.stderr.contains("there is more"), "{}", few.stderr);
    let line = few.text().lines().find(|line| line.contains("Film")).unwrap().to_owned();
    assert!(line.ends_with(&format!("(publishes {})", publisher.id())), "{line}");
    assert_eq!(asker.ctl().text(&["-q", "search", "film", "--limit", "9999"]).lines().count(), 151);
    // How many were asked and answered is told; that nothing is found where somebody answered, is an answer.
    let nothing = asker.ctl().run(&["search", "no such name"]).done().ok();
    assert!(nothing.stderr.contains("nothing is found\n"), "{}", nothing.stderr);
    assert!(nothing.stderr.contains("asked 2 nodes, "), "{}", nothing.stderr);
    let asked = asker.ctl().run(&["--json", "search", "no such name"]).done().ok().stderr;
    let asked: Value = serde_json::from_str(asked.trim()).unwrap();
    assert_eq!((&asked["known"], &asked["asked"]), (&2.into(), &2.into()), "{asked}");
    assert!(asked["answered"].as_u64().unwrap() > 0, "{asked}");
    // Of one peer only.
    assert_eq!(found(asker.ctl(), &["ls", "--network", "--peer", &publisher.id()]).len(), 150);
    let stranger = "12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa";
    let gone = asker.ctl().run(&["ls", "--network", "--peer", stranger]).done();
    gone.refused(&[1], stranger);
    let said = gone.stderr;
    assert!(said.contains("no address of it is known") && said.contains("casctl peers"), "{said}");
    asker.ctl().run(&["ls", "--network", "--peer", &asker.id()]).done().refused(&[1], "is this node itself");
    asker.ctl().run(&["ls", "--network", "--peer", "nobody"]).done().refused(&[2], "nobody");
    asker.ctl().run(&["search", &"x".repeat(129)]).done().refused(&[2], "128");
    asker.ctl().run(&["search", ""]).done().refused(&[2], "empty");
    // The first node keeps what the publisher says, which tells it itself as long as it is there.
    publisher.ctl().run(&["-q", "add", "--wait-announced", "-"]).input(b"the last").done().ok();
    let all = found(nodes[0].ctl(), &["search", "film 14"]);
    assert!(all.len() == 11 && all.iter().all(|(source, _)| source == "peer"), "{all:?}");
    let id = publisher.id();
    let mut nodes = nodes;
    drop(nodes.remove(1));
    let all = wait::until("what is kept to be told", LONG, || {
        let all = found(nodes[0].ctl(), &["search", "film 14"]);
        (all.len() == 11).then_some(all)
    });
    assert!(all.iter().all(|(source, _)| source == "kept"), "{all:?}");
    let line = nodes[0].ctl().run(&["search", "film 149"]).done().ok().text();
    assert!(line.contains(&format!("(says {id}, ")) && line.ends_with(" ago)"), "{line}");
}

#[test]
fn what_cannot_be_published_is_told_why() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let id = ctl.add_bytes(b"without a name");
    ctl.run(&["publish", &id]).done().refused(&[2], "--name");
    ctl.run(&["publish", &id, "--name", "a/b"]).done().refused(&[2], "a/b");
    ctl.run(&["publish", &id, "--name", "\u{1b}[2J"]).done().refused(&[2], "name");
    for (name, word) in [("a\nb", "control characters"), ("  ", "blanks"), ("gnp.\u{202e}exe", "not seen")] {
        let refused = ctl.run(&["publish", &id, "--name", name]).done();
        refused.refused(&[2], word);
        assert!(
            !refused.stderr.contains("--name") && !refused.stderr.contains("entries"),
            "{}",
            refused.stderr
        );
        ctl.run(&["add", "--publish", "--name", name, "-"]).input(b"x").done().refused(&[2], word);
    }
    ctl.run(&["publish", &"00".repeat(32)]).done().refused(&[4], "no object");
    ctl.run(&["publish", &id[..8]]).done().refused(&[2], "--name");
    ctl.run(&["publish", &id[..7]]).done().refused(&[4], "8 digits");
    ctl.run(&["publish", "--withdraw", &id]).done().refused(&[1], "was not published");
    ctl.run(&["add", "--publish", "-"]).input(b"x").done().refused(&[2], "no name");
    ctl.run(&["stat", &"00".repeat(32)]).done().refused(&[4], "no peers");
    let first = ctl.json(&["publish", &id[..8], "--name", "a name"]).pop().unwrap();
    assert_eq!((&first["changed"], &first["told"]), (&true.into(), &Value::Null), "there is nobody to tell");
    assert_eq!(ctl.json(&["publish", "a name"])[0]["changed"], false);
    assert!(ctl.run(&["publish", "a name"]).done().ok().stderr.contains("will be told"));
    assert_eq!(ctl.json(&["stat", "a name"])[0]["published"], true);
    assert_eq!(ctl.json(&["ls"])[0]["published"], true);
    assert!(ctl.text(&["ls"]).ends_with("a name  (published)"));
    assert_eq!(ctl.json(&["publish", "--withdraw", "a name"])[0]["published"], false);
    assert_eq!(ctl.json(&["ls"])[0]["published"], false);
    // Where there is nobody to ask, nothing that is found is no answer.
    for args in [&["search", "another"][..], &["--json", "search", "another"]] {
        ctl.run(args).done().refused(&[4], "no other node");
    }
    let all = ctl.run(&["ls", "--network"]).done().ok();
    assert!(all.text().ends_with("a name  (here)"), "{}", all.text());
    assert!(all.stderr.contains("no other node is known"), "{}", all.stderr);
    let cut = "12D3KooWXXXX@127.0.0.1:9000";
    ctl.run(&["fetch", &"00".repeat(32), "--peer", cut]).done().refused(&[2], "not a peer id");
    ctl.run(&["ls", "--network", "--peer", "12D3KooWKV8C"]).done().refused(&[2], "not a peer id");
    drop(daemon);

    for (key, value) in [("network.announce", "none"), ("network.mode", "client")] {
        let home = Home::with(|settings| settings.text(key, value));
        let daemon = home.start();
        let id = daemon.ctl().add_bytes(b"x");
        let refused = daemon.ctl().run(&["publish", &id, "--name", "x"]).done();
        refused.refused(&[1, 2], "announces nothing");
        let path = home.path("x");
        std::fs::write(&path, b"x").unwrap();
        let refused = daemon.ctl().run(&["add", "--publish"]).arg(&path).done();
        refused.refused(&[1, 2], "announces nothing");
        assert!(!refused.stderr.contains("what is added here"), "nothing was added: {}", refused.stderr);
    }
}

#[test]
fn by_the_settings_what_is_added_is_published_where_it_can_be() {
    let nodes = nodes::network(2, |_, settings| settings.raw("network.publish", "true"));
    let (owner, other) = (&nodes[1], &nodes[0]);
    let (path, id) = file(owner, "by default", 1, 1);
    add(owner, &path, &[]);
    let nameless = owner.ctl().add_bytes(b"from a pipe");
    let (path, private) = file(owner, "kept to itself", 2, 1);
    owner.ctl().run(&["-q", "add", "--private"]).arg(&path).done().ok();
    until_named(other.ctl(), &id, &[(owner.id(), "by default".to_owned())]);
    assert_eq!((names(other.ctl(), &nameless), names(other.ctl(), &private)), (vec![], vec![]));
    assert_eq!(owner.ctl().json(&["stat", &nameless])[0]["published"], false);
}

#[test]
fn only_who_keeps_an_object_lets_its_name_out() {
    const OTHER: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let daemon = home.start();
    let open = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let casctl = home.path("casctl");
    programs::copy("casctl", &casctl);
    open(home.path(""), 0o711);
    open(daemon.ctl().socket().to_owned(), 0o666);
    let as_other =
        |args: &[&str]| Run::new(&casctl).user(OTHER).arg("--socket").arg(daemon.ctl().socket()).args(args);
    let path = home.path("of root");
    std::fs::write(&path, b"of root").unwrap();
    let id = daemon.ctl().add(&path);
    as_other(&["publish", &id]).done().refused(&[5], "pinned");
    daemon.ctl().run(&["publish", &id]).done().ok();
    as_other(&["publish", "--withdraw", &id]).done().refused(&[5], "pinned");
    as_other(&["search", "root"]).done().ok();
    as_other(&["pin", &id]).done().ok();
    as_other(&["publish", "--withdraw", &id]).done().ok();
    // The name is not that user's, who may give it another one.
    as_other(&["publish", &id]).done().refused(&[2], "--name");
    assert_eq!(daemon.ctl().json(&["stat", &id])[0]["published"], false);
    // What a name is called that another user's add of the same bytes lets out, is what that user calls it.
    as_other(&["add", "--name", "of the other", "--publish", "-"]).input(b"of root").done().ok();
    assert_eq!(daemon.ctl().json(&["stat", &id])[0]["name"], "of the other");
    let theirs = as_other(&["-q", "add", "--name", "theirs", "-"]).input(b"theirs").done().ok().text();
    daemon.ctl().run(&["publish", &theirs]).within(Duration::from_secs(60)).done().ok();
}
