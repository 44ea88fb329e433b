#![doc = include_str!("../README.md")]
//!
//! # Map
//!
//! | module | what is there |
//! |---|---|
//! | `store` | [`Store`]: everything of a service's that hangs on the log, behind one handle |
//! | `nats` | [`Connection`]: heals itself |
//! | `event` | events on the wire: CloudEvents headers, flat JSON, trace context; [`Recorded`] |
//! | `log` | [`Log`]: the stream; the one place that appends |
//! | `turns` `publisher` | appends on their way: one a subject at a time; many together as one batch |
//! | `decider` | [`Decider`]: load, decide, append, and again after a conflict |
//! | `view` | [`Projection`], and [`View`]: its task, who waits for it, its watchdog |
//! | `rows` `writes` `database` | [`Table`], [`Rows`]: typed rows in sled, which may vanish at any time |
//! | `snapshots` | projections in an object store, for replicas to come |
//! | `reactor` `dead_letters` | [`react`]: others' events as commands of ours; what none could read |
//!
//! Absent on purpose: any business noun, HTTP, and a way to append without an expected sequence.
#![doc(test(attr(deny(warnings))))]

mod database;
mod dead_letters;
mod decider;
mod error;
mod event;
mod log;
mod nats;
mod publisher;
mod reactor;
mod rows;
mod snapshots;
mod store;
mod turns;
mod view;
mod writes;

pub use database::{Database, DatabaseError};
pub use dead_letters::DeadLetters;
pub use decider::{DecideError, Decided, Decider};
pub use error::Error;
pub use event::{Cause, DecodeError, EncodeError, Event, Recorded, TRACE_FIELD, data, decode};
pub use log::{AppendError, Appended, Log, OpenError, StreamConfig, StreamState, Unavailable};
pub use nats::{Auth, ConnectError, Connection, Settings};
pub use reactor::{Reaction, ReactorConfig, react};
pub use rows::{Head, Order, ReadError, Rows, Table};
pub use snapshots::SnapshotConfig;
pub use store::{Readiness, StartError, Store, StoreConfig};
pub use view::{Condition, Projection, View};
