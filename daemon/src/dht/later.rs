//! Questions of peers that are faster than their rates: answered when their turn comes.
//!
//! Owns: the line. Refuses: nothing; how long something may wait is the [`meter`](super::meter)'s to say, and each
//! connection has few questions under way, which bounds the line. Survives a crash: nothing.

use std::collections::VecDeque;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;

use super::Key;
use super::about::Said;
use super::batch::{Answer, Request};
use super::find::Holders;
use super::hello::Hello;

/// A question and the way back.
#[derive(Debug)]
pub(super) enum Question {
    /// Where the chunk port is.
    Hello(PeerId, ConnectionId, Hello, ResponseChannel<Hello>),
    /// To keep keys.
    Batch(PeerId, Request, ResponseChannel<Answer>),
    /// What is said of an object.
    About(Key, ResponseChannel<Said>),
    /// Who holds a key.
    Find(PeerId, Key, ResponseChannel<Holders>),
    /// Who keeps records.
    Servers(PeerId, ConnectionId, ResponseChannel<Holders>),
}

impl Question {
    /// Whether somebody waits for the answer.
    fn is_open(&self) -> bool {
        match self {
            Self::Hello(.., channel) => channel.is_open(),
            Self::Batch(.., channel) => channel.is_open(),
            Self::About(_, channel) => channel.is_open(),
            Self::Find(.., channel) | Self::Servers(.., channel) => channel.is_open(),
        }
    }
}

/// The line, in the order in which its questions are due.
#[derive(Debug, Default)]
pub(super) struct Later(VecDeque<(Instant, Question)>);

impl Later {
    pub(super) fn push(&mut self, due: Instant, question: Question) {
        let place = self.0.partition_point(|(at, _)| *at <= due);
        self.0.insert(place, (due, question));
    }

    /// Forgets those whose askers have gone.
    pub(super) fn clean(&mut self) {
        self.0.retain(|(_, question)| question.is_open());
    }

    /// The next question, when it is due. Cancel-safe; waits for ever while there is none.
    pub(super) async fn next(&mut self) -> Question {
        loop {
            let Some((due, _)) = self.0.front() else { std::future::pending().await };
            tokio::time::sleep_until((*due).into()).await;
            if let Some((_, question)) = self.0.pop_front() {
                return question;
            }
        }
    }
}
