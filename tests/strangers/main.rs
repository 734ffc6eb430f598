//! Givers that are no good, for `tests/carry`: `strangers NETWORK IP COUNT bad|silent FILE`.
//!
//! Each of COUNT givers has an identity and a port of its own at IP. It proves what object FILE is, says that it has
//! all of it, and then gives every chunk with a bit changed (`bad`), or is never heard of again (`silent`). Prints
//! where each is, as `--peer` takes it, and then `ready`; goes on until its input ends. FILE has more than 1 MiB.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use casd::session::frames::{Ask, Role};
use casd_tests::stranger::{Liar, Reply, Truth, hello};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, ip, count, how, file] = &args[..] else { return usage() };
    let (Ok(ip), Ok(count)) = (ip.parse::<IpAddr>(), count.parse::<usize>()) else { return usage() };
    let is_silent = match how.as_str() {
        "bad" => false,
        "silent" => true,
        _ => return usage(),
    };
    let data = match std::fs::read(file) {
        Ok(data) => data,
        Err(error) => {
            eprintln!("strangers: {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let truth = Arc::new(Truth::new(data));
    let giver = |_| {
        let truth = Arc::clone(&truth);
        let answer = move |request, ask: &Ask| match ask {
            Ask::Chunk(_) if is_silent => Reply::Say(Vec::new()),
            Ask::Chunk(_) => Reply::Say(changed(truth.answer(request, ask))),
            _ => Reply::Say(truth.answer(request, ask)),
        };
        Liar::at(SocketAddr::new(ip, 0), hello(network, Role::Giver), answer)
    };
    let givers: Vec<Liar> = (0..count).map(giver).collect();
    givers.iter().for_each(|giver| println!("{}", giver.address));
    println!("ready");
    // Whoever started this ends it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: strangers NETWORK IP COUNT bad|silent FILE");
    ExitCode::from(64)
}

/// An answer of which the last bit is another: the end of a chunk's last slice.
fn changed(mut said: Vec<u8>) -> Vec<u8> {
    if let Some(last) = said.last_mut() {
        *last ^= 1;
    }
    said
}
