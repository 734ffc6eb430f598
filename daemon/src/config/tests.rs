//! Defaults, good values, and what is said about each kind of bad one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::{Announce, Config, DhtMode, Environment, Error, Mode};
use crate::erasure::Geometry;

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn packaged() -> Environment {
    Environment {
        state_directory: Some("/var/lib/casd:/var/lib/other".into()),
        runtime_directory: Some("/run/casd".into()),
        host_name: Some("alpha".into()),
        ..Environment::default()
    }
}

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse("casd.toml", text.as_bytes(), &packaged())
}

fn complaint(bytes: &[u8]) -> String {
    Config::parse("casd.toml", bytes, &packaged()).expect_err("it is wrong").to_string()
}

#[test]
fn the_packaged_file_is_the_defaults() {
    let file = include_str!("../../../packaging/casd.toml");
    let defaults = Config::defaults(&packaged()).unwrap();
    assert_eq!(parse(file).unwrap(), defaults, "as it is installed");

    // With every key uncommented it says the same, only that the addresses are then configured.
    let key = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let uncommented: Vec<_> =
        file.lines().map(|line| line.strip_prefix("# ").filter(|rest| key(rest)).unwrap_or(line)).collect();
    let mut all = parse(&uncommented.join("\n")).unwrap();
    assert!(all.listen.chunk.configured && all.listen.dht.configured);
    (all.listen.chunk.configured, all.listen.dht.configured) = (false, false);
    assert_eq!(all, defaults);
    assert_eq!(uncommented.iter().filter(|line| key(line)).count(), 31, "every key is shown");
}

#[test]
fn empty_files_marks_and_line_ends_do_not_matter() {
    let defaults = Config::defaults(&packaged()).unwrap();
    for file in ["", "\n", "# nothing", "\u{feff}", "[store]\r\n[network]\r\n", "[node]\nname = \"\"\n"] {
        assert_eq!(parse(file).unwrap(), defaults, "{file:?}");
    }
    let crlf = "\u{feff}[store]\r\nquota = \"1GiB\"\r\n";
    assert_eq!(parse(crlf).unwrap().store.quota, 1 << 30);
}

#[test]
fn every_key_is_taken() {
    let config = parse(&format!(
        r#"
        [node]
        name = "älice"
        state_dir = "/srv/casd"
        [api]
        socket = "/srv/s"
        [listen]
        chunk = ["127.0.0.1:0", "[::1]:9001"]
        dht = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/tcp/8468"]
        [network]
        name = "test-1"
        key_file = ""
        bootstrap = ["/dns4/example.org/udp/8468/quic-v1/p2p/{PEER}", "/ip4/127.0.0.1/tcp/1/p2p/{PEER}"]
        mode = "client"
        dht = "server"
        lan_discovery = false
        announce = "chunks"
        publish = true
        [store]
        quota = "500GiB"
        reserve = 0
        parity = "4+2"
        private = true
        scrub = "12h"
        [transfer]
        connections = 8
        per_fetch = 3
        jobs = 2
        idle_timeout = "1500ms"
        upload = "10 MiB"
        download = "1MB"
        upload_per_peer = 65_536
        serve = "8MiB"
        announce = "1MiB"
        fetch = "7MiB"
        repair = 1048576
        upload_slots = 5
        yielding = true
        "#
    ))
    .unwrap();
    assert_eq!((config.node.name.as_str(), config.node.state_dir), ("älice", PathBuf::from("/srv/casd")));
    assert_eq!(config.api.socket, PathBuf::from("/srv/s"));
    assert_eq!(config.listen.chunk.list, ["127.0.0.1:0".parse().unwrap(), "[::1]:9001".parse().unwrap()]);
    assert_eq!(config.listen.dht.list.len(), 2);
    assert_eq!((config.network.name.as_str(), config.network.bootstrap.len()), ("test-1", 2));
    assert_eq!((config.network.mode, config.network.dht), (Mode::Client, DhtMode::Server));
    assert_eq!((config.network.announce, config.network.lan_discovery), (Announce::Chunks, false));
    assert!(config.network.publish && !parse("").unwrap().network.publish);
    assert_eq!((config.store.quota, config.store.reserve), (500 << 30, 0));
    assert_eq!((config.store.parity, config.store.private), (Some(Geometry::new(4, 2).unwrap()), true));
    assert_eq!(config.store.scrub, Duration::from_secs(12 * 3600));
    assert_eq!(parse("[store]\nscrub = \"0\"").unwrap().store.scrub, Duration::ZERO);
    assert_eq!(parse("").unwrap().store.scrub, Duration::from_secs(30 * 24 * 3600));
    assert_eq!((config.transfer.connections, config.transfer.per_fetch, config.transfer.jobs), (8, 3, 2));
    assert_eq!(config.transfer.idle_timeout, Duration::from_millis(1500));
    assert_eq!((config.transfer.upload, config.transfer.download), (10 << 20, 1_000_000));
    assert_eq!(config.transfer.upload_per_peer, 65_536);
    assert_eq!((config.transfer.serve, config.transfer.announce), (8 << 20, 1 << 20));
    assert_eq!((config.transfer.fetch, config.transfer.repair), (7 << 20, 1 << 20));
    assert_eq!((config.transfer.upload_slots, config.transfer.yielding), (5, true));
    assert_eq!((parse("").unwrap().transfer.upload_slots, parse("").unwrap().transfer.yielding), (32, false));
    assert_eq!(parse("[store]\nparity = \"none\"").unwrap().store.parity, None);
}

