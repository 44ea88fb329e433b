//! The crowd: many connections, each of which asks one thing after the other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection that stays open, as lean as a library makes it: what the crowd costs, the services lack.
pub(crate) struct Caller {
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Caller {
    pub(crate) async fn connect(address: &str) -> Self {
        Self { address: address.to_owned(), sender: open(address).await }
    }

    /// Asks, as whoever has the session `token`.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<String>,
    ) -> (StatusCode, Bytes) {
        // Servers close what has been idle for a while.
        if self.sender.ready().await.is_err() {
            self.sender = open(&self.address).await;
        }
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.address);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default())).unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }
}

async fn open(address: &str) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One answer: when it came, counted from the start, and how long it took.
#[derive(Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
}

/// What came of letting a crowd loose.
pub(crate) struct Run<T> {
    pub(crate) answers: Vec<Answered>,
    pub(crate) results: Vec<T>,
    pub(crate) lasted: Duration,
}

impl<T> Run<T> {
    pub(crate) fn per_second(&self) -> f64 {
        self.answers.len() as f64 / self.lasted.as_secs_f64()
    }

    /// How many answers a second came between those two shares of all of them.
    pub(crate) fn per_second_between(&self, from: f64, to: f64) -> f64 {
        let mut times: Vec<_> = self.answers.iter().map(|answer| answer.at).collect();
        times.sort();
        let place = |share: f64| ((times.len() - 1) as f64 * share) as usize;
        let (from, to) = (place(from), place(to));
        (to - from) as f64 / (times[to] - times[from]).as_secs_f64()
    }

    /// How long the slowest of that share took, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut times: Vec<_> = self.answers.iter().map(|answer| answer.took).collect();
        times.sort();
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0
    }
}

/// Deals `tasks` out to `width` workers, each of whom does one after the other; `worker` makes what each works with.
pub(crate) async fn crowd<C, K, T, W, D>(
    width: usize,
    tasks: Vec<K>,
    worker: impl AsyncFn() -> C,
    work: W,
) -> Run<T>
where
    C: Send + 'static,
    K: Send + 'static,
    T: Send + 'static,
    W: Fn(C, K) -> D + Clone + Send + 'static,
    D: Future<Output = (C, T)> + Send,
{
    let width = width.min(tasks.len());
    let mut hands: Vec<Vec<K>> = (0..width).map(|_| Vec::new()).collect();
    for (number, task) in tasks.into_iter().enumerate() {
        hands[number % width].push(task);
    }
    let mut ready = Vec::new();
    for hand in hands {
        ready.push((worker().await, hand));
    }
    let started = Instant::now();
    let workers = ready.into_iter().map(|(mut state, hand)| {
        let work = work.clone();
        tokio::spawn(async move {
            let (mut answers, mut results) = (Vec::with_capacity(hand.len()), Vec::with_capacity(hand.len()));
            for task in hand {
                let asked = Instant::now();
                let (after, result) = work(state, task).await;
                state = after;
                answers.push(Answered { at: started.elapsed(), took: asked.elapsed() });
                results.push(result);
            }
            (answers, results)
        })
    });
    let (answers, results): (Vec<_>, Vec<_>) =
        join_all(workers).await.into_iter().map(Result::unwrap).unzip();
    let lasted = started.elapsed();
    Run { answers: answers.concat(), results: results.into_iter().flatten().collect(), lasted }
}
