//! How long what is sent on a connection is under way, asked of the kernel (`sock_diag(7)`, as `ss -i` does).
//!
//! Owns: the question and the answer, to the byte. Refuses: to wait: the kernel answers while it is asked. Survives a
//! crash: nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// `SOCK_DIAG_BY_FAMILY`: the kind of question and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `INET_DIAG_INFO`: which part of the answer has the kernel's `struct tcp_info`. It is asked for by its bit, from 1.
const INFO: u16 = 2;

/// Bytes of the question: `struct nlmsghdr` and `struct inet_diag_req_v2`.
const QUESTION: usize = 16 + 56;
/// Bytes of the answer before its parts: `struct nlmsghdr` and `struct inet_diag_msg`.
const BEFORE: usize = 16 + 72;

/// Where in `struct tcp_info` they are: `tcpi_rtt` and `tcpi_min_rtt`, in microseconds, and `tcpi_bytes_acked`.
const RTT: usize = 68;
const MIN_RTT: usize = 148;
const ACKED: usize = 120;

/// What the kernel says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    /// A round trip now, smoothed.
    pub(super) now: Duration,
    /// The shortest of the last minutes (five, by `net.ipv4.tcp_min_rtt_wlen`).
    pub(super) least: Duration,
    /// Bytes that the other end has had, ever.
    pub(super) acked: u64,
}

/// Asks for the connection between these ends.
///
/// # Errors
/// The kernel does not tell, or there is no such connection.
pub(super) fn ask(local: SocketAddr, remote: SocketAddr) -> io::Result<Delay> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    sendto(&socket, &question(local, remote), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 2048];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    read(answer).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the kernel knows no such connection"))
}

fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(QUESTION);
    bytes.extend(u32::try_from(QUESTION).unwrap_or(0).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    // AF_INET or AF_INET6, the protocol, the part that is wanted, padding, and connections in any state.
    bytes.extend([if local.is_ipv4() { 2 } else { 10 }, TCP, 1 << (INFO - 1), 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(ip) => {
                bytes.extend(ip.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    // Whatever interface, and no cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// What an answer says; `None` when it is another, or none.
fn read(answer: &[u8]) -> Option<Delay> {
    if u16::from_ne_bytes(at(answer, 4)?) != BY_FAMILY {
        return None;
    }
    let mut parts = answer.get(BEFORE..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(at(parts, 0)?));
        let part = parts.get(4..length)?;
        if u16::from_ne_bytes(at(parts, 2)?) == INFO {
            let micros = |place| Some(Duration::from_micros(u32::from_ne_bytes(at(part, place)?).into()));
            let acked = u64::from_ne_bytes(at(part, ACKED)?);
            return Some(Delay { now: micros(RTT)?, least: micros(MIN_RTT)?, acked });
        }
        // Each begins at a multiple of four.
        parts = parts.get(length.next_multiple_of(4)..)?;
    }
}

/// As many bytes as are wanted, from a place on.
fn at<const N: usize>(bytes: &[u8], place: usize) -> Option<[u8; N]> {
    bytes.get(place..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_tells_of_connections_that_are_there() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut into, _) = listener.accept().unwrap();
            out.write_all(&[7; 5000]).unwrap();
            into.read_exact(&mut [0; 5000]).unwrap();
            let (here, there) = (out.local_addr().unwrap(), out.peer_addr().unwrap());
            let Ok(delay) = ask(here, there) else { return eprintln!("skipped: this kernel does not tell") };
            assert!(delay.now > Duration::ZERO && delay.now < Duration::from_secs(1), "{delay:?}");
            assert!(delay.least > Duration::ZERO && delay.least <= delay.now * 10, "{delay:?}");
            assert!(delay.acked <= 5001, "{delay:?}");
            drop((out, into));
            let other = SocketAddr::new(there.ip(), 1);
            assert!(ask(here, other).is_err());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            if let Some(kind) = bytes.get_mut(4..6) {
                kind.copy_from_slice(&BY_FAMILY.to_ne_bytes());
            }
            let _ = read(&bytes);
        }
    }
}
