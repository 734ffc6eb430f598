//! How objects are named on the command line: whole ids, links, and what the daemon looks up.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use casd_proto::v1::ObjectKind;
use percent_encoding::percent_decode_str;

use crate::tree::name::Name;

/// What stands before the id of a directory.
const DIRECTORY: &str = "dir:";

/// The longest link that is read; the daemon makes none longer.
const MAX_LINK: usize = 4096;

/// A whole id, of an object or a chunk: 64 lower-case hexadecimal digits. Opaque otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id(String);

impl Id {
    /// Its digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.chars().count();
        if let Some(strange) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!("an id has only the digits 0-9 and a-f; this has {strange:?}"));
        }
        if digits != 64 {
            return Err(format!("an id has 64 digits; this has {digits}"));
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("an id is written in lower case".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// What an object is called, by its kind.
pub(crate) fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::File => "file",
        ObjectKind::Directory => "directory",
        ObjectKind::Unspecified => "unknown",
    }
}

/// Reads a whole id, of a directory as well.
pub(crate) fn whole_id(text: &str) -> Result<Id, String> {
    text.strip_prefix(DIRECTORY).unwrap_or(text).parse()
}

/// As [`whole_id`], of what others are asked for: they know no names of this node's, and no beginning of an id will do.
pub(crate) fn id_elsewhere(text: &str) -> Result<Id, String> {
    whole_id(text).map_err(|why| {
        format!(
            "{why}; `casctl stat` shows the whole id of what is here, by its name or the beginning of the id"
        )
    })
}

/// A whole id, of a file or a directory, and what is wanted inside the directory: `ID`, `dir:ID`, `dir:ID/sub/path`,
/// `ID/sub/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The file or the directory.
    pub(crate) id: Id,
    /// Whether it is a directory.
    pub(crate) is_directory: bool,
    /// The names on the way from there to what is wanted; none: itself.
    pub(crate) path: Vec<Name>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(DIRECTORY);
        let (id, path) = match rest.unwrap_or(text).split_once('/') {
            Some((id, path)) => (id, Some(path)),
            None => (rest.unwrap_or(text), None),
        };
        let names = path.unwrap_or_default().split('/').filter(|name| !name.is_empty());
        let names = names.map(|name| {
            Name::new(name.to_owned())
                .map_err(|bad| format!("nothing in a directory is called {name:?}: {}", bad.why))
        });
        let (id, path_names) = (id.parse()?, names.collect::<Result<_, _>>()?);
        Ok(Self { id, is_directory: rest.is_some() || path.is_some(), path: path_names })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_directory { DIRECTORY } else { "" };
        write!(f, "{prefix}{}", self.id.as_str())?;
        self.path.iter().try_for_each(|name| write!(f, "/{}", name.as_str()))
    }
}

/// A directory's id as it is written, of its digits.
pub(crate) fn directory(digits: &str) -> String {
    format!("{DIRECTORY}{digits}")
}

/// An object's id as it is written, of its digits and what kind of object it is.
pub(crate) fn named(kind: ObjectKind, digits: &str) -> String {
    if kind == ObjectKind::Directory { directory(digits) } else { digits.to_owned() }
}

/// What is to be fetched: an object, or a link, which names one and has hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What to fetch.
    pub(crate) address: Address,
    /// What whoever made the link calls it. Not trusted.
    pub(crate) name: Option<String>,
    /// Where to ask first.
    pub(crate) peers: Vec<String>,
    /// Keys of hints that this version does not know: they may be of a later one, or misspelt.
    pub(crate) unknown: Vec<String>,
}

impl FromStr for Source {
    type Err = String;

    /// Reads an address or `casd:ADDRESS,name=NAME,peer=ADDR,…`. Hints of other keys are passed over, and told.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("casd:") else {
            let address =
                text.parse().map_err(|why| format!("{why}; only whole ids and links can be fetched"))?;
            return Ok(Self { address, name: None, peers: Vec::new(), unknown: Vec::new() });
        };
        if text.len() > MAX_LINK {
            return Err(format!("a link has at most {MAX_LINK} bytes"));
        }
        let decoded = |value: &str| percent_decode_str(value).decode_utf8().map(Cow::into_owned);
        let mut parts = rest.split(',');
        let address =
            decoded(parts.next().unwrap_or_default()).map_err(|_| "the link is not UTF-8".to_owned());
        let address = address?.parse().map_err(|why| format!("in the link, {why}"))?;
        let mut source = Self { address, name: None, peers: Vec::new(), unknown: Vec::new() };
        for part in parts {
            let wrong = || {
                format!(
                    "the link's part {part:?} is not key=value, percent-encoded; where the link was cut, what stands \
                     before that would do"
                )
            };
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = decoded(value).map_err(|_| wrong())?;
            match key {
                "name" => source.name = Some(value),
                "peer" => source.peers.push(value),
                _ => source.unknown.push(key.to_owned()),
            }
        }
        Ok(source)
    }
}

