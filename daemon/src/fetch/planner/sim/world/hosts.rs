//! What the hosts do: come, tell, answer, stall, go; and what passes the fetcher's downlink.

use std::time::Duration;

use super::{Answer, Event, Has, Passing, SLICE, Server, Shard, Todo, World, number, takes};

/// How often the planner is told of what is on its way.
const WATCH: Duration = Duration::from_millis(500);

/// How long nothing comes when the last packets of a burst are lost.
const RETRANSMISSION: Duration = Duration::from_millis(250);

/// Bytes that a new connection sends before the first acknowledgement (RFC 6928).
const FIRST_BURST: f64 = 14_600.0;

impl World {
    pub(super) fn join(&mut self, at: usize) {
        if self.servers[at].here || self.servers[at].spent {
            return;
        }
        self.servers[at].here = true;
        let host = self.network.hosts[at].clone();
        let peer = number(at);
        self.tell(Event::PeerJoined { peer, credits: host.credits });
        if let Some(leaves) = host.leaves {
            self.schedule(self.now + leaves, Todo::Leave(at));
        }
        if host.silent {
            self.tell(Event::PeerHas { peer, has: Has::Unknown });
        } else if host.grows.is_some() {
            self.tell_more(at, 0);
        } else if host.claims.count() == host.claims.len() {
            self.tell(Event::PeerHas { peer, has: Has::Whole });
        } else {
            self.tell(Event::PeerHas { peer, has: Has::Bitmap(host.claims) });
        }
    }

    pub(super) fn tell_more(&mut self, at: usize, from: u64) {
        let host = &self.network.hosts[at];
        let (Some(every), true) = (host.grows, self.servers[at].here && from < host.claims.len()) else {
            return;
        };
        let ranges = host.claims.ones(from..from + 16).map(|chunk| chunk..chunk + 1).collect();
        self.tell(Event::PeerHas { peer: number(at), has: Has::Ranges(ranges) });
        self.schedule(self.now + every, Todo::Tell(at, from + 16));
    }

    /// A host is gone; `say` when the planner does not know yet.
    pub(super) fn leave(&mut self, at: usize, say: bool) {
        if self.servers[at].here {
            self.servers[at] = Server { spent: true, ..Server::default() };
            self.tickets.retain(|(peer, _), _| *peer != number(at));
            if say {
                self.tell(Event::PeerLeft { peer: number(at) });
            }
        }
    }

    pub(super) fn stalls(&self, at: usize) -> bool {
        self.network.hosts[at].stalls.is_some_and(|from| self.now >= from)
    }

    pub(super) fn request(&mut self, at: usize, ticket: u64, shard: Shard) {
        let host = &self.network.hosts[at];
        if !self.servers[at].here
            || self.stalls(at)
            || self.tickets.get(&(number(at), shard)) != Some(&ticket)
        {
            return;
        }
        let has = match shard {
            Shard::Data(chunk) => host.holds.get(chunk),
            Shard::Parity { .. } => host.parity,
        };
        let (busy, fails) = (host.busy, host.fails);
        let refusal = match () {
            () if self.dice.below(100) < busy => Answer::Busy,
            () if self.dice.below(100) < fails => Answer::Failed,
            () if !has => Answer::NotFound,
            () => {
                self.servers[at].queue.push_back((ticket, shard));
                if self.servers[at].queue.len() == 1 {
                    self.send(at);
                }
                if !std::mem::replace(&mut self.watching, true) {
                    self.schedule(self.now + WATCH, Todo::Watch);
                }
                return;
            }
        };
        let delay = self.network.hosts[at].delay;
        self.schedule(self.now + delay, Todo::Answer(at, ticket, shard, refusal));
    }

    /// Begins to send the first of a host's queue.
    pub(super) fn send(&mut self, at: usize) {
        if let Some(&(ticket, shard)) = self.servers[at].queue.front() {
            let host = &self.network.hosts[at];
            let (bytes, rate, before) =
                (self.books.bytes(shard), host.rate_at(self.now), self.servers[at].sent);
            let mut time =
                if host.starts_slowly { ramp(before, bytes, rate, host.delay) } else { takes(bytes, rate) };
            let loss = host.loss;
            if loss > 0 && self.dice.below(100) < loss {
                time += RETRANSMISSION;
            }
            self.servers[at].sent += bytes;
            (self.servers[at].began, self.servers[at].ends) = (self.now, self.now + time);
            self.schedule(self.now + time, Todo::Sent(at, ticket));
        }
    }

