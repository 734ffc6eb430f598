//! What a node publishes, listed and searched by those who are connected to it.
//!
//! Owns: the protocol, both ends of it; no signature is checked on the event loop for it. What is heard so, and is
//! newer than what is kept here of the same publisher, takes its place. Refuses: what is not in the word of whoever
//! answers, pages beyond their limits, and more than [`RATE`] questions a second of one peer, which is told to wait.
//! Survives a crash: nothing.
//!
//! Protocol `/casd/<network>/catalogue/1`, little-endian. The question:
//!
//! ```text
//! size  field
//! 1     version: 1
//! 1     whether a key follows: 0 or 1
//! 0, 32 the key behind which to go on
//! 1+n   what to search for, UTF-8, preceded by its length (at most 128); empty: everything
//! ```
//!
//! The answer:
//!
//! ```text
//! 1     version: 1
//! 1     0: ask later; nothing follows. 1: this is the end. 2: there may be more
//! 0, 32 with 2: the key behind which to go on
//! 1     number of descriptions, at most 64
//! 2+n each  descriptions of what the answering node publishes, preceded by their length
//! ```

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use libp2p::PeerId;
use libp2p::request_response::{Event, Message};
use tokio::sync::oneshot;

use super::about::{Said, read_descriptions, read_kept, write_descriptions};
use super::causes;
use super::codec::{Asked, Exchange, Reader, malformed};
use super::command::{Command, Node};
use super::event_loop::EventLoop;
use super::{Dht, Inner, Key};
use crate::content::{MAX_DESCRIPTION, SignedDescription};
use crate::peer::{Catalogue, CataloguePage, Told};
use crate::support::unix_now;

/// Bytes of what is searched for.
pub(super) const MAX_TEXT: usize = 128;
/// Descriptions of one page.
const MAX_PAGE: usize = 64;
/// Published objects that are looked at for one page: a millisecond.
const LOOK: usize = 2_048;
/// Descriptions kept here that are looked at in one go.
const LOOK_KEPT: usize = 1_024;
/// Questions a second that a peer may ask, and how many it may save up.
const RATE: u32 = 4;
const BURST: u32 = 32;
/// Peers whose questions are counted; beyond it those that have asked longest ago are forgotten.
const MAX_COUNTED: usize = 1_024;
/// How often it is asked again where "later" is the answer, and how long is waited in between.
const TRIES: usize = 4;
const LATER: Duration = Duration::from_millis(500);
const VERSION: u8 = 1;

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    /// What stands for the network's name.
    pub(super) network: [u8; 32],
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Behind which key to go on.
    pub(super) after: Option<Key>,
    /// What to search for, at most [`MAX_TEXT`] bytes.
    pub(super) text: String,
}

/// A page of what a node publishes.
#[derive(Debug)]
pub(super) struct Page {
    /// What is said.
    pub(super) said: Said,
    /// Behind which key to go on; `None` at the end.
    pub(super) next: Option<Key>,
}

/// What is answered: a page, or `None` for "later".
pub(super) type Answer = Option<Page>;

impl Exchange for Listing {
    type Request = Question;
    type Response = Answer;
    const MAX_REQUEST: usize = 2 + 32 + 1 + MAX_TEXT;
    const MAX_RESPONSE: usize = 2 + 32 + 1 + MAX_PAGE * (2 + MAX_DESCRIPTION);

    fn decode_request(&self, bytes: &[u8]) -> io::Result<Question> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("a question of another version"));
        }
        let after = match reader.u8()? {
            0 => None,
            1 => Some(reader.array()?),
            _ => return Err(malformed("a question of another form")),
        };
        let length = usize::from(reader.u8()?);
        if length > MAX_TEXT {
            return Err(malformed("a search for too long a text"));
        }
        let text =
            std::str::from_utf8(reader.bytes(length)?).map_err(|_| malformed("a search for no text"))?;
        reader.end()?;
        Ok(Question { after, text: text.to_owned() })
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("an answer of another version"));
        }
        let next = match reader.u8()? {
            0 => {
                reader.end()?;
                return Ok(None);
            }
            1 => None,
            2 => Some(reader.array()?),
            _ => return Err(malformed("an answer of another form")),
        };
        let said = read_descriptions(&mut reader, MAX_PAGE, &self.network)?;
        reader.end()?;
        Ok(Some(Page { said, next }))
    }

    fn encode_request(&self, question: Question) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(question.after.is_some())];
        bytes.extend(question.after.iter().flatten());
        let text = &question.text[..question.text.floor_char_boundary(MAX_TEXT)];
        bytes.push(u8::try_from(text.len()).unwrap_or(0));
        bytes.extend(text.as_bytes());
        bytes
    }

    fn encode_response(&self, answer: Answer) -> Vec<u8> {
        let Some(Page { said, next }) = answer else { return vec![VERSION, 0] };
        let mut bytes = vec![VERSION, if next.is_some() { 2 } else { 1 }];
        bytes.extend(next.iter().flatten());
        write_descriptions(&mut bytes, said, MAX_PAGE);
        bytes
    }
}