/// Where no node can be, and a part of what is said of it.
const NOWHERE: &[(&str, &str)] = &[
    ("/ip4/203.0.113.7/udp/8468", "is UDP without /quic-v1"),
    ("/ip4/203.0.113.7/udp/8468/quic", "is UDP without /quic-v1"),
    ("/ip4/203.0.113.7/tcp/8468/ws", "has /ws in it"),
    ("/ip4/203.0.113.7/tcp/8468/ip4/203.0.113.8/tcp/1", "has /ip4/203.0.113.8 in it"),
    ("/ip4/203.0.113.7/tcp/0", "has port 0"),
    ("/dns/example.org/udp/0/quic-v1", "has port 0"),
    ("/ip4/0.0.0.0/tcp/8468", "is no node's address"),
    ("/ip6/::/udp/8468/quic-v1", "is no node's address"),
    ("/ip4/224.0.0.1/udp/8468/quic-v1", "is no node's address"),
    ("/ip4/255.255.255.255/tcp/8468", "is no node's address"),
    ("/memory/7", "is no address that casd can dial"),
    ("/dnsaddr/example.org", "is no address that casd can dial"),
];

#[test]
fn bootstrap_addresses_at_which_no_node_can_be_are_refused_with_what_to_write_instead() {
    let listed = |at: &str| format!("[network]\nbootstrap = [\n  \"{at}/p2p/{PEER}\",\n]");
    for (at, said) in NOWHERE {
        let complaint = complaint(listed(at).as_bytes());
        let place = format!("casd.toml:3:3: key `network.bootstrap`: \"{at}/p2p/{PEER}\" {said}");
        assert!(complaint.starts_with(&place), "{complaint}");
        assert!(complaint.contains("write ") || complaint.contains("casctl status"), "{complaint}");
    }
    let relay = format!("/ip6/2001:db8::7/tcp/8468/p2p/{PEER}/p2p-circuit");
    for at in ["/ip4/203.0.113.7/udp/8468/quic-v1", "/dns6/example.org/tcp/8468", &relay] {
        let config = parse(&listed(at)).unwrap();
        assert!(config.network.bootstrap.len() == 1 && config.warnings.is_empty(), "{at}");
    }
}

#[test]
fn what_has_no_effect_is_told_with_its_place_and_refused_by_nobody() {
    let warnings = |text: &str| parse(text).unwrap().warnings;
    let client = "[listen]\nchunk = [\"0.0.0.0:9000\"]\n[network]\nmode = \"client\"\ndht = \"server\"\n\
        announce = \"chunks\"\npublish = true\n";
    let said = warnings(client);
    for (line, place) in said.iter().zip([
        "casd.toml:2:9: key `listen.chunk`: not used: ",
        "casd.toml:5:7: key `network.dht`: not used: ",
        "casd.toml:6:12: key `network.announce`: not used: ",
        "casd.toml:7:11: key `network.publish`: not used: ",
    ]) {
        assert!(line.starts_with(place) && line.contains("\"client\""), "{line}");
    }
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(warnings(&client.replace("\"client\"", "\"full\"")), [""; 0]);
    assert_eq!(warnings("[network]\nmode = \"client\"\nannounce = \"none\"\ndht = \"client\""), [""; 0]);
    for ip in ["ip4/127.0.0.1", "ip6/::1", "ip6/::ffff:127.0.0.1"] {
        let said = warnings(&format!("[network]\nbootstrap = [\"/{ip}/tcp/8468/p2p/{PEER}\"]"));
        assert_eq!(said.len(), 1, "{ip}");
        assert!(said[0].starts_with("casd.toml:2:13: key `network.bootstrap`: "), "{said:?}");
        assert!(!said[0].contains(PEER), "how it went there another line says: {said:?}");
    }
}

