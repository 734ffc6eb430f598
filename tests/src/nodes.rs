//! Several daemons of one network on loopback, each in a folder of its own.

use std::thread;

use crate::settings::Settings;
use crate::wait::{self, LONG};
use crate::{Ctl, Daemon, Home};

/// A daemon and where it lives.
#[derive(Debug)]
pub struct Node {
    /// The process. It goes before the folder that its last words are in.
    pub daemon: Daemon,
    /// Its folder and settings.
    pub home: Home,
}

/// Starts `count` nodes of one network that have all found the first; `change` sees each node's number and settings.
#[track_caller]
#[must_use]
pub fn network(count: usize, change: impl Fn(usize, Settings) -> Settings + Sync) -> Vec<Node> {
    let name = format!("test-{:016x}", rand::random::<u64>());
    let begin = |number: usize, bootstrap: &[String]| {
        let home = Home::with(|settings| {
            let settings = settings.text("network.name", &name).texts("network.bootstrap", bootstrap);
            change(number, settings)
        });
        let daemon = home.start();
        Node { home, daemon }
    };
    let first = begin(0, &[]);
    let bootstrap = first.daemon.dht_addresses();
    thread::scope(|scope| {
        let (begin, bootstrap) = (&begin, &bootstrap);
        let others: Vec<_> = (1..count).map(|number| scope.spawn(move || begin(number, bootstrap))).collect();
        let mut nodes = vec![first];
        nodes.extend(others.into_iter().map(|other| other.join().expect("a node starts")));
        nodes.iter().skip(1).for_each(Node::joins);
        nodes
    })
}

impl Node {
    /// casctl for it.
    #[must_use]
    pub fn ctl(&self) -> &Ctl {
        self.daemon.ctl()
    }

    /// Its peer id.
    #[track_caller]
    #[must_use]
    pub fn id(&self) -> String {
        self.daemon.peer_id()
    }

    /// Waits until it has a neighbour.
    #[track_caller]
    pub fn joins(&self) {
        wait::until(format!("{} to find a peer", self.daemon), LONG, || {
            (self.ctl().status()["peers"].as_u64()? > 0).then_some(())
        });
    }

    /// Stops its daemon, lets `between` work on its folder, and starts it again.
    #[track_caller]
    #[must_use]
    pub fn restart(self, between: impl FnOnce(&mut Home)) -> Self {
        let Self { mut home, daemon } = self;
        assert_eq!(daemon.stop(LONG).code(), Some(0));
        between(&mut home);
        let daemon = home.start();
        Self { home, daemon }
    }
}
