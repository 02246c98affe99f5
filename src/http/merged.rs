//! A stream that is merged of several: admitted once, or refused as a whole.

use super::admission::{StreamRequest, number_of};
use super::plan::MergedPlan;
use crate::fanout::{Admitted, CatchUp, MergedPart, MergedStream, Subscriber, WireFormat};
use crate::state::State;
use crate::stream::Lease;
use crate::stream::start::Start;

/// The client with its only permit, and the topic of each part; or the reason of the refusal.
pub(super) fn admit(
    state: &State,
    stream: &StreamRequest,
    merged: &MergedPlan,
) -> Result<(Admitted, Vec<Lease>), &'static str> {
    let permit = stream.permit(state)?;
    let leases = merged.parts.iter().map(|part| stream.lease(state, &part.key));
    let leases = leases.collect::<Result<_, _>>()?;
    Ok((stream.admitted(state, permit), leases))
}

/// The stream, after the `head` of its response.
pub(super) fn begin(
    state: &State,
    stream: &StreamRequest,
    merged: &MergedPlan,
    admitted: Admitted,
    leases: Vec<Lease>,
    starts: &[Start],
    head: Vec<u8>,
) -> MergedStream {
    stream.count_opened(state, stream.plan.start);
    let (format, route) = (stream.format(0), stream.route());
    let parts = merged.parts.iter().zip(leases).zip(starts).map(|((part, lease), start)| {
        let subscriber = subscriber(stream, &admitted, &part.name, lease);
        let machine = CatchUp::begin(&subscriber, route.replay, *start, Vec::new());
        MergedPart { name: part.name.clone(), subscriber, machine }
    });
    let parts = parts.collect();
    let mut opening = head;
    format.append_event(&stream.opening(), &mut opening);
    MergedStream {
        admitted,
        format,
        route: stream.route_number(),
        rules: route.rules.clone(),
        parts,
        strangers: merged.strangers.clone(),
        opening,
    }
}

/// A part's subscriber.
fn subscriber(
    stream: &StreamRequest,
    admitted: &Admitted,
    name: &str,
    mut lease: Lease,
) -> Subscriber {
    let route = stream.route();
    let rendering = lease.render(&route.part_rendering(name, lease.selection().is_some()));
    let format = stream.format(number_of(rendering));
    let rules = route.part_rules.clone();
    Subscriber {
        lease,
        admitted: admitted.for_part(),
        // The composer frames its events.
        format: WireFormat { controls: rules.controls(), framed: false, ..format },
        route: stream.route_number(),
        rules,
        state: None,
    }
}
