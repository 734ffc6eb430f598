//! Proving what is stored: every bit that rotted is found without anyone having asked for it, mended where parity or
//! a peer allows, and named where not.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use casd_tests::corpus::MIB;
use casd_tests::ctl::Ctl;
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, corpus, nodes, segments};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

fn quiet(parity: &'static str) -> Home {
    Home::with(move |settings| settings.text("store.parity", parity).text("store.scrub", "0"))
}

fn mib(seed: u64, mib: usize) -> Vec<u8> {
    corpus::bytes(seed, (mib << 20) + 77)
}

/// Flips a bit in every n-th chunk, data and parity, of the store at `home`.
fn rot_every(home: &Home, nth: usize) -> u64 {
    let seen = Cell::new(0);
    let choose = |record: &segments::Record| {
        let is_chunk = matches!(record.kind, segments::DATA | segments::PARITY);
        seen.set(seen.get() + usize::from(is_chunk));
        is_chunk && seen.get().is_multiple_of(nth)
    };
    segments::rot(&home.state(), choose) as u64
}

/// What `casctl verify` prints: the damaged objects, then the sum.
fn verify(ctl: &Ctl, args: &[&str], code: i32) -> (Vec<Value>, Value) {
    let run = args.iter().fold(ctl.run(&["verify", "--json"]), casd_tests::ctl::Run::arg);
    let mut lines = run.within(2 * LONG).done().code(code).json();
    let sum = lines.pop().unwrap();
    (lines, sum)
}

fn figures(sum: &Value) -> [u64; 3] {
    ["bad", "repaired", "unrepairable"].map(|key| sum[key].as_u64().unwrap())
}

#[test]
fn one_verify_finds_every_bit_that_rotted_and_mends_what_parity_allows() {
    let home = quiet("16+4");
    let daemon = home.start();
    let ctl = daemon.ctl();
    let small = mib(51, 5);
    let small_id = ctl.add_bytes(&small);
    let is_parity =
        |record: &segments::Record| matches!(record.kind, segments::PARITY_PART | segments::PARITY_PAGE);
    let mut rotten = segments::rot(&home.state(), is_parity) as u64;
    assert_eq!(rotten, 2);
    let large = mib(52, 70);
    let large_id = ctl.add_bytes(&large);
    rotten += rot_every(&home, 7);
    assert!(rotten > 12, "{rotten}");
    let (damaged, sum) = verify(ctl, &[], 0);
    assert_eq!((damaged, figures(&sum)), (Vec::new(), [rotten, rotten, 0]));
    assert!(sum["bytes"].as_u64() > Some(90 << 20) && sum["records"].as_u64() > Some(90), "{sum}");
    // Parity is whole again as well: as much may rot once more.
    let every_fourth = |id: &String| ctl.data_chunks(id).into_iter().skip(1).step_by(4);
    let chosen: Vec<String> = [&small_id, &large_id].into_iter().flat_map(every_fourth).collect();
    rotten = segments::rot(&home.state(), |record| chosen.contains(&record.id)) as u64;
    assert_eq!(rotten, chosen.len() as u64);
    let (_, sum) = verify(ctl, &[], 0);
    assert_eq!(figures(&sum), [rotten, rotten, 0]);
    let (_, sum) = verify(ctl, &[&large_id[..16]], 0);
    assert_eq!(figures(&sum), [0; 3]);
    assert_eq!(figures(&verify(ctl, &[], 0).1), [0; 3]);
    assert!(ctl.cat(&small_id) == small && ctl.cat(&large_id) == large);
    for id in [&small_id, &large_id] {
        let stat = ctl.json(&["stat", id]).pop().unwrap();
        assert_eq!(
            (&stat["local_chunks"], &stat["local_parity_chunks"]),
            (&stat["chunks"], &stat["parity_chunks"])
        );
    }
    let status = ctl.status();
    assert_eq!(figures(&status["scrub"]["last"]), [0; 3], "{status}");
    assert_eq!(ctl.text(&["-q", "verify"]), "");
}

#[test]
fn what_rotted_leaves_by_no_door() {
    let both =
        nodes::network(2, |_, settings| settings.text("store.parity", "16+4").text("store.scrub", "0"));
    let (giver, taker) = (&both[0], &both[1]);
    let bytes: Vec<_> = (61..64).map(|seed| mib(seed, 20)).collect();
    let ids: Vec<String> = bytes.iter().map(|bytes| giver.ctl().add_bytes(bytes)).collect();
    let rotten = rot_every(&giver.home, 20);
    assert!(rotten >= 3, "{rotten}");
    let fetched = taker.ctl().run(&["fetch", &ids[0], "-o", "-"]).within(2 * LONG).done().ok();
    assert!(fetched.stdout == bytes[0]);
    assert!(giver.ctl().cat(&ids[1]) == bytes[1]);
    let (damaged, sum) = verify(giver.ctl(), &[], 0);
    assert_eq!((damaged, sum["unrepairable"].as_u64()), (Vec::new(), Some(0)));
    for (id, bytes) in ids.iter().zip(&bytes) {
        assert!(&giver.ctl().cat(id) == bytes);
    }
    // Beyond parity, and a peer has it: all of it comes back.
    let stripe: Vec<String> = giver.ctl().data_chunks(&ids[0]).into_iter().take(6).collect();
    assert_eq!(segments::rot(&giver.home.state(), |record| stripe.contains(&record.id)), 6);
    let (_, sum) = verify(giver.ctl(), &[&ids[0]], 0);
    assert_eq!(figures(&sum), [6, 6, 0]);
}

