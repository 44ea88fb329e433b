//! Stand-ins for the outside world, that `cargo run` and every test start for themselves.
//!
//! - [`nats`]: a real nats-server as a child process, found on this machine or fetched.
//! - [`stripe`]: an HTTP server that answers as Stripe does in test mode, and fails as told.

pub mod nats;
pub mod stripe;
