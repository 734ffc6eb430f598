//! Adds many small objects over one stream, as fast as a daemon takes them: `add-many SOCKET COUNT BYTES`.
//!
//! Owns: its arguments and the objects, each made anew from a random block and its number, so that none has been stored
//! before. Prints the seconds from the first message to the last answer. Exit 1: an answer is missing or not as it
//! should be. Refuses: reading files (that is what casctl is measured with).

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use casd_proto::v1::{AddManyRequest, AddOptions, SmallObject};
use casd_proto::{Bytes, MAX_BATCH, MAX_DATA_BYTES, client};
use futures::stream;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [socket, count, bytes] = &args[..] else { return usage() };
    let (Ok(count), Ok(bytes)) = (count.parse(), bytes.parse()) else { return usage() };
    if !(16..=MAX_DATA_BYTES).contains(&bytes) {
        return usage();
    }
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(add(Path::new(socket), count, bytes)));
    match done {
        Ok(seconds) => {
            println!("{seconds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("add-many: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: add-many SOCKET COUNT BYTES   (16 to 1048576 bytes each)");
    ExitCode::from(2)
}

async fn add(socket: &Path, count: u64, bytes: usize) -> Result<f64, Failure> {
    let mut objects = client::objects(client::connect(socket).await?);
    let block: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    let per_message = (MAX_DATA_BYTES / bytes).min(MAX_BATCH) as u64;
    let begun = Instant::now();
    let requests = (0..count.div_ceil(per_message)).map(move |message| {
        let first = message * per_message;
        let numbers = first..count.min(first + per_message);
        let options = (message == 0).then(AddOptions::default);
        AddManyRequest { options, objects: numbers.map(|number| object(&block, number)).collect() }
    });
    let mut answers = objects.add_many(stream::iter(requests)).await?.into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await? {
        let is_good = |object: &casd_proto::v1::AddedObject| object.created && object.size == bytes as u64;
        if !answer.objects.iter().all(is_good) {
            return Err("an object was not new, or has another size".into());
        }
        answered += answer.objects.len() as u64;
    }
    if answered != count {
        return Err(format!("{answered} of {count} objects were answered").into());
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// The block with a number in it.
fn object(block: &[u8], number: u64) -> SmallObject {
    let mut data = block.to_vec();
    data[..8].copy_from_slice(&number.to_le_bytes());
    SmallObject { name: format!("file-{number}"), data: Bytes::from(data) }
}
