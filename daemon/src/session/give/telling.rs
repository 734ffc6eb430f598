//! What a giver tells a subscriber: which chunks it holds, and who else asks for the same object.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Job, Outbox, Side};
use crate::content::ObjectId;
use crate::peer::Card;
use crate::session::frames::{CROWDS, Frame, MAX_FELLOWS, MAX_GIVEN, MAX_NEWS};
use crate::session::giver::{Caller, Rumour, Subscription, stretches};
use crate::session::{Fellow, Have};
use crate::support::unix_now;

/// How long news of chunks are gathered before they are told.
const NEWS_EVERY: Duration = Duration::from_millis(100);

/// How long rumours are. Who learns early what others are being given does not ask for the same.
const RUMOURS_EVERY: Duration = Duration::from_millis(20);

impl Side {
    pub(super) async fn give_haves(&self, job: Job, out: Outbox) {
        let Job::Tell(request, object, shown) = job else { return };
        let cancelled = self.ledger.subscription(request);
        let last = tokio::select! {
            () = self.tell((request, object), shown, &out) => Frame::NotFound(request),
            () = cancelled.cancelled() => Frame::Cancelled(request),
        };
        let _ = out.control.send(last).await;
    }

    /// Tells what is here, and then what comes, until nothing more can.
    async fn tell(&self, (request, object): (u32, ObjectId), shown: Option<Bytes>, out: &Outbox) {
        let Some(Subscription { snapshot, mut updates }) = self.giver.haves(self.peer, object).await else {
            return;
        };
        for have in stretches(&snapshot) {
            let _ = out.control.send(Frame::Have(request, have)).await;
        }
        let haves = async {
            let mut news = Vec::new();
            while updates.recv_many(&mut news, MAX_NEWS).await > 0 {
                let _ = out.control.send(Frame::Have(request, Have::Chunks(std::mem::take(&mut news)))).await;
                tokio::time::sleep(NEWS_EVERY).await;
            }
        };
        tokio::select! {
            () = haves => {}
            () = self.pass_on((request, object), shown, out) => {}
        }
    }

    /// Tells of others who ask for the object, for as long as it is polled.
    async fn pass_on(&self, (request, object): (u32, ObjectId), shown: Option<Bytes>, out: &Outbox) {
        if let Some(mut rumours) = self.crowd(object, shown).await {
            let mut heard = Vec::new();
            while rumours.recv_many(&mut heard, MAX_GIVEN).await > 0 {
                for frame in frames(request, &mut heard) {
                    let _ = out.control.send(frame).await;
                }
                tokio::time::sleep(RUMOURS_EVERY).await;
            }
        }
        std::future::pending::<()>().await;
    }

    /// What is told of the others. Older askers would not know the frames.
    async fn crowd(&self, object: ObjectId, shown: Option<Bytes>) -> Option<mpsc::Receiver<Rumour>> {
        if self.version < CROWDS {
            return None;
        }
        let caller = Caller { peer: self.peer, remote: self.remote, card: self.card(shown).await };
        self.giver.crowd(caller, object)
    }

    /// The card that the asker has shown, if it is its own and to be believed. One that is not is no fault: clocks
    /// differ.
    async fn card(&self, shown: Option<Bytes>) -> Option<Card> {
        let encoded = shown?;
        let network = self.network;
        let card = self.pool.run(move || Card::check(&encoded, &network, unix_now())).await;
        card.filter(|card| card.peer() == self.peer)
    }
}

/// Rumours as frames carry them. There are at most [`MAX_GIVEN`] of them.
fn frames(request: u32, heard: &mut Vec<Rumour>) -> Vec<Frame> {
    let (mut fellows, mut given) = (Vec::<Fellow>::new(), Vec::new());
    for rumour in heard.drain(..) {
        match rumour {
            Rumour::Fellow(fellow) => fellows.push(fellow),
            Rumour::Given(chunk) => given.push(chunk),
        }
    }
    let mut frames: Vec<_> =
        fellows.chunks(MAX_FELLOWS).map(|some| Frame::Peers(request, some.to_vec())).collect();
    if !given.is_empty() {
        frames.push(Frame::Given(request, given));
    }
    frames
}
