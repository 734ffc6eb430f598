//! Asking others what is said of an object: its names, and whose word they are.
//!
//! Owns: the protocol, and whom to ask. Refuses: what is not signed for this network, of another object or of another
//! time, and to ask more nodes, for longer, than its limits. Whoever answers may leave out what it likes, and make up
//! publishers; so it is told how many nodes told of each. Of what publishers say themselves nobody else's answer
//! counts. Survives a crash: nothing.
//!
//! What is answered was proved when it came and is sent as it was kept; what is read is proved on its
//! connection's task. So no signature is checked on the event loop, however much is asked.
//!
//! Asked are the nodes at which an object's key is placed: they keep what its holders say (`records/described.rs`).
//!
//! Protocol `/casd/<network>/describe/1`, little-endian. The question: version 1, then the key. The answer:
//!
//! ```text
//! size  field
//! 1     version: 1
//! 1     number of descriptions, at most 5
//! 2+n each  descriptions (see `content/metadata.rs`), preceded by their length (at most 404)
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use libp2p::PeerId;
use libp2p::request_response::{Event, Message};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{push_description, take_description};
use super::codec::{Asked, Exchange, Reader, malformed};
use super::command::{Command, Node};
use super::event_loop::EventLoop;
use super::later::Question;
use super::meter::Act;
use super::position::Position;
use super::records::MAX_OF_OBJECT;
use super::regions::K;
use super::survey::Survey;
use super::{Dht, Key};
use crate::content::{MAX_DESCRIPTION, SignedDescription};
use crate::peer::Told;
use crate::support::unix_now;

/// What a node keeps of an object, and its own.
const MAX_TOLD: usize = MAX_OF_OBJECT + 1;
/// Publishers told of one object.
const MAX_PUBLISHERS: usize = 16;
/// Publishers that are heard of: all that the asked nodes can tell, lest some of them crowd out the others' words.
const MAX_HEARD: usize = (K + 1) * MAX_TOLD;
/// Nodes that are asked at once.
const AT_ONCE: usize = 16;
/// How long the nodes near an object are looked for: liars on the way may hold that up, and then those are asked that
/// are known.
const NEARING: Duration = Duration::from_secs(7);
/// How long answers are waited for, that included, and how long once somebody has told something.
const LONGEST: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_millis(500);
const VERSION: u8 = 1;

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Describing {
    /// What stands for the network's name.
    pub(super) network: [u8; 32],
}

/// Descriptions that a node tells.
#[derive(Debug)]
pub(super) enum Said {
    /// To be sent, as they were kept or signed.
    Kept(Vec<Bytes>),
    /// As they were read. Signed; but of which object, and when, is for the asker to look at.
    Proved(Vec<SignedDescription>),
}

impl Said {
    /// What has been read.
    pub(super) fn proved(self) -> Vec<SignedDescription> {
        match self {
            Self::Proved(said) => said,
            // The reader never makes it.
            Self::Kept(_) => Vec::new(),
        }
    }
}

impl Exchange for Describing {
    type Request = Key;
    type Response = Said;
    const MAX_REQUEST: usize = 33;
    const MAX_RESPONSE: usize = 2 + MAX_TOLD * (2 + MAX_DESCRIPTION);

    fn decode_request(&self, bytes: &[u8]) -> io::Result<Key> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("a question of another version"));
        }
        let key = reader.array()?;
        reader.end()?;
        Ok(key)
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Said> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("an answer of another version"));
        }
        let said = read_descriptions(&mut reader, MAX_TOLD, &self.network)?;
        reader.end()?;
        Ok(said)
    }

    fn encode_request(&self, key: Key) -> Vec<u8> {
        [&[VERSION], &key[..]].concat()
    }

    fn encode_response(&self, said: Said) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        write_descriptions(&mut bytes, said, MAX_TOLD);
        bytes
    }
}

