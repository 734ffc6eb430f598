//! Jobs: fetches that go on without their callers, over the end of casctl and of the daemon, until somebody has it.

use casd_tests::corpus::{self, MIB};
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Home, Node, nodes, segments};
use serde_json::Value;

/// A giver whose upload is held to 4 MiB a second, and somebody who fetches.
fn slow_pair() -> [Node; 2] {
    let nodes = nodes::network(2, |number, settings| match number {
        0 => settings.text("transfer.upload", "4MiB").text("store.parity", "none"),
        _ => settings,
    });
    <[Node; 2]>::try_from(nodes).unwrap()
}

/// These two, and what there is.
fn slow_giver(size: u64) -> (Node, Node, String) {
    let [giver, taker] = slow_pair();
    let file = giver.home.path("file");
    let id = corpus::file(&file, 71, size);
    giver.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    (giver, taker, id)
}

/// Has a node hold a directory of so many files of 256 KiB in `sub`, and one of 8 MiB. Gives its id.
fn add_folder(giver: &Node, small: u64) -> String {
    let tree = giver.home.path("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    for number in 0..small {
        corpus::file(&tree.join("sub").join(number.to_string()), 200 + number, MIB / 4);
    }
    corpus::file(&tree.join("long"), 199, 8 * MIB);
    giver.ctl().run(&["-q", "add", "-r", "--wait-announced"]).arg(&tree).done().ok().text()
}

/// Begins a job, and gives it.
fn detach(ctl: &Ctl, args: &[&str]) -> Value {
    let done = ctl.run(&["--json", "fetch", "--detach"]);
    args.iter().fold(done, casd_tests::ctl::Run::arg).done().ok().json().pop().unwrap()
}

/// The only job.
fn job(ctl: &Ctl) -> Value {
    let mut jobs = ctl.json(&["jobs"]);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.pop().unwrap()
}

/// Waits until the only job is so.
fn until(ctl: &Ctl, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait::until(format!("the job to be {what}"), 2 * LONG, || Some(job(ctl)).filter(&is_so))
}

/// Waits, as a person would, until all jobs have ended; the last states of the only one.
fn watched(ctl: &Ctl) -> Value {
    ctl.run(&["--json", "jobs", "--watch"]).within(2 * LONG).done().ok().json().pop().unwrap()
}

/// Bytes that a node has got from its peers.
fn received(node: &Node) -> u64 {
    node.ctl().json(&["peers"]).iter().filter_map(|peer| peer["received_bytes"].as_u64()).sum()
}

/// The id of nobody.
fn somebody() -> String {
    casd::peer::Keypair::generate_ed25519().public().to_peer_id().to_string()
}

#[test]
fn a_job_survives_the_daemons_kill_and_ends_whole_and_pinned() {
    let size = 24 * MIB;
    let (_giver, taker, id) = slow_giver(size);
    let begun = detach(taker.ctl(), &["--pin", &id]);
    assert!(begun["job"] == 1 && begun["joined"] == false && begun["id"] == *id, "{begun}");
    let some = until(taker.ctl(), "fetching some of it", |job| job["bytes"].as_u64() > Some(4 * MIB));
    assert!(some["state"] == "fetching" && some["size"] == size, "{some}");
    let Node { daemon, home } = taker;
    let log = daemon.logged("a job begins");
    assert!(log.contains(&id), "{log}");
    daemon.kill();
    let taker = Node { daemon: home.start(), home };
    let ended = watched(taker.ctl());
    assert!(ended["state"] == "done" && ended["job"] == 1, "{ended}");
    assert!(received(&taker) < size, "what was there is not fetched again");
    let stat = taker.ctl().json(&["stat", &id]).pop().unwrap();
    assert!(stat["local_chunks"] == stat["chunks"] && stat["pinned_by_caller"] == true, "{stat}");
    assert_eq!(corpus::id(&taker.ctl().cat(&id)), id);
    let _ = taker.daemon.logged("a job is done");
    // It is over for good.
    let taker = taker.restart(|_| {});
    assert!(taker.ctl().json(&["jobs"]).is_empty());
}

