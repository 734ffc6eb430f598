//! A file system that turns read-only in the middle of an add, as ext4 does at an error of its own: nothing half is
//! acknowledged, what is there is given, and the next start, on a mended disk, goes on.

use std::io::Write;

use casd_tests::corpus;
use casd_tests::disk::Mounted;
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, skip};

#[test]
fn a_disk_that_turns_read_only_in_the_middle_of_an_add() {
    let mut home = Home::with(|settings| settings.text("store.parity", "none").text("store.scrub", "0"));
    let Some(mut disk) = Mounted::ext4(&home.path("disk"), &home.path("image"), 96) else {
        return skip("only root can mount a file system");
    };
    let state = disk.folder().join("state").display().to_string();
    home.change(|settings| settings.text("node.state_dir", &state));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let kept = ctl.add_bytes(&corpus::bytes(1, 3 << 20));
    let before = ctl.status()["stored_bytes"].as_u64();
    let half = corpus::bytes(2, 20 << 20);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let adding = ctl.run(&["add", "-"]).stdin(reader).start();
    writer.write_all(&half[..8 << 20]).unwrap();
    wait::until("some of it to be stored", LONG, || {
        (ctl.status()["stored_bytes"].as_u64() > before).then_some(())
    });
    if !disk.fail() {
        return skip("this kernel cannot let an ext4 fail");
    }
    // It may be refused before all of it has been taken.
    let _ = writer.write_all(&half[8 << 20..]);
    drop(writer);
    adding.done().refused(&[1], "read-only");
    // What is there can be read, and what cannot be done says why.
    assert!(ctl.cat(&kept) == corpus::bytes(1, 3 << 20));
    let why = ctl.status()["store"]["read_only"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("Read-only file system")), "{why}");
    assert!(ctl.text(&["status"]).contains("\nread-only  "));
    ctl.run(&["add", "-"]).input(b"more").done().refused(&[1], "read-only");
    ctl.run(&["rm", &kept]).done().refused(&[1], "read-only");
    assert_eq!(ctl.json(&["ls"]).len(), 1);
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(log.matches("the store is read-only until casd is restarted").count(), 1, "{log}");
    let _ = daemon.stop(LONG);
    // Mended and mounted anew it goes on.
    disk.again();
    let daemon = home.start();
    let ctl = daemon.ctl();
    assert!(ctl.cat(&kept) == corpus::bytes(1, 3 << 20));
    assert_eq!(ctl.json(&["ls"]).len(), 1, "nothing half is there");
    assert!(ctl.status()["store"]["read_only"].is_null());
    let id = ctl.add_bytes(&half);
    assert!(ctl.cat(&id) == half);
    ctl.run(&["verify"]).within(2 * LONG).done().ok();
    drop(daemon);
}
