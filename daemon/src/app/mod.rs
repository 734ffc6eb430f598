//! Builds the rooms bottom-up, runs them, and drains them top-down.
//!
//! Owns: which part is given to which, and in what order the process starts and ends. Refuses: policy; every
//! decision here is a line that hands something over. Survives a crash: nothing of its own.

mod around;
mod listen;
mod settings;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{self, Config};
use crate::dht::Dht;
use crate::fetch::{self, Fetcher, Links};
use crate::ingest::Ingest;
use crate::node::{Limits, Node};
use crate::peer::Identity;
use crate::serve::{self, Serve};
use crate::session::{self, Board};
use crate::store::{self, Store};
use crate::support::pool::Pool;
use crate::support::shutdown::Signals;
use crate::support::systemd::Notifier;
use crate::support::task::Tasks;
use crate::upkeep::{Announcer, Mender, Rebuilder, Scrubber};
use crate::wire::{self, Listener, Wire};
use crate::{api, dht, erasure, peer, upkeep};

/// How long each of the two families of tasks may take to end: with the API's two seconds before them, all stays under
/// the 5 s that people wait.
const DRAIN: Duration = Duration::from_secs(1);

/// Notices of fetches that wait for the announcing schedule.
const NOTICES: usize = 64;

/// Blocking disk calls at once.
const DISK_CALLS: usize = 8;

/// Why the daemon could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The processor is too old.
    #[error("this processor has no AVX2, which casd needs on x86-64")]
    Processor,
    /// A listener could not be had.
    #[error("cannot listen on {at}: {why}")]
    Listen {
        /// Where.
        at: String,
        /// What the system said.
        why: String,
    },
    /// Threads, signals, or what systemd handed over.
    #[error("the process could not be set up: {0}")]
    Runtime(std::io::Error),
    /// The state folder or what is in it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] peer::Error),
    /// The chunk plane.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// The DHT plane.
    #[error(transparent)]
    Dht(#[from] dht::Error),
    /// The API.
    #[error(transparent)]
    Api(#[from] api::Error),
}

/// Reads the settings again.
pub type Reload = Box<dyn Fn() -> Result<Config, config::Error> + Send>;

/// What a running daemon needs from its process.
pub struct Process {
    /// Told to stop, told to reload.
    pub signals: Signals,
    /// Tells systemd.
    pub notifier: Notifier,
    /// The socket that systemd handed over.
    pub socket: Option<std::os::unix::net::UnixListener>,
    /// Reads the settings again.
    pub reload: Reload,
    /// See [`dht::Options::dials_everything`].
    pub dials_everything: bool,
}

/// Runs a daemon until it is told to stop.
///
/// # Errors
/// [`Error`], each a line for people.
pub async fn run(config: Config, process: Process) -> Result<(), Error> {
    if !erasure::processor_is_supported() {
        return Err(Error::Processor);
    }
    let Process { signals, notifier, socket, reload, dials_everything } = process;
    let notifier = Arc::new(notifier);
    let ours = socket.is_none();
    let store = open_store(&config).await?;
    let listener = listen::api_socket(&config, socket)?;
    let (files, beside) = listen::files_socket(&listener).unzip();
    let house = House::build(&config, store.clone(), dials_everything).await?;
    let about = house.node.about();
    tracing::info!(chunk = ?about.chunk, peer = %about.peer, network = about.network, "ready");
    notifier.ready();
    house.watch_reload(signals.reload, reload, Arc::clone(&notifier));
    let access = api::Access::new(rustix::process::geteuid().as_raw());
    let served = api::serve(listener, files, house.node.clone(), access, signals.stop.clone()).await;
    tracing::info!("stopping");
    notifier.stopping();
    let late = house.drain().await;
    if late > 0 {
        tracing::warn!(late, "some work did not end in time");
    }
    store.close().await?;
    // Whoever connects now learns at once that nobody is there.
    for socket in ours.then_some(config.api.socket).into_iter().chain(beside) {
        let _ = std::fs::remove_file(socket);
    }
    tracing::info!("stopped");
    Ok(served?)
}

/// Drops the index, which is made anew from the segments at the next start. The store must not be open.
///
/// # Errors
/// [`Error::Runtime`] when it cannot be removed.
pub fn forget_index(config: &Config) -> Result<(), Error> {
    let folder = config.node.state_dir.join("index");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Runtime(error)),
        _ => Ok(()),
    }
}

/// The rooms of a running daemon.
struct House {
    node: Node,
    /// Fetches, adds, announcing: what begins new work. Stops first.
    above: Tasks,
    /// Listeners, sessions, the swarm. Stops last.
    below: Tasks,
    limits: Limits,
}

