//! From a file, or from none, to a [`Config`]: the one list of keys with their defaults and ranges.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};

use super::document::{Document, Section, Value};
use super::value::{self, MAX_SOCKET_PATH};
use super::warnings;
use super::{
    Addresses, Announce, Api, Config, DhtMode, Environment, Error, Listen, Mode, Network, Node, Position,
    Store, Transfer,
};
use crate::erasure::Geometry;

/// The longest file that is parsed. The packaged one, comments and all, is under 8 KiB; 256 bootstrap
/// addresses add 40 KiB.
const MAX_FILE: usize = 1 << 20;

/// The sections of the file.
const SECTIONS: [&str; 6] = ["node", "api", "listen", "network", "store", "transfer"];

/// Addresses of one kind to listen on at most: every address of a host with several networks.
const MAX_LISTEN: usize = 16;

/// Bootstrap peers at most: a node needs one that is alive.
const MAX_BOOTSTRAP: usize = 256;

/// The chunk port when the file names none.
const CHUNK_PORT: u16 = 9000;

/// The DHT's port, UDP and TCP, when the file names none.
const DHT_PORT: u16 = 8468;

/// The shortest and longest `transfer.idle_timeout`.
const IDLE_TIMEOUT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

impl Config {
    /// Reads `file`, and the key file that it names. Nothing else is opened; nothing is created or bound.
    ///
    /// # Errors
    /// [`Error`], the first thing that is wrong.
    pub fn load(file: &Path, environment: &Environment) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        // One byte more than the limit tells a file that is too long, however long it is.
        let read = File::open(file).and_then(|open| open.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| Error::Unreadable { file: file.to_owned(), error })?;
        Self::parse(&file.display().to_string(), &bytes, environment)
    }

    /// What holds when there is no file.
    ///
    /// # Errors
    /// [`Error::NoStateFolder`] or [`Error::DefaultSocket`].
    pub fn defaults(environment: &Environment) -> Result<Self, Error> {
        Self::parse("defaults", b"", environment)
    }

    /// Reads the contents of a file; `file` is what errors call it. A byte order mark and line ends of
    /// either kind are taken.
    ///
    /// # Errors
    /// [`Error`], the first thing that is wrong.
    pub fn parse(file: &str, bytes: &[u8], environment: &Environment) -> Result<Self, Error> {
        if bytes.len() > MAX_FILE {
            return Err(Error::TooLong { file: file.to_owned(), limit: MAX_FILE });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::Encoding { at: Position::of(file, bytes, error.valid_up_to()) })?;
        let document = Document::parse(file, text.strip_prefix('\u{feff}').unwrap_or(text))?;
        document.only(&SECTIONS)?;
        // What the file says first: it can be wrong in one place only, the environment on every machine.
        let listen = listen(document.section("listen")?)?;
        let network = network(document.section("network")?)?;
        let store = store(document.section("store")?)?;
        let transfer = transfer(document.section("transfer")?)?;
        let node = node(document.section("node")?, environment)?;
        let api = api(document.section("api")?, environment, &node.state_dir)?;
        let warnings = warnings::of(&document, &listen, &network);
        Ok(Self { node, api, listen, network, store, transfer, warnings })
    }
}

fn node(mut keys: Section<'_>, environment: &Environment) -> Result<Node, Error> {
    let name = keys.get("name", String::new(), |value| value.text(value::node_name))?;
    let state_dir = keys.find("state_dir", |value| value.text(value::path))?;
    keys.finish()?;
    let state_dir = state_dir.map_or_else(|| environment.state_dir(), Ok)?;
    Ok(Node { name: if name.is_empty() { environment.node_name() } else { name }, state_dir })
}

fn api(mut keys: Section<'_>, environment: &Environment, state_dir: &Path) -> Result<Api, Error> {
    let configured = keys.find("socket", |value| value.text(value::socket))?;
    keys.finish()?;
    if let Some(socket) = configured {
        return Ok(Api { socket });
    }
    let path = environment.socket(state_dir);
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(Error::DefaultSocket { path, length, limit: MAX_SOCKET_PATH });
    }
    Ok(Api { socket: path })
}

fn listen(mut keys: Section<'_>) -> Result<Listen, Error> {
    let count = 1..=MAX_LISTEN;
    let chunk = keys.find("chunk", |value| {
        value.list(&count, |text| {
            text.parse::<SocketAddr>().map_err(|_| {
                format!("{text:?} is no address; write such as \"0.0.0.0:9000\" or \"[::]:9000\"")
            })
        })
    })?;
    let dht = keys.find("dht", |value| value.list(&count, value::dht_listen))?;
    keys.finish()?;
    Ok(Listen { chunk: or_default(chunk, default_chunk), dht: or_default(dht, default_dht) })
}