/// What is wrong, and the very line that says so. `%` stands for the value that [`PEER`] has.
const BAD: &[(&str, &str)] = &[
    (
        "[store]\nscrub = \"0d\"",
        "casd.toml:2:9: key `store.scrub`: \"0d\" is no such time; write such as \"30d\" or \"12h\", up to 3650d, or \"0\" for never",
    ),
    ("[network]\nnme = \"x\"", "casd.toml:2:1: key `network.nme`: unknown key; did you mean `name`?"),
    ("[store]\n  quotas = 1", "casd.toml:2:3: key `store.quotas`: unknown key; did you mean `quota`?"),
    ("[store]\nzzz = 1", "casd.toml:2:1: key `store.zzz`: unknown key"),
    ("[store]\n\"a\\nb\" = 1", "casd.toml:2:1: key `store.a\\nb`: unknown key"),
    ("\n[netwrok]", "casd.toml:2:2: key `netwrok`: unknown section; did you mean `network`?"),
    ("name = \"x\"", "casd.toml:1:1: key `name`: unknown section"),
    ("store = 3", "casd.toml:1:9: key `store`: expected a section `[store]`, found a whole number"),
    ("[[store]]", "casd.toml:1:1: key `store`: expected a section `[store]`, found a list"),
    ("[node]\nname = 7", "casd.toml:2:8: key `node.name`: expected text in quotes, found a whole number"),
    (
        "[node]\nname = \"a\\u001bb\"",
        "casd.toml:2:8: key `node.name`: a name has at most 64 bytes and no control characters",
    ),
    (
        "[node]\nstate_dir = \"casd\"",
        "casd.toml:2:13: key `node.state_dir`: \"casd\" is not an absolute path; begin it with /",
    ),
    (
        "[listen]\nchunk = \"127.0.0.1:9000\"",
        "casd.toml:2:9: key `listen.chunk`: expected a list of texts in [ ], found text",
    ),
    ("[listen]\nchunk = []", "casd.toml:2:9: key `listen.chunk`: 0 entries; there may be 1 to 16"),
    (
        "[listen]\nchunk = [\"[::]:9000\",\n  \"127.0.0.1:70000\"]",
        "casd.toml:3:3: key `listen.chunk`: \"127.0.0.1:70000\" is no address; write such as \"0.0.0.0:9000\" or \"[::]:9000\"",
    ),
    (
        "[listen]\nchunk = [9000]",
        "casd.toml:2:10: key `listen.chunk`: expected text in quotes, found a whole number",
    ),
    (
        "[listen]\ndht = [\"/ip4/127.0.0.1/udp/8468\"]",
        "casd.toml:2:8: key `listen.dht`: \"/ip4/127.0.0.1/udp/8468\" is no address to listen on; write /ip4/ADDRESS/udp/PORT/quic-v1 or /ip4/ADDRESS/tcp/PORT (or ip6)",
    ),
    (
        "[network]\nname = \"a/b\"",
        "casd.toml:2:8: key `network.name`: a network's name has 1 to 64 characters of a-z A-Z 0-9 . _ -",
    ),
    (
        "[network]\nkey_file = \"network.key\"",
        "casd.toml:2:12: key `network.key_file`: \"network.key\" is not an absolute path; begin it with /",
    ),
    (
        "[network]\nkey_file = \"/dev/null/key\"",
        "casd.toml:2:12: key `network.key_file`: cannot read the key file /dev/null/key: Not a directory (os error 20)",
    ),
    (
        "[network]\nkey_file = \"/dev/zero\"",
        "casd.toml:2:12: key `network.key_file`: /dev/zero is not a plain file, so no key is read from it",
    ),
    (
        "[network]\nlan_discovery = \"yes\"",
        "casd.toml:2:17: key `network.lan_discovery`: expected true or false, found text",
    ),
    (
        "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/8468\"]",
        "casd.toml:2:14: key `network.bootstrap`: \"/ip4/127.0.0.1/tcp/8468\" does not end in /p2p/PEERID; `casctl status` on that node shows it",
    ),
    (
        "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/8468/p2p/12D3KooWXXXX\"]",
        "casd.toml:2:14: key `network.bootstrap`: in \"/ip4/127.0.0.1/tcp/8468/p2p/12D3KooWXXXX\", \"12D3KooWXXXX\" is not a peer id: an id that `casctl status` shows has 52 characters",
    ),
    (
        "[network]\nbootstrap = [\"12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa@127.0.0.1:9000\"]",
        "casd.toml:2:14: key `network.bootstrap`: \"12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa@127.0.0.1:9000\" names a chunk port, and nodes are joined by the DHT's: write a multiaddr that ends in /p2p/PEERID; `casctl status` on that node shows it as \"dht at\"",
    ),
    (
        "[network]\nbootstrap = [\"/p2p/%\"]",
        "casd.toml:2:14: key `network.bootstrap`: \"/p2p/%\" says who the peer is, but not where",
    ),
    (
        "[network]\nbootstrap = [\"127.0.0.1\"]",
        "casd.toml:2:14: key `network.bootstrap`: \"127.0.0.1\" is no multiaddr: invalid multiaddr; one looks like /ip4/203.0.113.7/udp/8468/quic-v1/p2p/PEERID, and `casctl status` on that node shows it as \"dht at\"",
    ),
    (
        "[network]\nmode = \"clinet\"",
        "casd.toml:2:8: key `network.mode`: \"clinet\" is none of full, client; did you mean `client`?",
    ),
    ("[network]\ndht = \"off\"", "casd.toml:2:7: key `network.dht`: \"off\" is none of auto, server, client"),
    (
        "[network]\nannounce = true",
        "casd.toml:2:12: key `network.announce`: expected text in quotes, found true or false",
    ),
    (
        "[store]\nquota = \"500 gigs\"",
        "casd.toml:2:9: key `store.quota`: \"500 gigs\" is no size; write bytes, or such as \"500GiB\" or \"10MiB\"",
    ),
    (
        "[store]\nquota = -1",
        "casd.toml:2:9: key `store.quota`: \"-1\" is no size; write bytes, or such as \"500GiB\" or \"10MiB\"",
    ),
    (
        "[store]\nquota = \"99999999PiB\"",
        "casd.toml:2:9: key `store.quota`: \"99999999PiB\" is no size; write bytes, or such as \"500GiB\" or \"10MiB\"",
    ),
    (
        "[store]\nreserve = 1.5",
        "casd.toml:2:11: key `store.reserve`: expected a size such as \"10MiB\", found a fraction",
    ),
    (
        "[store]\nparity = \"16\"",
        "casd.toml:2:10: key `store.parity`: parity is written K+M, such as 16+4 (K is 1 to 128, M is 1 to 64), or none; this is \"16\"",
    ),
    (
        "[store]\nparity = \"129+4\"",
        "casd.toml:2:10: key `store.parity`: parity 129+4 is out of range: K is 1 to 128, M is 1 to 64, and K+M at most 192",
    ),
    (
        "[store]\nparity = \"16+0\"",
        "casd.toml:2:10: key `store.parity`: parity 16+0 is out of range: K is 1 to 128, M is 1 to 64, and K+M at most 192",
    ),
    ("[transfer]\nconnections = 0", "casd.toml:2:15: key `transfer.connections`: 0 is not within 1 to 4096"),
    ("[transfer]\njobs = 0", "casd.toml:2:8: key `transfer.jobs`: 0 is not within 1 to 64"),
    ("[transfer]\nper_fetch = -3", "casd.toml:2:13: key `transfer.per_fetch`: -3 is not within 1 to 256"),
    (
        "[transfer]\nconnections = \"100\"",
        "casd.toml:2:15: key `transfer.connections`: expected a whole number, found text",
    ),
    (
        "[transfer]\nidle_timeout = 30",
        "casd.toml:2:16: key `transfer.idle_timeout`: expected text in quotes, found a whole number",
    ),
    (
        "[transfer]\nidle_timeout = \"30\"",
        "casd.toml:2:16: key `transfer.idle_timeout`: \"30\" is no duration; write such as \"30s\", \"500ms\", \"5m\" or \"1h\"",
    ),
    (
        "[transfer]\nidle_timeout = \"2h\"",
        "casd.toml:2:16: key `transfer.idle_timeout`: 7200s is not within 1s to 3600s",
    ),
    (
        "[transfer]\nupload_slots = 0",
        "casd.toml:2:16: key `transfer.upload_slots`: 0 is not within 1 to 4096",
    ),
    ("[transfer]\nupload = 0x10", "casd.toml:2:10: key `transfer.upload`: a size is written in decimal"),
    ("[store]\nquota = \"1GiB", "casd.toml:2:14: not TOML: invalid basic string, expected `\"`"),
    ("[store]\nquota = 1\nquota = 2", "casd.toml:3:1: not TOML: duplicate key"),
    (
        "\u{feff}[store]\r\nä = 1",
        "casd.toml:2:1: not TOML: invalid unquoted key, expected letters, numbers, `-`, `_`",
    ),
];

