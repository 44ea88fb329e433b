//! The real Stripe client against the sandbox, and what a test needs to see and to break.

mod authentication;
mod books;
mod faults;
mod payments;
mod reading;
mod refunds;
mod support;
mod webhooks;