/// How many questions each peer may ask now.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<PeerId, (u32, Instant)>);

impl Turns {
    /// Whether this peer may ask one more question.
    pub(super) fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&peer) {
            let oldest = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(peer, _)| *peer);
            oldest.map(|peer| self.0.remove(&peer));
        }
        let (left, since) = self.0.entry(peer).or_insert((BURST, now));
        let earned = u32::try_from(now.saturating_duration_since(*since).as_secs()).unwrap_or(u32::MAX);
        if earned > 0 {
            *left = left.saturating_add(earned.saturating_mul(RATE)).min(BURST);
            *since = now;
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }
}

impl EventLoop {
    pub(super) fn on_catalogue(&mut self, event: Event<Asked<Question>, Answer>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let request = match request {
                    Ok(request) => request,
                    Err(malformed) => return self.on_malformed(peer, malformed),
                };
                let answer = self.turns.admit(peer, Instant::now()).then(|| self.list(&request));
                // Fails only when the asker has gone.
                let _ = self.swarm.behaviour_mut().catalogue.send_response(channel, answer);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(done) = self.lists.remove(&request_id) {
                    let _ = done.send(Ok(response));
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(done) = self.lists.remove(&request_id) {
                    let told = self.swarm.behaviour_mut().kad.store_mut().whereabouts(&peer);
                    let known = self.remembered.addresses(&peer).first().or(told.first());
                    let _ = done.send(Err(causes::of_question(&error, known)));
                }
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question for a list went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// A page of what this node publishes and holds.
    fn list(&mut self, question: &Question) -> Page {
        let (page, next) = self.published.page(&question.text, question.after, LOOK, MAX_PAGE);
        let records = self.swarm.behaviour_mut().kad.store_mut();
        let held = page.into_iter().filter(|(key, _)| records.holds(key)).map(|(_, said)| said);
        Page { said: Said::Kept(held.collect()), next }
    }

    pub(super) fn ask_for_list(
        &mut self,
        to: &Node,
        question: Question,
        done: oneshot::Sender<Result<Answer, String>>,
    ) {
        // One in the routing table is found there; one that is not may be where a holder was found.
        let told = self.swarm.behaviour_mut().kad.store_mut().whereabouts(&to.peer);
        let known = self.remembered.addresses(&to.peer).iter().chain(&to.addresses).cloned();
        let addresses = known.chain(told).collect();
        let catalogue = &mut self.swarm.behaviour_mut().catalogue;
        let request = catalogue.send_request_with_addresses(&to.peer, Ok(question), addresses);
        self.lists.insert(request, done);
    }
}

impl Inner {
    /// Keeps what is said here instead of an older word of the same publisher, wherever it was heard.
    pub(super) async fn take_newer<'s>(&self, said: impl IntoIterator<Item = &'s SignedDescription>) {
        let is_newer = |said: &&SignedDescription| {
            let kept = read_kept(&self.described.of(said.description().object.as_bytes()));
            let mut same = kept.iter().filter(|kept| kept.publisher() == said.publisher());
            same.any(|kept| kept.description().time < said.description().time)
        };
        let said: Vec<_> = said.into_iter().filter(is_newer).cloned().collect();
        if !said.is_empty() {
            // Fails only when the room has stopped.
            let _ = self.commands.send(Command::Newer { said }).await;
        }
    }
}

impl Dht {
    async fn ask_for_list(self, peer: PeerId, question: Question) -> Result<CataloguePage, String> {
        for _ in 0..TRIES {
            let (to, question) = (Node { peer, addresses: Vec::new() }, question.clone());
            let answer = self.0.ask(|done| Command::List { to, question, done }).await;
            let Some(Page { said, next }) = answer.ok_or("the DHT has been stopped")?? else {
                tokio::time::sleep(LATER).await;
                continue;
            };
            // What it says of others' words, or of other times, it may have from anywhere.
            let now = unix_now();
            let mut said = said.proved();
            said.retain(|said| said.publisher() == peer && said.is_timely(now));
            self.0.take_newer(&said).await;
            return Ok(CataloguePage { said, next });
        }
        Err("it is asked too much".to_owned())
    }
}

impl Catalogue for Dht {
    fn about(&self, key: Key) -> BoxFuture<'static, Vec<Told>> {
        Box::pin(self.clone().ask_near(key))
    }

