//! The answering half of the event loop: hellos and batches from others.
//!
//! Owns: what a stranger's message may do. Refuses: batches whose announcer is not their sender, that were
//! seen before, or when this node is no server. Survives a crash: nothing.

use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{Event, Message};

use super::Key;
use super::batch::{Answer, Batch, Refusal, Request, Taken};
use super::event_loop::EventLoop;
use super::find::Holders;
use super::hello::Hello;
use super::listen::ip_of;
use super::options::Mode;
use super::records::{MAX_LIFETIME, Verdict};
use crate::support::unix_now;

impl EventLoop {
    pub(super) fn on_hello(&mut self, event: Event<Hello, Hello>) {
        match event {
            Event::Message { peer, connection_id, message } => {
                let remote = self.peers.remote_ip(&peer, connection_id);
                match message {
                    Message::Request { request, channel, .. } => {
                        let answer = Hello::to(&self.options.chunk, self.options.serves, remote);
                        // Fails only when the asker has gone.
                        let _ = self.swarm.behaviour_mut().hello.send_response(channel, answer);
                        self.hello_resolved(peer, Some(&request.usable(remote, &self.reach)));
                    }
                    Message::Response { request_id, response } => {
                        self.hellos.remove(&request_id);
                        self.hello_resolved(peer, Some(&response.usable(remote, &self.reach)));
                    }
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.hellos.remove(&request_id);
                self.hello_failed(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "a hello went wrong"),
            Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_announce(&mut self, event: Event<Request, Answer>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let answer = match request {
                    Request::Incoming(read) => self.judge(peer, read),
                    // The reader never makes it.
                    Request::Outgoing(_) => Answer::Refused(Refusal::Signature, 0),
                };
                // Fails only when the announcer has gone.
                let _ = self.swarm.behaviour_mut().announce.send_response(channel, answer);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(done) = self.batches.remove(&request_id) {
                    let _ = done.send(Ok(response));
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(done) = self.batches.remove(&request_id) {
                    let _ = done.send(Err(error.to_string()));
                }
            }
            Event::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "a batch went wrong"),
            Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_find(&mut self, event: Event<Key, Holders>) {
        match event {
            Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                let holders = self.swarm.behaviour_mut().kad.store_mut().all_holders(&request);
                // Fails only when the asker has gone.
                let _ = self.swarm.behaviour_mut().find.send_response(channel, holders);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(done) = self.finds.remove(&request_id) {
                    let _ = done.send(response);
                }
            }
            // Whoever waits learns of nobody.
            Event::OutboundFailure { request_id, .. } => drop(self.finds.remove(&request_id)),
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question went wrong");
            }
            Event::ResponseSent { .. } => {}
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
        Answer::Taken(taken)
    }
}
