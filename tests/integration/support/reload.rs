//! Another configuration for a gateway that runs.

use super::eventually;
use super::gateway::{Gateway, Setup};

impl Gateway {
    /// Puts another configuration where it reads its own.
    pub fn write(&self, setup: &Setup) {
        std::fs::write(self.folder.0.join("gateway.toml"), setup.toml()).unwrap();
    }

    /// Has it read its configuration again, and waits; the line of the log that says what came of it.
    pub fn reload(&self) -> serde_json::Value {
        let outcomes = || {
            let log = self.log();
            let is_outcome = |line: &&str| {
                line.contains("configuration reloaded") || line.contains("the reload was rejected")
            };
            log.lines().filter(is_outcome).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = outcomes().len();
        self.signal("HUP");
        eventually("it says what came of it", || outcomes().len() > before);
        serde_json::from_str(&outcomes()[before]).unwrap()
    }
}
