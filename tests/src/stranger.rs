//! A peer that speaks the chunk protocol frame by frame, so that it can lie: as a giver ([`Liar`]) and as an asker
//! ([`call`]). Its identity and its TLS are real; what it says is up to the test.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use casd::content::{CHUNK, CHUNK_LEN, Chunk, Manifest, ManifestBuilder, Place};
use casd::peer::{Conn, Dial, Keypair, PeerId};
use casd::session::Have;
use casd::session::frames::{Ask, Frame, Hello, Kind, Record, Role, SLICE};
use casd::support::task::Tasks;
use casd::wire::{Options, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// What a liar does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes.
    Say(Vec<u8>),
    /// Writes these bytes and hangs up.
    Last(Vec<u8>),
    /// Hangs up.
    Close,
}

/// A giver whose answers are a function of what is asked. Dropped, it is gone.
pub struct Liar {
    /// As `--peer` takes it.
    pub address: String,
    /// Its id.
    pub id: String,
    /// The key of it.
    pub keypair: Keypair,
    /// Sessions that were opened with it.
    sessions: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Liar {
    /// Listens on loopback as a node of `network`, and answers each request as `answer` says.
    #[must_use]
    pub fn new(network: &str, answer: impl Fn(u32, &Ask) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(hello(network, Role::Giver), answer)
    }

    /// As [`Liar::new`], with a hello of its own.
    #[must_use]
    pub fn with(hello: Hello, answer: impl Fn(u32, &Ask) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), hello, answer)
    }

    /// As [`Liar::with`], where it listens; port 0 takes a free one.
    #[must_use]
    pub fn at(
        at: SocketAddr,
        hello: Hello,
        answer: impl Fn(u32, &Ask) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let runtime = runtime();
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let (sessions, tasks) = (Arc::new(AtomicUsize::new(0)), Tasks::new());
        let inside = runtime.enter();
        let wire = Wire::new(&key, Options::default()).unwrap();
        let mut listener = wire.listen(at, &tasks).unwrap();
        let address = format!("{id}@{}", listener.local_addr());
        let (answer, count) = (Arc::new(answer), Arc::clone(&sessions));
        let family = tasks.clone();
        tasks.spawn("liar", async move {
            while let Some(conn) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, hello) = (Arc::clone(&answer), hello.clone());
                // It ends with an error when the other end has had enough.
                family.spawn("lies", async move { give(conn, hello, &*answer).await });
            }
        });
        drop(inside);
        Self { address, id: id.to_string(), keypair: key, sessions, _runtime: runtime }
    }

    /// How many sessions were opened with it.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::SeqCst)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn give(mut conn: Conn, hello: Hello, answer: &impl Fn(u32, &Ask) -> Reply) -> std::io::Result<()> {
    let _theirs = read(&mut conn).await?;
    conn.stream.write_all(&encode(&[Frame::Hello(hello)])).await?;
    conn.stream.flush().await?;
    loop {
        let says = match read(&mut conn).await? {
            Frame::Ask(request, ask) => match answer(request, &ask) {
                Reply::Say(bytes) => bytes,
                Reply::Last(bytes) => {
                    conn.stream.write_all(&bytes).await?;
                    return conn.stream.shutdown().await;
                }
                Reply::Close => return Ok(()),
            },
            Frame::Ping(token) => encode(&[Frame::Pong(token)]),
            Frame::Cancel(request) => encode(&[Frame::Cancelled(request)]),
            _ => continue,
        };
        conn.stream.write_all(&says).await?;
        conn.stream.flush().await?;
    }
}

/// Reads a frame of any kind but slices.
async fn read(conn: &mut Conn) -> std::io::Result<Frame> {
    let mut head = [0; 5];
    conn.stream.read_exact(&mut head).await?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let mut fields = vec![0; length - 1];
    conn.stream.read_exact(&mut fields).await?;
    let kind = Kind::from_code(head[4]).expect("casd sends known kinds");
    Ok(Frame::decode(kind, fields.into()).expect("casd sends whole frames"))
}

/// Connects to a daemon's chunk port (`ID@HOST:PORT`), writes `bytes`, and gives what it says until it hangs up.
///
/// Panics when it does not hang up within a minute.
#[must_use]
pub fn call(address: &str, bytes: &[u8]) -> Vec<u8> {
    block_on(async {
        let mut conn = dial(address).await;
        // It may hang up before it has heard all.
        let _ = conn.stream.write_all(bytes).await;
        let _ = conn.stream.flush().await;
        let mut said = Vec::new();
        let _ = conn.stream.read_to_end(&mut said).await;
        said
    })
}