#[test]
fn a_directory_comes_as_a_job_over_the_daemons_kill() {
    let [giver, taker] = slow_pair();
    let (id, size) = (add_folder(&giver, 48), 20 * MIB);
    let begun = detach(taker.ctl(), &["--pin", &id]);
    assert!(begun["id"] == *id && begun["job"] == 1, "{begun}");
    let some = until(taker.ctl(), "fetching some of it", |job| job["local_files"].as_u64() > Some(8));
    assert!(some["files"] == 49 && some["size"] == size && some["bytes"].as_u64() < Some(size), "{some}");
    let words = taker.ctl().text(&["explain", &id]);
    assert!(words.contains("of 49 files are here") && words.contains(&giver.id()), "{words}");
    let Node { daemon, home } = taker;
    daemon.kill();
    let taker = Node { daemon: home.start(), home };
    let ended = watched(taker.ctl());
    assert!(ended["state"] == "done" && ended["local_files"] == 49, "{ended}");
    assert!(received(&taker) < size, "what was there is not fetched again");
    assert_eq!(taker.ctl().json(&["stat", &id])[0]["pinned_by_caller"], true);
    let out = taker.home.path("out");
    taker.ctl().run(&["fetch", &id, "-o"]).arg(&out).within(2 * LONG).done().ok();
    for path in ["long", "sub/0", "sub/47"] {
        let file = giver.home.path("tree").join(path);
        assert_eq!(corpus::id_of_file(&out.join(path)), corpus::id_of_file(&file), "{path}");
    }
    let here = detach(taker.ctl(), &[&id]);
    assert!(here["job"].is_null() && here["id"] == *id, "{here}");
    let taker = taker.restart(|_| {});
    assert!(taker.ctl().json(&["jobs"]).is_empty());
}

#[test]
fn a_directorys_job_is_cancelled_as_a_whole_and_what_it_brought_is_gone_on_from() {
    let [giver, taker] = slow_pair();
    let id = add_folder(&giver, 48);
    detach(taker.ctl(), &[&id]);
    until(taker.ctl(), "fetching some of it", |job| job["local_files"].as_u64() > Some(8));
    let cancelled = taker.ctl().json(&["jobs", "--cancel", &id]).pop().unwrap();
    assert!(cancelled["state"] == "cancelled" && cancelled["id"] == *id, "{cancelled}");
    let taker = taker.restart(|_| {});
    assert!(taker.ctl().json(&["jobs"]).is_empty());
    let out = taker.home.path("out");
    let run = taker.ctl().run(&["--json", "fetch", &id, "-o"]).arg(&out).within(2 * LONG);
    let fetched = run.done().ok().json().pop().unwrap();
    assert!(fetched["local_bytes"].as_u64() >= Some(2 * MIB), "{fetched}");
}

#[test]
fn a_directorys_job_gives_way_to_its_owner_who_waits_for_it() {
    let [giver, taker] = slow_pair();
    let (id, size) = (add_folder(&giver, 32), 16 * MIB);
    detach(taker.ctl(), &["--pin", &id]);
    until(taker.ctl(), "fetching some of it", |job| job["local_files"].as_u64() > Some(4));
    let out = taker.home.path("out");
    taker.ctl().run(&["fetch", &id, "-o"]).arg(&out).within(2 * LONG).done().ok();
    assert_eq!(watched(taker.ctl())["state"], "done");
    assert_eq!(taker.ctl().json(&["stat", &id])[0]["pinned_by_caller"], true);
    let bytes = received(&taker);
    assert!(bytes < size + size / 2, "{bytes} bytes came for {size}");
}

