//! Bytes on their way into a pipeline that runs beside its caller.
//!
//! Owns: the bounded channel between them, and the pipeline's end. Refuses: nothing. Survives a crash: nothing.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Error;
use crate::support::task::Tasks;

/// Messages on their way into a pipeline: with messages of 1 MiB, 4 MiB of memory an add.
const QUEUE: usize = 4;

/// What a caller tells its pipeline.
pub(super) enum Input {
    Data(Bytes),
    /// The end, with the length that the caller counted.
    Finish(u64),
}

/// A pipeline that takes bytes and gives `T` in the end. Dropping it ends the pipeline with nothing.
pub(super) struct Feed<T> {
    /// To the pipeline; bounded, so a slow disk slows the caller.
    input: mpsc::Sender<Input>,
    /// The pipeline, which ends with the result; `None` when that was told.
    done: Option<JoinHandle<Option<Result<T, Error>>>>,
}

impl<T: Send + 'static> Feed<T> {
    /// Runs what `pipeline` makes of the messages.
    pub(super) fn start<F>(tasks: &Tasks, pipeline: impl FnOnce(mpsc::Receiver<Input>) -> F) -> Self
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (input, messages) = mpsc::channel(QUEUE);
        let done = tasks.spawn("add", pipeline(messages));
        Self { input, done: Some(done) }
    }

    /// Hands over the next bytes. Waits when the store is slower than the caller.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match self.input.send(Input::Data(bytes)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Ends the stream, whose length must be what was written, and waits for the result.
    pub(super) async fn finish(mut self, length: u64) -> Result<T, Error> {
        if self.input.send(Input::Finish(length)).await.is_err() {
            return Err(self.failure().await);
        }
        match self.done {
            Some(done) => ended(done).await,
            None => Err(Error::Stopping),
        }
    }

    /// Ends the pipeline with nothing, and waits for that.
    pub(super) async fn end(self) {
        drop(self.input);
        if let Some(done) = self.done {
            let _ = ended(done).await;
        }
    }

    /// Why the pipeline ended before its input did.
    async fn failure(&mut self) -> Error {
        match self.done.take().map(ended) {
            Some(done) => done.await.err().unwrap_or(Error::Stopping),
            None => Error::Stopping,
        }
    }
}

/// What came of a task.
pub(super) async fn ended<T>(task: JoinHandle<Option<Result<T, Error>>>) -> Result<T, Error> {
    task.await.ok().flatten().unwrap_or(Err(Error::Stopping))
}
