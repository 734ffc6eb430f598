//! Waiting for a turn: for a place among few, which goes to those who wait in their order.
//!
//! Owns: the waiting. Refuses: nothing. Survives a crash: nothing.
//!
//! A place is given to a future at once, but only takes effect when the future is polled. Who looks at one of many
//! futures leaves the others unpolled, and where it waits for the same places, it waits for itself. So what waits
//! is polled by the runtime and not by its caller.

use std::task::Poll;

use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// Completes with `work`, which goes on while its caller is not polled. Dropping the returned future drops `work`.
/// A panic in it is passed on to the caller. Work that does not wait is done where it is.
#[expect(clippy::disallowed_methods, reason = "what is spawned ends with its caller")]
pub fn in_turn<F>(work: F) -> impl Future<Output = F::Output> + Send
where
    F: Future<Output: Send> + Send + 'static,
{
    // Here, so that a caller's future has no room for it.
    let mut work = Box::pin(work);
    async move {
        match futures::poll!(&mut work) {
            Poll::Ready(value) => value,
            Poll::Pending => match AbortOnDropHandle::new(tokio::spawn(work)).await {
                Ok(value) => value,
                Err(error) => passed_on(error).await,
            },
        }
    }
}

/// What becomes of a caller whose work ended without a value.
pub(super) async fn passed_on<T>(error: JoinError) -> T {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // Only at runtime shutdown: the caller is being dropped as well.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_is_not_polled_keeps_nobody_waiting() {
        let places = Arc::new(Semaphore::new(1));
        let use_place = || {
            let places = Arc::clone(&places);
            async move { drop(places.acquire_owned().await.unwrap()) }
        };
        let taken = Arc::clone(&places).acquire_owned().await.unwrap();
        let mut first = Box::pin(in_turn(use_place()));
        assert!(futures::poll!(&mut first).is_pending());
        drop(taken);
        tokio::time::timeout(Duration::from_secs(60), in_turn(use_place())).await.expect("its turn comes");
        first.await;
    }

    #[tokio::test]
    async fn who_has_gone_waits_no_more() {
        let places = Arc::new(Semaphore::new(1));
        let taken = Arc::clone(&places).acquire_owned().await.unwrap();
        let waiting = Arc::clone(&places);
        let mut gone = Box::pin(in_turn(async move { waiting.acquire_owned().await.unwrap().forget() }));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop(taken);
        tokio::time::timeout(Duration::from_secs(60), places.acquire()).await.unwrap().unwrap().forget();
    }
}
