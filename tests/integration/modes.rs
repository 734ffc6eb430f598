//! Private networks and clients: who is let in, what those learn who are not, and what a client keeps shut.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use casd::session::Reason;
use casd::session::frames::{Frame, Hello, Role};
use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::stranger::{self, encode, hello};
use casd_tests::wait::LONG;
use casd_tests::{Home, Node, Settings, nodes};

/// A key file as its owner makes it.
fn key_file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    write(&path, &Run::new(program("casd")).arg("--gen-key").done().ok().stdout, 0o600);
    path
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn with_key(settings: Settings, file: &Path) -> Settings {
    settings.text("network.key_file", &file.display().to_string())
}

#[test]
fn a_private_network_shares_and_lets_nobody_else_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (key_file(folder.path(), "ours"), key_file(folder.path(), "theirs"));
    let members = nodes::network(2, |_, settings| with_key(settings, &ours));
    let file = members[0].home.path("file");
    let id = corpus::file(&file, 5, 3 * MIB + 17);
    members[0].ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    let out = members[1].home.path("out");
    members[1].ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    assert_eq!(corpus::id_of_file(&out), id, "found and fetched by its id alone");
    let status = members[0].ctl().status();
    assert_eq!((&status["private_network"], &status["mode"]), (&true.into(), &"full".into()));
    let network = status["network"].as_str().unwrap();
    let dht = members[0].daemon.dht_addresses();
    assert!(dht.len() == 2 && dht.iter().any(|at| at.contains("/quic-v1")), "QUIC and TCP: {dht:?}");

    let stranger = |key: Option<&Path>| {
        let home = Home::with(|settings| {
            let settings = settings.text("network.name", network).texts("network.bootstrap", &dht);
            key.into_iter().fold(settings, with_key)
        });
        Node { daemon: home.start(), home }
    };
    let mut logs = String::new();
    for (key, refusal) in
        [(None, "belongs to a private network"), (Some(theirs.as_path()), "private network")]
    {
        let stranger = stranger(key);
        assert_eq!(stranger.ctl().status()["private_network"], key.is_some());
        for member in &members {
            for at in member.daemon.dht_addresses() {
                stranger.ctl().run(&["connect", &at]).done().refused(&[1], refusal);
            }
            let at = member.daemon.chunk_address();
            stranger.ctl().run(&["connect", &at]).done().refused(&[1], refusal);
        }
        // Nor do members speak to it.
        for at in [stranger.daemon.dht_addresses(), vec![stranger.daemon.chunk_address()]].concat() {
            members[1].ctl().run(&["connect", &at]).done().refused(&[1], "private network");
        }
        let _ = stranger.daemon.logged("bootstrap node");
        // It has learnt nothing: no peers, no holders, no bytes.
        assert!(stranger.ctl().json(&["peers"]).is_empty());
        assert_eq!(stranger.ctl().status()["peers"], 0);
        let from = members[0].daemon.chunk_address();
        let fetch = stranger.ctl().run(&["fetch", &id, "--stall", "2s", "--peer", &from, "-o"]);
        fetch.arg(stranger.home.path("out")).done().refused(&[1], "network key");
        assert_eq!(stranger.ctl().status()["stored_bytes"], 0);
        logs += &stranger.daemon.log();
    }
    for member in &members {
        let peers = member.ctl().json(&["peers"]);
        assert_eq!(peers.len(), 1, "the other member: {peers:?}");
        logs += &member.daemon.log();
    }
    for key in [ours, theirs] {
        let key = std::fs::read_to_string(key).unwrap();
        assert!(!logs.contains(key.trim_end()), "a key is in a log");
    }
}

#[test]
fn on_the_chunk_port_a_stranger_hears_the_refusal_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "key");
    let node = nodes::network(1, |_, settings| with_key(settings, &key)).pop().unwrap();
    let (network, at) = (node.ctl().status()["network"].clone(), node.daemon.chunk_address());
    let right = hello(network.as_str().unwrap(), Role::Asker);
    let guesses = [
        right.clone(),
        // Whether the name is right cannot be told from the answer.
        hello("elsewhere", Role::Asker),
        Hello { proof: Some([7; 32]), ..right },
    ];
    let said = guesses.map(|hello| stranger::call(&at, &encode(&[Frame::Hello(hello)])));
    let refusal = encode(&[Frame::Goodbye(Reason::Proof, String::new())]);
    assert!(said.iter().all(|said| *said == refusal), "{said:?}");
}

