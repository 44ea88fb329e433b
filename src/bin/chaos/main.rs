//! Chaos: two processes of each service, their log and their Stripe, hurt again and again while people buy and sell; in the end
//! the audit, Stripe's ledger and a note of everything that was promised have to agree.
//!
//! | room | what is there |
//! |---|---|
//! | `main` | the command line, and a run from its beginning to its end |
//! | [`schedule`] | what goes wrong, when and where, made of a seed |
//! | [`faults`] | how it goes wrong |
//! | [`cast`] [`replica`] [`service`] | who is hurt: everybody, one process, what such a process runs |
//! | [`proxy`] [`disk`] [`clock`] | a way, a disk and a clock that can be bad |
//! | [`load`] | buyers and sellers |
//! | [`notes`] | what they were promised |
//! | [`log`] [`judge`] [`replicas`] | whether it is so: by the log, by Stripe, by whomever one asks |
//! | [`report`] | how it is told |

mod cast;
mod clock;
mod disk;
mod faults;
mod judge;
mod load;
mod log;
mod notes;
mod proxy;
mod replica;
mod replicas;
mod report;
mod run;
mod schedule;
mod service;

use std::{process::ExitCode, sync::LazyLock, time::Instant};

use clap::{Parser, Subcommand};
use ticketing::{audit::Audit, say};
use web::Env;

use crate::{run::Run, service::Service};

/// Hurts a whole marketplace under load, by a schedule that a seed makes, and judges what is left.
#[derive(Parser)]
#[command(
    name = "chaos",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Ends with 0 when the audit, the ledger and all notes agree, with 1 when they do not, and with 2 when it cannot be told."
)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One service, as chaos itself starts it
    #[command(hide = true)]
    Service {
        /// Which
        service: Service,
    },
    /// The audit, as chaos itself starts it: of the same build, whatever else was built
    #[command(hide = true)]
    Audit(Audit),
}

/// What a run ends with that came to no verdict: 1 is one.
const UNTOLD: u8 = 2;

/// As the services have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

#[tokio::main]
async fn main() -> ExitCode {
    LazyLock::force(&STARTED);
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Service { service }) => service.run().await.map(|()| ExitCode::SUCCESS),
        Some(Command::Audit(audit)) => audit.run(&Env::process()).await,
        None => cli.run.run().await,
    };
    done.unwrap_or_else(|error| {
        // Not by returning it: that prints what is for debuggers.
        eprintln!("error: {error:#}");
        ExitCode::from(UNTOLD)
    })
}

/// Tells on stdout what happens, and when.
fn tell(text: &str) {
    say(&format!("{:7.1} s  {text}", STARTED.elapsed().as_secs_f64()));
}
