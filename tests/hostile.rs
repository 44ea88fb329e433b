//! Clients that mean harm, or are broken: the all-in-one keeps its memory, and serves the others.

mod support;
mod whole;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, Notify},
    task::JoinHandle,
    time::{sleep, timeout},
};
use whole::Whole;

/// How long an honest client may wait while others do harm. On a machine where nothing else is, milliseconds.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// One at a time: each measures memory and waiting, and they would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Target {
    whole: Whole,
    _directory: TempDir,
}

impl Target {
    async fn start(variables: &[(&str, &str)]) -> Self {
        // What this process opens itself.
        rlimit::increase_nofile_limit(20_000).unwrap();
        let directory = TempDir::new().unwrap();
        let whole = Whole::start(directory.path(), &[&[("RUST_LOG", "warn")], variables].concat()).await;
        Self { whole, _directory: directory }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.whole.url.trim_start_matches("http://")).await.unwrap()
    }

    /// How many files its process has open, connections among them.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.whole.id())).unwrap().count()
    }

    /// What its process has in memory, in megabytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.whole.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() / 1024
    }

    /// Somebody honest, who asks again and again until told to stop; then how long they waited at most.
    fn honest(&self) -> Honest {
        let (stop, url) = (Arc::new(Notify::new()), format!("{}/api/tickets", self.whole.url));
        let stopped = stop.clone();
        let asking = tokio::spawn(async move {
            let http = Client::builder().timeout(SERVED_WITHIN).build().unwrap();
            let (mut worst, mut asked) = (Duration::ZERO, 0);
            let all = async {
                loop {
                    let started = Instant::now();
                    let answer = http.get(&url).send().await.expect("an answer in time");
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.bytes().await.expect("all of it");
                    worst = worst.max(started.elapsed());
                    asked += 1;
                    sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! { () = all => {}, () = stopped.notified() => {} }
            assert!(asked > 0);
            worst
        });
        Honest { stop, asking }
    }
}

struct Honest {
    stop: Arc<Notify>,
    asking: JoinHandle<Duration>,
}

impl Honest {
    async fn was_served(self, while_others: &str) {
        self.stop.notify_one();
        let worst = self.asking.await.expect("served all the time");
        eprintln!("{while_others}: others waited {worst:?} at most");
    }
}

/// What comes until the connection ends.
async fn rest(mut connection: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = connection.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The status that the answer begins with.
fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_byte_a_second_is_cut_off() {
    let _alone = ALONE.lock().await;
    let target = Target::start(&[]).await;
    let honest = target.honest();
    let heads = (0..300).map(async |_| {
        let mut connection = target.connect().await;
        let started = Instant::now();
        for byte in "GET /api/tickets HTTP/1.1\r\nhost: x\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
            if connection.write_all(&[byte]).await.is_err() {
                return started.elapsed();
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("nobody minds");
    });
    let bodies = (0..100).map(async |_| {
        let mut connection = target.connect().await;
        let head = "POST /api/users/signin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = connection.into_split();
        let dripping = tokio::spawn(async move { while writing.write_all(b" ").await.is_ok() { sleep(Duration::from_secs(1)).await } });
        let mut answer = vec![0; 64];
        let read = timeout(Duration::from_secs(20), reading.read(&mut answer)).await.expect("an answer").unwrap();
        dripping.abort();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    let (cut, answers) = tokio::join!(join_all(heads), join_all(bodies));
    let latest = cut.into_iter().max().unwrap();
    // Ten seconds for a head, and one until the next byte is refused.
    assert!(latest < Duration::from_secs(20), "{latest:?}");
    assert!(answers.iter().all(|answer| status(answer) == "408"), "{answers:?}");
    honest.was_served("400 slow clients").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_end() {
    let _alone = ALONE.lock().await;
    let target = Target::start(&[]).await;
    let before = target.memory();
    let honest = target.honest();
    let (files, mut connections) = (target.files(), Vec::new());
    let connecting = async {
        while connections.len() < 10_000 {
            connections.extend(join_all((0..500).map(|_| target.connect())).await);
            // To connect is to stand in the kernel's queue, which would forget those that do not fit.
            while target.files() < files + connections.len() - 20 {
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    // Before the first ones end.
    timeout(Duration::from_secs(9), connecting).await.expect("all of them at once");
    let grown = target.memory().saturating_sub(before);
    eprintln!("10,000 idle connections: {grown} MB");
    assert!(grown < 400, "{grown} MB");
    let started = Instant::now();
    let ended = join_all(connections.into_iter().map(rest));
    let texts = timeout(Duration::from_secs(40), ended).await.expect("they end");
    eprintln!("all ended {:?} after", started.elapsed());
    assert!(texts.iter().all(String::is_empty));
    honest.was_served("10,000 idle connections").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_end_are_not_read() {
    let _alone = ALONE.lock().await;
    let target = Target::start(&[]).await;
    let before = target.memory();
    let honest = target.honest();
    let send = async |head: &str, chunk: &[u8]| {
        let connection = target.connect().await;
        let (mut reading, mut writing) = connection.into_split();
        let head = format!(
            "POST /api/users/signin HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{head}\r\n\r\n"
        );
        let chunk = chunk.to_vec();
        let writing = tokio::spawn(async move {
            let mut sent = 0;
            writing.write_all(head.as_bytes()).await.unwrap();
            while sent < 100 << 20 && writing.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(30), reading.read_to_end(&mut answer)).await.expect("it ends");
        (String::from_utf8_lossy(&answer).into_owned(), writing.await.unwrap())
    };
    let announced = (0..20).map(|_| send("content-length: 104857600", &[b' '; 65_536]));
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 65_536], b"\r\n"].concat();
    let chunked = (0..20).map(|_| send("transfer-encoding: chunked", &chunk));
    let (announced, chunked) = tokio::join!(join_all(announced), join_all(chunked));
    let grown = target.memory().saturating_sub(before);
    for (answer, sent) in announced.into_iter().chain(chunked) {
        assert_eq!(status(&answer), "413", "{answer}");
        // What fits into the buffers on the way, beside the megabyte that is read so that the answer arrives.
        assert!(sent < 40 << 20, "{sent} bytes of it were taken");
    }
    eprintln!("40 bodies of 100 MB: {grown} MB");
    assert!(grown < 100, "{grown} MB");
    honest.was_served("40 bodies of 100 MB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_are_refused() {
    let _alone = ALONE.lock().await;
    let target = Target::start(&[]).await;
    let before = target.memory();
    let honest = target.honest();
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    let asked = async |line: &str, headers: &str| {
        let connection = target.connect().await;
        let (mut reading, mut writing) = connection.into_split();
        let head = format!("GET {line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let writing = tokio::spawn(async move {
            let _ = writing.write_all(head.as_bytes()).await;
            writing
        });
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(20), reading.read_to_end(&mut answer)).await.expect("it ends");
        drop(writing.await);
        status(&String::from_utf8_lossy(&answer)).to_owned()
    };
    assert_eq!(asked("/api/tickets", "").await, "200");
    let long = |length: usize| "a".repeat(length);
    for (line, headers, expected) in [
        ("/api/tickets".to_owned(), many(500), "431"),
        ("/api/tickets".to_owned(), format!("x-long: {}\r\n", long(100_000)), "431"),
        (format!("/api/tickets?search={}", long(9_000)), String::new(), "414"),
        (format!("/api/tickets?search={}", long(7_000)), String::new(), "400"),
    ] {
        assert_eq!(asked(&line, &headers).await, expected, "{} {}", line.len(), headers.len());
    }
    // A reset may come before the answer where much more was sent than is read: never a success.
    let flood = format!("x-long: {}\r\n", long(5 << 20));
    let floods = join_all((0..100).map(|_| asked("/api/tickets", &flood))).await;
    assert!(floods.iter().all(|status| status == "431" || status == "none"), "{floods:?}");
    let grown = target.memory().saturating_sub(before);
    eprintln!("100 heads of 5 MB: {grown} MB");
    assert!(grown < 100, "{grown} MB");
    honest.was_served("100 heads of 5 MB").await;
}

/// Nothing but the cost of a hash limits sign-ins.
fn hashing_at(log_n: &'static str) -> [(&'static str, &'static str); 3] {
    [("SCRYPT_LOG_N", log_n), ("SIGNIN_FAILURES_PER_MINUTE", "0"), ("SIGNUPS_PER_MINUTE", "0")]
}

/// Who waits for an answer, and where one signs in.
fn patient(target: &Target) -> (Client, String) {
    let http = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    (http, format!("{}/api/users/signin", target.whole.url))
}

/// What Ann signs in with, who has an account.
async fn ann(target: &Target) -> Value {
    let body = json!({ "email": "ann@example.com", "password": "correct horse" });
    let url = format!("{}/api/users/signup", target.whole.url);
    let signed_up = patient(target).0.post(url).json(&body).send().await.unwrap();
    assert_eq!(signed_up.status(), StatusCode::CREATED);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sign_ins_at_once_are_answered_and_bounded() {
    let _alone = ALONE.lock().await;
    // As costly as in production: 128 MiB each.
    let target = Target::start(&hashing_at("17")).await;
    let (http, url) = patient(&target);
    ann(&target).await;
    let before = target.memory();
    let honest = target.honest();
    let most = AtomicU64::new(0);
    let watching = async {
        loop {
            most.fetch_max(target.memory(), Relaxed);
            sleep(Duration::from_millis(50)).await;
        }
    };
    let signing_in = (0..1_000).map(async |number| {
        let body = json!({ "email": format!("person{number}@example.com"), "password": "correct horse" });
        let started = Instant::now();
        let answer = http.post(&url).json(&body).send().await.expect("an answer");
        (answer.status(), answer.headers().contains_key("retry-after"), started.elapsed())
    });
    let answers = tokio::select! {
        answers = join_all(signing_in) => answers,
        () = watching => unreachable!("it goes on"),
    };
    let grown = most.load(Relaxed).saturating_sub(before);
    let refused: Vec<_> =
        answers.iter().filter(|(status, ..)| *status == StatusCode::SERVICE_UNAVAILABLE).collect();
    let judged = answers.iter().filter(|(status, ..)| *status == StatusCode::BAD_REQUEST).count();
    let slowest = answers.iter().map(|(.., took)| *took).max().unwrap();
    eprintln!(
        "1,000 sign-ins at once: {judged} judged, {} sent away, the last answer after {slowest:?}, {grown} MB",
        refused.len()
    );
    assert_eq!(judged + refused.len(), 1_000, "nothing else is answered");
    assert!(judged >= 2, "some are let in");
    assert!(refused.iter().all(|(_, says_when, _)| *says_when));
    // At most four at once, and what the connections take.
    assert!(grown < 4 * 128 + 250, "{grown} MB");
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
    honest.was_served("1,000 sign-ins").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_without_end_leaves_a_place_for_who_comes_from_elsewhere() {
    let _alone = ALONE.lock().await;
    // Cheaper than in production, so that a line is short on a slow machine, too.
    let target = Target::start(&hashing_at("15")).await;
    let (http, url) = patient(&target);
    let ann = ann(&target).await;
    let crowd = join_all((0..80).map(async |number| {
        let body = json!({ "email": format!("person{number}@example.com"), "password": "correct horse" });
        loop {
            http.post(&url).json(&body).send().await.expect("an answer");
            sleep(Duration::from_millis(30)).await;
        }
    }));
    // As the proxy says.
    let elsewhere = async {
        sleep(Duration::from_secs(2)).await;
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let request = http.post(&url).header("x-forwarded-for", "203.0.113.7").json(&ann);
            statuses.push(request.send().await.expect("an answer").status());
            sleep(Duration::from_millis(500)).await;
        }
        statuses
    };
    let statuses = tokio::select! {
        statuses = elsewhere => statuses,
        _ = crowd => unreachable!("they go on"),
    };
    eprintln!("who came from elsewhere meanwhile was told {statuses:?}");
    // By luck once, also where nobody keeps a place for others.
    let let_in = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    assert!(let_in >= 4, "{statuses:?}");
}
