//! How objects are named on the command line: whole ids, links, and what the daemon looks up.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

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
            if text.starts_with("dir:") {
                return Err("directories arrive in a later version".to_owned());
            }
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

/// What is to be fetched: an id, or a link, which is an id with hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What to fetch.
    pub(crate) id: Id,
    /// What whoever made the link calls it. Not trusted.
    pub(crate) name: Option<String>,
    /// Where to ask first.
    pub(crate) peers: Vec<String>,
}

impl FromStr for Source {
    type Err = String;

    /// Reads an id or `casd:ID,name=NAME,peer=ADDR,…`. Hints of other keys are passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("casd:") else {
            return Ok(Self { id: text.parse()?, name: None, peers: Vec::new() });
        };
        if text.len() > MAX_LINK {
            return Err(format!("a link has at most {MAX_LINK} bytes"));
        }
        let mut parts = rest.split(',');
        let id = parts.next().unwrap_or_default().parse().map_err(|why| format!("in the link, {why}"))?;
        let mut source = Self { id, name: None, peers: Vec::new() };
        for part in parts {
            let wrong = || format!("the link's part {part:?} is not key=value, percent-encoded");
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| wrong())?.into_owned();
            match key {
                "name" => source.name = Some(value),
                "peer" => source.peers.push(value),
                _ => {}
            }
        }
        Ok(source)
    }
}

/// Reads what names an object in the daemon's own store: an id, a prefix or a name. The daemon decides; what
/// was clearly meant to be an id but is none is refused here.
pub(crate) fn selector(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("write an id, a prefix of 8 digits or more, or a name".to_owned());
    }
    if text.len() >= 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text.parse().map(|Id(id)| id);
    }
    Ok(text.to_owned())
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
            (&format!("dir:{ID}"), "later"),
            ("", "64"),
        ] {
            let why = wrong.parse::<Id>().unwrap_err();
            assert!(why.contains(word), "{wrong}: {why}");
        }
    }

    #[test]
    fn links_carry_hints() {
        let link =
            format!("casd:{ID},name=a%20b%2Cc,peer=12D3@127.0.0.1:9000,later=x,peer=/ip4/1.2.3.4/p2p/Q");
        let source: Source = link.parse().unwrap();
        assert_eq!(source.id.as_str(), ID);
        assert_eq!(source.name.as_deref(), Some("a b,c"));
        assert_eq!(source.peers, ["12D3@127.0.0.1:9000", "/ip4/1.2.3.4/p2p/Q"]);
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
    }
}
