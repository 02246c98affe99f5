//! What the router has decided about a stream.

use std::sync::Arc;

use hyper::HeaderMap;

use crate::auth::TokenEnd;
use crate::auth::grant::{ClaimedRows, Credential};
use crate::config::StateQuery;
use crate::sse::{Selection, StreamId};
use crate::stream::start::Start;

/// A stream that a client asks for and may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Index of its route in the configuration.
    pub route: usize,
    /// The stream key; of a merged stream all of them.
    pub key: String,
    /// What is merged, where several streams are.
    pub merged: Option<Box<MergedPlan>>,
    /// The state that the client gets first, where its route gives one.
    pub state: Option<Arc<StateQuery>>,
    /// The entries that the client gets; `None`: all.
    pub selection: Option<Arc<Selection>>,
    /// Where it begins; each part of a merged stream has its own.
    pub start: Start,
    /// Whether the body is sent in chunks, as HTTP/1.1 does.
    pub framed: bool,
    /// Whether a body that is left incomplete tells that its stream is not over.
    pub cuts: bool,
    /// Headers of its response, besides those that every stream has; its refusal has them, too.
    pub headers: HeaderMap,
    /// Headers that its route gives the response of a stream, and no other.
    pub stream_headers: Arc<HeaderMap>,
    /// The principal that its token names.
    pub principal: Option<Arc<str>>,
    /// When its token ends, where it has one.
    pub token: Option<TokenEnd>,
    /// The token itself.
    pub credential: Option<Credential>,
    /// Which entries the token opens, where its route asks.
    pub claimed: Option<Arc<ClaimedRows>>,
    /// Why it cannot be served now, if that is known already.
    pub unavailable: Option<&'static str>,
}

/// The parts of a merged stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedPlan {
    /// Each of them, in the order of the composite id.
    pub parts: Vec<PartPlan>,
    /// Positions of the client in streams that are no parts.
    pub strangers: Vec<(String, StreamId)>,
    /// The query that names the parts, where the client chose them.
    pub chosen: Option<String>,
}

/// One part of a merged stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartPlan {
    /// What the client calls it.
    pub name: Arc<str>,
    /// Its stream key.
    pub key: String,
    /// Where it begins.
    pub start: Start,
}
