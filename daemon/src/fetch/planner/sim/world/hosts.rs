//! What the hosts do: come, tell, answer, stall, go; and what passes the fetcher's downlink.

use std::time::Duration;

use super::{Answer, Event, Has, Passing, SLICE, Server, Shard, Todo, World, number, takes};

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
                return;
            }
        };
        let delay = self.network.hosts[at].delay;
        self.schedule(self.now + delay, Todo::Answer(at, ticket, shard, refusal));
    }

    /// Begins to send the first of a host's queue.
    pub(super) fn send(&mut self, at: usize) {
        if let Some(&(ticket, shard)) = self.servers[at].queue.front() {
            let time = takes(self.books.bytes(shard), self.network.hosts[at].rate);
            self.schedule(self.now + time, Todo::Sent(at, ticket));
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