#[test]
fn explain_names_the_file_of_a_directory_that_nobody_has_and_the_others_have_come() {
    let nodes = nodes::network(2, |_, settings| settings.text("store.parity", "none"));
    let (giver, taker) = (&nodes[0], &nodes[1]);
    let id = add_folder(giver, 3);
    let lost = giver.home.path("tree").join("sub/1");
    let chunk = corpus::id_of_file(&lost);
    assert_eq!(segments::rot(&giver.home.state(), |record| record.id == chunk), 1);
    detach(taker.ctl(), &[&id]);
    let waiting = until(taker.ctl(), "waiting", |job| job["state"] == "waiting");
    assert!(waiting["why"] == "no holder of 1 file" && waiting["local_files"] == 3, "{waiting}");
    let words = taker.ctl().text(&["explain", &id]);
    for told in ["3 of 4 files are here", "sub/1", "missing: 1 file", &giver.id()] {
        assert!(words.contains(told), "{told}: {words}");
    }
    // Somebody has it again.
    giver.ctl().add(&lost);
    assert_eq!(watched(taker.ctl())["state"], "done");
}

#[test]
fn a_job_waits_for_a_holder_and_ends_when_one_comes() {
    let nodes = nodes::network(2, |_, settings| settings);
    let (giver, taker) = (&nodes[0], &nodes[1]);
    let file = giver.home.path("file");
    let id = corpus::file(&file, 72, 3 * MIB);
    detach(taker.ctl(), &[&id]);
    let waiting = until(taker.ctl(), "waiting", |job| job["state"] == "waiting");
    assert!(waiting["why"] == "no holder is found" && waiting["next_try_ms"].is_u64(), "{waiting}");
    giver.ctl().add(&file);
    assert_eq!(watched(taker.ctl())["state"], "done");
    assert_eq!(corpus::id(&taker.ctl().cat(&id)), id);
    assert_eq!(taker.ctl().json(&["stat", &id])[0]["pinned"], false);
    // What is here needs no job.
    let here = detach(taker.ctl(), &["--pin", &id]);
    assert!(here["job"].is_null() && here["state"] == "done", "{here}");
    assert_eq!(taker.ctl().json(&["stat", &id])[0]["pinned_by_caller"], true);
}

#[test]
fn explain_names_who_has_nothing_and_who_refused() {
    let nodes = nodes::network(2, |_, settings| settings);
    let (other, taker) = (&nodes[0], &nodes[1]);
    let id = corpus::id(b"nobody has this");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = somebody();
    let (at, nowhere) = (other.daemon.chunk_address(), format!("{gone}@{closed}"));
    detach(taker.ctl(), &["--peer", &at, "--peer", &nowhere, &id]);
    until(taker.ctl(), "waiting", |job| job["state"] == "waiting");
    let explained = taker.ctl().json(&["explain", &id]).pop().unwrap();
    assert!(explained["complete"] == false && explained["local_chunks"] == 0, "{explained}");
    let asked = explained["bringing"][0]["asked"].as_array().unwrap().clone();
    let said = |peer: &str| {
        let line = asked.iter().find(|line| line["peer_id"] == peer);
        line.unwrap_or_else(|| panic!("{peer} is not told of: {explained}"))["said"].as_str().unwrap()
    };
    assert!(said(&other.id()).contains("does not have it"), "{explained}");
    assert!(said(&gone).contains("refused"), "{explained}");
    let words = taker.ctl().text(&["explain", &id]);
    assert!(words.contains("nothing of it is here") && words.contains("job 1: waiting"), "{words}");
    assert!(words.contains(&other.id()) && words.contains(&gone), "{words}");
}

#[test]
fn a_job_is_cancelled_and_what_it_brought_is_gone_on_from() {
    let size = 24 * MIB;
    let (_giver, taker, id) = slow_giver(size);
    detach(taker.ctl(), &[&id]);
    until(taker.ctl(), "fetching some of it", |job| job["bytes"].as_u64() > Some(4 * MIB));
    let cancelled = taker.ctl().json(&["jobs", "--cancel", &id]).pop().unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(watched(taker.ctl())["state"], "cancelled");
    let _ = taker.daemon.logged("a job is cancelled");
    taker.ctl().run(&["jobs", "--cancel", "1"]).done().refused(&[4], "there is no job 1");
    let taker = taker.restart(|_| {});
    assert!(taker.ctl().json(&["jobs"]).is_empty());
    let out = taker.home.path("out");
    let run = taker.ctl().run(&["--json", "fetch", &id, "-o"]).arg(&out).within(2 * LONG);
    let fetched = run.done().ok().json().pop().unwrap();
    assert!(fetched["local_bytes"].as_u64() >= Some(4 * MIB), "{fetched}");
    assert_eq!(corpus::id_of_file(&out), id);
}

