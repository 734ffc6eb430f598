//! The record store as `libp2p-kad` wants it: plain ADD_PROVIDER and GET_PROVIDERS over the same records,
//! under the same limits, as the batches.
//!
//! Owns: the translation. Refuses: values (every PUT_VALUE is answered by a reset stream) and addresses
//! claimed in an ADD_PROVIDER: only signed or observed ones are told to others.

use std::borrow::Cow;
use std::iter::{Empty, empty};
use std::sync::PoisonError;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use super::{MAX_LIFETIME, Records, Verdict};
use crate::dht::Key;

impl RecordStore for Records {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        let key = Key::try_from(record.key.as_ref()).map_err(|_| Error::ValueTooLarge)?;
        if record.provider == self.local {
            return Err(Error::MaxProvidedKeys);
        }
        match self.put_all(vec![key], record.provider, MAX_LIFETIME, Instant::now()).as_slice() {
            [Verdict::Taken] => Ok(()),
            _ => Err(Error::MaxProvidedKeys),
        }
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Ok(bytes) = Key::try_from(key.as_ref()) else { return Vec::new() };
        let record =
            |provider, addresses, expires| ProviderRecord { key: key.clone(), provider, expires, addresses };
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).holds(&bytes);
        let own = own.then(|| record(self.local, self.own_addresses.clone(), None));
        let others = self.holders(&bytes, Instant::now()).into_iter();
        own.into_iter().chain(others.map(|(peer, at, until)| record(peer, at, Some(until)))).collect()
    }

    /// Nothing: our own batches republish, not the swarm.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let Ok(key) = Key::try_from(key.as_ref()) {
            self.take_back(vec![key], provider);
        }
    }
}
