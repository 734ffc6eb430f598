//! The daemon's command line, its settings file, and what it refuses to start on.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::wait::LONG;
use casd_tests::{Home, Settings};

/// A file, and what is said about it after the file's name. The unit tests have every message; these prove the code
/// and the place.
const BAD: &[(&str, &str)] = &[
    ("[network]\nnme = \"x\"\n", ":2:1: key `network.nme`: unknown key; did you mean `name`?"),
    ("[netwrok]\n", ":1:2: key `netwrok`: unknown section; did you mean `network`?"),
    (
        "[listen]\nchunk = [\"127.0.0.1:70000\"]\n",
        ":2:10: key `listen.chunk`: \"127.0.0.1:70000\" is no address",
    ),
    ("[store]\nquota = -1\n", ":2:9: key `store.quota`: \"-1\" is no size"),
    ("[store]\nparity = 16\n", ":2:10: key `store.parity`: expected text in quotes, found a whole number"),
    (
        "[network]\nbootstrap = [\"/ip4/203.0.113.7/udp/8468/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN\"]\n",
        ":2:14: key `network.bootstrap`: \"/ip4/203.0.113.7/udp/8468/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN\" is UDP without /quic-v1",
    ),
    ("[network]\nkey_file = \"k\"\n", ":2:12: key `network.key_file`: \"k\" is not an absolute path"),
    (
        "[network]\nkey_file = \"/etc/passwd\"\n",
        ":2:12: key `network.key_file`: \"/etc/passwd\" holds no key",
    ),
    ("[store\n", ":1:7: not TOML: "),
];

#[test]
fn bad_settings_end_with_78_and_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    for check in [true, false] {
        for (text, said) in BAD {
            std::fs::write(&file, text).unwrap();
            let run = Run::new(program("casd")).env("HOME", folder.path()).arg("--config").arg(&file);
            let done = if check { run.arg("--check-config") } else { run }.done().code(78);
            let expected = format!("{}{said}", file.display());
            assert!(done.stderr.contains(&expected), "{:?} does not contain {expected:?}", done.stderr);
            assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        }
    }
    for bytes in [&b"\xff\xfe"[..], &vec![b'#'; 10 << 20]] {
        std::fs::write(&file, bytes).unwrap();
        Run::new(program("casd"))
            .env("HOME", folder.path())
            .arg("--config")
            .arg(&file)
            .done()
            .refused(&[78], "bad.toml");
    }
    Run::new(program("casd")).arg("--config").arg(folder.path().join("none")).done().refused(&[78], "none");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was created");
}

#[test]
fn good_settings_check_without_touching_anything() {
    let home = Home::new();
    let done = home.run().arg("--check-config").done().ok();
    assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{}", done.stderr);
    assert!(!home.state().exists());
    // Beside a running daemon as well.
    let daemon = home.start();
    home.run().arg("--check-config").done().ok();
    assert!(daemon.is_ready());
}

#[test]
fn settings_without_effect_are_told_and_stop_nothing() {
    let home = Home::with(|settings| settings.text("network.mode", "client").text("network.dht", "server"));
    let done = home.run().arg("--check-config").done().ok();
    let said: Vec<_> = done.stderr.lines().collect();
    let is_about =
        |key: &str| said.iter().any(|line| line.starts_with("casd: warning: ") && line.contains(key));
    assert!(said.len() == 2 && is_about("`network.dht`: not used") && is_about("`listen.chunk`"), "{said:?}");
    let _ = home.start().logged("key `network.dht`: not used");
}

#[test]
fn bad_usage_is_64_and_keys_are_keys() {
    for args in [&["serve"][..], &["--config"], &["--confg", "x"], &["--gen-key", "--check-config"]] {
        args.iter().fold(Run::new(program("casd")), Run::arg).done().code(64);
    }
    assert!(Run::new(program("casd")).arg("--version").done().ok().text().starts_with("casd "));
    let key = || Run::new(program("casd")).arg("--gen-key").done().ok();
    let (one, two) = (key(), key());
    assert_ne!(one.stdout, two.stdout);
    let digits = one.text();
    assert!(
        digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{digits}"
    );
    assert_eq!(one.stdout.len(), 65, "64 digits and a newline");
}

