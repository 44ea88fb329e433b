//! Connections: accept, serve, drain.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use warp::{Filter, Rejection, Reply};

use crate::{
    Health,
    front::Mount,
    metrics,
    service::{Handler, Life, handler},
};

/// How long a client may take to send a request's head; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 32 * 1024;

/// How long a client may take to make room for more of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many connections there are at most; more wait to be accepted. An idle one takes some ten kibibytes.
const MOST_CONNECTIONS: usize = 16_384;
/// How many files a process keeps open beside its connections: its rows, its log, a few of whoever it asks.
const OTHER_FILES: u64 = 256;

/// How many connections may wait to be accepted, as far as the kernel lets them (`net.core.somaxconn`). Those of a rush come
/// faster than a process that is busy accepts them, and whoever finds the queue full is forgotten.
const BACKLOG: u32 = 4_096;

/// How long running requests may take after the shutdown: with what else there is to close, the process shall
/// end within ten seconds.
pub(crate) const GRACE: Duration = Duration::from_secs(8);

/// Where a service is reached: a socket of its own, or a place on a [`Front`](crate::Front).
#[derive(Debug)]
pub struct Listener(Place);

#[derive(Debug)]
enum Place {
    Socket(TcpListener),
    Mount(Mount),
}

impl Listener {
    /// A socket of its own, as [`listen`] makes it.
    ///
    /// # Errors
    /// When the port is taken, or not to be had.
    pub fn bind(port: u16) -> io::Result<Self> {
        listen(port).map(Self::from)
    }

    /// The address of its own socket; `None` on a front.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Place::Socket(tcp) => tcp.local_addr().ok(),
            Place::Mount(_) => None,
        }
    }
}

/// A socket on all IPv4 addresses of this machine, with a queue that a rush fits in; port 0 is a free one.
///
/// # Errors
/// When the port is taken, or not to be had.
///
/// # Panics
/// Outside a runtime, as tokio's sockets do.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Else a restart waits for the last connections of before.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self(Place::Socket(tcp))
    }
}

impl From<Mount> for Listener {
    fn from(mount: Mount) -> Self {
        Self(Place::Mount(mount))
    }
}

/// Serves routes at a listener until the shutdown, with `/healthz`, `/readyz` and `/metrics` (on a front, those
/// of the front). Returns when no request runs any more, or after eight seconds.
///
/// Around each request: a span that continues the caller's trace, one line in the log, metrics, `x-trace-id`; a
/// panic is a 500; an undecided route is the contract's 404 or 405; a change asked for by a page of another origin
/// is 401; an address of over 8 KiB is 414, and an answer that takes over half a minute 503. Until `health` was ready once, and while it is broken, every route answers 503.
///
/// # Errors
/// When the socket does not listen. That accepting fails for a while, as when there are too many open files, is
/// no error.
pub async fn serve<F>(
    listener: Listener,
    health: Health,
    routes: F,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    F: Filter<Extract: Reply + Send, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    metrics::handle();
    let life = Life::until(shutdown.clone());
    match listener.0 {
        Place::Socket(tcp) => accept(tcp, handler(routes, health, life), shutdown).await,
        Place::Mount(mount) => {
            let life = Life { service: Some(mount.name()), ..life };
            mount.open(handler(routes, health.clone(), life.clone()), health);
            shutdown.cancelled().await;
            mount.close();
            life.running.close();
            if timeout(GRACE, life.running.wait()).await.is_err() {
                tracing::warn!(requests = life.running.len(), "requests cut off at shutdown");
            }
            Ok(())
        }
    }
}

/// How many connections this process can have: what it may open, up to [`MOST_CONNECTIONS`].
fn most_connections() -> usize {
    // A shell's usual 1,024 would be gone in a rush, and then what is asked of the log fails, too.
    let files = rlimit::increase_nofile_limit(MOST_CONNECTIONS as u64 + OTHER_FILES).unwrap_or(1_024);
    let most = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(MOST_CONNECTIONS);
    most.clamp(64, MOST_CONNECTIONS)
}

/// Serves every connection of a socket by one handler, then drains.
pub(crate) async fn accept(
    tcp: TcpListener,
    handler: Handler,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let room = Semaphore::new(most_connections());
    loop {
        // Whoever is not accepted waits in the kernel's queue, until somebody leaves or is idle for too long.
        let accepted = tokio::select! {
            accepted = accept_one(&tcp, &room) => accepted,
            Some(_) = connections.join_next() => {
                room.add_permits(1);
                continue;
            }
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, Peer(peer), handler.clone(), shutdown.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // Out of files or memory: accepting at once again would only burn the processor.
                tracing::error!(%error, "cannot accept connections");
                tokio::select! { () = sleep(Duration::from_secs(1)) => {}, () = shutdown.cancelled() => {} }
            }
        }
    }
    // Refuses new connections while the old ones end.
    drop(tcp);
    let drained = timeout(GRACE, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections cut off at shutdown");
    }
    Ok(())
}

/// Takes a place, which whoever joins the connection's task gives back.
async fn accept_one(tcp: &TcpListener, room: &Semaphore) -> io::Result<(TcpStream, SocketAddr)> {
    let place = room.acquire().await.map_err(io::Error::other)?;
    let accepted = tcp.accept().await?;
    place.forget();
    Ok(accepted)
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn connection(stream: TcpStream, peer: Peer, handler: Handler, shutdown: CancellationToken) {
    // Answers are small and whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(MAX_HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave as they like.
        tracing::debug!(%error, "connection ended");
    }
}

/// The other end of the connection: behind a proxy, the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Extracts the other end of the connection. Takes every request that came through [`serve`].
pub fn peer() -> impl Filter<Extract = (Peer,), Error = Rejection> + Copy + Send + Sync + 'static {
    warp::ext::get::<Peer>()
}
