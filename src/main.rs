//! The whole ticket marketplace in one process.
//!
//! | room | what is there |
//! |---|---|
//! | `main` | the command line |
//! | [`all_in_one`] | constructs and spawns: the five services behind one socket, and the stand-ins around them |
//! | [`own_nats`] | the nats-server of this process, started again when it dies |
//! | [`settings`] | what the environment says, and what is computed where it says nothing |
//! | [`secrets`] | keys that nobody set: made once, kept |
//! | [`variables`] | every variable that is read anywhere, for `--help` |

mod all_in_one;
mod own_nats;
mod secrets;
mod settings;
mod variables;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use telemetry::LogFormat;
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or_default();
    match execute(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by returning it: that prints what is for debuggers.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<()> {
    let env = Env::process();
    let log_format = env.or("LOG_FORMAT", LogFormat::Pretty, "pretty or json")?;
    let _telemetry = telemetry::init(telemetry::Settings { service: "ticketing".into(), log_format });
    match command {
        Command::Run => all_in_one::run(&env, web::shutdown_signal()).await,
    }
}
