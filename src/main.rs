//! The whole ticket marketplace in one process.
//!
//! | room | what is there |
//! |---|---|
//! | `main` | the command line |
//! | [`all_in_one`] | constructs and spawns: the five services behind one socket, and the stand-ins around them |
//! | [`jwt_keys`] | a key pair for sessions |
//! | [`nats_keys`] [`nats_users`] | a key for each who talks to NATS, and what each may do there |
//! | [`own_nats`] | the nats-server of this process, started again when it dies |
//! | [`settings`] | what the environment says, and what is computed where it says nothing |
//! | [`schema`] | HTTP and events as documents for programs |
//! | [`secrets`] | keys that nobody set: made once, kept |
//! | [`stand_alone`] | a stand-in by itself |
//! | [`variables`] | every variable that is read anywhere, for `--help` |
//!
//! What only asks the log, the audit and the history, is in `lib.rs`.

mod all_in_one;
mod jwt_keys;
mod nats_keys;
mod nats_users;
mod own_nats;
mod schema;
mod secrets;
mod settings;
mod stand_alone;
mod variables;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ticketing::{audit, history, say};
use web::Env;

/// The whole ticket marketplace in one process: five services, their log, and a sandbox for what is outside.
#[derive(Parser)]
#[command(name = "ticketing", version, after_help = variables::help())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Default, Subcommand)]
enum Command {
    /// Runs everything until Ctrl-C; this is what happens without a subcommand
    #[default]
    Run,
    /// Runs a stand-in for something outside by itself, until Ctrl-C
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Makes a key for each service, for people and for the server, the configuration that tells the server what each
    /// may do, and its certificate
    NatsKeys(nats_keys::NatsKeys),
    /// Makes a key pair for sessions: one half for svc-auth alone, the other for whoever checks them
    JwtKeys,
    /// Reads every stream and proves or disproves what the marketplace promises; exits with 1 when something is wrong
    Audit(audit::Audit),
    /// Tells what happened to a ticket, an order or a user, and how it stood then
    History(history::History),
    /// Prints what is fixed of HTTP and of events, as a document for programs
    #[command(subcommand)]
    Schema(schema::Schema),
}

/// What a question ends with that could not be answered: 1 is an answer.
const UNTOLD: u8 = 2;

impl Command {
    /// Whether it only asks something.
    fn asks(&self) -> bool {
        matches!(self, Command::Audit(_) | Command::History(_) | Command::Schema(_))
    }
}

#[derive(Subcommand)]
enum Sandbox {
    /// A small Stripe on 127.0.0.1, which never charges a card
    Stripe(stand_alone::Stripe),
}

/// The C library's took a fifth of the time that an order takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or_default();
    let failure = if command.asks() { ExitCode::from(UNTOLD) } else { ExitCode::FAILURE };
    execute(command).await.unwrap_or_else(|error| {
        // Not by returning it: that prints what is for debuggers.
        eprintln!("error: {error:#}");
        failure
    })
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let env = Env::process();
    // Whoever asks a question wants the answer; what is logged on the way, only if they say so.
    let logs = !command.asks() || env.optional::<String>("RUST_LOG", "what is logged")?.is_some();
    let settings = web::telemetry_settings(&env, "ticketing")?;
    let _telemetry = logs.then(|| telemetry::init(settings));
    match command {
        Command::Run => all_in_one::run(&env, web::shutdown_signal()).await?,
        Command::JwtKeys => jwt_keys::run()?,
        Command::NatsKeys(keys) => keys.run()?,
        Command::Schema(schema) => schema.run()?,
        Command::Sandbox(Sandbox::Stripe(stripe)) => stripe.run(web::shutdown_signal()).await?,
        Command::Audit(audit) => return audit.run(&env).await,
        Command::History(history) => return history.run(&env).await,
    }
    Ok(ExitCode::SUCCESS)
}
