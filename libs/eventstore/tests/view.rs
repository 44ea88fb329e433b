//! Projections: disposable, and always the same again.

mod support;

use std::path::Path;

use async_nats::HeaderMap;
use eventstore::{
    Cause, Condition, Database, DeadLetters, Log, Projection, Recorded, Rows, StreamConfig, Table, View,
};
use sandbox::nats::{NatsOptions, NatsServer};
use support::{AccountEvent, Bank, Overdrawn, PATIENCE, balances, connect, server, stream, subject, until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

async fn some_history(bank: &Bank) {
    for round in 0..20 {
        for account in 0..10 {
            bank.deposit(account, 100 + round).await;
        }
    }
    bank.withdraw(3, 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_what_it_wrote() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    for round in 1..=50 {
        bank.deposit(1, 10).await;
        assert_eq!(balances(&bank.view), [(subject(1), round * 10)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_never_overdraw_an_account() {
    let (_server, _, log) = server().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replicas = [Bank::<1>::open(one.path(), &log), Bank::<1>::open(two.path(), &log)];
    for bank in &replicas {
        bank.live().await;
    }
    replicas[0].deposit(1, 1_000).await;
    let withdrawals = (0..40).map(|number| {
        let decider = replicas[number % 2].decider.clone();
        tokio::spawn(async move {
            decider
                .transact(&subject(1), Cause::Command, |account| support::withdraw(account, 100))
                .await
                .is_ok()
        })
    });
    let mut granted = 0;
    for withdrawal in withdrawals.collect::<Vec<_>>() {
        granted += u64::from(withdrawal.await.unwrap());
    }
    assert!(granted <= 10, "{granted}");
    for bank in &replicas {
        bank.live().await;
        assert_eq!(balances(&bank.view), [(subject(1), 1_000 - granted * 100)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaction_decides_nothing_only_on_the_newest_state() {
    let (_server, _, log) = server().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replicas = [Bank::<1>::open(one.path(), &log), Bank::<1>::open(two.path(), &log)];
    for bank in &replicas {
        bank.live().await;
    }
    // On the replica that has not heard of the deposit yet, "nothing to withdraw" would be wrong.
    for account in 0..50 {
        let deposit = replicas[0].deposit(account, 10).await;
        let decided = replicas[1]
            .decider
            .transact(&subject(account), Cause::Event(uuid::Uuid::now_v7()), |state| {
                Ok::<_, Overdrawn>(support::withdraw(state, 10).ok().flatten())
            })
            .await
            .unwrap();
        assert!(decided.appended.is_some(), "account {account} at {deposit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_come_back_the_same() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    some_history(&bank).await;
    let before = balances(&bank.view);
    bank.close().await;

    std::fs::remove_dir_all(directory.path().join("bank")).unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    assert_eq!(balances(&bank.view), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_resume_where_they_were() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    some_history(&bank).await;
    bank.close().await;
    log.append(&subject(99), &AccountEvent::Deposited { cents: 1 }, 0, 0, Cause::Command).await.unwrap();

    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    assert!(balances(&bank.view).contains(&(subject(99), 1)));
    assert_eq!(balances(&bank.view).len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_come_back_the_same() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    some_history(&bank).await;
    let before = balances(&bank.view);
    bank.close().await;

    for seed in 0..12_u64 {
        // As a hard stop leaves it, which is what damages.
        std::fs::remove_file(directory.path().join("bank/closed")).unwrap();
        corrupt(&directory.path().join("bank"), seed);
        let bank = Bank::<1>::open(directory.path(), &log);
        bank.live().await;
        assert_eq!(balances(&bank.view), before, "seed {seed}");
        bank.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_turns_out_to_be_damaged_has_all_of_them_replayed() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    some_history(&bank).await;
    let before = balances(&bank.view);

    // Read as what it is not, a row is as good as damaged.
    let mistaken = eventstore::Table::<String>::new("balances");
    // Told again is only what is replayed.
    let mut told = bank.view.changes();
    assert!(bank.view.get(&mistaken, subject(3).as_bytes()).is_err());
    let first = tokio::time::timeout(PATIENCE, told.recv()).await.expect("it is replayed").unwrap();
    assert_eq!(first.sequence, 1);
    bank.live().await;
    assert_eq!(balances(&bank.view), before);
    bank.withdraw(3, 1).await.unwrap();
    bank.close().await;
    assert!(!directory.path().join("bank/closed").exists(), "the next start looks at every row");
}

/// Overwrites a stretch of every file below `directory` with noise.
fn corrupt(directory: &Path, seed: u64) {
    let mut noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let start = next() as usize % bytes.len();
            let length = 1 + next() as usize % 4096;
            for byte in bytes.iter_mut().skip(start).take(length) {
                *byte = next() as u8;
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_shape_are_replayed() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    bank.deposit(1, 10).await;
    bank.close().await;
    let bank = Bank::<2>::open(directory.path(), &log);
    bank.live().await;
    assert_eq!(balances(&bank.view), [(subject(1), 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_under_a_projection_is_replayed() {
    let (_server, connection, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    some_history(&bank).await;

    connection.jetstream().delete_stream("ACCOUNTS").await.unwrap();
    Log::create(&connection, &stream()).await.unwrap();
    log.append(&subject(1), &AccountEvent::Deposited { cents: 7 }, 0, 0, Cause::Command).await.unwrap();
    until("replayed", || bank.view.head(&subject(1)).is_ok_and(|head| head.state.cents == 7)).await;
    assert_eq!(balances(&bank.view), [(subject(1), 7)]);
    bank.deposit(1, 1).await;
    assert_eq!(balances(&bank.view), [(subject(1), 8)]);
}

/// What a server without fsync does in a power cut: the same stream with a shorter log, which then goes on.
async fn loses_its_end_and_grows_by(events: u64) {
    let directory = tempfile::tempdir().unwrap();
    let [store_dir, before] = ["nats", "before"].map(|name| directory.path().join(name));
    let start = async || {
        let options = NatsOptions { store_dir: store_dir.clone(), port: None, users: None };
        let server = NatsServer::start(options).await.unwrap();
        let log = Log::create(&connect(server.url()).await, &stream()).await.unwrap();
        (server, log)
    };
    let deposits = async |log: &Log| {
        let bank = Bank::<1>::open(directory.path(), log);
        bank.live().await;
        for _ in 0..3 {
            bank.deposit(1, 10).await;
        }
        bank.close().await;
    };
    let (server, log) = start().await;
    deposits(&log).await;
    server.shutdown().await.unwrap();
    let copied = std::process::Command::new("cp").arg("-r").args([&store_dir, &before]).status().unwrap();
    assert!(copied.success());
    let (server, log) = start().await;
    deposits(&log).await;
    let created = log.state().await.unwrap().unwrap().created;
    server.shutdown().await.unwrap();
    std::fs::remove_dir_all(&store_dir).unwrap();
    std::fs::rename(&before, &store_dir).unwrap();

    let (_server, log) = start().await;
    for number in 3..3 + events {
        log.append(&subject(1), &AccountEvent::Deposited { cents: 1 }, number, number, Cause::Command)
            .await
            .unwrap();
    }
    assert_eq!(log.state().await.unwrap().unwrap().created, created, "it is the same stream");
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    assert_eq!(balances(&bank.view), [(subject(1), 30 + events)], "after {events} more events");
    bank.deposit(1, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_ahead_of_a_log_that_lost_its_end_are_replayed() {
    loses_its_end_and_grows_by(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_log_that_lost_its_end_are_replayed_when_it_has_grown_past_them() {
    loses_its_end_and_grows_by(3).await;
    loses_its_end_and_grows_by(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_versions_stops_a_projection() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    let last = bank.deposit(1, 10).await;
    log.append(&subject(1), &AccountEvent::Deposited { cents: 1 }, 2, last, Cause::Command).await.unwrap();
    let reason = bank.broken().await;
    assert!(reason.contains("ACCOUNTS at sequence 2"), "{reason}");
    assert!(bank.view.head(&subject(1)).is_err(), "what it holds may be wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_skipped_and_its_subject_goes_on() {
    let (_server, connection, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    let dead = StreamConfig {
        name: "DEAD".into(),
        subjects: "bank.dead.>".into(),
        replicas: 1,
        source: "bank".into(),
    };
    Log::create(&connection, &dead).await.unwrap();
    bank.deposit(1, 10).await;
    let mut headers = HeaderMap::new();
    headers.insert("ce-type", "deposited");
    for account in [1, 2] {
        let publish =
            connection.jetstream().publish_with_headers(subject(account), headers.clone(), "{".into());
        publish.await.unwrap().await.unwrap();
    }
    bank.deposit(1, 10).await;
    bank.deposit(2, 10).await;
    assert_eq!(balances(&bank.view), [(subject(1), 20), (subject(2), 10)]);

    let dead = connection.jetstream().get_stream("DEAD").await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while dead.get_info().await.unwrap().state.messages < 2 {
        assert!(tokio::time::Instant::now() < deadline, "both are kept with the reason");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_waits_for_a_stream_that_is_not_there_yet() {
    let server = sandbox::nats::NatsServer::temporary().await.unwrap();
    let connection = connect(server.url()).await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &Log::reader(&connection, "ACCOUNTS", "bank"));
    Log::create(&connection, &stream()).await.unwrap();
    bank.live().await;
    bank.deposit(1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_goes_on_after_a_kill_of_the_server() {
    let (mut server, connection, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    bank.deposit(1, 10).await;
    server.kill();
    until("disconnected", || !connection.is_up()).await;
    assert_eq!(balances(&bank.view), [(subject(1), 10)], "reads go on");
    assert!(bank.withdraw(1, 5).await.is_err(), "writes do not");
    server.restart().await.unwrap();
    until("connected", || connection.is_up()).await;
    bank.withdraw(1, 5).await.unwrap();
    assert_eq!(balances(&bank.view), [(subject(1), 5)]);
}

/// A projection with a fault: it panics on a withdrawal.
struct Faulty;

impl Projection for Faulty {
    type Event = AccountEvent;
    type State = ();

    const NAME: &'static str = "faulty";
    const VERSION: u32 = 1;

    fn evolve((): (), event: &AccountEvent) {
        assert!(!matches!(event, AccountEvent::Withdrawn { .. }), "the fault");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_panics_is_not_relied_on() {
    let (_server, connection, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("bank"), 8 << 20).unwrap();
    let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
    let dead_letters = DeadLetters::new(&connection, "DEAD", "bank.dead", "bank");
    let view = View::<Faulty>::start(&database, log.clone(), dead_letters, &tasks, closed.clone()).unwrap();
    view.caught_up().await;
    assert!(view.head(&subject(1)).is_ok());
    log.append(&subject(1), &AccountEvent::Withdrawn { cents: 1 }, 0, 0, Cause::Command).await.unwrap();
    until("broken", || matches!(view.condition(), Condition::Broken(_))).await;
    assert!(view.head(&subject(1)).is_err());
    closed.cancel();
}

/// A copy that keeps nothing of accounts: how often each sum was deposited.
struct Sums;

const SUMS: Table<u64> = Table::new("sums");

impl Projection for Sums {
    type Event = AccountEvent;
    type State = ();

    const NAME: &'static str = "sums";
    const VERSION: u32 = 1;

    fn evolve((): (), _: &AccountEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<AccountEvent>, (): &()) {
        let AccountEvent::Deposited { cents } = recorded.event else { return };
        let count = rows.get(&SUMS, &cents.to_be_bytes()).unwrap_or(0);
        rows.put(&SUMS, &cents.to_be_bytes(), &(count + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_without_state_applies_each_event_once_and_keeps_nothing_of_subjects() {
    let (_server, connection, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank");
    for round in 1..=3 {
        let database = Database::open(&path, 8 << 20).unwrap();
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let dead_letters = DeadLetters::new(&connection, "DEAD", "bank.dead", "bank");
        let view = View::<Sums>::start(&database, log.clone(), dead_letters, &tasks, closed.clone()).unwrap();
        let last = log.last_on(&subject(1)).await.unwrap();
        let deposit = AccountEvent::Deposited { cents: 10 };
        let appended = log.append(&subject(1), &deposit, round - 1, last, Cause::Command).await.unwrap();
        view.wait_for(appended.sequence, PATIENCE).await.unwrap();
        view.caught_up().await;
        assert_eq!(view.get(&SUMS, &10_u64.to_be_bytes()).unwrap(), Some(round), "after {round} starts");
        assert_eq!(view.head(&subject(1)).unwrap().sequence, 0);
        closed.cancel();
        tasks.close();
        tasks.wait().await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_what_never_comes_ends() {
    let (_server, _, log) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::<1>::open(directory.path(), &log);
    bank.live().await;
    assert!(bank.view.wait_for(u64::MAX, std::time::Duration::from_millis(50)).await.is_err());
    let last = bank.deposit(1, 1).await;
    assert!(bank.view.wait_for(last, PATIENCE).await.is_ok());
}
