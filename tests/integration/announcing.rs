//! A node that holds very many objects: all of them, and the chunks of large ones, can be found from elsewhere.

use std::time::Duration;

use casd::content::{ChunkRef, Place};
use casd::session::frames::{Ask, Frame, Role};
use casd_proto::client;
use casd_proto::v1::{AddManyRequest, AddOptions, SmallObject};
use casd_tests::corpus::{self, MIB};
use casd_tests::stranger::{self, block_on};
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, nodes};

/// Objects of a few bytes.
const COUNT: usize = 100_000;

/// Objects in a message: the most that one takes.
const BATCH: usize = 1024;

/// What the issue allows for announcing them all.
const TIME: Duration = Duration::from_secs(60);

fn tiny(number: usize) -> Vec<u8> {
    format!("tiny object {number}").into_bytes()
}

/// Adds all tiny objects over one connection.
fn add_tiny(ctl: &Ctl) {
    block_on(async {
        let channel = client::connect(ctl.socket()).await.unwrap();
        let numbers: Vec<usize> = (0..COUNT).collect();
        let requests: Vec<AddManyRequest> = numbers
            .chunks(BATCH)
            .enumerate()
            .map(|(at, part)| AddManyRequest {
                options: (at == 0).then(AddOptions::default),
                objects: part
                    .iter()
                    .map(|number| SmallObject { name: String::new(), data: tiny(*number).into() })
                    .collect(),
            })
            .collect();
        let mut answers =
            client::objects(channel).add_many(tokio_stream::iter(requests)).await.unwrap().into_inner();
        let mut added = 0;
        while let Some(answer) = answers.message().await.unwrap() {
            added += answer.objects.len();
        }
        assert_eq!(added, COUNT);
    });
}

#[test]
fn a_hundred_thousand_objects_are_announced_in_a_minute_and_found() {
    let mut others = nodes::network(11, |_, settings| settings.text("network.announce", "chunks"));
    let holder = others.pop().unwrap();
    let big = holder.home.path("big");
    let big_id = corpus::file(&big, 9, 20 * MIB);
    holder.ctl().run(&["-q", "add", "--parity", "none"]).arg(&big).done().ok();
    add_tiny(holder.ctl());
    // Announcing began with the first object; the time counts from the last.
    let begun = std::time::Instant::now();
    let announced = wait::until("all keys to be announced", TIME, || {
        let announce = holder.ctl().status()["announce"].take();
        let all = COUNT as u64 + 1 + 20;
        (announce["queued"] == 0 && announce["done"].as_u64()? >= all).then_some(announce)
    });
    let (messages, receivers) =
        (announced["messages"].as_u64().unwrap(), announced["receivers"].as_u64().unwrap());
    assert_eq!(receivers, 10, "{announced}");
    let allowed = 4 * (COUNT as u64).div_ceil(1000) * receivers;
    assert!(messages <= allowed, "{messages} messages where {allowed} are allowed");
    let time = begun.elapsed().as_secs_f64();
    eprintln!("announced {COUNT} objects within {time:.1} s: {messages} messages to {receivers} nodes");

    let asker = others.last().unwrap();
    let id = holder.id();
    let finds = |key: &str| {
        let found = asker.ctl().json(&["providers", key]);
        assert!(found.iter().any(|peer| peer["peer_id"] == id.as_str()), "{key}: {found:?}");
    };
    (0..COUNT).step_by(COUNT / 40).for_each(|number| finds(&corpus::id(&tiny(number))));
    finds(&big_id);
    let chunks = holder.ctl().json(&["stat", "--chunks", &big_id]);
    assert_eq!(chunks.len(), 20);
    chunks.iter().for_each(|chunk| finds(chunk["id"].as_str().unwrap()));
    // What is not announced is not found.
    assert!(asker.ctl().run(&["providers", &corpus::id(b"nobody's")]).done().stdout.is_empty());
    // What is fetched by id alone has the right bytes.
    let one = corpus::id(&tiny(4321));
    let run = asker.ctl().run(&["fetch", &one, "-o", "-"]).within(LONG);
    assert_eq!(run.done().ok().stdout, tiny(4321));
    keeps_its_turns(holder, asker);
}

/// Restarted, a node is found at once, and announces nothing before its turn.
fn keeps_its_turns(holder: casd_tests::Node, asker: &casd_tests::Node) {
    let id = holder.id();
    let holder = holder.restart(|_| {});
    let begun = std::time::Instant::now();
    wait::until("it to be found again", LONG, || {
        let found = asker.ctl().run(&["--json", "providers", &corpus::id(&tiny(77_777))]).done();
        let found = if found.status.success() { found.json() } else { Vec::new() };
        found.iter().any(|peer| peer["peer_id"] == id.as_str()).then_some(())
    });
    let time = begun.elapsed().as_secs_f64();
    holder.joins();
    let all = COUNT as u64 + 20;
    let announce = wait::until("its keys to be known again", LONG, || {
        let announce = holder.ctl().json(&["announce"]).remove(0);
        (announce["keys"].as_u64()? >= all).then_some(announce)
    });
    eprintln!("found {time:.2} s after a restart; then {announce}");
    assert_eq!((&announce["queued"], &announce["overdue"]), (&0.into(), &0.into()), "{announce}");
    // What is added now is told, and nothing else is.
    holder.ctl().run(&["-q", "add", "--wait-announced", "-"]).input(b"after the restart").done().ok();
    let announce = holder.ctl().json(&["announce"]).remove(0);
    assert!(
        announce["messages"].as_u64().unwrap() <= 20 && announce["rate"].as_f64().unwrap() < 1.0,
        "{announce}"
    );
}