#[test]
fn what_nobody_has_is_told_without_a_wait_for_each() {
    let home = quiet("none");
    let daemon = home.start();
    let ids: Vec<String> = (0..24).map(|seed| daemon.ctl().add_bytes(&corpus::bytes(seed, 9000))).collect();
    assert_eq!(segments::rot(&home.state(), |record| record.kind == segments::DATA), ids.len());
    let begun = Instant::now();
    let (damaged, sum) = verify(daemon.ctl(), &[], 8);
    // Alone it waits a second for each, several at once.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((damaged.len(), sum["unrepairable"].as_u64()), (24, Some(24)));
    let checks = daemon.ctl().run(&["--json", "doctor", "--state-dir"]).arg(home.state()).done().json();
    let check =
        |name| checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("{checks:?}"));
    assert!(check("damage")["what"].as_str().unwrap().starts_with("24 object(s)"), "{checks:?}");
    for seed in 0..24 {
        daemon.ctl().add_bytes(&corpus::bytes(seed, 9000));
    }
    assert_eq!(verify(daemon.ctl(), &[], 0).1["bad"], 0);
}

/// A bit flips in a hundredth of the records of `CASD_ROT_MIB` of objects, 96 unless set; `CASD_ROT_SEED` says which.
#[test]
fn of_a_hundredth_that_rots_no_byte_leaves_and_one_verify_mends_all_offline() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let wanted: u64 = number("CASD_ROT_MIB").unwrap_or(96);
    let seed = number("CASD_ROT_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    eprintln!("CASD_ROT_SEED={seed}");
    let random = RefCell::new(StdRng::seed_from_u64(seed));
    let name = format!("test-{:016x}", rand::random::<u64>());
    let settings = || {
        Home::with(|settings| {
            let settings = settings.text("network.name", &name).text("store.parity", "16+4");
            settings.text("store.scrub", "0")
        })
    };
    let (home, other) = (settings(), settings());
    let daemon = home.start();
    let ctl = daemon.ctl();
    let patience = LONG + Duration::from_millis(100 * wanted);
    // Of more than 16 chunks, so that each stripe has four parity chunks.
    let (mut objects, mut stored) = (Vec::new(), 0);
    while stored < wanted * MIB {
        let length = random.borrow_mut().random_range(17 * MIB..65 * MIB);
        let seed = random.borrow_mut().random();
        let bytes = corpus::bytes(seed, usize::try_from(length).unwrap());
        let add = ctl.run(&["-q", "add", "-"]).within(patience).input(&bytes);
        objects.push((add.done().ok().text(), seed, bytes.len()));
        stored += length;
    }
    let rot = || {
        let is_hit = |record: &segments::Record| {
            let is_chunk = matches!(record.kind, segments::DATA | segments::PARITY);
            is_chunk && random.borrow_mut().random_ratio(1, 100)
        };
        segments::rot(&home.state(), is_hit) as u64
    };
    let proves = |ctl: &Ctl| {
        let run = ctl.run(&["verify", "--json"]).within(patience);
        run.done().ok().json().pop().unwrap()
    };
    // Nobody else is there: what comes back comes from parity.
    let rotten = rot();
    let begun = Instant::now();
    let sum = proves(ctl);
    eprintln!("{stored} bytes in {} objects: {sum} of {rotten} in {:?}", objects.len(), begun.elapsed());
    assert_eq!(figures(&sum), [rotten, rotten, 0]);
    assert_eq!(figures(&proves(ctl)), [0; 3]);
    // Once more, and everything is read, by both doors, while it is rotten.
    let rotten = rot();
    let taker = other.start();
    for (number, (id, seed, length)) in objects.iter().enumerate() {
        let run = match number % 2 {
            0 => ctl.run(&["cat", id]),
            _ => taker.ctl().run(&["fetch", id, "-o", "-", "--peer", &daemon.chunk_address()]),
        };
        let bytes = run.within(patience).done().ok().stdout;
        assert!(bytes == corpus::bytes(*seed, *length), "{id} of {rotten} rotten records is wrong");
    }
    assert_eq!(figures(&proves(ctl))[2], 0);
    assert_eq!(figures(&proves(ctl)), [0; 3]);
}

