//! Links: an id with hints, as text that survives a shell unquoted.
//!
//! `casd:ID,name=NAME,peer=ADDR,peer=ADDR`, of a directory `casd:dir:ID,…`. Values are percent-encoded: only
//! `A-Za-z0-9:._~/-` stand for themselves, so a link consists of `A-Za-z0-9:,=._~%/-`. A link is a hint and never
//! believed: the id proves what is fetched, a name is sanitised before it is used, and a peer's address is only tried.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{IdError, ObjectId};

/// The longest link that is read: an id, a name and a dozen addresses fit several times over.
pub(super) const MAX_LINK: usize = 4096;

/// Peers in a link at most.
const MAX_PEERS: usize = 16;

/// What stands for itself besides letters and digits.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b':').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'-');

/// An id with hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What to fetch.
    pub id: ObjectId,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// What to call it, as its publisher says.
    pub name: Option<String>,
    /// Where to ask, as `ID@HOST:PORT` or a multiaddr.
    pub peers: Vec<String>,
}

/// Why text is not a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not start as a link does.
    #[error("a link starts with `casd:`")]
    Scheme,
    /// Its id is not one.
    #[error("the link's id is wrong: {0}")]
    Id(#[from] IdError),
    /// Too long, or too many peers.
    #[error("the link is too long")]
    TooLong,
    /// A part that is no `key=value`, or stands twice, or is not percent-encoded UTF-8.
    #[error("the link's part {0:?} is wrong")]
    Part(String),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "casd:{}{}", if self.is_directory { "dir:" } else { "" }, self.id)?;
        if let Some(name) = &self.name {
            write!(f, ",name={}", utf8_percent_encode(name, PLAIN))?;
        }
        for peer in &self.peers {
            write!(f, ",peer={}", utf8_percent_encode(peer, PLAIN))?;
        }
        Ok(())
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.len() > MAX_LINK {
            return Err(LinkError::TooLong);
        }
        let mut parts = text.strip_prefix("casd:").ok_or(LinkError::Scheme)?.split(',');
        let id = parts.next().unwrap_or_default();
        let (id, is_directory) = id.strip_prefix("dir:").map_or((id, false), |id| (id, true));
        let mut link = Self { id: id.parse()?, is_directory, name: None, peers: Vec::new() };
        for part in parts {
            let wrong = || LinkError::Part(part.to_owned());
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| wrong())?.into_owned();
            match key {
                "name" if link.name.is_none() => link.name = Some(value),
                "peer" if link.peers.len() < MAX_PEERS => link.peers.push(value),
                "peer" => return Err(LinkError::TooLong),
                // Hints of later versions are passed over: the id alone is enough.
                _ if key != "name" => {}
                _ => return Err(wrong()),
            }
        }
        Ok(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_read_back_and_need_no_quotes(
            name in proptest::option::of(".{0,40}"), peers in prop::collection::vec(".{1,60}", 0..4), is_directory: bool
        ) {
            let link = Link { id: ObjectId::EMPTY, is_directory, name, peers };
            let text = link.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b":,=._~%/-".contains(&b)));
            prop_assert_eq!(text.parse(), Ok(link));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let id = ObjectId::EMPTY;
        assert_eq!("http://x".parse::<Link>(), Err(LinkError::Scheme));
        assert!(matches!("casd:12".parse::<Link>(), Err(LinkError::Id(_))));
        assert!(matches!(format!("casd:{id},name").parse::<Link>(), Err(LinkError::Part(_))));
        assert!(matches!(format!("casd:{id},name=%ff").parse::<Link>(), Err(LinkError::Part(_))));
        assert!(matches!(format!("casd:{id},name=a,name=b").parse::<Link>(), Err(LinkError::Part(_))));
        assert_eq!(format!("casd:{id}{}", ",peer=x".repeat(17)).parse::<Link>(), Err(LinkError::TooLong));
    }
}