/// A number (one byte) and as many descriptions.
pub(super) fn write_descriptions(bytes: &mut Vec<u8>, said: Said, most: usize) {
    let mut told = match said {
        Said::Kept(told) => told,
        Said::Proved(said) => said.iter().map(SignedDescription::encode).collect(),
    };
    told.truncate(most);
    bytes.push(u8::try_from(told.len()).unwrap_or(0));
    told.iter().for_each(|said| push_description(bytes, said));
}

/// As many descriptions as a number (one byte) says, at most `most`; all must be signed.
pub(super) fn read_descriptions(
    reader: &mut Reader<'_>,
    most: usize,
    network: &[u8; 32],
) -> io::Result<Said> {
    let count = usize::from(reader.u8()?);
    if count > most {
        return Err(malformed("more descriptions than are told"));
    }
    let one = |_| {
        let said = SignedDescription::check(take_description(reader)?, network);
        said.map_err(|_| malformed("a description that nobody signed"))
    };
    (0..count).map(one).collect::<io::Result<_>>().map(Said::Proved)
}

impl EventLoop {
    pub(super) fn on_describe(&mut self, event: Event<Asked<Key>, Said>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let asked = request.map(|key| Question::About(key, channel));
                self.in_turn(peer, Act::Describe, asked);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(done) = self.descriptions.remove(&request_id) {
                    let _ = done.send(response);
                }
            }
            // Whoever waits learns of nothing.
            Event::OutboundFailure { peer, request_id, error, .. } => {
                drop(self.descriptions.remove(&request_id));
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question for descriptions went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// What this node says of an object that it holds, and what others do.
    pub(super) fn said_of(&mut self, key: &Key) -> Said {
        let records = self.swarm.behaviour_mut().kad.store_mut();
        let own = self.published.of(key).filter(|_| records.holds(key));
        Said::Kept(own.into_iter().chain(records.described().timely(key, unix_now())).collect())
    }

    pub(super) fn ask_about(&mut self, to: &Node, key: Key, done: oneshot::Sender<Said>) {
        let describe = &mut self.swarm.behaviour_mut().describe;
        let request = describe.send_request_with_addresses(&to.peer, Ok(key), to.addresses.clone());
        self.descriptions.insert(request, done);
    }
}

impl Dht {
    /// What the nodes near `key` tell of it: the newest word of each publisher, first what most of them tell.
    pub(super) async fn ask_near(self, key: Key) -> Vec<Told> {
        let deadline = Instant::now() + LONGEST;
        let (mut survey, at) = (Survey::new(Arc::clone(&self.0)), Position::of_key(&key));
        let near = tokio::time::timeout(NEARING, survey.nearest(at, key, K)).await;
        let near = near.unwrap_or_else(|_| survey.atlas.regions.nearest_known(at, K));
        let near = near.into_iter().filter(|peer| *peer != self.0.local);
        let near: Vec<Node> = near.map(|peer| Node { peer, addresses: survey.addresses(&peer) }).collect();
        survey.end(&HashSet::new());
        let inner = &self.0;
        let ask =
            |to: Node| async move { (to.peer, inner.ask(|done| Command::About { to, key, done }).await) };
        let mut answers = std::pin::pin!(stream::iter(near).map(ask).buffer_unordered(AT_ONCE));
        let kept = read_kept(&self.0.described.of(&key));
        let (mut told, mut until) = (Gathered::kept(self.0.local, &key, kept), deadline);
        while let Ok(Some((from, answer))) = tokio::time::timeout_at(until, answers.next()).await {
            let Some(answer) = answer else { continue };
            told.hear(from, &key, answer.proved());
            if !told.by_publisher.is_empty() {
                // Others may tell more; those that do not answer are not waited for.
                until = until.min(Instant::now() + GRACE);
            }
        }
        let told = told.sorted();
        self.0.take_newer(told.iter().map(|told| &told.said)).await;
        told
    }
}

/// Descriptions that are kept here. They were proved when they came.
pub(super) fn read_kept(kept: &[Bytes]) -> Vec<SignedDescription> {
    kept.iter().filter_map(|bytes| SignedDescription::read_kept(bytes).ok()).collect()
}

/// What has been told of one object.
#[derive(Default)]
struct Gathered {
    by_publisher: BTreeMap<PeerId, Told>,
    /// What those that answered say themselves: a publisher's own answer is its newest word, also that there is none.
    own: HashMap<PeerId, Option<SignedDescription>>,
}

impl Gathered {
    /// With what is kept on this node, `local`, which is none of those that were asked.
    fn kept(local: PeerId, key: &Key, kept: Vec<SignedDescription>) -> Self {
        let mut told = Self::default();
        told.hear(local, key, kept);
        told.by_publisher.values_mut().for_each(|told| told.told_by = 0);
        told
    }

