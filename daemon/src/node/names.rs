//! Verbs about names: what is let out, and what others say of what is not here.
//!
//! Owns: who may let a name out. Refuses: the names of what is private, of what the caller has not promised to keep,
//! those that another user may have given, and any on a node that announces nothing. Survives a crash: what the store
//! noted before it was answered.

use std::time::Duration;

use super::{Caller, Error, Node, ObjectInfo, State};
use crate::content::{ObjectId, check_public_name};
use crate::peer::Told;

/// How long a node that is joining its network waits to ask others.
const JOIN: Duration = Duration::from_secs(10);

/// How long whoever publishes waits to learn how many have been told.
const TELL: Duration = Duration::from_secs(3);

/// What came of publishing, or of taking it back.
#[derive(Clone, Debug)]
pub struct Published {
    /// The object as it is now.
    pub info: ObjectInfo,
    /// Whether it was not published before, or under another name; of taking back, whether it was.
    pub is_news: bool,
    /// Nodes that have been told; `None` when that is not known yet, or nobody could be.
    pub told: Option<usize>,
}

impl Node {
    /// Whether names can be published at all, of what is private or not.
    ///
    /// # Errors
    /// [`Error::Private`], [`Error::NotAnnouncing`].
    pub fn may_publish(&self, private: bool) -> Result<(), Error> {
        match (private, self.parts.announcer.is_announcing()) {
            (true, _) => Err(Error::Private),
            (_, false) => Err(Error::NotAnnouncing),
            _ => Ok(()),
        }
    }

    /// Lets the name of an object leave this node; `name` is what it is called from now on. Without it that is the name
    /// that it has, where it is the caller's own, or an administrator asks. Durable when it returns; others are told
    /// meanwhile and, those that are not reached, later.
    ///
    /// # Errors
    /// As [`Node::find`]; [`Error::NotPinned`], [`Error::Private`], [`Error::NotAnnouncing`], [`Error::Nameless`],
    /// [`Error::UnfitName`], [`Error::Store`].
    pub async fn publish(
        &self,
        caller: Caller,
        text: &str,
        name: Option<String>,
    ) -> Result<Published, Error> {
        let old = self.callers(caller, text).await?;
        self.may_publish(old.private)?;
        let nameless = |why: String| Error::Nameless { id: old.id, why };
        if let Some(name) = &name {
            check_public_name(name).map_err(Error::UnfitName)?;
        } else if let Some(called) = &old.name {
            if !is_own_name(caller, &old) {
                return Err(nameless("another user may have given it the name that it has".to_owned()));
            }
            check_public_name(called).map_err(|why| nameless(why.to_string()))?;
        } else {
            return Err(nameless("it has no name".to_owned()));
        }
        if !self.parts.store.publish(&old.id, true, name).await? {
            return Err(Error::NotFound(text.to_owned()));
        }
        self.parts.announcer.hold([old.id]);
        let info = self.parts.store.object(&old.id).ok_or_else(|| Error::NotFound(text.to_owned()))?;
        let (is_news, told) = (!old.publish || old.name != info.name, self.tell(&info).await);
        Ok(Published { info, is_news, told })
    }

    /// Takes that back. Durable when it returns; who has been told is told meanwhile or, where that one is not reached,
    /// later.
    ///
    /// # Errors
    /// As [`Node::find`]; [`Error::NotPinned`], [`Error::Store`].
    pub async fn withdraw(&self, caller: Caller, text: &str) -> Result<Published, Error> {
        let old = self.callers(caller, text).await?;
        if !self.parts.store.publish(&old.id, false, None).await? {
            return Err(Error::NotFound(text.to_owned()));
        }
        let is_news = old.publish;
        let info = ObjectInfo { publish: false, ..old };
        let told = if is_news {
            self.tell(&info).await
        } else {
            self.parts.announcer.withdraw([info.id]);
            None
        };
        Ok(Published { info, is_news, told })
    }

    /// Tells what is said of an object now; how many have heard before [`TELL`] is over.
    async fn tell(&self, info: &ObjectInfo) -> Option<usize> {
        let announced = self.parts.announcer.tell(info, &self.parts.store);
        let announced = tokio::time::timeout(TELL, announced).await.ok().flatten();
        announced.map(|announced| announced.receivers).filter(|nodes| *nodes > 0)
    }

    /// The names of those of these that are published go with their keys from now on.
    pub(super) fn publish_added(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let stored = ids.into_iter().filter_map(|id| self.parts.store.object(&id));
        let published: Vec<ObjectInfo> = stored.filter(|info| info.publish).collect();
        if !published.is_empty() {
            self.parts.announcer.publish(&published, &self.parts.store);
        }
    }

    /// A whole object that the caller has pinned, or any for an administrator.
    async fn callers(&self, caller: Caller, text: &str) -> Result<ObjectInfo, Error> {
        let info = self.find(text).await?;
        let id = info.id;
        if info.state != State::Whole {
            return Err(Error::NotFound(text.to_owned()));
        }
        if caller.is_admin || info.pins.iter().any(|pin| pin.uid == caller.uid) {
            return Ok(info);
        }
        Err(Error::NotPinned(id))
    }

    /// What others say of an object that is not here, by its whole id, with `dir:` before it or without. `None` for a
    /// text of another form. Asks the network.
    ///
    /// # Errors
    /// [`Error::NobodyToTell`], [`Error::Untold`].
    pub async fn told(&self, text: &str) -> Result<Option<(ObjectId, Vec<Told>)>, Error> {
        let Ok(id) = text.strip_prefix("dir:").unwrap_or(text).parse() else { return Ok(None) };
        if id == ObjectId::EMPTY {
            return Ok(None);
        }
        let _ask = self.asks.acquire().await;
        self.joined(JOIN).await.map_err(|nobody| Error::NobodyToTell { id, nobody })?;
        let told = self.parts.catalogue.about(*id.as_bytes()).await;
        if told.is_empty() { Err(Error::Untold(id)) } else { Ok(Some((id, told))) }
    }
}

/// Whether the name of an object is the caller's to let out, or has been let out already. The store does not tell who
/// gave a name: it is the caller's when nobody else keeps the object, and the caller has kept it since it came.
fn is_own_name(caller: Caller, info: &ObjectInfo) -> bool {
    let is_alone = matches!(info.pins.as_slice(), [pin] if pin.uid == caller.uid && pin.since <= info.added);
    caller.is_admin || info.publish || is_alone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Pin;

    #[test]
    fn a_name_is_let_out_by_whoever_gave_it() {
        let (one, two) = (Pin { uid: 1, since: 100 }, Pin { uid: 2, since: 105 });
        let of = |pins: &[Pin], publish| ObjectInfo {
            id: ObjectId::from_bytes([7; 32]),
            length: 1,
            name: Some("a name".to_owned()),
            parity: None,
            private: false,
            publish,
            added: 100,
            pins: pins.to_vec(),
            state: State::Whole,
            tree: false,
            part: false,
        };
        let user = |uid| Caller { uid, is_admin: false };
        let admin = Caller { uid: 0, is_admin: true };
        assert!(is_own_name(user(1), &of(&[one], false)));
        assert!(!is_own_name(user(2), &of(&[one, two], false)), "the first gave it");
        assert!(!is_own_name(user(1), &of(&[one, two], false)), "it had none before the second came");
        assert!(!is_own_name(user(2), &of(&[two], false)), "the first has gone");
        assert!(is_own_name(user(2), &of(&[one, two], true)), "it is known to all");
        assert!(is_own_name(admin, &of(&[two], false)));
    }
}
