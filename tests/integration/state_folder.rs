//! What a node says of its state folder: bytes by kind, refusals that say what takes the room, when what was
//! read, and what the doctor finds.

use casd_tests::Home;
use casd_tests::corpus::{self, MIB};
use casd_tests::wait::LONG;
use serde_json::{Value, json};

#[test]
fn status_says_what_the_bytes_are() {
    let home = Home::with(|settings| settings.text("store.quota", "1GiB").text("store.reserve", "1MiB"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    ctl.add_bytes(&corpus::bytes(1, 4 << 20));
    let status = ctl.status();
    let store = &status["store"];
    let bytes = |key: &str| store[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {status}"));
    // Four chunks, one of parity, a top and a page for each of both.
    assert_eq!(bytes("data_bytes"), 4 * (MIB + 4096));
    assert_eq!(bytes("parity_bytes"), MIB + 4096);
    assert!(bytes("manifest_bytes") >= 8192 && bytes("parity_part_bytes") >= 8192, "{status}");
    let kinds = ["data_bytes", "parity_bytes", "manifest_bytes", "parity_part_bytes", "index_bytes"];
    let sum: u64 = kinds.map(bytes).iter().sum();
    assert_eq!(status["stored_bytes"], sum);
    assert_eq!((&store["reserve_bytes"], &store["partials"]), (&json!(MIB), &json!(0)));
    assert_eq!((&store["recovering"], &status["quota_bytes"]), (&Value::Null, &json!(1 << 30)));
    let text = ctl.text(&["status"]);
    assert!(text.contains("\nbytes      4.0 MiB data, 1.0 MiB parity, "), "{text}");
}

#[test]
fn a_refusal_says_what_takes_the_room() {
    let home = Home::with(|settings| settings.text("store.quota", "12MiB").text("store.parity", "none"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let large = corpus::bytes(1, 6 << 20);
    let id = ctl.run(&["-q", "add", "--name", "film", "-"]).input(&large).done().ok().text();
    ctl.add_bytes(&corpus::bytes(2, 2 << 20));
    let add = |args: &[&str]| ctl.run(args).input(&corpus::bytes(3, 8 << 20)).done();
    let done = add(&["add", "-"]);
    done.refused(&[6], "quota is used up");
    assert!(done.stderr.contains("of 12.0 MiB in use; largest pins: film 6.0 MiB (uid "), "{}", done.stderr);
    let done = add(&["--json", "add", "-"]).code(6);
    let said: Value = serde_json::from_str(done.stderr.trim()).unwrap();
    assert_eq!((&said["reason"], &said["retryable"]), (&json!("QUOTA"), &json!(false)));
    assert_eq!(said["quota_bytes"], 12 * MIB);
    for key in ["needed_bytes", "used_bytes", "free_bytes", "reserve_bytes"] {
        assert!(said[key].is_u64(), "{key}: {said}");
    }
    let pins = said["pins"].as_array().unwrap();
    assert_eq!((pins.len(), &pins[0]["id"], &pins[0]["name"]), (2, &json!(id), &json!("film")));
    assert_eq!((&pins[0]["bytes"], &pins[0]["others"]), (&json!(6 * MIB), &json!(0)));
    assert!(pins[0]["uid"].is_u64() && pins[1]["name"].is_null(), "{said}");
}

#[test]
fn what_was_read_last_stays_longest() {
    let home = Home::with(|settings| settings.text("store.quota", "12MiB").text("store.parity", "none"));
    let daemon = home.start();
    let ids = [1, 2].map(|seed| daemon.ctl().add_bytes(&corpus::bytes(seed, 4 << 20)));
    for id in &ids {
        daemon.ctl().run(&["unpin", id]).done().ok();
        assert!(daemon.ctl().json(&["stat", id])[0]["used"].is_null());
    }
    // Time is in seconds: what is read now must not be read in the second in which the other came.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    daemon.ctl().cat(&ids[0]);
    let used = |ctl: &casd_tests::Ctl| ctl.json(&["ls", &ids[0]])[0]["used"].as_u64();
    let at = used(daemon.ctl());
    assert!(at.is_some());
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    let daemon = home.start();
    let ctl = daemon.ctl();
    assert_eq!(used(ctl), at, "it is known over a restart");
    ctl.add_bytes(&corpus::bytes(3, 5 << 20));
    assert_eq!(ctl.cat(&ids[0]), corpus::bytes(1, 4 << 20), "the one that was read");
    ctl.run(&["stat", &ids[1]]).done().refused(&[4], &ids[1][..8]);
}

fn level(checks: &[Value], name: &str) -> String {
    let check = checks.iter().find(|check| check["check"] == name);
    check.unwrap_or_else(|| panic!("{name} is not in {checks:?}"))["level"].as_str().unwrap().to_owned()
}

#[test]
fn the_doctor_looks_with_a_daemon_and_without() {
    let home = Home::new();
    let daemon = home.start();
    let doctor = |ctl: &casd_tests::Ctl, code| {
        ctl.run(&["--json", "doctor", "--state-dir"]).arg(home.state()).done().code(code).json()
    };
    let checks = doctor(daemon.ctl(), 0);
    for name in ["daemon", "folder", "sync", "holes", "writable", "stop", "index", "ballast", "clock"] {
        assert_eq!(level(&checks, name), "ok", "{name}: {checks:?}");
    }
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap()["numbers"].clone();
    assert!(of("space")["free_bytes"].is_u64() && of("clock")["now"].is_u64(), "{checks:?}");
    assert!(checks.iter().all(|check| check["what"].is_string() && !check["advice"].is_boolean()));
    assert!(!home.state().join("doctor.tmp").exists());
    // Others can see into it, and the ballast is lost.
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(home.state(), mode).unwrap();
    };
    mode(0o755);
    std::fs::remove_file(home.state().join("ballast")).unwrap();
    let checks = doctor(daemon.ctl(), 0);
    assert_eq!((&*level(&checks, "folder"), &*level(&checks, "ballast")), ("warn", "warn"));
    mode(0o700);
    let text = daemon.ctl().run(&["doctor"]).done().ok().text();
    assert!(text.starts_with("ok    daemon      it answers\n"), "{text}");
    daemon.ctl().add_bytes(b"something");
    let ctl = casd_tests::Ctl::new(&home.socket());
    daemon.kill();
    let checks = doctor(&ctl, 8);
    assert_eq!((&*level(&checks, "daemon"), &*level(&checks, "folder")), ("fail", "ok"));
    assert_eq!((&*level(&checks, "stop"), &*level(&checks, "ballast")), ("warn", "warn"));
    let daemon = home.start();
    assert_eq!(level(&doctor(daemon.ctl(), 0), "stop"), "warn", "it did not end in order");
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    assert_eq!(level(&doctor(&ctl, 8), "stop"), "ok");
}
