//! `ticketing schema`: what is fixed of HTTP and of events, as documents for programs.

use anyhow::Context;
use clap::Subcommand;
use contract::{
    asyncapi::{asyncapi, event_schema, event_types},
    openapi::openapi,
};
use ticketing::say;

/// Which document.
#[derive(Subcommand)]
pub(crate) enum Schema {
    /// Every HTTP route, as OpenAPI 3.1
    Openapi,
    /// Every event, as AsyncAPI 3.0
    Asyncapi,
    /// The payload of one type of events, as JSON Schema 2020-12
    Event {
        /// As in `order:created`
        #[arg(value_name = "TYPE")]
        event_type: String,
    },
}

impl Schema {
    /// Prints it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let document = match self {
            Schema::Openapi => serde_json::to_string_pretty(&openapi())?,
            Schema::Asyncapi => serde_json::to_string_pretty(&asyncapi())?,
            Schema::Event { event_type } => {
                let schema = event_schema(&event_type);
                let schema = schema.with_context(|| unknown(&event_type))?;
                serde_json::to_string_pretty(&schema)?
            }
        };
        say(&document);
        Ok(())
    }
}

fn unknown(event_type: &str) -> String {
    format!("there is no event {event_type:?}; there are {}", event_types().join(", "))
}
