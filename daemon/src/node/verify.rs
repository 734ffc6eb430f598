//! Verbs about whether what is stored is still what it was.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Caller, Error, Node};
use crate::content::ObjectId;
use crate::store;
use crate::upkeep::{ScrubStatus, VerifyEvent};

/// How long whoever asks where it stands waits for a look at what was damaged.
const PATIENCE: Duration = Duration::from_millis(300);

impl Node {
    /// Proves everything now, or what one object needs where `text` is not empty, and mends what can be. Dropping the
    /// receiver ends it.
    ///
    /// # Errors
    /// [`Error::AdminOnly`], [`Error::NotFound`], [`Error::Ambiguous`].
    pub async fn verify(
        &self,
        caller: Caller,
        text: &str,
    ) -> Result<mpsc::Receiver<Result<VerifyEvent, store::Error>>, Error> {
        if !caller.is_admin {
            return Err(Error::AdminOnly("verify"));
        }
        let only = match text.parse() {
            _ if text.is_empty() => None,
            Ok(ObjectId::EMPTY) => Some(ObjectId::EMPTY),
            _ => Some(self.find(text).await?.id),
        };
        Ok(self.parts.scrubber.verify(only))
    }

    /// Pauses proving in the background, or lets it go on.
    ///
    /// # Errors
    /// [`Error::AdminOnly`].
    pub async fn pause_scrub(&self, caller: Caller, paused: bool) -> Result<ScrubStatus, Error> {
        if !caller.is_admin {
            return Err(Error::AdminOnly("pause or resume the scrub"));
        }
        self.parts.scrubber.pause(paused);
        Ok(self.scrubbing().await)
    }

    /// Where proving in the background stands; objects that are whole again are not listed.
    pub async fn scrubbing(&self) -> ScrubStatus {
        // Where that takes long, the list is as of the last look.
        let _ = tokio::time::timeout(PATIENCE, self.parts.scrubber.damaged()).await;
        self.parts.scrubber.status()
    }
}
