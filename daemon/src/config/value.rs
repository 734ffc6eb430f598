//! What single values may look like. Pure: text in, a value or a sentence out.

use std::path::PathBuf;
use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};

use crate::erasure::Geometry;
use crate::peer::{self, NetworkKey, PeerAddr};

/// The longest path that fits a socket address (`sun_path` is 108 bytes with its closing zero).
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// The longest node name in bytes: it is a label on a line, not a text.
const MAX_NODE_NAME: usize = 64;

/// The longest network name in bytes: it goes into the name of each protocol.
const MAX_NETWORK_NAME: usize = 64;

/// What a size may end in, and how many bytes that is.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// What a duration may end in, and how many milliseconds that is.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// The longest period, in milliseconds: ten years.
const MAX_PERIOD: u64 = 3650 * 86_400_000;

/// `500GiB`, `10MiB`, `0`, `1048576`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    quantity(text, &SIZE_UNITS)
        .ok_or_else(|| format!("{text:?} is no size; write bytes, or such as \"500GiB\" or \"10MiB\""))
}

/// `30s`, `500ms`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    quantity(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is no duration; write such as \"30s\", \"500ms\", \"5m\" or \"1h\""))
}

/// `30d`, `12h`; `0` for never.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let units = [DURATION_UNITS[1], DURATION_UNITS[2], DURATION_UNITS[3], ("d", 86_400_000)];
    let millis = if text == "0" { Some(0) } else { quantity(text, &units).filter(|millis| *millis > 0) };
    millis.filter(|millis| *millis <= MAX_PERIOD).map(Duration::from_millis).ok_or_else(|| {
        format!("{text:?} is no such time; write such as \"30d\" or \"12h\", up to 3650d, or \"0\" for never")
    })
}

/// A whole number and one of the units; `None` when it is neither, or does not fit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `16+4` or `none`.
pub(super) fn parity(text: &str) -> Result<Option<Geometry>, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: crate::erasure::Error| error.to_string())
}

/// A path that does not depend on where the daemon was started.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if text.contains('\0') {
        return Err("a path cannot contain a zero byte".to_owned());
    }
    if !path.is_absolute() {
        return Err(format!("{text:?} is not an absolute path; begin it with /"));
    }
    Ok(path)
}

/// What the key file of a private network holds; empty stands for an open network.
pub(super) fn key_file(text: &str) -> Result<Option<NetworkKey>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    NetworkKey::read(&path(text)?).map(Some).map_err(|error| match error {
        peer::Error::Contents { .. } | peer::Error::NoKey { .. } => {
            format!("{text:?} holds no key, which is 64 hexadecimal digits and a newline; `casd --gen-key` prints one")
        }
        other => other.to_string(),
    })
}

/// A path that a socket can be bound to.
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!(
            "the path is {} bytes long and a socket's path at most {MAX_SOCKET_PATH}; take a shorter one",
            text.len()
        ));
    }
    path(text)
}

/// A name for people; empty stands for the host's.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    if text.len() > MAX_NODE_NAME || text.chars().any(char::is_control) {
        return Err(format!("a name has at most {MAX_NODE_NAME} bytes and no control characters"));
    }
    Ok(text.to_owned())
}

/// A name that may stand in the names of protocols.
pub(super) fn network_name(text: &str) -> Result<String, String> {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > MAX_NETWORK_NAME || !text.bytes().all(fit) {
        return Err(format!("a network's name has 1 to {MAX_NETWORK_NAME} characters of a-z A-Z 0-9 . _ -"));
    }
    Ok(text.to_owned())
}

/// An address that the DHT can listen on.
pub(super) fn dht_listen(text: &str) -> Result<Multiaddr, String> {
    let shape = || {
        format!(
            "{text:?} is no address to listen on; write /ip4/ADDRESS/udp/PORT/quic-v1 or /ip4/ADDRESS/tcp/PORT (or ip6)"
        )
    };
    let address: Multiaddr = text.parse().map_err(|_| shape())?;
    let parts: Vec<_> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => Ok(address),
        _ => Err(shape()),
    }
}

/// An address where a peer is, with the peer's id at its end.
pub(super) fn bootstrap(text: &str) -> Result<Multiaddr, String> {
    if !text.starts_with('/') && text.contains('@') {
        return Err(format!(
            "{text:?} names a chunk port, and nodes are joined by the DHT's: write a multiaddr that ends in /p2p/PEERID; \
             `casctl status` on that node shows it as \"dht at\""
        ));
    }
    let address: Multiaddr = text.parse().map_err(|error| {
        format!(
            "{text:?} is no multiaddr: {error}; one looks like /ip4/203.0.113.7/udp/8468/quic-v1/p2p/PEERID, and `casctl \
             status` on that node shows it as \"dht at\""
        )
    })?;
    let parts: Vec<_> = address.iter().collect();
    match parts.as_slice() {
        [_, .., Protocol::P2p(_)] => match PeerAddr::try_from(address.clone()) {
            Ok(_) => match leads_to_a_node(&parts) {
                Ok(()) => Ok(address),
                Err(why) => Err(format!("{text:?} {why}")),
            },
            Err(why) => {
                Err(format!("in {text:?}, {why}: an id that `casctl status` shows has 52 characters"))
            }
        },
        [Protocol::P2p(_)] => Err(format!("{text:?} says who the peer is, but not where")),
        _ => Err(format!("{text:?} does not end in /p2p/PEERID; `casctl status` on that node shows it")),
    }
}

/// Refuses what casd's carriers never dial, and what is nobody's.
fn leads_to_a_node(parts: &[Protocol<'_>]) -> Result<(), String> {
    let form =
        "write /ip4/ADDRESS/udp/PORT/quic-v1/p2p/PEERID or /ip4/ADDRESS/tcp/PORT/p2p/PEERID (or ip6, dns)";
    let is_nowhere = match parts.first() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => ip.is_unspecified() || ip.is_multicast(),
        _ => false,
    };
    if is_nowhere {
        return Err(format!(
            "is no node's address: {} can be listened on, or reaches many; write one of its own, which `casctl \
             status` on it shows as \"dht at\"",
            parts.first().map(ToString::to_string).unwrap_or_default()
        ));
    }
    if let Some(Protocol::Tcp(0) | Protocol::Udp(0)) = parts.get(1) {
        let why = "has port 0, where nobody is; `casctl status` on that node shows its own as \"dht at\"";
        return Err(why.to_owned());
    }
    let rest = match parts {
        [host, Protocol::Tcp(_), rest @ ..] | [host, Protocol::Udp(_), Protocol::QuicV1, rest @ ..]
            if is_host(host) =>
        {
            rest
        }
        [host, Protocol::Udp(_), ..] if is_host(host) => {
            return Err(format!("is UDP without /quic-v1, which is what the DHT speaks there; {form}"));
        }
        _ => return Err(format!("is no address that casd can dial; {form}")),
    };
    match rest.iter().find(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)) {
        Some(other) => {
            Err(format!("has {} in it, which casd does not speak; {form}", other.to_string().escape_debug()))
        }
        None => Ok(()),
    }
}

fn is_host(part: &Protocol<'_>) -> bool {
    matches!(
        part,
        Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
    )
}
