//! A connection that can be made to fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Between a client and the server: can let the server's words get lost, and cut the connection.
pub(crate) struct Proxy {
    pub(crate) url: String,
    pub(crate) deaf: Arc<AtomicBool>,
    cut: tokio::sync::watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let deaf = Arc::new(AtomicBool::new(false));
        let cut = tokio::sync::watch::Sender::new(0);
        let (lost, cuts) = (deaf.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (lost, mut cut) = (lost.clone(), cuts.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(client, server, lost) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { url, deaf, cut }
    }

    pub(crate) fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }
}

async fn forward(client: TcpStream, server: TcpStream, lost: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if !lost.load(Ordering::SeqCst) {
                to_client.write_all(&buffer[..read]).await?;
            }
        }
    };
    let _: Result<((), ()), std::io::Error> = tokio::try_join!(up, down);
}
