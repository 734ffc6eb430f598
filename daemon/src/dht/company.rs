//! Whether this node is alone, and what is said of that.
//!
//! Owns: when it counts as alone, and what the log hears: once that it has joined its network, however that came about,
//! and once that it has been alone for long. Refuses: nothing. Survives a crash: nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::event_loop::EventLoop;
use super::options::Mode;
use super::peers::Standing;
use crate::peer::{Company, ReachVerdict};

/// After so long alone the log hears of it: who comes back within that time was hardly gone.
const SAID_AFTER: Duration = Duration::from_secs(30);
/// After so long without a server nobody waits any more for those that are known and dialled again and again.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// Addresses of configured nodes that could not be reached that are named.
const NAMED: usize = 8;

/// See the module. Pure: the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Solitude {
    /// Since when this node is alone, as far as the log is concerned.
    since: Option<Instant>,
    /// Since when it knows no server, or none that it knows answers, whoever else is there.
    lost: Option<Instant>,
    /// Whether the log has heard that it joined its network, and not since that it is alone.
    has_joined: bool,
    /// Whether the log has heard that only such are there as keep no records, and not since that it has joined anew:
    /// whoever says now that it keeps some, and now that it does not, makes no lines.
    has_waited: bool,
    /// Whether the log has heard that it is alone.
    said: bool,
    /// Whether one that it knows could not be reached while nobody was connected, and nobody has been met since.
    is_cut_off: bool,
    /// Who of those that it knows was last found to be of another network or to have another key, since somebody was
    /// met, and how that shows.
    refused: Option<(PeerId, String)>,
}

/// What the log hears when a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// This node has joined its network.
    Joined,
    /// It has not: none that it knows keeps records.
    Waiting,
}

// === impl Solitude ===

impl Solitude {
    /// One that this node knows could not be reached while nobody was connected; `refusal`: it is there, and for this
    /// reason none of this network.
    pub(super) fn missed(&mut self, peer: PeerId, refusal: Option<String>) {
        self.is_cut_off = true;
        match refusal {
            Some(why) => self.refused(peer, why),
            None => _ = self.refused.take_if(|(refused, _)| *refused == peer),
        }
    }

    /// One that this node knows is there, and none of this network.
    pub(super) fn refused(&mut self, peer: PeerId, why: String) {
        self.refused = Some((peer, why));
    }

    /// A node of this network is there; `has_server`: it keeps records, or another that is known does, or this node
    /// for others. What the log should hear of it.
    pub(super) fn met(&mut self, has_server: bool) -> Option<News> {
        (self.is_cut_off, self.refused) = (false, None);
        if !has_server {
            return (!std::mem::replace(&mut self.has_waited, true)).then_some(News::Waiting);
        }
        (self.since, self.said) = (None, false);
        let is_news = !std::mem::replace(&mut self.has_joined, true);
        self.has_waited &= !is_news;
        is_news.then_some(News::Joined)
    }

    /// Whether this node is alone: it knows none to ask, or is connected to nobody and those it knows do not answer.
    /// That nobody is connected says nothing by itself: connections end when nobody uses them.
    pub(super) fn is_alone(&self, routed: usize, connected: usize) -> bool {
        routed == 0 || connected == 0 && self.is_cut_off
    }

    /// Whether this node is alone now, or among such only as keep no records.
    fn stand(&mut self, alone: bool, now: Instant) {
        self.lost = alone.then(|| self.lost.unwrap_or(now));
    }

    /// Whether it has been so for so long that whoever is dialled is hardly there.
    fn is_given_up(&self, now: Instant) -> bool {
        self.lost.is_some_and(|since| now >= since + GIVEN_UP)
    }

    /// True when the log should hear that this node is alone.
    pub(super) fn is_to_be_said(&mut self, alone: bool, now: Instant) -> bool {
        if !alone {
            self.since = None;
            return false;
        }
        let is_long = now >= *self.since.get_or_insert(now) + SAID_AFTER;
        if is_long {
            self.has_joined = false;
        }
        is_long && !std::mem::replace(&mut self.said, true)
    }
}

// === impl EventLoop ===

impl EventLoop {
    /// Whether this node is alone; `routed`: nodes in its routing table.
    pub(super) fn is_alone(&self, routed: usize) -> bool {
        self.solitude.is_alone(routed, self.members().count())
    }

