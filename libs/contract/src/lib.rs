//! What crosses a process boundary: ids, money, times, events, streams and HTTP bodies.
//!
//! Everything here is read by another process, or by this one years later. So a field is added, never
//! renamed, removed or given another meaning; a change that cannot be made so gets a new schema version of
//! its event (see [`event`]) and keeps the old one readable.
//!
//! | module | what it fixes |
//! |---|---|
//! | [`id`] | the ids: UUIDs that cannot be mixed up |
//! | [`money`] | [`Cents`]: integer cents inside, a JSON number of dollars outside |
//! | [`timestamp`] | [`Timestamp`]: RFC 3339, UTC, milliseconds |
//! | [`stream`] | the streams, their subjects, and the durables that listen to them |
//! | [`event`] | the events of each stream |
//! | [`http`] | the bodies that HTTP answers carry, and requests |
//! | [`openapi`] | every HTTP route, as a document for programs |
//! | [`asyncapi`] | every event, likewise |
//!
//! Absent on purpose: async code, IO, and any other crate of this workspace.

pub mod asyncapi;
pub mod event;
pub mod http;
pub mod id;
pub mod money;
pub mod openapi;
mod schema;
pub mod stream;
pub mod timestamp;

pub use event::{ExpirationEvent, OrderEvent, PaymentEvent, TicketEvent, UserEvent};
pub use id::{OrderId, PaymentId, TicketId, UserId};
pub use money::Cents;
pub use timestamp::Timestamp;
