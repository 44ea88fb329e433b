//! svc-tickets as a process of its own.

use anyhow::Context;
use svc_tickets::Config;
use web::{Env, Listener};

/// The C library's took a fifth of the time that an order takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let env = Env::process();
    let _telemetry = telemetry::init(web::telemetry_settings(&env, "svc-tickets")?);
    // Before anything counts: what is counted earlier is lost.
    web::metrics::handle();
    let config = Config::from_env(&env)?;
    let port = env.or("PORT", 3000_u16, "a port number from 1 to 65535")?;
    let listener = Listener::bind(port).with_context(|| format!("PORT {port} cannot be listened on"))?;
    Ok(svc_tickets::run(config, listener, web::shutdown_signal()).await?)
}