    /// The answer of `from`. What is of another object or time is not heard.
    fn hear(&mut self, from: PeerId, key: &Key, said: Vec<SignedDescription>) {
        let (now, mut heard) = (unix_now(), HashSet::new());
        self.own.insert(from, None);
        for said in said {
            let publisher = said.publisher();
            let fits = said.description().object.as_bytes() == key && said.is_timely(now);
            if !fits || !heard.insert(publisher) {
                continue;
            }
            if publisher == from {
                self.own.insert(from, Some(said.clone()));
            }
            if let Some(told) = self.by_publisher.get_mut(&publisher) {
                told.told_by += 1;
                if told.said.description().time < said.description().time {
                    told.said = said;
                }
            } else if self.by_publisher.len() < MAX_HEARD {
                self.by_publisher.insert(publisher, Told { said, told_by: 1 });
            }
        }
    }

    fn sorted(mut self) -> Vec<Told> {
        let own = &mut self.own;
        self.by_publisher.retain(|publisher, told| match own.remove(publisher) {
            Some(Some(said)) => {
                told.said = said;
                true
            }
            Some(None) => false,
            None => true,
        });
        let mut told: Vec<_> = self.by_publisher.into_values().collect();
        told.sort_by_key(|told| std::cmp::Reverse((told.told_by, told.said.description().time)));
        told.truncate(MAX_PUBLISHERS);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Description, ObjectId};
    use crate::peer::Keypair;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    const NETWORK: [u8; 32] = [1; 32];

    fn say(key: &Keypair, object: Key, time: u64, name: &str) -> SignedDescription {
        let (object, name) = (ObjectId::from_bytes(object), name.to_owned());
        let said = Description { object, is_directory: false, length: 1, parity: None, name, time };
        SignedDescription::sign(said, &NETWORK, key).unwrap()
    }

    #[test]
    fn answers_are_read_as_they_were_written_and_lies_are_not() {
        let (protocol, key) = (Describing { network: NETWORK }, Keypair::generate_ed25519());
        let said = vec![say(&key, [7; 32], 5, &"x".repeat(255)); MAX_TOLD + 1];
        let bytes = protocol.encode_response(Said::Proved(said.clone()));
        assert!(bytes.len() <= Describing::MAX_RESPONSE);
        assert_eq!(protocol.decode_response(&bytes).unwrap().proved(), said[1..]);
        for lie in [2, 60, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[lie] ^= 1;
            assert!(protocol.decode_response(&other).is_err(), "byte {lie}");
        }
        assert!(Describing { network: [2; 32] }.decode_response(&bytes).is_err(), "it is another network's");
        let question = protocol.encode_request([9; 32]);
        assert_eq!(protocol.decode_request(&question).unwrap(), [9; 32]);
    }

