//! What `casctl jobs` and `casctl explain` take.

use std::str::FromStr;

use clap::{Args as ClapArgs, ValueEnum};

use crate::object::{Id, whole_id};

const STATES: &str = "A job is a fetch that goes on without its caller, over restarts as well: `casctl fetch --detach` \
    begins one. It waits for holders as long as there are none, and never gives up by itself. Jobs that have ended are \
    listed for an hour. You see your own, an administrator sees all.";

/// `casctl jobs`
#[derive(Debug, ClapArgs)]
#[command(after_help = STATES)]
pub(crate) struct Jobs {
    /// Only this one: its number, or the whole id of what it brings
    #[arg(value_name = "JOB|ID")]
    pub(crate) job: Option<JobName>,
    /// Print each change, until all of them have ended
    #[arg(long)]
    pub(crate) watch: bool,
    /// Cancel this one; what has come stays for a day, and another fetch goes on from there
    #[arg(long, value_name = "JOB|ID", conflicts_with_all = ["job", "watch", "priority"])]
    pub(crate) cancel: Option<JobName>,
    /// Have JOB begin before or after others that wait; one that runs goes on
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "job", conflicts_with = "watch")]
    pub(crate) priority: Option<Priority>,
}

/// When a job begins among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// Before the others
    High,
    /// In its turn
    Normal,
    /// When no other waits
    Low,
}

/// How a job is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobName {
    /// By its number.
    Number(u64),
    /// By what it brings.
    Id(Id),
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An id may have decimal digits only, but has 64 of them.
        match text.parse() {
            Ok(0) => Err("jobs are numbered from 1".to_owned()),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) => whole_id(text).map(Self::Id).map_err(|why| format!("no number of a job, and {why}")),
        }
    }
}

/// `casctl explain`
#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// A whole id, stored here or not; or a prefix of 8 digits or more or a name of what is stored
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_number_or_a_whole_id() {
        assert_eq!("17".parse::<JobName>(), Ok(JobName::Number(17)));
        for id in ["1".repeat(64), "ab".repeat(32)] {
            let named = Ok(JobName::Id(id.parse().unwrap()));
            assert_eq!(id.parse::<JobName>(), named);
            assert_eq!(format!("dir:{id}").parse::<JobName>(), named);
        }
        for wrong in ["", "0", "-1", "x", "abcdef12", &"1".repeat(63)] {
            assert!(wrong.parse::<JobName>().is_err(), "{wrong:?}");
        }
    }
}
