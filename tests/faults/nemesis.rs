//! The faults, by name: what each needs, what it may do to clients, and how it is inflicted.

use std::time::{Duration, Instant};

use crate::history::Allowed;
use crate::scene::{Scene, Stage};

mod around;
mod ends;
mod process;
mod stream;
mod wire;

/// Everything is to be level this long after a fault.
const RECOVERY: Duration = Duration::from_secs(3);
/// After a connection fell silent, beyond `block`.
const SILENCE: Duration = Duration::from_secs(6);

/// Entries that small buffers and a small ring together do not hold.
const FAR_BEHIND: u64 = 300;

/// One fault.
pub struct Fault {
    pub name: &'static str,
    pub stage: Stage,
    pub allowed: Allowed,
    /// What it may do to the clients of other keys.
    pub beside: Allowed,
    /// What it may do to those that follow its key together with others.
    pub merged: Allowed,
    /// Inflicts it, and returns when it is over or, if it is a silence, has begun.
    pub inflict: fn(&mut Scene) -> Over,
}

/// When a fault was over, and how long everything may take from then on.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    pub at: Instant,
    pub limit: Duration,
}

impl Over {
    fn now() -> Self {
        Self { at: Instant::now(), limit: RECOVERY }
    }

    /// Nothing in Redis wakes a blocked read: it is noticed when `block` ends.
    fn unwoken(scene: &Scene) -> Self {
        Self { at: Instant::now(), limit: scene.block() + RECOVERY }
    }

    /// Nothing ends it but the gateway's own notice.
    fn silent_since(at: Instant, scene: &Scene) -> Self {
        Self { at, limit: scene.block() + SILENCE }
    }
}

/// Nothing is lost, and the clients stay.
const HARMLESS: Allowed = Allowed {
    reasons: &[],
    at_least: 0,
    closes: false,
    tears: false,
    redis_loses: false,
    ends: false,
};
/// Nothing is lost, but clients have to come back.
const CLOSES: Allowed = Allowed { closes: true, tears: true, ..HARMLESS };
/// The same, and each of them has whole events.
const CLOSES_GENTLY: Allowed = Allowed { tears: false, ..CLOSES };
/// A client with half of an entry that is gone now is cut, and comes back.
const TRIMS: Allowed = Allowed { reasons: &["trimmed"], tears: true, ..HARMLESS };
const TRIMS_AND_CLOSES: Allowed = Allowed { closes: true, ..TRIMS };
const DELETES: Allowed = Allowed { reasons: &["deleted", "trimmed"], tears: true, ..HARMLESS };
const DELETES_AND_CLOSES: Allowed = Allowed { closes: true, ..DELETES };
/// Sent even where nothing was lost; a client with half of an entry that is gone now is cut.
const RESETS: Allowed = Allowed { reasons: &["reset"], at_least: 1, tears: true, ..HARMLESS };
const RESETS_AGAIN_AND_AGAIN: Allowed = Allowed { at_least: 2, ..RESETS };
const RESETS_AND_CLOSES: Allowed = Allowed { closes: true, ..RESETS };

/// A reset where the new primary had not everything.
const FAILS_OVER: Allowed = Allowed { reasons: &["reset"], redis_loses: true, ..HARMLESS };

/// The stream ends: no connection ends but at its end, and nothing is lost.
const ENDS: Allowed = Allowed { ends: true, ..HARMLESS };
const ENDS_AND_CLOSES: Allowed = Allowed { ends: true, ..CLOSES };
/// The key goes as well: what a client lacks then is told, and its body is cut.
const GOES: Allowed = Allowed { reasons: &["reset"], tears: true, ..ENDS };
/// Who is away when it goes gets nothing but 204.
const GOES_AND_CLOSES: Allowed = Allowed { closes: true, ..GOES };

/// It concerns all keys.
const fn fault(
    name: &'static str,
    stage: Stage,
    allowed: Allowed,
    inflict: fn(&mut Scene) -> Over,
) -> Fault {
    let beside = Allowed { at_least: 0, ends: false, ..allowed };
    Fault { name, stage, allowed, beside, merged: allowed, inflict }
}

/// It concerns one key; clients of the others may at most lose their connections, where all do.
const fn of_key(
    name: &'static str,
    stage: Stage,
    allowed: Allowed,
    inflict: fn(&mut Scene) -> Over,
) -> Fault {
    let closes = allowed.closes && stage.has_client_side();
    let beside = Allowed { closes, tears: closes, ..HARMLESS };
    Fault { name, stage, allowed, beside, merged: allowed, inflict }
}

