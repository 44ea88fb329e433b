//! Two small programs to try JetStream by hand:
//! ```text
//! cargo run -p nats-test --bin listener     # in two terminals: they share the work
//! cargo run -p nats-test --bin publisher -- --count 20
//! cargo run -p nats-test --bin listener -- --stream TICKETS
//! ```
//! They work on a stream of their own, [`STREAM`], so that trying them never puts a false ticket on sale.
//! `nats stream rm NATS_TEST` removes what they leave.
//!
//! What they print on standard output is the messages, one a line; all else goes to standard error.

use std::{env, fmt::Display, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow};
use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, stream},
};

/// The stream that both programs work on.
pub const STREAM: &str = "NATS_TEST";
/// All its subjects. None of the marketplace's begins like them.
pub const SUBJECTS: &str = "nats-test.tickets.*";
/// The durable that listeners share: each message goes to one of them.
pub const DURABLE: &str = "payments-service";

/// What the programs read from the environment, for their `--help`.
pub const VARIABLES: &str = "\
Environment:
  NATS_URL                    where NATS is [nats://127.0.0.1:4222]; the all-in-one prints where its own is
  NATS_USER, NATS_PASSWORD    who to be there
  NATS_CREDS                  the same, as the path of a credentials file";

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// Connects to the server that the environment names.
///
/// # Errors
/// When it does not answer, or does not let us in.
pub async fn connect(name: &str) -> Result<Client> {
    let set = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
    let url = set("NATS_URL").unwrap_or_else(|| DEFAULT_URL.into());
    let options = match (set("NATS_CREDS").map(PathBuf::from), set("NATS_USER")) {
        (Some(path), _) => ConnectOptions::with_credentials_file(&path)
            .await
            .with_context(|| format!("NATS_CREDS: {} cannot be read", path.display()))?,
        (None, Some(user)) => {
            ConnectOptions::with_user_and_password(user, set("NATS_PASSWORD").unwrap_or_default())
        }
        (None, None) => ConnectOptions::new(),
    };
    let servers: Vec<_> = url.split(',').map(str::trim).collect();
    options.name(name).connection_timeout(Duration::from_secs(3)).connect(servers.as_slice()).await.map_err(
        |error| anyhow!("no NATS server at {} lets us in: {error} (NATS_URL says where)", shown(&servers)),
    )
}

/// The programs' own stream, made if it is missing.
///
/// # Errors
/// When the server does not answer, or has no JetStream.
pub async fn own_stream(jetstream: &jetstream::Context) -> Result<stream::Stream> {
    let config =
        stream::Config { name: STREAM.into(), subjects: vec![SUBJECTS.into()], ..Default::default() };
    let stream = jetstream.get_or_create_stream(config).await;
    stream.map_err(|error| anyhow!("stream {STREAM} cannot be opened: {error}"))
}

/// Somebody else's stream.
///
/// # Errors
/// When there is none of that name, or the server does not answer.
pub async fn stream(jetstream: &jetstream::Context, name: &str) -> Result<stream::Stream> {
    use jetstream::{ErrorCode, context::GetStreamErrorKind};
    jetstream.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            anyhow!("there is no stream {name}")
        }
        _ => anyhow!("stream {name} cannot be opened: {error}"),
    })
}

/// How a program ends: an error is one line on standard error.
pub fn exit(program: &str, result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// The servers' addresses without the passwords that may be in them.
fn shown(servers: &[&str]) -> String {
    let host = |url: &&str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => (*url).to_owned(),
    };
    servers.iter().map(host).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown(&["nats://me:secret@there:4222", "here:1"]), "nats://there:4222, here:1");
        assert_eq!(shown(&["me:secret@there"]), "there");
    }
}