#[test]
fn key_files_that_are_none_end_with_78_and_say_what_is_wrong() {
    let home = Home::new();
    let digits = "5e".repeat(32);
    let path = home.path("network.key");
    let (named, mode_says) = (path.display().to_string(), "run: chmod 600");
    let bad: [(&[u8], u32, &str); 9] = [
        (digits.as_bytes(), 0o644, mode_says),
        (digits.as_bytes(), 0o660, mode_says),
        (digits.as_bytes(), 0o604, mode_says),
        (b"", 0o600, "64 hexadecimal digits"),
        (&digits.as_bytes()[1..], 0o600, "64 hexadecimal digits"),
        (&[digits.as_bytes(), b"0\n"].concat(), 0o600, "64 hexadecimal digits"),
        (&[&digits.as_bytes()[1..], b"g\n"].concat(), 0o600, "64 hexadecimal digits"),
        (&[digits.as_bytes(), b"\n\n"].concat(), 0o600, "64 hexadecimal digits"),
        (&vec![0; 1 << 20], 0o600, "64 hexadecimal digits"),
    ];
    let config = home.path("private.toml");
    std::fs::write(&config, format!("[network]\nkey_file = \"{named}\"\n")).unwrap();
    let start = |check: bool| {
        let run = Run::new(program("casd")).env("HOME", home.path("")).arg("--config").arg(&config);
        if check { run.arg("--check-config") } else { run }.done()
    };
    let refused = |says: &str| {
        for check in [true, false] {
            let done = start(check);
            done.refused(&[78], says);
            let place = format!("{}:2:12: key `network.key_file`: ", config.display());
            assert!(done.stderr.contains(&place) && done.stderr.contains(&named), "{}", done.stderr);
            assert!(!done.stderr.contains("5e5e"), "what may be a key is not shown: {}", done.stderr);
        }
    };
    refused("No such file");
    for (bytes, mode, says) in bad {
        write(&path, bytes, mode);
        refused(says);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("not a plain file");
    std::fs::remove_dir(&path).unwrap();
    for good in [digits.clone(), format!("{digits}\n")] {
        for mode in [0o600, 0o400] {
            write(&path, good.as_bytes(), mode);
            start(true).ok();
        }
    }
    assert!(!home.path(".local").exists(), "nothing was started");
}

#[test]
fn a_key_that_cannot_be_printed_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(program("casd")).arg("--gen-key").stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Local addresses of a process's sockets in one of the kernel's tables, in its hexadecimal form; of TCP those that
/// listen.
fn sockets(pid: u32, table: &str) -> Vec<String> {
    let inode = |entry: std::io::Result<std::fs::DirEntry>| {
        let link = std::fs::read_link(entry.ok()?.path()).ok()?;
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let ours: HashSet<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(inode).collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // A row has: number, local, remote, state (0A listens, 07 is a UDP socket), four more, inode.
    rows.filter(|row| ours.contains(row[9]) && ["0A", "07"].contains(&row[3]))
        .map(|row| row[1].to_owned())
        .collect()
}

#[test]
fn a_client_fetches_and_has_nothing_open() {
    let nodes = nodes::network(3, |number, settings| match number {
        2 => settings.without("listen").text("network.mode", "client"),
        _ => settings,
    });
    let [full, other, client] = <[Node; 3]>::try_from(nodes).unwrap();
    let listening = |node: &Node| {
        ["tcp", "tcp6"].iter().flat_map(|table| sockets(node.daemon.pid(), table)).collect::<Vec<_>>()
    };
    assert_eq!(listening(&full).len(), 2, "chunks and the DHT: the kernel's table is read");
    assert_eq!(listening(&client), Vec::<String>::new());
    let status = client.ctl().status();
    assert_eq!(status["listen"], serde_json::json!({ "chunk": [], "dht": [] }));
    assert_eq!(status["mode"], "client");
    assert!(client.ctl().text(&["status"]).contains("client: it only fetches"));

    let file = full.home.path("file");
    let id = corpus::file(&file, 6, 5 * MIB + 3);
    full.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    let out = client.home.path("out");
    client.ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    assert_eq!(corpus::id_of_file(&out), id);

    // What it adds is kept here, which it says, and stays unknown to others.
    let added =
        client.ctl().run(&["add", "--wait-announced", "-"]).input(b"mine alone").within(LONG).done().code(9);
    assert!(added.stderr.contains("nobody can fetch"), "{}", added.stderr);
    let mine = corpus::id(b"mine alone");
    assert_eq!(client.ctl().cat(&mine), b"mine alone");
    let holders = other.ctl().json(&["providers", &id]);
    let who: Vec<_> = holders.iter().map(|holder| holder["peer_id"].as_str().unwrap()).collect();
    assert_eq!(who, [full.id()], "it has the object and is no holder of it");
    let fetch = full.ctl().run(&["fetch", &mine, "--stall", "2s", "-o"]);
    fetch.arg(full.home.path("out")).done().refused(&[4], "");
    let announce = &client.ctl().status()["announce"];
    assert_eq!((&announce["messages"], &announce["done"]), (&0.into(), &0.into()));
    assert_eq!(listening(&client), Vec::<String>::new(), "still");
}

#[test]
fn a_client_listens_for_the_dht_only_where_it_is_told_to() {
    let home = Home::with(|settings| settings.text("network.mode", "client"));
    let daemon = home.start();
    let status = daemon.ctl().status();
    assert_eq!(status["listen"]["chunk"], serde_json::json!([]));
    assert_eq!(status["listen"]["dht"].as_array().unwrap().len(), 2);
    let _ = daemon.logged("key `listen.chunk`: not used");
}
