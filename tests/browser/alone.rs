//! The pages alone, where the API is somewhere else, or nowhere. In this process: only packages with tests of their own
//! have their programs built by `cargo test`.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use web::Env;

/// The service `client`. Dropping it stops it.
pub(crate) struct ClientAlone {
    pub(crate) url: String,
    _runs: DropGuard,
}

impl ClientAlone {
    /// Starts one that asks the API at `api_url`.
    pub(crate) async fn start(api_url: &str) -> Self {
        let api_url = api_url.to_owned();
        let env = Env::from(move |name| (name == "API_URL").then(|| api_url.clone()));
        let config = client::Config::from_env(&env).unwrap();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(client::run(config, socket.into(), shutdown.clone()));
        Self { url, _runs: shutdown.drop_guard() }
    }

    /// Where nobody answers.
    pub(crate) async fn without_api() -> Self {
        Self::start("http://127.0.0.1:9").await
    }
}
