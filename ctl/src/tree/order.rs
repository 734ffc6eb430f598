//! The order in which the parts of a tree come, and their counts: what the daemon sends is checked before anything is
//! made of it.
//!
//! Owns: turning parts into [`Step`]s, each in its place and with names that keep the rules. Refuses: everything that
//! trees.proto does not allow; the first thing that is wrong ends the fetch. Pure.

use casd_proto::v1::TreePart;
use casd_proto::v1::tree_part::Part;
use casd_proto::{Bytes, MAX_DATA_BYTES, Reason};

use super::name::{Name, Target};
use super::{MAX_DEPTH, MAX_ENTRIES};
use crate::error::Failure;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a directory and go into it.
    Enter(Name),
    /// Go back to the one around it.
    Leave,
    /// Begin a file.
    Begin(Name, Executable),
    /// Its next bytes.
    Data(Bytes),
    /// Instead of bytes: so many zeros.
    Zeros(u64),
    /// End it.
    End,
    /// A whole file.
    File(Name, Executable, Bytes),
    /// A symbolic link.
    Link(Name, Target),
}

/// Whether a file may be executed.
pub(crate) type Executable = bool;

/// What has come so far of what is coming.
#[derive(Debug)]
pub(crate) struct Order {
    /// What there is in all.
    total: Total,
    /// The directories that are open, each with how many entries it has so far; the outermost first.
    open: Vec<u64>,
    /// The file that is open.
    file: Option<Growing>,
    /// Entries so far.
    entries: u64,
    /// Bytes of files so far.
    bytes: u64,
}

/// What was said to be coming.
#[derive(Clone, Copy, Debug)]
enum Total {
    /// A directory with so many entries, and so many bytes in all its files.
    Directory { entries: u64, bytes: u64 },
    /// One file, of so many bytes.
    File { bytes: u64 },
}

#[derive(Debug)]
struct Growing {
    /// As it was said at its beginning.
    length: Option<u64>,
    /// Bytes so far.
    bytes: u64,
}

impl Order {
    /// Nothing yet of a directory with so many entries, and so many bytes in all its files.
    pub(crate) fn directory(entries: u64, bytes: u64) -> Self {
        Self::new(Total::Directory { entries, bytes })
    }

    /// Nothing yet of a file.
    pub(crate) fn file(bytes: u64) -> Self {
        Self::new(Total::File { bytes })
    }

    fn new(total: Total) -> Self {
        Self { total, open: vec![0], file: None, entries: 0, bytes: 0 }
    }

    /// Says what to do about the next part.
    ///
    /// # Errors
    /// When it must not come here, or has a name that could do harm.
    pub(crate) fn take(&mut self, part: TreePart) -> Result<Step, Failure> {
        let part = part.part.ok_or_else(|| bad("a part that this casctl does not know"))?;
        if self.file.is_some() != matches!(part, Part::Data(_) | Part::End(_)) {
            return Err(bad("parts out of order"));
        }
        match part {
            Part::Enter(enter) => {
                let name = self.entry(enter.name)?;
                if self.open.len() >= MAX_DEPTH {
                    return Err(bad("directories that are nested more than 64 deep"));
                }
                self.no_single_file()?;
                self.open.push(0);
                Ok(Step::Enter(name))
            }
            Part::Leave(_) if self.open.len() > 1 => {
                self.open.pop();
                Ok(Step::Leave)
            }
            Part::Leave(_) => Err(bad("the end of a directory that it has not begun")),
            Part::File(file) => {
                let name = self.entry(file.name)?;
                if file.data.len() > MAX_DATA_BYTES {
                    return Err(bad("a part of more than 1 MiB"));
                }
                self.count(file.data.len() as u64)?;
                Ok(Step::File(name, file.executable, file.data))
            }
            Part::Start(start) => {
                let name = self.entry(start.name)?;
                self.file = Some(Growing { length: start.length, bytes: 0 });
                Ok(Step::Begin(name, start.executable))
            }
            Part::Data(data) => match (data.data.len(), data.zeros) {
                (0, 0) => Err(bad("a part with nothing in it")),
                (0, zeros) => self.grow(zeros).map(|()| Step::Zeros(zeros)),
                (1..=MAX_DATA_BYTES, 0) => self.grow(data.data.len() as u64).map(|()| Step::Data(data.data)),
                _ => Err(bad("a part of more than 1 MiB")),
            },
            Part::End(end) => match self.file.take() {
                Some(file) if file.bytes == end.length && file.length.is_none_or(|l| l == end.length) => {
                    Ok(Step::End)
                }
                _ => Err(bad("a file of another length than it says")),
            },
            Part::Link(link) => {
                self.no_single_file()?;
                let name = self.entry(link.name)?;
                Ok(Step::Link(name, Target::new(link.target).map_err(bad)?))
            }
            Part::Finish(_) => Err(bad("what only an add has")),
        }
    }