/// As [`call`], but says the last bytes one by one, a second apart, until it is hung up on.
///
/// Panics when it may say them all, or when that takes more than a minute.
#[must_use]
pub fn drip(address: &str, bytes: &[u8], slowly: &[u8]) -> Vec<u8> {
    block_on(async {
        let mut conn = dial(address).await;
        conn.stream.write_all(bytes).await.unwrap();
        let (mut said, mut next) = (Vec::new(), slowly.iter());
        loop {
            let byte = next.next().expect("it is hung up on before it has said all");
            if conn.stream.write_all(&[*byte]).await.is_err() || conn.stream.flush().await.is_err() {
                return said;
            }
            let heard = tokio::time::timeout(Duration::from_secs(1), conn.stream.read_to_end(&mut said));
            // What was heard before the time was over stays heard.
            if heard.await.is_ok() {
                return said;
            }
        }
    })
}

async fn dial(address: &str) -> Conn {
    let (peer, at) = address.split_once('@').expect("ID@HOST:PORT");
    let wire = Wire::new(&Keypair::generate_ed25519(), Options::default()).unwrap();
    let peer: PeerId = peer.parse().unwrap();
    wire.dial(peer, at.parse().unwrap()).await.unwrap()
}

/// Runs `work` to its end, which must come within a minute.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(crate::wait::LONG, work).await.expect("it ends") })
}

/// An honest hello.
#[must_use]
pub fn hello(network: &str, role: Role) -> Hello {
    let (requests, bytes) = if role == Role::Giver { (64, 64 << 20) } else { (0, 0) };
    let network = blake3::derive_key("casd 2026 network name", network.as_bytes());
    Hello { role, least: 1, most: 1, network, requests, bytes, proof: None }
}

/// Frames as bytes.
#[must_use]
pub fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out.to_vec()
}

/// The frames that these bytes are, up to one that is cut short. There are no slices among them.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize - 1;
        let kind = Kind::from_code(head[4]).expect("casd sends known kinds");
        let Some((fields, rest)) = rest.split_at_checked(length) else { break };
        frames.push(Frame::decode(kind, Bytes::copy_from_slice(fields)).expect("casd sends whole frames"));
        bytes = rest;
    }
    frames
}

/// A slice frame.
#[must_use]
pub fn slice(request: u32, offset: usize, data: &[u8]) -> Vec<u8> {
    let number = |of: usize| u32::try_from(of).unwrap().to_le_bytes();
    let head = [&number(9 + data.len())[..], &[Kind::Slice as u8], &request.to_le_bytes(), &number(offset)];
    [head.concat(), data.to_vec()].concat()
}

/// An object and the true answers to whatever may be asked of it.
pub struct Truth {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Truth {
    /// Of two chunks or more.
    #[must_use]
    pub fn new(data: Vec<u8>) -> Self {
        let mut builder = ManifestBuilder::new();
        for (index, bytes) in (0..).zip(data.chunks(CHUNK)) {
            let place = Place::At(index * CHUNK_LEN);
            builder.push(&Chunk::compute(place, Bytes::copy_from_slice(bytes)).unwrap()).unwrap();
        }
        Self { manifest: builder.finish().unwrap(), data }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        self.manifest.id().to_string()
    }

    /// The answer to a request.
    #[must_use]
    pub fn answer(&self, request: u32, ask: &Ask) -> Vec<u8> {
        let frame = match ask {
            Ask::Top(_) => Frame::Record(request, Record::Top, self.manifest.top().encode()),
            Ask::Page(_, at) => {
                Frame::Record(request, Record::Page, self.manifest.pages()[*at as usize].encode())
            }
            Ask::Haves(_) => Frame::Have(request, Have::Whole),
            Ask::Chunk(chunk) => {
                let Place::At(offset) = chunk.place else { return encode(&[Frame::NotFound(request)]) };
                let data = &self.data[usize::try_from(offset).unwrap()..][..chunk.length as usize];
                let slices = (0..).step_by(SLICE).zip(data.chunks(SLICE));
                return slices.flat_map(|(at, part)| slice(request, at, part)).collect();
            }
            _ => Frame::NotFound(request),
        };
        encode(&[frame])
    }
}
