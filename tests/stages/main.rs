//! What each stage of carrying costs by itself, in memory as far as it can be: a row a stage, the median of some runs,
//! and the processor time of all ends that are in this process.
//!
//! Owns: its arguments and the table. Refuses: to compare; `tests/carry` does. A stage that fails ends with exit 1.

mod costs;
mod gives;
mod parts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use costs::{Cost, Failure, show};
use gives::Over;

#[derive(Parser)]
#[command(about = "What each stage of carrying costs by itself", long_about = None)]
struct Args {
    /// MiB that each run moves.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Runs of each stage. One before them warms up.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where stores are made; several times if need be.
    #[arg(long, default_value = "/dev/shm")]
    store: Vec<PathBuf>,
    /// The socket of a daemon that gives an object by Cat.
    #[arg(long, requires = "object")]
    socket: Option<PathBuf>,
    /// The object that it has.
    #[arg(long, requires = "socket")]
    object: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stages: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let chunks = parts::chunks(args.mib)?;
    let (mut hashed, mut encoded, mut rebuilt) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=args.runs {
        hashed.push(parts::prove(&chunks)?);
        let (encode, rebuild) = parts::code(args.mib)?;
        encoded.push(encode);
        rebuilt.push(rebuild);
    }
    show("proving chunks (BLAKE3), one core", &mut hashed);
    show("parity of 16+4, one core", &mut encoded);
    show("4 of 16 rebuilt from parity, one core", &mut rebuilt);
    for folder in &args.store {
        let (mut appended, mut read) = (Vec::new(), Vec::new());
        for _ in 0..=args.runs {
            let (append, back) = parts::store(folder, &chunks).await?;
            appended.push(append);
            read.push(back);
        }
        show(&format!("store in {}: appended, synced", folder.display()), &mut appended);
        show(&format!("store in {}: read, proved", folder.display()), &mut read);
    }
    for over in [Over::Pipe, Over::Tcp, Over::Tls] {
        let mut carried: Vec<Cost> = Vec::new();
        for _ in 0..=args.runs {
            carried.push(gives::session(over, &chunks).await?);
        }
        show(over.shown(), &mut carried);
    }
    if let (Some(socket), Some(object)) = (&args.socket, &args.object) {
        let mut given = Vec::new();
        for _ in 0..=args.runs {
            given.push(parts::cat(socket, object).await?);
        }
        show("gRPC out of a daemon, this end's processor", &mut given);
    }
    Ok(())
}
