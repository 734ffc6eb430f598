//! The answering half of the event loop: hellos and batches from others.
//!
//! Owns: what a stranger's message may do, each in its peer's turn. Refuses: batches whose announcer is not their
//! sender, that were seen before, or when this node is no server. Survives a crash: nothing.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::{Event, Message};

use super::Key;
use super::batch::{Answer, Batch, Refusal, Request, Taken};
use super::codec::Asked;
use super::event_loop::EventLoop;
use super::find::{self, Holders};
use super::hello::Hello;
use super::later::Question;
use super::listen::ip_of;
use super::meter::Act;
use super::options::Mode;
use super::records::{MAX_LIFETIME, Verdict};
use crate::support::unix_now;

/// After so long a batch that came too early is looked at again.
const EARLY: Duration = Duration::from_millis(100);

impl EventLoop {
    pub(super) fn on_hello(&mut self, event: Event<Asked<Hello>, Hello>) {
        match event {
            Event::Message { peer, connection_id, message } => match message {
                Message::Request { request, channel, .. } => {
                    let asked = request.map(|hello| Question::Hello(peer, connection_id, hello, channel));
                    self.in_turn(peer, Act::Hello, asked);
                }
                Message::Response { request_id, response } => {
                    let remote = self.peers.remote_ip(&peer, connection_id);
                    self.hellos.remove(&request_id);
                    self.hello_resolved(peer, &Ok(response.usable(remote, &self.reach)));
                }
            },
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.hellos.remove(&request_id);
                self.hello_failed(peer, &error);
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_announce(&mut self, event: Event<Asked<Request>, Answer>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let asked = request.map(|batch| Question::Batch(peer, batch, channel));
                self.in_turn(peer, Act::Batch, asked);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.sending.answered(request_id, response);
                self.send_next(&peer);
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.sending.failed(request_id, error.to_string());
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_find(&mut self, event: Event<Asked<Key>, Holders>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let asked = request.map(|key| Question::Find(peer, key, channel));
                self.in_turn(peer, Act::Find, asked);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(done) = self.finds.remove(&request_id) {
                    let _ = done.send(response);
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                // Whoever waits learns of nobody.
                drop(self.finds.remove(&request_id));
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Answers a question when it is within its peer's rate. One that would have to wait too long, or that could not be
    /// read, is not answered: its stream ends.
    pub(super) fn in_turn(&mut self, peer: PeerId, act: Act, asked: Asked<Question>) {
        let question = match asked {
            Ok(question) => question,
            Err(malformed) => return self.on_malformed(peer, malformed),
        };
        let now = Instant::now();
        match self.swarm.behaviour_mut().kad.meter.wait(peer, act, now) {
            Some(wait) if wait.is_zero() => self.reply(question),
            Some(wait) => self.later.push(now + wait, question),
            None => tracing::debug!(%peer, ?act, "not answered: a peer asks too much"),
        }
    }

    /// Answers a question now. Sending fails only when the asker has gone.
    pub(super) fn reply(&mut self, question: Question) {
        match question {
            Question::Hello(peer, connection, hello, channel) => {
                let remote = self.peers.remote_ip(&peer, connection);
                let answer = Hello::to(&self.options.chunk, self.options.serves, remote);
                let _ = self.swarm.behaviour_mut().hello.send_response(channel, answer);
                self.hello_resolved(peer, &Ok(hello.usable(remote, &self.reach)));
            }
            // What a node says now comes after what is remembered of it, or that would count for more.
            early @ Question::Batch(..) if !self.swarm.behaviour_mut().kad.store_mut().is_restored() => {
                self.later.push(Instant::now() + EARLY, early);
            }
            Question::Batch(peer, request, channel) => {
                let answer = match request {
                    Request::Incoming(read) => self.judge(peer, read),
                    // The reader never makes it.
                    Request::Outgoing(_) => Answer::Refused(Refusal::Signature, 0),
                };
                let is_false = matches!(answer, Answer::Refused(Refusal::Signature, _));
                let _ = self.swarm.behaviour_mut().announce.send_response(channel, answer);
                if is_false {
                    self.strike(
                        peer,
                        "it announces in another's name, or with a signature that does not hold",
                    );
                }
            }
            Question::About(key, channel) => {
                let said = self.said_of(&key);
                let _ = self.swarm.behaviour_mut().describe.send_response(channel, said);
            }
            Question::Find(peer, key, channel) => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                let holders = kad.store_mut().all_holders(&key);
                kad.meter.told(peer, Act::Find, find::weight(&holders), Instant::now());
                let _ = self.swarm.behaviour_mut().find.send_response(channel, holders);
            }
            Question::Servers(peer, connection, channel) => {
                let servers = self.servers_for(&peer, connection);
                let behaviour = self.swarm.behaviour_mut();
                behaviour.kad.meter.told(peer, Act::Find, find::weight(&servers), Instant::now());
                let _ = behaviour.servers.send_response(channel, servers);
            }
        }
    }

    fn judge(&mut self, sender: PeerId, read: Result<Batch, Refusal>) -> Answer {
        let batch = match read {
            Ok(batch) => batch,
            Err(refusal) => return Answer::Refused(refusal, 0),
        };
        if self.reaching.part == Mode::Client {
            return Answer::Refused(Refusal::Client, 0);
        }
        if batch.announcer != sender {
            return Answer::Refused(Refusal::Signature, 0);
        }
        let near = self.peers.get(&sender).is_some_and(|connected| {
            connected.remotes().any(|at| ip_of(at).is_some_and(|ip| ip.is_loopback()))
        });
        let records = self.swarm.behaviour_mut().kad.store_mut();
        if let Err(highest) = records.first_time(sender, batch.sequence) {
            return Answer::Refused(Refusal::Sequence, highest);
        }
        let mut addresses = batch.addresses;
        addresses.retain(|at| near || !ip_of(at).is_some_and(|ip| ip.is_loopback()));
        if !addresses.is_empty() {
            records.locate(&sender, addresses);
        }
        let lifetime = batch.lifetime.min(MAX_LIFETIME);
        let mut taken = Taken { lifetime, ..Taken::default() };
        taken.removed = u32::try_from(records.take_back(batch.removals, &sender)).unwrap_or(u32::MAX);
        taken.known = u32::try_from(records.known(&batch.keys, &sender)).unwrap_or(u32::MAX);
        // What it says no more of: a batch says all of its keys.
        let is_said = |key: &Key| {
            let place =
                batch.descriptions.binary_search_by_key(&key, |said| said.description().object.as_bytes());
            place.is_ok()
        };
        let mut unsaid = records.described_of(&batch.keys, &sender);
        unsaid.retain(|key| !is_said(key));
        records.undescribe(unsaid, &sender);
        for verdict in records.put_all(batch.keys, sender, lifetime, Instant::now()) {
            taken.far += u32::from(verdict == Verdict::Far);
            taken.full += u32::from(verdict == Verdict::Full);
            taken.taken.push(verdict == Verdict::Taken);
        }
        let now = unix_now();
        let timely = batch.descriptions.iter().filter(|said| said.is_timely(now));
        let kept = timely.filter(|said| records.describe(&sender, said)).count();
        taken.described = u32::try_from(kept).unwrap_or(u32::MAX);
        self.batches_taken += 1;
        self.options.conduct.came(&sender);
        Answer::Taken(taken)
    }
}
