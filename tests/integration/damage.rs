//! A disk that rots, a store that is full, a journal that is lost: what was acknowledged is given, or it is said
//! plainly that it cannot be.

use casd_tests::corpus::{self, MIB};
use casd_tests::wait::LONG;
use casd_tests::{Home, segments};
use rustix::process::Signal;

#[test]
fn what_rots_is_rebuilt_from_parity_that_is_here() {
    let home = Home::with(|settings| settings.text("store.parity", "16+4"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let bytes = corpus::bytes(31, usize::try_from(20 * MIB).unwrap() + 77);
    let id = ctl.add_bytes(&bytes);
    let all = ctl.data_chunks(&id);
    let rotten = [&all[0], &all[3], &all[9], &all[17]];
    let rots = |record: &segments::Record| record.kind == segments::DATA && rotten.contains(&&record.id);
    assert_eq!(segments::rot(&home.state(), rots), 4);
    // Nobody else is there: the parity of this node does it, and heals the store.
    assert!(ctl.cat(&id) == bytes);
    assert!(ctl.cat(&id) == bytes);
    let stat = ctl.json(&["stat", &id]).pop().unwrap();
    assert_eq!(stat["local_chunks"], stat["chunks"], "{stat}");
    let _ = daemon.logged("damaged");
}

#[test]
fn what_rots_and_cannot_be_rebuilt_is_8_and_named() {
    let home = Home::with(|settings| settings.text("store.parity", "none"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let file = home.path("file");
    let id = corpus::file(&file, 32, 8 * MIB);
    assert_eq!(ctl.add(&file), id);
    let fifth = ctl.data_chunks(&id).remove(5);
    assert_eq!(segments::rot(&home.state(), |record| record.id == fifth), 1);
    for args in [vec!["cat", &id], vec!["fetch", &id, "-o", "-"]] {
        let done = ctl.run(&args).done().code(8);
        assert!(done.stderr.contains("chunk 5 of 8"), "{}", done.stderr);
    }
    // What is before it can be read; adding the file again heals it.
    let part = ctl.run(&["cat", &id, "--length", "1000"]).done().ok().stdout;
    assert!(part == std::fs::read(&file).unwrap()[..1000]);
    ctl.add(&file);
    assert_eq!(corpus::id(&ctl.cat(&id)), id);
}

#[test]
fn leftovers_and_what_nobody_pinned_give_way_when_the_store_is_full() {
    let home = Home::with(|settings| settings.text("store.quota", "40MiB").text("store.parity", "none"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let kept = ctl.add_bytes(&corpus::bytes(41, 8 << 20));
    let cached = ctl.add_bytes(&corpus::bytes(42, 8 << 20));
    ctl.run(&["unpin", &cached]).done().ok();
    // An add that never ends leaves 15 MiB.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let adding = ctl.run(&["add", "-"]).stdin(reader).start();
    std::io::Write::write_all(&mut writer, &corpus::bytes(43, 15 << 20)).unwrap();
    casd_tests::wait::until("it to be stored", LONG, || {
        (ctl.status()["stored_bytes"].as_u64()? > 30 * MIB).then_some(())
    });
    adding.signal(Signal::INT);
    assert_eq!(adding.done().status.code(), Some(130));
    // Neither hinders the next: the leftovers go, and the object.
    let second = ctl.add_bytes(&corpus::bytes(44, 16 << 20));
    let third = ctl.add_bytes(&corpus::bytes(45, 12 << 20));
    ctl.run(&["stat", &cached]).done().refused(&[4], &cached[..8]);
    for id in [&kept, &second, &third] {
        assert_eq!(&corpus::id(&ctl.cat(id)), id);
    }
    // What is pinned does not give way.
    ctl.run(&["add", "-"]).input(&corpus::bytes(46, 8 << 20)).done().refused(&[6], "quota");
    assert_eq!(ctl.json(&["ls"]).len(), 3);
}

#[test]
fn a_lost_journal_is_not_taken_for_an_empty_store() {
    let home = Home::new();
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"precious");
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    let journal = home.state().join("journal/journal");
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, b"").unwrap();
    home.fail().refused(&[1], "journal");
    std::fs::remove_file(&journal).unwrap();
    home.fail().refused(&[1], "journal");
    std::fs::write(&journal, whole).unwrap();
    assert_eq!(home.start().ctl().cat(&id), b"precious");
}

#[test]
fn nobody_takes_for_private_what_is_public() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let id = ctl.add_bytes(b"seen by all");
    ctl.run(&["add", "--private", "-"]).input(b"seen by all").done().refused(&[1], "public");
    ctl.run(&["rm", &id]).done().ok();
    ctl.run(&["add", "--private", "-"]).input(b"seen by all").done().ok();
    ctl.run(&["add", "-"]).input(b"seen by all").done().refused(&[1], "private");
    assert_eq!(ctl.json(&["stat", &id])[0]["private"], true);
}