    /// Whether others join the network by this node, which keeps records for them: it may be the first of its kind, but
    /// not while it expects others that it knows.
    fn is_entrance(&self, now: Instant) -> bool {
        let is_reached = self.reaching.reachable.verdict() == ReachVerdict::Yes;
        let is_open = self.options.mode == Mode::Server || is_reached;
        self.reaching.part == Mode::Server && is_open && !self.is_expecting(now)
    }

    /// Whether one that this node knows, and is not connected to, may be there soon: it is dialled again and again.
    fn is_expecting(&self, now: Instant) -> bool {
        let mut known = self.bootstrap.peers().chain(self.remembered.peers());
        !self.solitude.is_given_up(now) && known.any(|peer| self.peers.get(peer).is_none())
    }

    /// Whether this node is one of those that others ask for what they look for, though it knows none that keeps
    /// records: such as keep none are there and join by it, or have announced something here. Where it may just be cut
    /// off from others, or has not reached them yet, what they once announced does not count.
    fn is_entered(&mut self, now: Instant) -> bool {
        let has_records = self.swarm.behaviour_mut().kad.store_mut().len() > 0;
        let knows_others = self.bootstrap.len() > 0 || self.remembered.peers().next().is_some();
        let is_asked = match self.members().next() {
            Some(_) => has_records && !self.is_expecting(now) || self.is_entrance(now),
            None => has_records && !knows_others,
        };
        is_asked && self.reaching.part == Mode::Server
    }

    /// Tells the handles whether it is so.
    pub(super) fn tell_entered(&mut self) {
        let is_entered = self.is_entered(Instant::now());
        self.entered.send_if_modified(|told| std::mem::replace(told, is_entered) != is_entered);
    }

    /// Whether this node is alone is known anew: tells the log when it has been so for long.
    pub(super) fn say_alone(&mut self, alone: bool, now: Instant) {
        self.solitude.stand(alone, now);
        let is_entered = self.is_entered(now);
        if !self.solitude.is_to_be_said(alone && !is_entered, now) {
            return;
        }
        let company = self.company(now);
        if company.is_unserved {
            tracing::warn!(
                connected = company.connected,
                "connected only to nodes that keep no records for others: nothing can be looked up or announced; \
                 those on its own subnets are asked for others, `casctl doctor` says more"
            );
            return;
        }
        match (company.known, company.configured) {
            (0, 0) => tracing::info!(
                "this node knows no other; `casctl connect ADDR`, or network.bootstrap in the configuration, finds some"
            ),
            (known, configured) => tracing::warn!(
                known,
                configured,
                "connected to nobody: none of {known} known and {configured} configured nodes can be reached; they are \
                 tried again, `casctl doctor` says more"
            ),
        }
    }

    /// A node of this network is there; `is_server`: it keeps records for others.
    pub(super) fn note_company(&mut self, peer: PeerId, is_neighbour: bool, is_server: bool) {
        let is_back = self.bootstrap.reached(&peer);
        let has_server = is_server || self.is_entrance(Instant::now()) || !self.routed_peers().is_empty();
        if let Some(news) = self.solitude.met(has_server) {
            let mut callers = self.connecting.get(&peer).into_iter().flatten();
            let how = if callers.any(|caller| caller.is_open) {
                "at an address that was given"
            } else if self.bootstrap.has(&peer) {
                "which is configured"
            } else if is_neighbour {
                "found on the local network"
            } else if self.remembered.has(&peer) {
                "remembered from an earlier run"
            } else if self.introductions.has_named(&peer) {
                "which a neighbour has named"
            } else {
                "which has connected to this node"
            };
            match news {
                News::Joined => tracing::info!(%peer, "joined the network by {peer}, {how}"),
                News::Waiting => tracing::info!(
                    %peer,
                    "connected to {peer}, {how}: it keeps no records for others, and this node knows none that does yet"
                ),
            }
        } else if is_back {
            tracing::info!(%peer, "the bootstrap node {peer} is reached again");
        }
    }

    /// Whether somebody is in the routing table, or may be soon.
    pub(super) fn is_joining(&mut self) -> bool {
        self.is_meeting() || !self.routed_peers().is_empty()
    }

    /// Whether a node is being dialled, or has not said yet what it is.
    fn is_meeting(&self) -> bool {
        let is_dialling = self.swarm.network_info().connection_counters().num_pending_outgoing() > 0;
        is_dialling || self.peers.connected().any(|(_, one)| one.standing == Standing::Unknown)
    }

    /// Whether only such are connected as keep no records for others, and no others are to be expected.
    pub(super) fn is_unserved(&mut self, now: Instant) -> bool {
        let is_expected = self.is_meeting() && !self.solitude.is_given_up(now) || self.is_expecting(now);
        !is_expected && self.company(now).is_unserved
    }