#[test]
fn what_is_wrong_is_said_on_one_line_with_its_place() {
    for (file, expected) in BAD {
        let file = file.replace('%', PEER);
        assert_eq!(complaint(file.as_bytes()), expected.replace('%', PEER), "{file:?}");
    }
}

#[test]
fn what_is_no_settings_file_is_refused_before_it_is_parsed() {
    assert_eq!(complaint(b"[store]\nquota = \"\xff\""), "casd.toml:2:10: not UTF-8 text");
    let long = vec![b'#'; 10 << 20];
    assert_eq!(complaint(&long), "casd.toml: longer than 1048576 bytes: this is not a settings file");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("casd.toml");
    let error = Config::load(&file, &packaged()).expect_err("it is missing").to_string();
    assert_eq!(error, format!("{}: cannot be read: No such file or directory (os error 2)", file.display()));
    let error = Config::load(folder.path(), &packaged()).expect_err("it is a folder").to_string();
    assert!(error.ends_with("cannot be read: Is a directory (os error 21)"), "{error}");
    std::fs::write(&file, &long).unwrap();
    assert!(matches!(Config::load(&file, &packaged()), Err(Error::TooLong { .. })));
    std::fs::write(&file, "[store]\nprivate = true").unwrap();
    assert!(Config::load(&file, &packaged()).unwrap().store.private);
}

