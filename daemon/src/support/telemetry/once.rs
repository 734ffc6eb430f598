//! Libraries that repeat themselves.
//!
//! Owns: which of their messages have been logged. Refuses: each of them a second time. Survives a crash: nothing.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::layer::{Context, Filter};

/// A library that says each time it multicasts that it cannot, where there is no network: once is enough.
const REPEATS: &str = "libp2p_mdns";

/// What has been said by a library that repeats itself.
#[derive(Default)]
struct Once(Mutex<HashSet<Identifier>>);

/// The filter, which lets each message of libraries that repeat themselves through once.
pub(super) fn once<S>(filter: EnvFilter) -> impl Filter<S> {
    FilterExt::and(filter, Once::default())
}

impl<S> Filter<S> for Once {
    fn enabled(&self, event: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        let repeats = event.is_event() && event.target().starts_with(REPEATS);
        // Held for a moment; nothing is logged under it.
        !repeats || self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event.callsite())
    }

    fn callsite_enabled(&self, event: &'static Metadata<'static>) -> Interest {
        if event.target().starts_with(REPEATS) { Interest::sometimes() } else { Interest::always() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}