    /// How this node stands among the others.
    pub(super) fn company(&mut self, now: Instant) -> Company {
        let routed = self.routed_peers();
        let members: Vec<PeerId> = self.members().copied().collect();
        let is_alone = members.is_empty() && self.is_alone(routed.len());
        let is_unserved = !members.is_empty() && routed.is_empty() && !self.is_entered(now);
        let next = [self.bootstrap.next(true), self.remembered.next()].into_iter().flatten().min();
        let known: HashSet<PeerId> = routed
            .into_iter()
            .chain(members.iter().copied())
            .chain(self.remembered.peers().copied())
            .collect();
        Company {
            connected: members.len(),
            known: known.len(),
            is_alone,
            is_unserved,
            next_try: next.filter(|_| is_alone).map(|at| at.saturating_duration_since(now)),
            configured: self.bootstrap.len(),
            failed: self.bootstrap.troubles().take(NAMED).collect(),
            refused: self.solitude.refused.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_not_alone_and_each_change_is_said_once() {
        let (mut solitude, start) = (Solitude::default(), Instant::now());
        assert!(solitude.is_alone(0, 0) && solitude.is_alone(0, 1));
        assert!(!solitude.is_to_be_said(true, start));
        assert_eq!([solitude.met(true), solitude.met(true)], [Some(News::Joined), None]);
        assert!(!solitude.is_alone(3, 0), "connections end when nobody uses them");
        solitude.missed(PeerId::random(), None);
        assert!(solitude.is_alone(3, 0) && !solitude.is_alone(3, 1));
        assert!(
            !solitude.is_to_be_said(true, start) && !solitude.is_to_be_said(true, start + SAID_AFTER / 2)
        );
        assert!(!solitude.is_to_be_said(false, start + SAID_AFTER));
        assert!(!solitude.is_to_be_said(true, start + SAID_AFTER), "it was not, in between");
        assert!(solitude.is_to_be_said(true, start + SAID_AFTER * 2));
        assert!(!solitude.is_to_be_said(true, start + SAID_AFTER * 9));
        assert!(solitude.met(true) == Some(News::Joined) && !solitude.is_alone(3, 0));
    }

    #[test]
    fn who_is_of_another_network_is_remembered_until_somebody_of_this_one_is_met() {
        let (mut solitude, other) = (Solitude::default(), PeerId::random());
        solitude.missed(other, Some("another key".to_owned()));
        solitude.missed(PeerId::random(), None);
        assert_eq!(solitude.refused.as_ref().map(|(peer, _)| *peer), Some(other));
        solitude.missed(other, None);
        assert!(solitude.refused.is_none(), "it is not there any more");
        solitude.refused(other, "another network".to_owned());
        solitude.met(false);
        assert!(solitude.refused.is_none());
    }

    #[test]
    fn after_a_while_nobody_is_waited_for_that_does_not_answer() {
        let (mut solitude, start) = (Solitude::default(), Instant::now());
        assert!(!solitude.is_given_up(start));
        solitude.stand(true, start);
        solitude.stand(true, start + GIVEN_UP / 2);
        assert!(!solitude.is_given_up(start + GIVEN_UP / 2) && solitude.is_given_up(start + GIVEN_UP));
        // Who joins by this node is none that it waits for.
        assert!(solitude.met(false).is_some() && solitude.met(true).is_some());
        assert!(solitude.is_given_up(start + GIVEN_UP));
        solitude.stand(false, start + GIVEN_UP);
        assert!(!solitude.is_given_up(start + GIVEN_UP));
    }

    #[test]
    fn whoever_keeps_no_records_is_no_network_to_join() {
        let (mut solitude, start) = (Solitude::default(), Instant::now());
        assert!(!solitude.is_to_be_said(true, start));
        assert_eq!([solitude.met(false), solitude.met(false)], [Some(News::Waiting), None]);
        assert!(solitude.is_alone(0, 2) && solitude.is_to_be_said(true, start + SAID_AFTER));
        assert!(solitude.met(false).is_none() && !solitude.is_to_be_said(true, start + SAID_AFTER * 9));
        assert_eq!([solitude.met(true), solitude.met(false)], [Some(News::Joined), Some(News::Waiting)]);
        // One that cannot make up its mind is not heard of again and again.
        assert!((0..100).all(|turn| solitude.met(turn % 2 == 0).is_none()));
    }
}