#[test]
fn default_paths_follow_the_environment() {
    let paths = |environment: &Environment| {
        Config::defaults(environment).map(|config| (config.node.state_dir, config.api.socket))
    };
    let mut environment = Environment { home: Some("/home/a".into()), ..Environment::default() };
    let at = |state: &str, socket: &str| (PathBuf::from(state), PathBuf::from(socket));
    let state = "/home/a/.local/state/casd";
    assert_eq!(paths(&environment).unwrap(), at(state, &format!("{state}/casd.sock")));
    environment.xdg_runtime_dir = Some("/run/user/7".into());
    assert_eq!(paths(&environment).unwrap(), at(state, "/run/user/7/casd/casd.sock"));
    environment.xdg_state_home = Some("relative".into());
    assert_eq!(paths(&environment).unwrap().0, PathBuf::from(state), "a relative path is ignored");
    environment.xdg_state_home = Some("/s".into());
    assert_eq!(paths(&environment).unwrap().0, PathBuf::from("/s/casd"));
    environment.state_directory = Some("/var/lib/casd".into());
    environment.runtime_directory = Some("/run/casd".into());
    assert_eq!(paths(&environment).unwrap(), at("/var/lib/casd", "/run/casd/casd.sock"));

    assert!(matches!(Config::defaults(&Environment::default()), Err(Error::NoStateFolder)));
    let given = "[node]\nstate_dir = \"/s\"\n[api]\nsocket = \"/s/c\"";
    assert!(Config::parse("f", given.as_bytes(), &Environment::default()).is_ok(), "nothing else is needed");
}

#[test]
fn a_socket_path_fits_its_address() {
    let configured = |length: usize| parse(&format!("[api]\nsocket = \"/{}\"", "s".repeat(length - 1)));
    assert!(configured(107).is_ok());
    assert_eq!(
        configured(108).expect_err("too long").to_string(),
        "casd.toml:2:10: key `api.socket`: the path is 108 bytes long and a socket's path at most 107; take a shorter one"
    );
    let home: OsString = format!("/{}", "h".repeat(80)).into();
    let deep = Environment { home: Some(home), ..Environment::default() };
    let error = Config::defaults(&deep).expect_err("too long").to_string();
    assert!(error.ends_with("is 109 bytes long and the limit is 107: set api.socket"), "{error}");
}

#[test]
fn a_host_name_that_cannot_be_shown_is_not_used() {
    for (host, name) in [("beta", "beta"), ("", "casd"), ("a\u{7}", "casd")] {
        let environment = Environment { host_name: Some(host.into()), ..packaged() };
        assert_eq!(Config::defaults(&environment).unwrap().node.name, name);
    }
}

proptest! {
    #[test]
    fn no_file_makes_it_panic_and_every_complaint_is_one_line(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Err(error) = Config::parse("f", &bytes, &packaged()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn nor_does_any_value_of_any_key(
        key in "(network|store|transfer|listen)\\.[a-z_]{1,12}",
        value in "[-\\[\\]{}\"'a-z0-9.:/+ ]{0,20}",
    ) {
        if let Err(error) = Config::parse("f", format!("{key} = {value}").as_bytes(), &packaged()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