/// It takes so long that one stream's half of an event would hold up the others on its connection.
const fn tears_merged(fault: Fault) -> Fault {
    Fault { merged: Allowed { tears: true, ..fault.merged }, ..fault }
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    fault("redis-killed", Stage::Durable, HARMLESS, process::redis_killed),
    fault("redis-emptied", Stage::Plain, RESETS, process::redis_emptied),
    fault("redis-frozen", Stage::Plain, HARMLESS, process::redis_frozen),
    fault("redis-demoted", Stage::Plain, HARMLESS, process::redis_demoted),
    fault("redis-relieved", Stage::Replicated, HARMLESS, process::redis_relieved),
    fault("primary-killed", Stage::Watched, FAILS_OVER, process::primary_killed),
    fault("primary-replaced", Stage::Watched, FAILS_OVER, process::primary_replaced),
    fault("publish-killed", Stage::Durable, HARMLESS, process::redis_killed_amid_publishes),
    fault("publish-frozen", Stage::Durable, HARMLESS, process::redis_frozen_amid_publishes),
    fault("publish-replaced", Stage::Watched, FAILS_OVER, process::primary_replaced_amid_publishes),
    fault("connections-killed", Stage::Plain, HARMLESS, around::connections_killed),
    fault("clients-paused", Stage::Plain, HARMLESS, around::clients_paused),
    fault("right-withdrawn", Stage::Acl, CLOSES, around::right_withdrawn),
    fault("password-changed", Stage::Acl, HARMLESS, around::password_changed),
    of_key("key-deleted", Stage::Plain, RESETS_AGAIN_AND_AGAIN, stream::deleted),
    of_key("key-unlinked", Stage::Plain, RESETS_AGAIN_AND_AGAIN, stream::unlinked),
    fault("flushed", Stage::Plain, RESETS_AGAIN_AND_AGAIN, stream::flushed),
    of_key("ids-set-back", Stage::Plain, RESETS, stream::ids_set_back),
    of_key("trimmed-to-nothing", Stage::Plain, TRIMS, stream::trimmed_to_nothing),
    of_key("trimmed-past-reader", Stage::Plain, TRIMS, stream::trimmed_past_reader),
    of_key("burst-over-maxlen", Stage::Plain, TRIMS, stream::burst_over_maxlen),
    of_key("entries-deleted", Stage::Plain, DELETES, stream::entries_deleted),
    of_key("deleted-beside-heavy-looks", Stage::Plain, DELETES, stream::deleted_beside_heavy_looks),
    of_key("last-id-set", Stage::Plain, HARMLESS, stream::last_id_set),
    of_key("last-id-set-back", Stage::Plain, RESETS, stream::last_id_set_back),
    of_key("string-in-its-place", Stage::Plain, RESETS_AND_CLOSES, stream::string_in_its_place),
    of_key("string-and-back", Stage::Plain, CLOSES, stream::string_and_back),
    of_key(
        "trimmed-behind-clients",
        Stage::GatewayBehindProxy,
        TRIMS_AND_CLOSES,
        stream::trimmed_behind_clients,
    ),
    of_key(
        "deleted-behind-clients",
        Stage::GatewayBehindProxy,
        DELETES_AND_CLOSES,
        stream::deleted_behind_clients,
    ),
    of_key(
        "reset-behind-clients",
        Stage::GatewayBehindProxy,
        RESETS_AND_CLOSES,
        stream::reset_behind_clients,
    ),
    fault("redis-side-slow", Stage::RedisBehindProxy, HARMLESS, wire::redis_slow),
    fault("redis-side-stalled", Stage::RedisBehindProxy, HARMLESS, wire::redis_stalled),
    fault("redis-side-silent", Stage::RedisBehindProxy, HARMLESS, wire::redis_silent),
    fault("redis-side-deaf", Stage::RedisBehindProxy, HARMLESS, wire::redis_deaf),
    fault("redis-side-halved", Stage::RedisBehindProxy, HARMLESS, wire::redis_halved),
    fault(
        "redis-side-silent-to-returners",
        Stage::BothBehindProxies,
        CLOSES,
        wire::redis_silent_to_returners,
    ),
    tears_merged(fault(
        "redis-away-from-followers",
        Stage::BothBehindProxies,
        HARMLESS,
        wire::redis_away_from_followers,
    )),
    fault("redis-side-truncated", Stage::RedisBehindProxy, HARMLESS, wire::redis_truncated),
    fault("redis-side-reset", Stage::RedisBehindProxy, HARMLESS, wire::redis_reset),
    fault("client-side-slow", Stage::GatewayBehindProxy, HARMLESS, wire::client_slow),
    fault("client-side-stalled", Stage::GatewayBehindProxy, HARMLESS, wire::client_stalled),
    fault("stalled-clients-cut", Stage::CutsStalled, CLOSES, wire::slow_clients_cut),
    fault("late-clients-cut", Stage::CutsLate, CLOSES, wire::slow_clients_cut),
    fault("client-side-halved", Stage::GatewayBehindProxy, CLOSES, wire::client_halved),
    fault("client-side-truncated", Stage::GatewayBehindProxy, CLOSES, wire::client_truncated),
    fault("client-side-reset", Stage::GatewayBehindProxy, CLOSES, wire::client_reset),
    fault("clock-ahead", Stage::OwnClock, HARMLESS, process::clock_ahead),
    fault("clock-back", Stage::OwnClock, HARMLESS, process::clock_back),
    fault("descriptors-exhausted", Stage::Plain, HARMLESS, process::descriptors_exhausted),
    fault("crowded-out", Stage::FewDescriptors, HARMLESS, process::crowded_out),
    fault("gateway-killed", Stage::Plain, CLOSES, process::gateway_killed),
    fault("gateway-terminated", Stage::Plain, CLOSES_GENTLY, process::gateway_terminated),
    fault(
        "gateway-terminated-amid-events",
        Stage::GatewayBehindProxy,
        CLOSES_GENTLY,
        process::gateway_terminated_amid_events,
    ),
    fault("end-gateway-killed", Stage::Plain, ENDS_AND_CLOSES, ends::gateway_killed),
    fault(
        "end-gateway-killed-amid-events",
        Stage::GatewayBehindProxy,
        ENDS_AND_CLOSES,
        ends::gateway_killed_amid_events,
    ),
    fault("end-redis-killed", Stage::Durable, ENDS, ends::redis_killed),
    fault("end-redis-emptied", Stage::Plain, GOES, ends::redis_emptied),
    of_key("end-key-gone-at-once", Stage::Plain, GOES, ends::key_gone_at_once),
    of_key(
        "end-key-gone-behind-clients",
        Stage::GatewayBehindProxy,
        GOES,
        ends::key_gone_behind_clients,
    ),
    of_key(
        "end-key-gone-without-clients",
        Stage::GatewayBehindProxy,
        GOES_AND_CLOSES,
        ends::key_gone_without_clients,
    ),
];
