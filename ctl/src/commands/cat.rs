//! `casctl cat`: writes an object's bytes to standard output.

use casd_proto::v1::CatRequest;

use super::Session;
use crate::args::Cat;
use crate::download::{Sink, Writer};
use crate::error::{Exit, Failure};

/// Writes; see [`Cat`].
pub(super) async fn run(session: &Session, args: Cat) -> Result<Exit, Failure> {
    let request = CatRequest { object: args.object, offset: args.offset, length: args.length };
    let mut parts = session.objects().cat(request).await?.into_inner();
    let mut writer = Writer::start(Sink::Stdout, "standard output".to_owned())?;
    let mut offset = args.offset;
    while let Some(part) = parts.message().await? {
        let length = part.data.len() as u64;
        writer.write(offset, part.data).await?;
        offset += length;
    }
    writer.finish().await?;
    Ok(Exit::Done)
}
