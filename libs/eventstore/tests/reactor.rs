//! Reactors: every event is handled, once as far as anyone can see.

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use eventstore::{
    Cause, Connection, DeadLetters, Log, Reaction, ReactorConfig, Recorded, StreamConfig, react,
};
use support::{AccountEvent, connect, server, subject, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CONFIG: ReactorConfig = ReactorConfig { durable: "audit", concurrency: 8 };

type Seen = Arc<Mutex<Vec<(String, u64)>>>;

async fn dead_letters(connection: &Connection) -> DeadLetters {
    let stream = StreamConfig {
        name: "DEAD".into(),
        subjects: "bank.dead.>".into(),
        replicas: 1,
        source: "bank".into(),
    };
    Log::create(connection, &stream).await.unwrap();
    DeadLetters::new(connection, "DEAD", "bank.dead", "audit")
}

async fn append(log: &Log, account: u64, version: u64, expected: u64) -> u64 {
    let event = AccountEvent::Deposited { cents: version };
    log.append(&subject(account), &event, version, expected, Cause::Command).await.unwrap().sequence
}

/// Starts a reactor that notes what it sees and answers with `answer`.
async fn start<F>(connection: &Connection, seen: &Seen, answer: F) -> (JoinHandle<()>, CancellationToken)
where
    F: Fn(&Recorded<AccountEvent>, usize) -> Result<Reaction, String> + Clone + Send + Sync + 'static,
{
    let shutdown = CancellationToken::new();
    let log = Log::reader(connection, "ACCOUNTS", "audit");
    let dead_letters = dead_letters(connection).await;
    let seen = seen.clone();
    let handle = move |recorded: Recorded<AccountEvent>| {
        let this = (recorded.subject.clone(), recorded.version);
        let before = {
            let mut seen = seen.lock().unwrap();
            seen.push(this.clone());
            seen.iter().filter(|other| **other == this).count() - 1
        };
        std::future::ready(answer(&recorded, before))
    };
    let reactor = tokio::spawn(react(log, CONFIG, dead_letters, handle, shutdown.clone()));
    (reactor, shutdown)
}

fn done(_: &Recorded<AccountEvent>, _: usize) -> Result<Reaction, String> {
    Ok(Reaction::Done)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_handled_and_each_subject_in_order() {
    let (_server, connection, log) = server().await;
    let mut last = HashMap::new();
    for version in 0..20 {
        for account in 0..10 {
            let expected = last.get(&account).copied().unwrap_or(0);
            last.insert(account, append(&log, account, version, expected).await);
        }
    }
    let seen = Seen::default();
    let (reactor, shutdown) = start(&connection, &seen, done).await;
    until("all handled", || seen.lock().unwrap().len() >= 200).await;
    shutdown.cancel();
    reactor.await.unwrap();
    let mut next = HashMap::new();
    for (subject, version) in seen.lock().unwrap().iter() {
        let next = next.entry(subject.clone()).or_insert(0);
        assert_eq!(version, next, "{subject}");
        *next += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_work_and_a_restart_goes_on() {
    let (server, connection, log) = server().await;
    let seen = Seen::default();
    let other = connect(server.url()).await;
    let (one, stop_one) = start(&connection, &seen, done).await;
    let (two, stop_two) = start(&other, &seen, done).await;
    for account in 0..100 {
        append(&log, account, 0, 0).await;
    }
    until("all handled", || seen.lock().unwrap().len() >= 100).await;
    for (reactor, stop) in [(one, stop_one), (two, stop_two)] {
        stop.cancel();
        reactor.await.unwrap();
    }
    connection.flush().await;
    other.flush().await;
    append(&log, 100, 0, 0).await;
    let (reactor, stop) = start(&connection, &seen, done).await;
    until("the new one handled", || seen.lock().unwrap().iter().any(|(seen, _)| *seen == subject(100))).await;
    stop.cancel();
    reactor.await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 101, "each was handled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_comes_again() {
    let (_server, connection, log) = server().await;
    append(&log, 1, 0, 0).await;
    let seen = Seen::default();
    let fail_twice = |_: &Recorded<AccountEvent>, before: usize| match before {
        0 | 1 => Err("not now".to_owned()),
        _ => Ok(Reaction::Done),
    };
    let (reactor, shutdown) = start(&connection, &seen, fail_twice).await;
    until("handled three times", || seen.lock().unwrap().len() == 3).await;
    shutdown.cancel();
    reactor.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_its_handler_panic_comes_again_and_stops_nobody() {
    let (_server, connection, log) = server().await;
    for account in 0..20 {
        append(&log, account, 0, 0).await;
    }
    let seen = Seen::default();
    let panic_once = |recorded: &Recorded<AccountEvent>, before: usize| {
        assert!(before > 0 || recorded.subject != subject(7), "the first time");
        Ok(Reaction::Done)
    };
    let (reactor, shutdown) = start(&connection, &seen, panic_once).await;
    let handled = |account| {
        let seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.iter().filter(|(seen, _)| *seen == subject(account)).count()
    };
    until("all handled, one twice", || (0..20).all(|account| handled(account) > usize::from(account == 7)))
        .await;
    shutdown.cancel();
    reactor.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_runs_and_begins_nothing_new() {
    let (_server, connection, log) = server().await;
    let mut last = 0;
    for version in 0..5 {
        last = append(&log, 1, version, last).await;
    }
    let shutdown = CancellationToken::new();
    let (begun, finished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handle = {
        let (begun, finished, shutdown) = (begun.clone(), finished.clone(), shutdown.clone());
        move |_: Recorded<AccountEvent>| {
            let (begun, finished, shutdown) = (begun.clone(), finished.clone(), shutdown.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                shutdown.cancelled().await;
                finished.fetch_add(1, Ordering::SeqCst);
                Ok::<_, String>(Reaction::Done)
            }
        }
    };
    let log = Log::reader(&connection, "ACCOUNTS", "audit");
    let dead_letters = dead_letters(&connection).await;
    let reactor = tokio::spawn(react(log, CONFIG, dead_letters, handle, shutdown.clone()));
    until("begun", || begun.load(Ordering::SeqCst) == 1).await;
    shutdown.cancel();
    reactor.await.unwrap();
    assert_eq!((begun.load(Ordering::SeqCst), finished.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_come_later_comes_then() {
    let (_server, connection, log) = server().await;
    append(&log, 1, 0, 0).await;
    let seen = Seen::default();
    let times = Arc::new(Mutex::new(Vec::new()));
    let later = {
        let times = times.clone();
        move |_: &Recorded<AccountEvent>, before: usize| {
            times.lock().unwrap().push(Instant::now());
            match before {
                0 => Ok(Reaction::Later(Duration::from_millis(1_500))),
                _ => Ok(Reaction::Done),
            }
        }
    };
    let (reactor, shutdown) = start(&connection, &seen, later).await;
    until("come again", || seen.lock().unwrap().len() == 2).await;
    let waited = match times.lock().unwrap()[..] {
        [first, second] => second - first,
        ref other => panic!("{other:?}"),
    };
    // And not as late as what nobody has acknowledged comes again, after five seconds.
    assert!(waited > Duration::from_millis(1_300) && waited < Duration::from_millis(4_900), "{waited:?}");
    shutdown.cancel();
    reactor.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_buried_and_the_rest_goes_on() {
    let (_server, connection, log) = server().await;
    connection.jetstream().publish(subject(1), "poison".into()).await.unwrap().await.unwrap();
    append(&log, 2, 0, 0).await;
    let seen = Seen::default();
    let (reactor, shutdown) = start(&connection, &seen, done).await;
    until("the rest handled", || seen.lock().unwrap().len() == 1).await;
    let dead = connection.jetstream().get_stream("DEAD").await.unwrap();
    let deadline = Instant::now() + support::PATIENCE;
    let letter = loop {
        match dead.get_last_raw_message_by_subject("bank.dead.audit.ACCOUNTS.1").await {
            Ok(letter) => break letter,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(letter.payload, "poison");
    assert_eq!(letter.headers.get("dead-letter-subject").unwrap().as_str(), subject(1));
    assert!(letter.headers.get("dead-letter-reason").unwrap().as_str().contains("ce-type"));
    shutdown.cancel();
    reactor.await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reactor_goes_on_after_a_kill_of_the_server() {
    let (mut server, connection, log) = server().await;
    let seen = Seen::default();
    let (reactor, shutdown) = start(&connection, &seen, done).await;
    append(&log, 1, 0, 0).await;
    until("handled", || seen.lock().unwrap().iter().any(|(seen, _)| *seen == subject(1))).await;
    server.kill();
    until("disconnected", || !connection.is_up()).await;
    server.restart().await.unwrap();
    until("connected", || connection.is_up()).await;
    append(&log, 2, 0, 0).await;
    until("handled", || seen.lock().unwrap().iter().any(|(seen, _)| *seen == subject(2))).await;
    shutdown.cancel();
    reactor.await.unwrap();
}
