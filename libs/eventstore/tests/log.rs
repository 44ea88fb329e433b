//! Appending: once, in order, or not at all; whatever the connection does.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use eventstore::{AppendError, Cause, Log, OpenError, StreamConfig};
use sandbox::nats::NatsServer;
use support::{AccountEvent, PATIENCE, connect, proxy::Proxy, server, stream, subject, until};
use uuid::Uuid;

const EVENT: AccountEvent = AccountEvent::Deposited { cents: 5 };

#[tokio::test(flavor = "multi_thread")]
async fn an_append_with_a_stale_expectation_is_a_conflict() {
    let (_server, _, log) = server().await;
    let first = log.append(&subject(1), &EVENT, 0, 0, Cause::Command).await.unwrap();
    let second = log.append(&subject(1), &EVENT, 1, first.sequence, Cause::Command).await.unwrap();
    for stale in [0, first.sequence, second.sequence + 1] {
        let result = log.append(&subject(1), &EVENT, 1, stale, Cause::Command).await;
        assert!(matches!(result, Err(AppendError::Conflict { .. })), "{stale}: {result:?}");
    }
    let other = log.append(&subject(2), &EVENT, 0, 0, Cause::Command).await.unwrap();
    assert_eq!(log.last_on(&subject(1)).await.unwrap(), second.sequence);
    assert_eq!(log.last_on(&subject(2)).await.unwrap(), other.sequence);
    assert_eq!(log.last_on(&subject(3)).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_appends_at_once_one_gets_in() {
    let (_server, _, log) = server().await;
    let writers = (0..50).map(|_| {
        let log = log.clone();
        tokio::spawn(async move { log.append(&subject(1), &EVENT, 0, 0, Cause::Command).await })
    });
    let mut appended = 0;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            Ok(_) => appended += 1,
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(appended, 1);
    assert_eq!(log.state().await.unwrap().unwrap().last_sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_cause_is_appended_once() {
    let (_server, _, log) = server().await;
    let cause = Cause::Event(Uuid::now_v7());
    let first = log.append(&subject(1), &EVENT, 0, 0, cause).await.unwrap();
    let again = log.append(&subject(1), &EVENT, 0, 0, cause).await;
    // The server remembers ids for a while, and otherwise the expectation refuses it: never a second event.
    assert!(matches!(&again, Err(AppendError::Conflict { .. })) || again.unwrap() == first);
    assert_eq!(log.state().await.unwrap().unwrap().last_sequence, first.sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_different_is_left_alone_and_named() {
    let (_server, connection, _log) = server().await;
    assert!(Log::create(&connection, &stream()).await.is_ok(), "the same again is fine");
    let other = StreamConfig { subjects: "bank.>".into(), ..stream() };
    match Log::create(&connection, &other).await {
        Err(OpenError::Different { stream, setting, .. }) => {
            assert_eq!((stream.as_str(), setting), ("ACCOUNTS", "list of subjects"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_found_in_the_log() {
    let server = NatsServer::temporary().await.unwrap();
    let direct = Log::create(&connect(server.url()).await, &stream()).await.unwrap();
    let proxy = Proxy::start(server.url()).await;
    let log = Log::reader(&connect(&proxy.url).await, "ACCOUNTS", "bank");

    proxy.deaf.store(true, Ordering::SeqCst);
    let appending = tokio::spawn({
        let log = log.clone();
        async move { log.append(&subject(1), &EVENT, 0, 0, Cause::Command).await }
    });
    // It is in the log, and the writer does not know.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while direct.last_on(&subject(1)).await.unwrap() == 0 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    // Somebody else goes on: the last message is not the writer's own, the one after what it expected is.
    direct.append(&subject(1), &EVENT, 1, 1, Cause::Command).await.unwrap();
    proxy.cut();
    proxy.deaf.store(false, Ordering::SeqCst);

    let appended = appending.await.unwrap().expect("the event is in the log");
    assert_eq!(appended.sequence, 1);
    assert_eq!(direct.state().await.unwrap().unwrap().last_sequence, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_of_the_server() {
    let mut server = NatsServer::temporary().await.unwrap();
    let connection = connect(server.url()).await;
    let log = Log::create(&connection, &stream()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8)
        .map(|account| {
            let (log, stop, refused) = (log.clone(), stop.clone(), refused.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let (mut version, mut expected) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match log.append(&subject(account), &EVENT, version, expected, Cause::Command).await {
                        Ok(appended) => {
                            acknowledged.push((appended.sequence, appended.id));
                            (version, expected) = (version + 1, appended.sequence);
                        }
                        // Given up as unknown earlier, and in the log after all.
                        Err(AppendError::Conflict { .. }) => {
                            if let Ok(last) = log.last_on(&subject(account)).await {
                                (version, expected) = (version + 1, last);
                            }
                        }
                        Err(AppendError::Unavailable(_)) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..2 {
        let before = refused.load(Ordering::Relaxed);
        let sequence = log.state().await.unwrap().unwrap().last_sequence;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while log.state().await.unwrap().unwrap().last_sequence < sequence + 200 {
            assert!(tokio::time::Instant::now() < deadline, "appends go on");
        }
        server.kill();
        until("refused", || refused.load(Ordering::Relaxed) > before).await;
        server.restart().await.unwrap();
        until("connected", || connection.is_up()).await;
    }
    stop.store(true, Ordering::Relaxed);
    let stream = connection.jetstream().get_stream("ACCOUNTS").await.unwrap();
    let mut checked = 0;
    for writer in writers {
        for (sequence, id) in writer.await.unwrap() {
            let message = stream.get_raw_message(sequence).await.unwrap();
            assert_eq!(message.headers.get("ce-id").unwrap().as_str(), id.to_string());
            checked += 1;
        }
    }
    // Two times 200, but what the eight writers had on their way at a kill: that may be there, and nobody told them.
    assert!(checked >= 2 * (200 - 8), "{checked}");
}