    fn kept(&self, text: &str, after: Option<Key>) -> CataloguePage {
        let (page, next) = self.0.described.page(text, after, LOOK_KEPT, MAX_PAGE);
        let now = unix_now();
        let mut said = read_kept(&page);
        said.retain(|said| said.is_timely(now));
        CataloguePage { said, next }
    }

    fn published_by(
        &self,
        peer: PeerId,
        text: String,
        after: Option<Key>,
    ) -> BoxFuture<'static, Result<CataloguePage, String>> {
        Box::pin(self.clone().ask_for_list(peer, Question { after, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Description, ObjectId};
    use crate::peer::Keypair;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    const PROTOCOL: Listing = Listing { network: [1; 32] };

    fn page(count: u8) -> Vec<SignedDescription> {
        let key = Keypair::generate_ed25519();
        let say = |number| {
            let (object, name) = (ObjectId::from_bytes([number; 32]), "x".repeat(255));
            let said = Description { object, is_directory: true, length: 9, parity: None, name, time: 1 };
            SignedDescription::sign(said, &PROTOCOL.network, &key).unwrap()
        };
        (0..count).map(say).collect()
    }

    #[test]
    fn the_longest_page_is_read_and_one_more_is_not_sent() {
        let sent = page(65);
        let kept = Said::Kept(sent.iter().map(SignedDescription::encode).collect());
        let bytes = PROTOCOL.encode_response(Some(Page { said: kept, next: Some([5; 32]) }));
        assert!(bytes.len() == Listing::MAX_RESPONSE);
        let read = PROTOCOL.decode_response(&bytes).unwrap().unwrap();
        assert_eq!((read.said.proved().as_slice(), read.next), (&sent[..64], Some([5; 32])));
        let mut lie = bytes;
        *lie.last_mut().unwrap() ^= 1;
        assert!(PROTOCOL.decode_response(&lie).is_err());
        assert!(PROTOCOL.decode_response(&PROTOCOL.encode_response(None)).unwrap().is_none());
    }

    #[test]
    fn a_peer_has_its_turns_and_no_more() {
        let (mut turns, now, peer) = (Turns::default(), Instant::now(), PeerId::random());
        let admitted = |turns: &mut Turns, at| (0..100).filter(|_| turns.admit(peer, at)).count();
        assert_eq!(admitted(&mut turns, now), BURST as usize);
        assert_eq!(admitted(&mut turns, now + Duration::from_millis(900)), 0);
        assert_eq!(admitted(&mut turns, now + Duration::from_secs(2)), 2 * RATE as usize);
        for _ in 0..2 * MAX_COUNTED {
            assert!(turns.admit(PeerId::random(), now + Duration::from_secs(3)), "others are not held up");
        }
        assert!(turns.0.len() <= MAX_COUNTED);
    }

    proptest! {
        #[test]
        fn questions_are_read_as_they_were_written(after: Option<[u8; 32]>, text in ".{0,60}") {
            let question = Question { after, text };
            let bytes = PROTOCOL.encode_request(question.clone());
            prop_assert!(bytes.len() <= Listing::MAX_REQUEST);
            let read = PROTOCOL.decode_request(&bytes).unwrap();
            prop_assert_eq!(read.after, question.after);
            prop_assert!(question.text.starts_with(&read.text) && read.text.len() <= MAX_TEXT);
            prop_assert!(read.text == question.text || question.text.len() > MAX_TEXT);
        }

        #[test]
        fn nonsense_is_refused_and_what_is_read_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(question) = PROTOCOL.decode_request(&bytes) {
                prop_assert_eq!(PROTOCOL.encode_request(question), bytes.clone());
            }
            if let Ok(answer) = PROTOCOL.decode_response(&bytes) {
                prop_assert_eq!(PROTOCOL.encode_response(answer), bytes);
            }
        }
    }
}
