//! The opening of a session: versions, the network and the proof of its key.
//!
//! The asker says hello first; the giver answers only one that it lets in, so that a stranger learns nothing but the
//! refusal.

use super::frames::{Frame, Hello, Kind, LEAST, Role, VERSION};
use super::io::{FrameReader, FrameWriter};
use super::{Error, Network, Options};
use crate::content::CHUNK;
use crate::peer::{NetworkKey, PeerId};

/// Who is at the ends of which connection.
pub(super) struct Ends<'a> {
    pub(super) asker: &'a PeerId,
    pub(super) giver: &'a PeerId,
    pub(super) binding: &'a [u8; 32],
}

/// Says hello and waits to be let in. Gives what the giver grants, and the version that both speak.
pub(super) async fn ask(
    (reader, writer): (&mut FrameReader, &mut FrameWriter),
    options: &Options,
    ends: &Ends<'_>,
) -> Result<(Hello, u16), Error> {
    let exchange = async {
        say(writer, options.network.hello(Role::Asker, ends, 0, 0)).await?;
        let hello = hear(reader).await?;
        let version = options.network.admit(&hello, Role::Giver, ends)?;
        if hello.requests == 0 || (hello.bytes as usize) < CHUNK {
            return Err(Error::Protocol("credits that allow no request"));
        }
        Ok((hello, version))
    };
    tokio::time::timeout(options.hello, exchange).await.unwrap_or(Err(Error::Silent))
}

/// Waits for a hello and answers it when it is one that is let in. Gives the version that both speak.
pub(super) async fn answer(
    (reader, writer): (&mut FrameReader, &mut FrameWriter),
    options: &Options,
    ends: &Ends<'_>,
) -> Result<u16, Error> {
    let exchange = async {
        let hello = hear(reader).await?;
        let version = options.network.admit(&hello, Role::Asker, ends)?;
        say(writer, options.network.hello(Role::Giver, ends, options.requests, options.bytes)).await?;
        Ok(version)
    };
    tokio::time::timeout(options.hello, exchange).await.unwrap_or(Err(Error::Silent))
}

async fn say(writer: &mut FrameWriter, hello: Hello) -> Result<(), Error> {
    writer.gather(&Frame::Hello(hello));
    writer.send().await?;
    writer.flush().await
}

/// The first frame: a hello, or a refusal. Nothing else is even read.
async fn hear(reader: &mut FrameReader) -> Result<Hello, Error> {
    let Some((kind, length)) = reader.head().await? else {
        return Err(Error::Broken("it ended before the hello".to_owned()));
    };
    if !matches!(kind, Kind::Hello | Kind::Goodbye) {
        return Err(Error::Protocol("something else than a hello came first"));
    }
    match reader.decode(kind, length).await? {
        Frame::Hello(hello) => Ok(hello),
        Frame::Goodbye(reason, text) => Err(Error::goodbye(reason, &text)),
        _ => Err(Error::Protocol("something else than a hello came first")),
    }
}

impl Network {
    /// Our hello as `role`, on the connection that `binding` names.
    pub(super) fn hello(&self, role: Role, ends: &Ends<'_>, requests: u32, bytes: u32) -> Hello {
        let proof = self.key.as_ref().map(|key| *prove(key, role, ends).as_bytes());
        Hello { role, least: LEAST, most: VERSION, network: self.id, proof, requests, bytes }
    }

    /// Whether the other end's hello lets it in; the newest version that both speak.
    pub(super) fn admit(&self, hello: &Hello, role: Role, ends: &Ends<'_>) -> Result<u16, Error> {
        let version = hello.most.min(VERSION);
        if version < hello.least.max(LEAST) {
            return Err(Error::Version { least: hello.least, most: hello.most });
        }
        // The key first: who has it not does not learn whether the name is right. Comparing hashes takes the same time
        // for all of them.
        let proved = match (&self.key, hello.proof) {
            (Some(key), Some(proof)) => prove(key, role, ends) == blake3::Hash::from_bytes(proof),
            (None, None) => true,
            _ => false,
        };
        if !proved {
            return Err(Error::Proof);
        }
        if hello.network != self.id {
            return Err(Error::Network);
        }
        if hello.role != role {
            return Err(Error::Protocol("both ends want the same role"));
        }
        Ok(version)
    }
}

/// The proof of a key, on the connection that its ends name.
fn prove(key: &NetworkKey, role: Role, ends: &Ends<'_>) -> blake3::Hash {
    key.prove(b"casd session proof 1\n", role as u8, [ends.asker, ends.giver], &[ends.binding])
}