    #[test]
    fn what_is_kept_is_told_without_a_proof_and_whoever_is_told_proves_it() {
        let (protocol, key) = (Describing { network: NETWORK }, Keypair::generate_ed25519());
        let said = say(&key, [7; 32], 5, "x");
        let kept = vec![said.encode()];
        assert_eq!(read_kept(&kept), [said]);
        let mut lie = kept[0].to_vec();
        *lie.last_mut().unwrap() ^= 1;
        let lie = vec![Bytes::from(lie)];
        // It cannot be kept; if it were, nobody here would look.
        assert_eq!(read_kept(&lie).len(), 1);
        for (kept, is_true) in [(kept, true), (lie, false)] {
            let told = protocol.encode_response(Said::Kept(kept));
            assert_eq!((told[1], protocol.decode_response(&told).is_ok()), (1, is_true));
        }
    }

    #[test]
    fn the_newest_word_of_each_counts_and_what_many_tell_goes_first() {
        let (one, two, key, now) =
            (Keypair::generate_ed25519(), Keypair::generate_ed25519(), [7; 32], unix_now());
        let mut told = Gathered::default();
        let mut hear = |said| told.hear(PeerId::random(), &key, said);
        let (old, new) = (say(&one, key, now - 9, "old"), say(&one, key, now, "new"));
        let other = say(&two, key, now, "other");
        hear(vec![new.clone(), new.clone(), other.clone()]);
        hear(vec![old, say(&two, [8; 32], now, "of another object")]);
        hear(vec![say(&two, key, 5, "of another time")]);
        let expected = [(new, 2), (other, 1)].map(|(said, told_by)| Told { said, told_by });
        assert_eq!(told.sorted(), expected);
    }

    #[test]
    fn what_is_kept_here_is_no_word_of_a_node_that_was_asked() {
        let (one, key) = (Keypair::generate_ed25519(), [7; 32]);
        let said = say(&one, key, unix_now(), "kept");
        let mut told = Gathered::kept(PeerId::random(), &key, vec![said.clone()]);
        told.hear(PeerId::random(), &key, vec![said.clone()]);
        assert_eq!(told.sorted(), [Told { said: said.clone(), told_by: 1 }]);
        let alone = Gathered::kept(PeerId::random(), &key, vec![said.clone()]).sorted();
        assert_eq!(alone, [Told { said, told_by: 0 }]);
    }

    #[test]
    fn what_a_publisher_answers_itself_counts_whatever_others_tell_of_it() {
        let (keys, key, now) = ([(); 3].map(|()| Keypair::generate_ed25519()), [7; 32], unix_now());
        let peers: Vec<_> = keys.iter().map(|key| key.public().to_peer_id()).collect();
        let mut told = Gathered::default();
        let other = say(&keys[2], key, now, "of who does not answer");
        let kept = vec![say(&keys[0], key, now, "taken back"), say(&keys[1], key, now, "old"), other.clone()];
        let new = say(&keys[1], key, now - 5, "of a clock that was put back");
        told.hear(PeerId::random(), &key, kept.clone());
        told.hear(peers[0], &key, vec![other.clone()]);
        told.hear(peers[1], &key, vec![new.clone()]);
        told.hear(PeerId::random(), &key, kept);
        let expected = [(other, 3), (new, 3)].map(|(said, told_by)| Told { said, told_by });
        assert_eq!(told.sorted(), expected);
    }

    #[test]
    fn a_flood_of_publishers_is_cut() {
        let (key, now) = ([7; 32], unix_now());
        let mut told = Gathered::default();
        for _ in 0..50 {
            let flood = (0..5).map(|_| say(&Keypair::generate_ed25519(), key, now, "x")).collect();
            told.hear(PeerId::random(), &key, flood);
        }
        assert_eq!(told.by_publisher.len(), MAX_HEARD);
        assert_eq!(told.sorted().len(), MAX_PUBLISHERS);
    }

    proptest! {
        #[test]
        fn nonsense_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let protocol = Describing { network: NETWORK };
            if let Ok(said) = protocol.decode_response(&bytes) {
                prop_assert_eq!(protocol.encode_response(said), bytes);
            }
        }
    }
}
