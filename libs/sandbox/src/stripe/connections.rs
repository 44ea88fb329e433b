//! Connections: accept, serve, cut.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;
use warp::{Filter, Rejection, Reply};

/// How long requests at work may take when the sandbox is shut down.
const DRAIN: Duration = Duration::from_secs(5);

/// The connection that a request came by, among the request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection(Arc<Notify>);

impl Connection {
    /// Resets it: the client sees an RST and no answer. The request's future is dropped here.
    pub(super) async fn reset(&self) -> Infallible {
        self.0.notify_one();
        pending().await
    }
}

/// Serves routes until the stop is sent or its sender dropped, then drains.
pub(super) async fn serve<F>(listener: TcpListener, routes: F, mut stop: oneshot::Receiver<()>)
where
    F: Filter<Extract: Reply + Send, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, routes.clone(), stopped.clone()));
            }
            Err(error) => {
                debug!(%error, "the sandbox cannot accept a connection");
                // Out of files: accepting at once again would only burn the processor.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let _ = stopping.send(true);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection<F>(stream: TcpStream, routes: F, mut stopped: watch::Receiver<bool>)
where
    F: Filter<Extract: Reply + Send, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    // Answers are small and whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let this = Connection::default();
    let cut = Arc::clone(&this.0);
    let routes = TowerToHyperService::new(warp::service(routes));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(this.clone());
        routes.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            // Clients leave as they like.
            _ = &mut connection => return,
            () = cut.notified() => {
                if let Err(error) = reset(connection.into_parts().io.into_inner()) {
                    debug!(%error, "a connection could not be reset");
                }
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

/// Closes without a farewell: what is unsent is thrown away, and the peer is sent an RST.
fn reset(stream: TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}