/// What names an object in the daemon's own store: an id, a prefix, a name, or behind one of these a path inside a
/// directory. The daemon decides; what was clearly meant to be an id but is none is refused here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    /// As the API takes it.
    pub(crate) text: String,
    /// Whether it says that it is a directory, or inside one.
    pub(crate) is_directory: bool,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("write an id, a prefix of 8 digits or more, or a name".to_owned());
        }
        let rest = text.strip_prefix(DIRECTORY);
        let (head, path) = match rest.unwrap_or(text).split_once('/') {
            Some((head, path)) => (head, Some(path)),
            None => (rest.unwrap_or(text), None),
        };
        let is_hex = head.bytes().all(|b| b.is_ascii_hexdigit());
        let is_prefix = (8..64).contains(&head.len()) && !head.bytes().any(|b| b.is_ascii_uppercase());
        if !is_hex || (is_prefix || rest.is_none()) && head.len() < 64 {
            // `dir:notes` may be the name of anything.
            let is_directory = path.is_some() || rest.is_some() && is_hex;
            return Ok(Self { text: text.to_owned(), is_directory });
        }
        let address: Address = text.parse()?;
        Ok(Self { text: address.to_string(), is_directory: address.is_directory })
    }
}

/// Reads a [`Selector`] for the API.
pub(crate) fn selector(text: &str) -> Result<String, String> {
    text.parse().map(|Selector { text, .. }| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn an_id_has_one_form() {
        assert!(ID.parse::<Id>().is_ok());
        for (wrong, word) in [
            (&ID[1..], "63"),
            (&format!("{ID}0"), "65"),
            (&ID.to_uppercase(), "lower case"),
            (&ID.replace('a', "g"), "'g'"),
            (&format!("dir:{ID}"), "'i'"),
            ("", "64"),
        ] {
            let why = wrong.parse::<Id>().unwrap_err();
            assert!(why.contains(word), "{wrong}: {why}");
        }
        assert_eq!(whole_id(&format!("dir:{ID}")), whole_id(ID));
        assert!(whole_id(&format!("{ID}/a")).is_err());
        assert_eq!(id_elsewhere(ID), whole_id(ID));
        assert!(id_elsewhere("holiday.mp4").unwrap_err().contains("`casctl stat` shows the whole id"));
    }

    #[test]
    fn what_is_inside_a_directory_has_two_spellings() {
        let written = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(written(ID), Ok(ID.to_owned()));
        for (text, path) in [
            (format!("dir:{ID}"), ""),
            (format!("dir:{ID}/"), ""),
            (format!("{ID}/"), ""),
            (format!("{ID}/a b/c"), "/a b/c"),
            (format!("dir:{ID}//a b/c/"), "/a b/c"),
        ] {
            assert_eq!(written(&text), Ok(format!("dir:{ID}{path}")), "{text}");
        }
        for wrong in [
            format!("dir:{ID}/.."),
            format!("{ID}/a/../../b"),
            format!("{ID}/a\\b"),
            format!("dir:{}", &ID[1..]),
            format!("dir:dir:{ID}"),
            "dir:".to_owned(),
            "a/b".to_owned(),
        ] {
            assert!(written(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn links_carry_hints() {
        let link =
            format!("casd:{ID},name=a%20b%2Cc,peer=12D3@127.0.0.1:9000,later=x,peer=/ip4/1.2.3.4/p2p/Q");
        let source: Source = link.parse().unwrap();
        assert_eq!(source.address.to_string(), ID);
        assert_eq!(source.name.as_deref(), Some("a b,c"));
        assert_eq!(source.peers, ["12D3@127.0.0.1:9000", "/ip4/1.2.3.4/p2p/Q"]);
        assert_eq!(source.unknown, ["later"]);
        let source: Source = format!("casd:dir:{ID}/a%20b,name=x").parse().unwrap();
        assert_eq!(source.address.to_string(), format!("dir:{ID}/a b"));
        for wrong in
            ["casd:", "casd:12", &format!("casd:{ID},name"), &format!("casd:{ID},name=%ff"), "http://x"]
        {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn selectors_are_the_daemons_to_judge_unless_meant_as_ids() {
        assert_eq!(selector("notes.txt"), Ok("notes.txt".to_owned()));
        assert_eq!(selector(&ID[..8]), Ok(ID[..8].to_owned()));
        assert!(selector(&format!("{ID}0")).is_err());
        assert!(selector(&ID.to_uppercase()).is_err());
        assert!(selector("").is_err());
        assert_eq!(selector(&format!("{ID}/a/")), Ok(format!("dir:{ID}/a")));
        assert_eq!(selector(&format!("dir:{ID}")), Ok(format!("dir:{ID}")));
        assert_eq!(selector("dir:notes"), Ok("dir:notes".to_owned()), "a name");
        for (text, is_directory) in [
            (format!("dir:{}", &ID[..8]), true),
            (format!("dir:{}/a", &ID[..8]), true),
            (format!("{}/a b/c", &ID[..63]), true),
            ("tree/a".to_owned(), true),
            ("dir:tree/".to_owned(), true),
            ("abc".to_owned(), false),
            ("tree".to_owned(), false),
        ] {
            assert_eq!(text.parse(), Ok(Selector { text: text.clone(), is_directory }));
        }
        for wrong in [
            format!("dir:{}", &ID[..7]),
            format!("dir:{}", ID[..8].to_uppercase()),
            format!("{ID}/.."),
            format!("dir:{ID}0/a"),
            "dir:".to_owned(),
        ] {
            assert!(selector(&wrong).is_err(), "{wrong}");
        }
    }
}