    /// Makes sure that everything has come.
    ///
    /// # Errors
    /// When it has not.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let is_whole = match self.total {
            Total::Directory { entries, bytes } => entries == self.entries && bytes == self.bytes,
            Total::File { bytes } => self.entries == 1 && bytes == self.bytes,
        };
        if is_whole && self.file.is_none() && self.open.len() == 1 {
            return Ok(());
        }
        Err(bad("less than it says"))
    }

    /// Counts one more entry of the directory that is open.
    fn entry(&mut self, name: String) -> Result<Name, Failure> {
        let name = Name::new(name).map_err(|name| bad(&name.to_string()))?;
        let total = match self.total {
            Total::Directory { entries, .. } => entries,
            Total::File { .. } => 1,
        };
        self.entries += 1;
        if self.entries > total {
            return Err(bad("more entries than it says"));
        }
        // There is always one open.
        if let Some(entries) = self.open.last_mut() {
            *entries += 1;
            if *entries > MAX_ENTRIES {
                return Err(bad("a directory of more than 1,048,576 entries"));
            }
        }
        Ok(name)
    }

    /// Counts bytes of the file that is open.
    fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        self.count(bytes)?;
        if let Some(file) = &mut self.file {
            // No more than is counted in all.
            file.bytes += bytes;
            if file.length.is_some_and(|length| file.bytes > length) {
                return Err(bad("a file of another length than it says"));
            }
        }
        Ok(())
    }

    /// Counts bytes.
    fn count(&mut self, bytes: u64) -> Result<(), Failure> {
        let (Total::Directory { bytes: total, .. } | Total::File { bytes: total }) = self.total;
        self.bytes = self
            .bytes
            .checked_add(bytes)
            .filter(|sum| *sum <= total)
            .ok_or_else(|| bad("more than it says"))?;
        Ok(())
    }

    fn no_single_file(&self) -> Result<(), Failure> {
        match self.total {
            Total::Directory { .. } => Ok(()),
            Total::File { .. } => Err(bad("a directory or a link instead of a file")),
        }
    }
}

/// The daemon has sent `what`.
pub(crate) fn bad(what: &str) -> Failure {
    let message = format!("the daemon sent {what}; nothing was restored");
    Failure::known(Reason::BadTree, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use casd_proto::v1::{TreeEnter, TreeFile, TreeLeave};

    fn part(part: Part) -> TreePart {
        TreePart { part: Some(part) }
    }

    fn file(name: String) -> TreePart {
        part(Part::File(TreeFile { name, ..TreeFile::default() }))
    }

    /// B36: in one directory; in several there may be more.
    #[test]
    fn a_million_and_one_entries_are_too_many() {
        let mut order = Order::directory(u64::MAX, 0);
        order.take(part(Part::Enter(TreeEnter { name: "before".into() }))).unwrap();
        for number in 0..MAX_ENTRIES {
            order.take(file(number.to_string())).unwrap();
        }
        let failure = order.take(file("x".into())).unwrap_err();
        assert!(failure.to_string().contains("1,048,576 entries"), "{failure}");

        order.take(part(Part::Leave(TreeLeave {}))).unwrap();
        order.take(file("x".into())).unwrap();
    }
}
