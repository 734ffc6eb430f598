//! Fetching without waiting: the daemon goes on with it.

use casd_proto::v1::BeginJobRequest;

use super::super::{Session, broken, jobs};
use super::peers;
use crate::args::Fetch;
use crate::error::{Exit, Failure};
use crate::object::directory;
use crate::output::Line;

/// Begins a job, and says which.
pub(super) async fn run(session: &Session, args: &Fetch) -> Result<Exit, Failure> {
    let address = &args.source.address;
    let digits = address.id.as_str();
    let request = BeginJobRequest {
        id: if address.is_directory { directory(digits) } else { digits.to_owned() },
        peers: peers(args),
        pin: args.pin,
        priority: jobs::priority(args.priority),
    };
    let begun = session.jobs().begin(request).await?.into_inner();
    let job = begun.job.ok_or_else(|| broken("does not say what became of the fetch"))?;
    let Line { human, bare, mut json } = jobs::line(&job);
    if let Some(keys) = json.as_object_mut() {
        keys.insert("joined".to_owned(), begun.joined.into());
    }
    let is_here = job.number == 0;
    let human = if is_here { format!("{}  it is here already", jobs::id(&job)) } else { human };
    session.output.result(&Line { human, bare: if is_here { String::new() } else { bare }, json })?;
    if !is_here {
        session.output.note(&format!("`casctl jobs {}` says how far it is", job.number));
    }
    Ok(Exit::Done)
}