#[test]
fn a_private_object_cannot_be_found_or_fetched() {
    let nodes = nodes::network(2, |_, settings| settings);
    let public =
        nodes[0].ctl().run(&["-q", "add", "--wait-announced", "-"]).input(b"for all").done().ok().text();
    let private = nodes[0].ctl().run(&["-q", "add", "--private", "-"]).input(b"for me").done().ok().text();
    assert_eq!(nodes[1].ctl().json(&["providers", &public]).len(), 1);
    assert!(nodes[1].ctl().run(&["providers", &private]).done().stdout.is_empty());
    let at = nodes[0].daemon.chunk_address();
    let run = nodes[1].ctl().run(&["fetch", &private, "--stall", "2s", "--peer", &at, "-o", "-"]);
    run.done().refused(&[4], &private[..8]);
}

#[test]
fn chunks_that_another_object_has_are_still_found_when_one_is_removed() {
    let nodes = nodes::network(2, |_, settings| settings);
    let (holder, asker) = (nodes[0].ctl(), nodes[1].ctl());
    let add = |length: usize| {
        let run = holder.run(&["-q", "add", "--parity", "none", "--wait-announced", "-"]);
        run.input(&corpus::bytes(7, length)).done().ok().text()
    };
    // The longer one begins as the shorter one does.
    let (short, long) = (add(3 << 20), add(5 << 20));
    let chunks = |id: &str| -> Vec<String> {
        let lines = holder.json(&["stat", "--chunks", id]);
        lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
    };
    let (kept, gone) = (chunks(&short), chunks(&long));
    assert!(kept[..2] == gone[..2] && gone.len() == 5);
    let is_found = |id: &str| !asker.run(&["--json", "providers", id]).done().stdout.is_empty();
    wait::until("all chunks to be found", LONG, || gone.iter().all(|id| is_found(id)).then_some(()));
    holder.text(&["rm", &long]);
    wait::until("those that are gone to be taken back", LONG, || {
        [&long, &gone[3], &gone[4]].iter().all(|id| !is_found(id)).then_some(())
    });
    assert!(is_found(&short) && kept.iter().all(|id| is_found(id)));
}

#[test]
fn parity_of_a_private_object_is_not_there_for_others() {
    let settings = |settings: casd_tests::Settings| settings.text("transfer.idle_timeout", "1s");
    let node = nodes::network(1, |_, alone| settings(alone)).pop().unwrap();
    let network = node.ctl().status()["network"].as_str().unwrap().to_owned();
    let given = |options: &[&str], seed| {
        let run = node.ctl().run(&["-q", "add", "--parity", "2+1"]);
        let run = options.iter().fold(run, casd_tests::ctl::Run::arg).arg("-");
        let id = run.input(&corpus::bytes(seed, 2 << 20)).done().ok().text();
        let chunks = node.ctl().json(&["stat", "--chunks", &id]);
        let parity = chunks.iter().find(|chunk| chunk["parity"] == true).expect("a parity chunk");
        let id = parity["id"].as_str().unwrap().parse().unwrap();
        let want = Ask::Chunk(ChunkRef { id, place: Place::Root, length: 1 << 20 });
        let hello = Frame::Hello(stranger::hello(&network, Role::Asker));
        stranger::call(&node.daemon.chunk_address(), &stranger::encode(&[hello, Frame::Ask(0, want)]))
    };
    assert!(given(&[], 1).len() > 1 << 20, "a public one's is given");
    let said = stranger::decode(&given(&["--private"], 2));
    assert!(said.contains(&Frame::NotFound(0)), "{said:?}");
}

#[test]
fn what_was_held_before_a_restart_is_announced_after_it() {
    let nodes = nodes::network(3, |_, settings| settings);
    let [first, second, third] = <[casd_tests::Node; 3]>::try_from(nodes).unwrap();
    let id = second.ctl().run(&["-q", "add", "--wait-announced", "-"]).input(b"lasting").done().ok().text();
    // The others forget it with their own restart; the bootstrap node's port would change with it.
    let second = second.restart(|_| {});
    let third = third.restart(|_| {});
    third.joins();
    let holder = second.id();
    wait::until("it to be found again", LONG, || {
        let found = third.ctl().run(&["--json", "providers", &id]).done();
        let found = if found.status.success() { found.json() } else { Vec::new() };
        found.iter().any(|peer| peer["peer_id"] == holder.as_str()).then_some(())
    });
    drop(first);
}
