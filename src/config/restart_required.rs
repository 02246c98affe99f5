//! What lasts until a restart: keys that a running gateway cannot take on.

use super::{Config, Loaded, Setting, Source};

/// Sections that were joined into what runs,
const SECTIONS: [&str; 2] = ["source", "ring"];
/// but for how readers read.
const OF_READERS: [&str; 3] = ["read_count", "block", "linger"];
/// Keys of other sections: who listens was settled at the start, how many work, and where the log goes.
const KEYS: [(&str, &str); 5] = [
    ("server", "listen"),
    ("server", "workers"),
    ("admin", "listen"),
    ("proxy", "protocol"),
    ("log", "format"),
];

impl Loaded {
    /// Leaves what lasts as it is in the `running` configuration, which was `started` with; names each key
    /// that would have been another one.
    pub fn keep_restart_required(&mut self, running: &Config, started: &[Setting]) -> Vec<String> {
        let Config { server, admin, source, proxy, .. } = &mut self.config;
        let restart_required = self.settings.iter().filter(|setting| requires_restart(setting));
        let is_other = |setting: &&Setting| {
            let name = (setting.section, setting.key);
            let before = started.iter().find(|before| (before.section, before.key) == name);
            before.is_none_or(|before| before.value != setting.value)
        };
        let name = |setting: &Setting| format!("{}.{}", setting.section, setting.key);
        let mut others: Vec<_> = restart_required.filter(is_other).map(name).collect();
        // What is in these files is not shown.
        for (key, before, now) in [
            ("source.password_file", &running.source.password, &source.password),
            (
                "source.sentinel_password_file",
                &running.source.sentinel_password,
                &source.sentinel_password,
            ),
        ] {
            if before != now && !others.iter().any(|other| other == key) {
                others.push(key.to_owned());
            }
        }
        server.listen.clone_from(&running.server.listen);
        server.workers = running.server.workers;
        admin.listen.clone_from(&running.admin.listen);
        proxy.protocol.clone_from(&running.proxy.protocol);
        let Source { read_count, block, linger, .. } = *source;
        *source = Source { read_count, block, linger, ..running.source.clone() };
        self.config.ring = running.ring.clone();
        self.config.log.format = running.log.format;
        others
    }
}

fn requires_restart(setting: &Setting) -> bool {
    KEYS.contains(&(setting.section, setting.key))
        || SECTIONS.contains(&setting.section) && !OF_READERS.contains(&setting.key)
}
