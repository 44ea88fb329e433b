//! What asks the log and changes nothing: for `ticketing`, and for whoever puts it to the test.
//!
//! | room | what is there |
//! |---|---|
//! | [`audit`] | every stream read, and every promise proved or disproved |
//! | [`history`] | what happened to a ticket, an order or a user |
//! | `streams` | the streams, read by whoever may only look |

pub mod audit;
pub mod history;
mod streams;

use std::io::{self, Write};

/// Tells whoever started this: on stdout, apart from the log. In one write, so that who reads up to a line finds
/// the rest there too.
pub fn say(text: &str) {
    // Not `println!`: it panics when nobody reads any more, and that is no reason to stop.
    let _ = io::stdout().write_all(format!("{text}\n").as_bytes());
}
