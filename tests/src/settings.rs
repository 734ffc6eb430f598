//! A daemon's settings file, built key by key.

use std::collections::BTreeMap;
use std::path::Path;

/// What is written into a settings file. A key that is set twice has its last value.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Section, then key, then the value as TOML.
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Settings {
    /// Settings for a daemon that keeps to itself: state and socket below `folder`, loopback only, free ports, and
    /// a network of its own name, so that daemons of other tests are strangers.
    #[must_use]
    pub fn alone(folder: &Path) -> Self {
        Self::default()
            .text("node.state_dir", &folder.join("state").display().to_string())
            .text("api.socket", &folder.join("casd.sock").display().to_string())
            .texts("listen.chunk", &["127.0.0.1:0"])
            .texts("listen.dht", &["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"])
            .text("network.name", &format!("test-{:016x}", rand::random::<u64>()))
            .raw("network.lan_discovery", "false")
            .text("store.reserve", "0")
    }

    /// Sets `section.key` to a text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, quoted(value))
    }

    /// Sets `section.key` to a list of texts.
    #[must_use]
    pub fn texts<T: AsRef<str>>(self, key: &str, values: &[T]) -> Self {
        let values: Vec<_> = values.iter().map(|value| quoted(value.as_ref())).collect();
        self.raw(key, format!("[{}]", values.join(", ")))
    }

    /// Sets `section.key` to a value written as TOML.
    #[must_use]
    pub fn raw(mut self, key: &str, value: impl Into<String>) -> Self {
        let (section, key) = key.split_once('.').expect("a key is named section.key");
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.into());
        self
    }

    /// Leaves a whole section to its defaults.
    #[must_use]
    pub fn without(mut self, section: &str) -> Self {
        self.sections.remove(section);
        self
    }

    /// The file's text.
    #[must_use]
    pub fn toml(&self) -> String {
        let section = |(name, keys): (&String, &BTreeMap<String, String>)| {
            let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            format!("[{name}]\n{}\n", keys.concat())
        };
        self.sections.iter().map(section).collect()
    }
}

/// A JSON string is a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}