    /// Tells what has come by now of the answers that are on their way, as the caller of the planner does now and then.
    pub(super) fn watch(&mut self) {
        let mut flows = Vec::new();
        for (at, server) in self.servers.iter().enumerate().filter(|(_, server)| server.here) {
            let delay = self.network.hosts[at].delay;
            // What came before it stalled has been told.
            if let Some(&(ticket, shard)) = server.queue.front().filter(|_| !self.stalls(at)) {
                let (all, bytes) = (server.ends - server.began, self.books.bytes(shard));
                let done = self.now.saturating_sub(server.began + delay).min(all);
                let sent = (bytes as f64 * done.as_secs_f64() / all.as_secs_f64().max(1e-6)) as u64;
                // The other half of the way is the downlink.
                flows.push((at, ticket, shard, if self.network.downlink == 0 { sent } else { sent / 2 }));
            }
        }
        for passing in &self.downlink {
            let bytes = self.books.bytes(passing.shard);
            flows.push((passing.host, passing.ticket, passing.shard, bytes - passing.left / 2));
        }
        for (at, ticket, shard, came) in flows {
            let peer = number(at);
            let came = came.min(self.books.bytes(shard).saturating_sub(1));
            if came > 0 && self.tickets.get(&(peer, shard)) == Some(&ticket) {
                self.tell(Event::Came { peer, shard, bytes: came });
            }
        }
        self.watching = self.servers.iter().any(|server| !server.queue.is_empty() || server.passing);
        if self.watching {
            self.schedule(self.now + WATCH, Todo::Watch);
        }
    }

    pub(super) fn cancelled(&mut self, at: usize, ticket: u64) {
        let queue = &mut self.servers[at].queue;
        let Some(place) = queue.iter().position(|&(other, _)| other == ticket) else { return };
        queue.remove(place);
        if place == 0 {
            self.servers[at].blocked = false;
            self.send(at);
        }
    }

    pub(super) fn sent(&mut self, at: usize, ticket: u64) {
        let Some(&(_, shard)) = self.servers[at].queue.front().filter(|&&(first, _)| first == ticket) else {
            return;
        };
        if self.servers[at].passing {
            self.servers[at].blocked = true;
            return;
        }
        self.servers[at].queue.pop_front();
        if self.stalls(at) {
            return;
        }
        self.send(at);
        let bad = self.dice.below(100) < self.network.hosts[at].bad;
        let answer = if bad { Answer::Bad } else { Answer::Data };
        if self.network.downlink == 0 {
            let delay = self.network.hosts[at].delay;
            return self.schedule(self.now + delay, Todo::Answer(at, ticket, shard, answer));
        }
        self.servers[at].passing = true;
        self.downlink.push_back(Passing { host: at, ticket, shard, answer, left: self.books.bytes(shard) });
        if self.downlink.len() == 1 {
            self.pass();
        }
    }

    /// Begins to pass a slice of the downlink's first answer.
    pub(super) fn pass(&mut self) {
        if let Some(first) = self.downlink.front() {
            let time = takes(first.left.min(SLICE), self.network.downlink);
            self.schedule(self.now + time, Todo::Slice);
        }
    }

    /// A slice is through.
    pub(super) fn slice(&mut self) {
        let Some(mut first) = self.downlink.pop_front() else { return };
        first.left -= first.left.min(SLICE);
        let at = first.host;
        if first.left > 0 {
            self.downlink.push_back(first);
            return self.pass();
        }
        let delay = self.network.hosts[at].delay;
        self.schedule(self.now + delay, Todo::Answer(at, first.ticket, first.shard, first.answer));
        self.pass();
        self.servers[at].passing = false;
        if std::mem::take(&mut self.servers[at].blocked)
            && let Some(&(ticket, _)) = self.servers[at].queue.front()
        {
            self.sent(at, ticket);
        }
    }

    pub(super) fn answer(&mut self, at: usize, ticket: u64, shard: Shard, answer: Answer) {
        let peer = number(at);
        if !self.servers[at].here || self.tickets.get(&(peer, shard)) != Some(&ticket) {
            return;
        }
        self.tickets.remove(&(peer, shard));
        let bytes = self.books.bytes(shard);
        match answer {
            Answer::Data => {
                assert!(self.planner.wants(shard), "{shard:?} is still asked for and not wanted");
                self.outcome.delivered[at] += bytes;
                self.tell(Event::Arrived { peer, shard, bytes });
                self.damage();
            }
            Answer::Bad => {
                self.tell(Event::Bad { peer, shard });
                self.leave(at, false);
            }
            Answer::NotFound => self.tell(Event::NotFound { peer, shard }),
            Answer::Busy => {
                let retry_after = Duration::from_millis(self.dice.below(3000));
                self.tell(Event::Busy { peer, shard, retry_after });
            }
            Answer::Failed => self.tell(Event::Failed { peer, shard }),
        }
    }
}

/// The time that `bytes` take behind the first `before` ones of a connection that doubles its rate in each round trip
/// until it has come to `rate` bytes a second.
fn ramp(before: u64, bytes: u64, rate: u64, delay: Duration) -> Duration {
    let trip = 2.0 * delay.as_secs_f64();
    // So many bytes it grows: then doubling is as fast as the rate.
    let knee = (rate as f64 * trip / 2f64.ln() - FIRST_BURST).max(0.0);
    let (from, to) = (before as f64, (before + bytes) as f64);
    let grown = to.min(knee).max(from);
    let growing = trip * ((FIRST_BURST + grown) / (FIRST_BURST + from)).log2();
    Duration::from_secs_f64(growing + (to - grown) / rate as f64)
}
