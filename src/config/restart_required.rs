//! Settings that take effect only with a restart.

use super::{Config, Loaded, Setting, Source};

/// Sections that shape the parts of the gateway at the start,
const SECTIONS: [&str; 2] = ["source", "ring"];
/// except these keys, which readers take from each new configuration.
const RELOADABLE: [&str; 3] = ["read_count", "block", "linger"];
/// Keys of other sections: listeners, workers and the format of the log are set up at the start.
const KEYS: [(&str, &str); 5] = [
    ("server", "listen"),
    ("server", "workers"),
    ("admin", "listen"),
    ("proxy", "protocol"),
    ("log", "format"),
];

impl Loaded {
    /// Keeps these settings as they are in the `running` configuration; returns the keys whose values
    /// differ from those that the gateway was `started` with.
    pub fn keep_restart_required(&mut self, running: &Config, started: &[Setting]) -> Vec<String> {
        let Config { server, admin, source, proxy, .. } = &mut self.config;
        let restart_required = self.settings.iter().filter(|setting| requires_restart(setting));
        let differs = |setting: &&Setting| {
            let name = (setting.section, setting.key);
            let before = started.iter().find(|before| (before.section, before.key) == name);
            before.is_none_or(|before| before.value != setting.value)
        };
        let name = |setting: &Setting| format!("{}.{}", setting.section, setting.key);
        let mut changed: Vec<_> = restart_required.filter(differs).map(name).collect();
        // The settings mask a password in the URL; one in a file is read again at each login.
        let is_unnamed = !changed.iter().any(|key| key.starts_with("source."));
        if is_unnamed && running.source.password != source.password {
            changed.push("source.url".to_owned());
        }
        server.listen.clone_from(&running.server.listen);
        server.workers = running.server.workers;
        admin.listen.clone_from(&running.admin.listen);
        proxy.protocol.clone_from(&running.proxy.protocol);
        let Source { read_count, block, linger, .. } = *source;
        *source = Source { read_count, block, linger, ..running.source.clone() };
        self.config.ring = running.ring.clone();
        self.config.log.format = running.log.format;
        changed
    }
}

fn requires_restart(setting: &Setting) -> bool {
    KEYS.contains(&(setting.section, setting.key))
        || SECTIONS.contains(&setting.section) && !RELOADABLE.contains(&setting.key)
}