#[test]
fn a_second_run_joins_the_same_work() {
    let size = 16 * MIB;
    let (_giver, taker, id) = slow_giver(size);
    detach(taker.ctl(), &["--priority", "low", &id]);
    let second = detach(taker.ctl(), &["--pin", "--priority", "high", &id]);
    assert!(second["job"] == 1 && second["joined"] == true && second["pin"] == true, "{second}");
    assert_eq!(second["priority"], "high");
    until(taker.ctl(), "fetching some of it", |job| job["bytes"].as_u64() > Some(2 * MIB));
    // With a caller: the job gives way, and finds that all is done.
    let out = taker.home.path("out");
    let run = taker.ctl().run(&["--json", "fetch", &id, "-o"]).arg(&out).within(2 * LONG);
    let fetched = run.done().ok().json().pop().unwrap();
    assert!(fetched["local_bytes"].as_u64() >= Some(2 * MIB), "{fetched}");
    assert_eq!(watched(taker.ctl())["state"], "done");
    assert_eq!(taker.ctl().json(&["stat", &id])[0]["pinned_by_caller"], true);
    // A few chunks were under way when it gave way.
    let bytes = received(&taker);
    assert!(bytes < size + size / 2, "{bytes} bytes came for {size}");
}

#[test]
fn the_first_to_begin_is_whose_priority_is_highest_and_that_can_be_changed() {
    let nodes = nodes::network(2, |_, settings| settings.raw("transfer.jobs", "1"));
    let taker = &nodes[1];
    // Each that runs does so for a while: who is said to have it accepts, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("{}@{}", somebody(), listener.local_addr().unwrap());
    let absent = |number: u64| corpus::id(&corpus::bytes(number, 100));
    let begin = |number: u64| detach(taker.ctl(), &["--peer", &silent, &absent(number)]);
    let numbers: Vec<_> = (1..=3).map(|number| begin(number)["job"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let changed = taker.ctl().json(&["jobs", "3", "--priority", "high"]).pop().unwrap();
    assert!(changed["priority"] == "high" && changed["job"] == 3, "{changed}");
    let words = taker.ctl().text(&["jobs", "3"]);
    assert!(words.contains("(high)"), "{words}");
    taker.ctl().run(&["jobs", "9"]).done().refused(&[4], "there is no job 9");
    wait::until("the third to begin", LONG, || {
        let jobs = taker.ctl().json(&["jobs"]);
        let [_, second, third] = jobs.as_slice() else { panic!("{jobs:?}") };
        let has_begun = |job: &Value| job["state"] != "queued" || job["tries"].as_u64() > Some(0);
        assert!(!has_begun(second), "the second went first: {jobs:?}");
        has_begun(third).then_some(())
    });
}

#[test]
fn who_waits_is_served_when_somebody_comes() {
    let giver = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let home = Home::with(|settings| settings.text("network.name", &network));
    let taker = Node { daemon: home.start(), home };
    let id = giver.ctl().add_bytes(b"for the patient");
    let out = taker.home.path("out");
    let fetch = taker.ctl().run(&["fetch", "--wait", &id, "-o"]).arg(&out).within(2 * LONG).start();
    wait::until("the fetch to wait", LONG, || {
        let explained = taker.ctl().json(&["explain", &id]).pop()?;
        (explained["bringing"][0]["job"].is_null() && explained["bringing"][0].is_object()).then_some(())
    });
    taker.ctl().run(&["connect", &giver.daemon.dht_addresses()[0]]).done().ok();
    fetch.done().ok();
    assert_eq!(std::fs::read(&out).unwrap(), b"for the patient");
}
