//! What agent and collector say to each other: the generated wire types and the
//! values that they stand for.
//!
//! `wire` may hold anything a peer sends. Every value in `model` is made from it by
//! a `TryFrom` that stands in the same file, checks each limit and names the field
//! that broke it. Only this crate, the agent's uplink and the collector's listeners
//! name wire types.

#[doc(hidden)]
pub mod codec;
pub mod model;
#[doc(hidden)]
pub mod parsers;
pub mod wire;