fn or_default<T>(configured: Option<Vec<T>>, default: fn() -> Vec<T>) -> Addresses<T> {
    match configured {
        Some(list) => Addresses { list, configured: true },
        None => Addresses { list: default(), configured: false },
    }
}

fn default_chunk() -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, CHUNK_PORT).into(), (Ipv6Addr::UNSPECIFIED, CHUNK_PORT).into()]
}

fn default_dht() -> Vec<Multiaddr> {
    let hosts = [Protocol::Ip4(Ipv4Addr::UNSPECIFIED), Protocol::Ip6(Ipv6Addr::UNSPECIFIED)];
    let both = |host: Protocol<'static>| {
        let host = Multiaddr::from(host);
        [
            host.clone().with(Protocol::Udp(DHT_PORT)).with(Protocol::QuicV1),
            host.with(Protocol::Tcp(DHT_PORT)),
        ]
    };
    hosts.into_iter().flat_map(both).collect()
}

fn network(mut keys: Section<'_>) -> Result<Network, Error> {
    let network = Network {
        name: keys.get("name", "casd".to_owned(), |value| value.text(value::network_name))?,
        key: keys.get("key_file", None, |value| value.text(value::key_file))?,
        bootstrap: keys.get("bootstrap", Vec::new(), |v| v.list(&(0..=MAX_BOOTSTRAP), value::bootstrap))?,
        mode: keys
            .get("mode", Mode::Full, |v| v.choice(&[("full", Mode::Full), ("client", Mode::Client)]))?,
        dht: keys.get("dht", DhtMode::Auto, |value| {
            value.choice(&[("auto", DhtMode::Auto), ("server", DhtMode::Server), ("client", DhtMode::Client)])
        })?,
        lan_discovery: keys.get("lan_discovery", true, Value::boolean)?,
        announce: keys.get("announce", Announce::Auto, |value| {
            value.choice(&[
                ("auto", Announce::Auto),
                ("objects", Announce::Objects),
                ("chunks", Announce::Chunks),
                ("none", Announce::None),
            ])
        })?,
        publish: keys.get("publish", false, Value::boolean)?,
    };
    keys.finish()?;
    Ok(network)
}

fn store(mut keys: Section<'_>) -> Result<Store, Error> {
    let store = Store {
        quota: keys.get("quota", 0, Value::size)?,
        reserve: keys.get("reserve", 1 << 30, Value::size)?,
        parity: keys.get("parity", Some(Geometry::DEFAULT), |value| value.text(value::parity))?,
        private: keys.get("private", false, Value::boolean)?,
        scrub: keys.get("scrub", Duration::from_hours(30 * 24), |value| value.text(value::period))?,
    };
    keys.finish()?;
    Ok(store)
}

fn transfer(mut keys: Section<'_>) -> Result<Transfer, Error> {
    let transfer = Transfer {
        connections: keys.get("connections", 100, |value| value.integer(&(1..=4096)))?,
        per_fetch: keys.get("per_fetch", 16, |value| value.integer(&(1..=256)))?,
        jobs: keys.get("jobs", 4, |value| value.integer(&(1..=64)))?,
        idle_timeout: keys.get("idle_timeout", Duration::from_secs(30), |value| {
            let duration = value.text(value::duration)?;
            let [least, most] = IDLE_TIMEOUT;
            let fits = (least..=most).contains(&duration);
            fits.then_some(duration)
                .ok_or_else(|| value.wrong(format!("{duration:?} is not within {least:?} to {most:?}")))
        })?,
        upload: keys.get("upload", 0, Value::size)?,
        download: keys.get("download", 0, Value::size)?,
        upload_per_peer: keys.get("upload_per_peer", 0, Value::size)?,
        serve: keys.get("serve", 0, Value::size)?,
        announce: keys.get("announce", 0, Value::size)?,
        fetch: keys.get("fetch", 0, Value::size)?,
        repair: keys.get("repair", 0, Value::size)?,
        upload_slots: keys.get("upload_slots", 32, |value| value.integer(&(1..=4096)))?,
        yielding: keys.get("yielding", false, Value::boolean)?,
    };
    keys.finish()?;
    Ok(transfer)
}
