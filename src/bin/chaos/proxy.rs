//! The way of one process to NATS, which can be cut, blocked, or open in one direction alone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All of it.
    Open,
    /// Nothing, and connections end.
    Cut,
    /// Nothing, and connections stay.
    Blocked,
    /// What is said to the server. Its answers are lost, and when that is over, the connections are, too.
    Deaf,
}

/// A listener on 127.0.0.1 that passes on what it gets.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts to listen, with the way open.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub(crate) async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (way, watched) = watch::channel(Way::Open);
        let serving = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(connection(client, server, watched.clone()))),
                    // Too many open files, for a while.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        Ok(Self { address, way, serving })
    }

    /// Where NATS seems to be.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(client: TcpStream, server: SocketAddr, way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (asks, hears) = client.into_split();
    let (answers, told) = server.into_split();
    // Whatever ends first ends the rest: dropped, both sockets are closed.
    tokio::select! {
        _ = pass(asks, told, way.clone(), Way::Cut) => {}
        _ = pass(answers, hears, way.clone(), Way::Deaf) => {}
        () = cut(way) => {}
    }
}

/// Passes on what comes, but what comes while the way is as in `lost`.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    lost: Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let now = way.wait_for(|way| *way != Way::Blocked).await.map(|way| *way);
        if now.map_err(io::Error::other)? != lost {
            to.write_all(&buffer[..length]).await?;
        }
    }
}

/// Until the connection has to end: at once, or after answers of it were lost.
async fn cut(mut way: watch::Receiver<Way>) {
    let is_bad = |way: &Way| matches!(way, Way::Cut | Way::Deaf);
    if way.wait_for(is_bad).await.is_ok_and(|way| *way == Way::Deaf) {
        let _ = way.wait_for(|way| *way != Way::Deaf).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A server that says everything again.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    /// How much comes back of a word, within `patience`.
    async fn answer(stream: &mut TcpStream, patience: Duration) -> Option<usize> {
        let _ = stream.write_all(b"word").await;
        let mut buffer = [0; 4];
        timeout(patience, stream.read(&mut buffer)).await.ok().map(|read| read.unwrap_or(0))
    }

    /// For what has to come.
    const ENOUGH: Duration = Duration::from_secs(10);

    /// For what must not: it would have come at once.
    const A_MOMENT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_way_is_open_blocked_deaf_and_cut() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(answer(&mut stream, ENOUGH).await, Some(4));

        proxy.set(Way::Blocked);
        assert_eq!(answer(&mut stream, A_MOMENT).await, None);
        proxy.set(Way::Open);
        let mut late = [0; 4];
        assert_eq!(stream.read(&mut late).await.unwrap(), 4, "what was held comes");

        proxy.set(Way::Deaf);
        assert_eq!(answer(&mut stream, A_MOMENT).await, None);
        proxy.set(Way::Open);
        assert_eq!(answer(&mut stream, ENOUGH).await, Some(0), "who missed something is cut off");

        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(answer(&mut stream, ENOUGH).await, Some(4));
        proxy.set(Way::Cut);
        assert_eq!(answer(&mut stream, ENOUGH).await, Some(0));
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(answer(&mut stream, ENOUGH).await, Some(0));
    }
}