#[test]
fn a_configured_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let chunk = Home::with(|settings| settings.texts("listen.chunk", &[format!("127.0.0.1:{port}")]));
    chunk.fail().code(1).stderr.find(&format!("127.0.0.1:{port}")).expect("the address is named");
    let dht = Home::with(|settings| settings.texts("listen.dht", &[format!("/ip4/127.0.0.1/tcp/{port}")]));
    dht.fail().code(1).stderr.find(&port.to_string()).expect("the address is named");
}

#[test]
fn a_default_port_in_use_is_replaced_by_a_free_one() {
    // Taken by this test, or by whoever has it already.
    let _taken = TcpListener::bind("127.0.0.1:9000");
    let home = Home::with(|settings: Settings| settings.without("listen"));
    let daemon = home.start();
    let status = daemon.ctl().status();
    let chunk = status["listen"]["chunk"].as_array().unwrap();
    assert!(!chunk.is_empty());
    assert!(!chunk.iter().any(|at| at == "127.0.0.1:9000" || at == "0.0.0.0:9000"), "{chunk:?}");
    assert!(chunk.iter().all(|at| !at.as_str().unwrap().ends_with(":0")), "as bound: {chunk:?}");
    assert!(!status["listen"]["dht"].as_array().unwrap().is_empty());
    assert!(daemon.log().contains("9000"), "a warning names the port");
}

#[test]
fn an_unusable_state_folder_is_an_error_that_names_it() {
    let mut home = Home::new();
    let file = home.path("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("state").display().to_string();
    home.change(|settings| settings.text("node.state_dir", &inside));
    let done = home.fail().code(1);
    assert!(done.stderr.contains(&*inside) || done.stderr.contains("file"), "{}", done.stderr);
    assert!(!done.stderr.contains("panicked"));

    let locked = home.path("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(locked.join("try"), "").is_ok() {
        eprintln!("not tested: whoever runs this test may write everywhere");
        return;
    }
    home.change(|settings| settings.text("node.state_dir", &locked.display().to_string()));
    let done = home.fail().code(1);
    assert!(done.stderr.contains("locked"), "{}", done.stderr);
}

#[test]
fn one_daemon_a_state_folder() {
    let home = Home::new();
    let first = home.start();
    let id = first.ctl().add_bytes(b"mine");
    let other = home.path("other.sock").display().to_string();
    let second = Home::with(|settings| {
        settings.text("node.state_dir", &home.state().display().to_string()).text("api.socket", &other)
    });
    let done = second.fail().code(1);
    assert!(done.stderr.contains(&home.state().display().to_string()), "{}", done.stderr);
    assert_eq!(first.ctl().cat(&id), b"mine", "the first one does not notice");

    // The same socket, another folder: a living daemon's socket is not taken away.
    let third = Home::with(|settings| settings.text("api.socket", &home.socket().display().to_string()));
    let done = third.fail().code(1);
    assert!(done.stderr.contains("casd.sock"), "{}", done.stderr);
    assert_eq!(first.ctl().cat(&id), b"mine");
}

#[test]
fn a_dead_daemon_leaves_nothing_that_stops_the_next() {
    let home = Home::new();
    let first = home.start();
    let id = first.ctl().add_bytes(b"kept");
    first.kill();
    assert!(home.socket().exists(), "a killed daemon cannot remove its socket");
    let second = home.start();
    assert_eq!(second.ctl().cat(&id), b"kept");
    assert_eq!(second.stop(LONG).code(), Some(0));
}

#[test]
fn without_a_file_defaults_serve_an_unprivileged_user() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(program("casd")).env("HOME", folder.path()).start();
    let socket = folder.path().join(".local/state/casd/casd.sock");
    let ctl = casd_tests::Ctl::new(&socket);
    casd_tests::wait::until("the daemon to be ready", LONG, || {
        let status = socket.exists().then(|| ctl.run(&["status", "--json"]).done())?;
        (status.status.success() && status.json()[0]["ready"] == true).then_some(())
    });
    // casctl finds it by itself.
    let found =
        Run::new(program("casctl")).env("HOME", folder.path()).arg("-q").arg("add").arg("-").input(b"x");
    assert_eq!(found.done().ok().text(), casd_tests::corpus::id(b"x"));
    let mode = |path| std::fs::metadata(path).map(|about| about.permissions().mode() & 0o777).unwrap();
    assert_eq!(mode(socket), 0o600, "a socket that the daemon makes is its user's alone");
    assert_eq!(mode(folder.path().join(".local/state/casd/node.key")), 0o600);
    run.signal(rustix::process::Signal::TERM);
    run.done().ok();
}