#[test]
fn what_cannot_be_brought_back_is_named_and_is_8() {
    let home = quiet("16+4");
    let daemon = home.start();
    let ctl = daemon.ctl();
    let (lost, kept) = (home.path("lost"), home.path("kept"));
    let id = corpus::file(&lost, 71, 20 << 20);
    let kept_id = corpus::file(&kept, 72, 3 << 20);
    assert_eq!((ctl.add(&lost), ctl.add(&kept)), (id.clone(), kept_id.clone()));
    let stripe: Vec<String> = ctl.data_chunks(&id).into_iter().take(5).collect();
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    assert_eq!(segments::remove(&home.state(), &stripe), 5);
    let daemon = home.start();
    let ctl = daemon.ctl();
    for args in [&[][..], &["lost"][..]] {
        let (damaged, sum) = verify(ctl, args, 8);
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert_eq!(
            (damaged[0]["id"].as_str(), damaged[0]["name"].as_str()),
            (Some(id.as_str()), Some("lost"))
        );
        assert_eq!((damaged[0]["records"].as_u64(), figures(&sum)), (Some(5), [5, 0, 5]));
        assert_eq!(sum["objects"], 1);
    }
    assert_eq!(figures(&verify(ctl, &[&kept_id], 0).1), [0; 3]);
    let status = ctl.status();
    assert_eq!(status["scrub"]["damaged"][0]["id"], id.as_str(), "{status}");
    assert!(ctl.run(&["verify", "lost"]).within(2 * LONG).done().code(8).text().contains("5 records lost"));
    ctl.run(&["verify", "nothing"]).done().refused(&[4], "nothing");
    // Adding it again brings it back.
    ctl.add(&lost);
    assert_eq!(figures(&verify(ctl, &[], 0).1), [0; 3]);
    assert_eq!(corpus::id(&ctl.cat(&id)), id);
}

#[test]
fn the_scrub_mends_by_itself_unless_it_is_paused() {
    let home = Home::with(|settings| settings.text("store.parity", "8+2").text("store.scrub", "1s"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let bytes = mib(81, 9);
    let id = ctl.add_bytes(&bytes);
    ctl.run(&["verify", "--pause"]).done().ok();
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    let rotten = rot_every(&home, 5);
    assert!(rotten >= 2);
    let daemon = home.start();
    let ctl = daemon.ctl();
    assert_eq!(ctl.status()["scrub"]["paused"], true);
    assert!(!daemon.log().contains("damaged"));
    assert_eq!(ctl.json(&["verify", "--resume"])[0]["scrub"]["paused"], false);
    // The status has the last pass only, and the next one begins within a second. What was proved before the pause is
    // left to it.
    let passes = || -> u64 {
        let (log, of) = (daemon.log(), |rest: &str| rest.split_whitespace().next()?.parse::<u64>().ok());
        log.split(" repaired=").skip(1).filter_map(of).sum()
    };
    // What is found while something else is mended waits for up to a minute.
    wait::until("the scrub to mend", 2 * LONG, || (passes() == rotten).then_some(()));
    assert_eq!(figures(&verify(ctl, &[], 0).1), [0; 3]);
    assert!(ctl.cat(&id) == bytes);
}

#[test]
fn damage_that_is_known_is_known_after_a_restart_and_an_add_heals_what_nobody_knows_of() {
    let home = quiet("none");
    let daemon = home.start();
    let bytes = mib(91, 3);
    let id = daemon.ctl().add_bytes(&bytes);
    let chunks: Vec<String> = daemon.ctl().data_chunks(&id).into_iter().take(2).collect();
    let rot = || assert_eq!(segments::rot(&home.state(), |record| chunks.contains(&record.id)), 2);
    rot();
    assert_eq!(figures(&verify(daemon.ctl(), &[&id], 8).1), [2, 0, 2]);
    let told = |ctl: &Ctl| {
        let damaged = ctl.status()["scrub"]["damaged"].clone();
        (damaged[0]["id"] == id.as_str()).then_some(())
    };
    assert!(told(daemon.ctl()).is_some(), "of one object as well");
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    let daemon = home.start();
    wait::until("what is damaged to be told", LONG, || told(daemon.ctl()));
    let stat = daemon.ctl().json(&["stat", &id]).pop().unwrap();
    assert_eq!(stat["local_chunks"].as_u64().unwrap() + 2, stat["chunks"].as_u64().unwrap(), "{stat}");
    let heals = |ctl: &Ctl| {
        assert_eq!(ctl.add_bytes(&bytes), id);
        assert_eq!(ctl.status()["scrub"]["damaged"], Value::Array(Vec::new()));
        assert!(ctl.cat(&id) == bytes);
    };
    heals(daemon.ctl());
    // What has rotted while nobody looked is not passed over.
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    rot();
    let daemon = home.start();
    heals(daemon.ctl());
    assert_eq!(figures(&verify(daemon.ctl(), &[], 0).1), [0; 3]);
}
