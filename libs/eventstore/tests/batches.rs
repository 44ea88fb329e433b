//! Many appends at once go to the server as one batch: each has its own answer all the same.

mod support;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Config;
use eventstore::{AppendError, Appended, Cause, Log};
use futures::future::join_all;
use sandbox::nats::NatsServer;
use support::{AccountEvent, PATIENCE, connect, proxy::Proxy, server, stream, subject, until};

const EVENT: AccountEvent = AccountEvent::Deposited { cents: 5 };

/// Appends the first event of each account, all at once.
async fn append_all(log: &Log, accounts: impl Iterator<Item = u64>) -> Vec<Result<Appended, AppendError>> {
    join_all(
        accounts
            .map(|account| async move { log.append(&subject(account), &EVENT, 0, 0, Cause::Command).await }),
    )
    .await
}

/// Where each event is, told by its id; whether any came in a batch.
async fn stand_where_they_say(log: &Log, appended: &[(u64, Appended)]) -> bool {
    let stream = log.connection().jetstream().get_stream(log.name()).await.unwrap();
    let mut batched = false;
    for (account, appended) in appended {
        let message = stream.get_raw_message(appended.sequence).await.unwrap();
        assert_eq!(message.headers.get("ce-id").unwrap().as_str(), appended.id.to_string());
        assert_eq!(message.subject.as_str(), subject(*account));
        batched |= message.headers.get("Nats-Batch-Id").is_some();
    }
    batched
}

fn all_landed(results: Vec<Result<Appended, AppendError>>) -> Vec<(u64, Appended)> {
    (0..).zip(results.into_iter().map(Result::unwrap)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_appends_lands_where_it_is_told() {
    let (_server, _, log) = server().await;
    let appended = all_landed(append_all(&log, 0..2_500).await);
    assert!(stand_where_they_say(&log, &appended).await, "some came in a batch");
    assert_eq!(log.state().await.unwrap().unwrap().last_sequence, 2_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_loses_takes_nobody_with_it() {
    let (server, _, log) = server().await;
    let other = Log::reader(&connect(server.url()).await, log.name(), "bank");
    let taken = [100, 101, 250];
    for account in taken {
        other.append(&subject(account), &EVENT, 0, 0, Cause::Command).await.unwrap();
    }
    let mut appended = Vec::new();
    for (account, result) in (0..).zip(append_all(&log, 0..300).await) {
        match result {
            Ok(result) => appended.push((account, result)),
            Err(AppendError::Conflict { .. }) => assert!(taken.contains(&account), "{account}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(appended.len(), 300 - taken.len());
    stand_where_they_say(&log, &appended).await;
    assert_eq!(log.state().await.unwrap().unwrap().last_sequence, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_is_found_in_the_log() {
    let server = NatsServer::temporary().await.unwrap();
    let direct = Log::create(&connect(server.url()).await, &stream()).await.unwrap();
    let proxy = Proxy::start(server.url()).await;
    let log = Log::create(&connect(&proxy.url).await, &stream()).await.unwrap();

    proxy.deaf.store(true, Ordering::SeqCst);
    let appending = tokio::spawn({
        let log = log.clone();
        async move { append_all(&log, 0..300).await }
    });
    let all_there = async {
        while direct.state().await.unwrap().unwrap().last_sequence < 300 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_there).await.expect("all are sent, and none is answered");
    proxy.cut();
    proxy.deaf.store(false, Ordering::SeqCst);
    let appended = all_landed(appending.await.unwrap());
    assert!(stand_where_they_say(&direct, &appended).await, "a batch was among them");
    assert_eq!(direct.state().await.unwrap().unwrap().last_sequence, 300, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_no_batches_gets_them_one_by_one() {
    let server = NatsServer::temporary().await.unwrap();
    let connection = connect(server.url()).await;
    // As a server before 2.12 makes it.
    let config = Config {
        name: "ACCOUNTS".into(),
        subjects: vec!["bank.accounts.*".into()],
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..Config::default()
    };
    connection.jetstream().create_stream(config).await.unwrap();
    let log = Log::create(&connection, &stream()).await.unwrap();
    let appended = all_landed(append_all(&log, 0..300).await);
    assert!(!stand_where_they_say(&log, &appended).await, "none came in a batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_while_waiting_makes_way_for_the_next() {
    let (_server, _, log) = server().await;
    // Far more than one batch, so that there is a queue to give up in.
    let crowd = append_all(&log, 0..3_000);
    let fickle = async {
        for _ in 0..20 {
            let subject = subject(9_999);
            let appending = log.append(&subject, &EVENT, 0, 0, Cause::Command);
            let _ = tokio::time::timeout(Duration::from_millis(2), appending).await;
        }
        log.append(&subject(9_999), &EVENT, 0, 0, Cause::Command).await
    };
    let (crowd, fickle) = tokio::join!(crowd, fickle);
    all_landed(crowd);
    // The last one landed, or lost against one that was sent before its sender left.
    assert!(matches!(fickle, Ok(_) | Err(AppendError::Conflict { .. })), "{fickle:?}");
    assert_eq!(log.state().await.unwrap().unwrap().last_sequence, 3_001, "one event for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_amid_batches() {
    let mut server = NatsServer::temporary().await.unwrap();
    let connection = connect(server.url()).await;
    let log = Log::create(&connection, &stream()).await.unwrap();
    let appending = tokio::spawn({
        let log = log.clone();
        async move { append_all(&log, 0..20_000).await }
    });
    let begun = async { while log.state().await.unwrap().unwrap().last_sequence < 2_000 {} };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    server.kill();
    server.restart().await.unwrap();
    until("connected", || connection.is_up()).await;
    // Some are refused or unknown, as there was no server. None that was acknowledged is gone.
    let results = tokio::time::timeout(2 * PATIENCE, appending).await.expect("each has an answer").unwrap();
    let landed = (0..).zip(results).filter_map(|(account, result)| Some((account, result.ok()?)));
    let landed: Vec<(u64, Appended)> = landed.collect();
    assert!(landed.len() >= 2_000, "{}", landed.len());
    assert!(stand_where_they_say(&log, &landed).await, "some came in a batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_server_that_does_not_answer_is_told_so() {
    let server = NatsServer::temporary().await.unwrap();
    Log::create(&connect(server.url()).await, &stream()).await.unwrap();
    let proxy = Proxy::start(server.url()).await;
    let log = Log::create(&connect(&proxy.url).await, &stream()).await.unwrap();
    proxy.deaf.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let subject = subject(1);
    let same = join_all((0..20).map(|_| log.append(&subject, &EVENT, 0, 0, Cause::Command)));
    let others = append_all(&log, 100..1_700);
    let (same, others) = tokio::join!(same, others);
    for result in same.into_iter().chain(others) {
        assert!(
            matches!(result, Err(AppendError::Unavailable(_) | AppendError::Conflict { .. })),
            "{result:?}"
        );
    }
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(25), "{waited:?}");
}