impl House {
    async fn build(config: &Config, store: Store, dials_everything: bool) -> Result<Self, Error> {
        let key = Identity::load_or_create(&config.node.state_dir)?;
        let me = key.public().to_peer_id();
        let (above, below, pool) = (Tasks::new(), Tasks::new(), Pool::per_core());
        let connections = usize::try_from(config.transfer.connections).unwrap_or(usize::MAX);
        let conduct = tasks::conduct(config, &below).await;
        let wire =
            Wire::minding(&key, wire::Options { connections, ..wire::Options::default() }, conduct.clone())?;
        let limits = Limits::new(settings::rates(config), wire.yielding());
        let listeners = listen::chunk_ports(config, &wire, &below)?;
        let chunk: Vec<SocketAddr> = listeners.iter().map(Listener::local_addr).collect();
        let network = session::Network::new(&config.network.name, config.network.key.clone());
        let session = session::Options {
            idle: config.transfer.idle_timeout,
            card: settings::card(config, &key, &chunk),
            ..session::Options::new(me, network, pool.clone())
        };
        let options = dht::Options {
            dials_everything,
            conduct: conduct.clone(),
            announce: limits.announce(),
            ..settings::dht(config, chunk.clone())
        };
        let dht = Dht::start(options, key.clone(), &below).await?;
        let board = Board::new();
        let serve = Serve::new(serve::Options::default(), store.clone(), board.clone(), limits.bounds());
        let serve = Arc::new(serve);
        for listener in listeners {
            tasks::accept(listener, session.clone(), (Arc::clone(&serve), conduct.clone()), &below);
        }
        if let Some(streams) = dht.take_accepted() {
            tasks::accept_streams(streams, session.clone(), (Arc::clone(&serve), conduct.clone()), &below);
        }
        let visitors = serve.visitors();
        let discovery: Arc<dyn peer::Discovery> = Arc::new(dht.clone());
        let (notices, held) = mpsc::channel(NOTICES);
        let fetcher = Fetcher::new(fetch::Parts {
            options: settings::fetching(config),
            store: store.clone(),
            pool: pool.clone(),
            tasks: above.clone(),
            links: Links::with_detour(
                Arc::new(wire),
                Some(Arc::new(dht.clone())),
                session.clone(),
                below.clone(),
            ),
            discovery: Arc::clone(&discovery),
            download: limits.fetch(),
            conduct: conduct.clone(),
            board,
            notices,
        });
        let announcer =
            Announcer::start(settings::announcing(config), store.clone(), Arc::new(dht.clone()), &above);
        tasks::announce_fetched(held, announcer.clone(), &above);
        let rebuilder = Rebuilder { store: store.clone(), pool: pool.clone(), key: key.clone() };
        let mender = Mender { rebuilder, fetcher: fetcher.of_class(limits.repair()) };
        let scrubber = Scrubber::start(settings::scrubbing(config), mender, &above);
        tasks::report_damage(&store, scrubber.clone(), &below);
        upkeep::keep_used(store.clone(), &below);
        let node = Node::new(crate::node::Parts {
            ingest: Ingest::new(store.clone(), pool, key, above.clone()),
            store,
            fetcher,
            announcer,
            scrubber,
            discovery,
            catalogue: Arc::new(dht.clone()),
            neighbours: Arc::new(around::Around(dht)),
            conduct,
            visitors,
            limits: limits.clone(),
            about: settings::about(config, me, chunk),
            tasks: above.clone(),
            jobs: usize::try_from(config.transfer.jobs).unwrap_or(usize::MAX),
        });
        node.resume_jobs();
        Ok(Self { node, above, below, limits })
    }

    /// Applies on SIGHUP what can change while running: the limits, also where they were changed by hand. A bad file
    /// changes nothing.
    fn watch_reload(&self, mut asked: mpsc::Receiver<()>, read: Reload, notifier: Arc<Notifier>) {
        let (limits, stop) = (self.limits.clone(), self.above.token());
        self.above.spawn("reload", async move {
            loop {
                tokio::select! {
                    some = asked.recv() => if some.is_none() { return },
                    () = stop.cancelled() => return,
                }
                notifier.reloading();
                match read() {
                    Ok(config) => {
                        limits.configure(settings::rates(&config));
                        tracing::info!("settings reloaded: the limits; the others take effect at a restart");
                    }
                    Err(error) => tracing::error!("{error}; the settings stay as they were"),
                }
                notifier.ready();
            }
        });
    }

    /// Ends everything, what begins work first. How many tasks were late.
    async fn drain(&self) -> usize {
        self.above.drain(DRAIN).await + self.below.drain(DRAIN).await
    }
}

/// Opens the store off the runtime: it may have to be recovered.
async fn open_store(config: &Config) -> Result<Store, Error> {
    let options = store::Options {
        quota: config.store.quota,
        reserve: config.store.reserve,
        ..store::Options::default()
    };
    let folder = config.node.state_dir.clone();
    let pool = Pool::new(DISK_CALLS);
    let open = pool.clone();
    Ok(open.run(move || Store::open(&options, Arc::new(store::Real::new(folder)), pool)).await?)
}
