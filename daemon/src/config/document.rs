//! Walking a TOML document key by key, so that every complaint knows its place and no key goes unread.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Error, Position};

/// How alike a key must be to be suggested: one wrong letter in four passes, another word does not.
const ALIKE: f64 = 0.75;

/// A parsed file.
pub(super) struct Document<'t> {
    /// Its name in complaints.
    file: &'t str,
    /// Its text, for places.
    text: &'t str,
    /// Its top level.
    table: DeTable<'t>,
}

/// One `[section]`. Remembers what was asked for; [`Section::finish`] refuses what was not.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    name: &'static str,
    /// `None` when the file does not have the section: every key has its default.
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

/// The value of one key, or one item of its list.
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    /// The full name, such as `network.name`.
    key: String,
    value: &'d DeValue<'d>,
    span: Range<usize>,
}

// === impl Document ===

impl<'t> Document<'t> {
    /// Parses `text`; `file` is what complaints call it.
    pub(super) fn parse(file: &'t str, text: &'t str) -> Result<Self, Error> {
        let table = DeTable::parse(text).map_err(|error| Error::Syntax {
            at: Position::of(file, text.as_bytes(), error.span().map_or(text.len(), |span| span.start)),
            message: error.message().replace('\n', "; "),
        })?;
        Ok(Self { file, text, table: table.into_inner() })
    }

    /// The section `name`, which may be missing.
    pub(super) fn section(&self, name: &'static str) -> Result<Section<'_>, Error> {
        let table = match self.table.get(name) {
            None => None,
            Some(entry) => match entry.get_ref() {
                DeValue::Table(table) => Some(table),
                other => {
                    let problem = format!("expected a section `[{name}]`, found {}", kind(other));
                    return Err(self.complaint(name, &entry.span(), problem));
                }
            },
        };
        Ok(Section { document: self, name, table, known: Vec::new() })
    }

    /// Refuses top-level keys that are none of `sections`.
    pub(super) fn only(&self, sections: &[&'static str]) -> Result<(), Error> {
        for key in self.table.keys() {
            if !sections.contains(&key.get_ref().as_ref()) {
                let problem = format!("unknown section{}", suggestion(key.get_ref(), sections));
                return Err(self.complaint(key.get_ref(), &key.span(), problem));
            }
        }
        Ok(())
    }

    /// A word about the value of a key, with its place, where the file has it.
    pub(super) fn remark(&self, section: &str, key: &str, problem: String) -> Option<String> {
        let DeValue::Table(table) = self.table.get(section)?.get_ref() else { return None };
        let entry = table.get(key)?;
        Some(self.complaint(&format!("{section}.{key}"), &entry.span(), problem).to_string())
    }

    fn complaint(&self, key: &str, span: &Range<usize>, problem: String) -> Error {
        let at = Position::of(self.file, self.text.as_bytes(), span.start);
        Error::Key { at, key: key.escape_debug().to_string(), problem }
    }
}

// === impl Section ===

impl<'d> Section<'d> {
    /// Reads `key` with `read`, or gives `default` when the file does not have it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'d>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        Ok(self.find(key, read)?.unwrap_or(default))
    }

    /// Reads `key` with `read` when the file has it.
    pub(super) fn find<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.known.push(key);
        let Some(entry) = self.table.and_then(|table| table.get(key)) else {
            return Ok(None);
        };
        let key = format!("{}.{key}", self.name);
        let value = Value { document: self.document, key, value: entry.get_ref(), span: entry.span() };
        read(&value).map(Some)
    }

    /// Refuses the keys that nothing asked for.
    pub(super) fn finish(self) -> Result<(), Error> {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let name = format!("{}.{}", self.name, key.get_ref());
                let problem = format!("unknown key{}", suggestion(key.get_ref(), &self.known));
                return Err(self.document.complaint(&name, &key.span(), problem));
            }
        }
        Ok(())
    }
}

// === impl Value ===

impl<'d> Value<'d> {
    /// A complaint about this value.
    pub(super) fn wrong(&self, problem: impl Display) -> Error {
        self.document.complaint(&self.key, &self.span, problem.to_string())
    }

    fn expected(&self, what: &str) -> Error {
        self.wrong(format!("expected {what}, found {}", kind(self.value)))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Error> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// Text, read by `read`.
    pub(super) fn text<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Error> {
        let text = self.value.as_str().ok_or_else(|| self.expected("text in quotes"))?;
        read(text).map_err(|problem| self.wrong(problem))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<T, Error> {
        self.text(|text| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                format!("{text:?} is none of {}{}", words.join(", "), suggestion(text, &words))
            })
        })
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: &RangeInclusive<u32>) -> Result<u32, Error> {
        let number = self.value.as_integer().ok_or_else(|| self.expected("a whole number"))?;
        u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.wrong(format!("{number} is not within {} to {}", range.start(), range.end())))
    }

    /// A size in bytes: text with a unit, or a bare number.
    pub(super) fn size(&self) -> Result<u64, Error> {
        match self.value.as_integer() {
            Some(number) if number.radix() == 10 => {
                super::value::size(number.as_str()).map_err(|problem| self.wrong(problem))
            }
            Some(_) => Err(self.wrong("a size is written in decimal")),
            None if self.value.is_str() => self.text(super::value::size),
            None => Err(self.expected("a size such as \"10MiB\"")),
        }
    }

    /// A list of `count` texts, each read by `read`.
    pub(super) fn list<T>(
        &self,
        count: &RangeInclusive<usize>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let items = self.value.as_array().ok_or_else(|| self.expected("a list of texts in [ ]"))?;
        if !count.contains(&items.len()) {
            let problem =
                format!("{} entries; there may be {} to {}", items.len(), count.start(), count.end());
            return Err(self.wrong(problem));
        }
        let item = |entry: &'d Spanned<DeValue<'d>>| Value {
            document: self.document,
            key: self.key.clone(),
            value: entry.get_ref(),
            span: entry.span(),
        };
        items.iter().map(|entry| item(entry).text(&read)).collect()
    }
}

/// What a value is, for people.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// `; did you mean ...?` when one of `known` is like `word`.
fn suggestion(word: &str, known: &[&str]) -> String {
    // A word as long as a page is no slip of the finger, and comparing it would take long.
    if word.len() > 64 {
        return String::new();
    }
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}
