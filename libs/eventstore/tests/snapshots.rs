//! Snapshots: a replica that has nothing starts from one, and is the same as one that replayed everything.

mod support;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_nats::jetstream::object_store::{ObjectInfo, ObjectMetadata};
use eventstore::{
    Auth, Cause, Connection, Log, Projection, Readiness, Settings, SnapshotConfig, Store, StoreConfig, View,
};
use sandbox::nats::NatsServer;
use serde_json::json;
use support::{Account, AccountEvent, server, stream, subject};
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "snapshots-bank";
/// Enough for a look whether a snapshot is due, and for making one.
const PATIENCE: Duration = Duration::from_secs(40);
const ACCOUNTS: u64 = 40;

/// Balances, and how many events were folded for them by whoever has this `WHO`.
#[derive(Debug)]
struct Counted<const WHO: usize, const VERSION: u32 = 1>;

static FOLDED: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];

impl<const WHO: usize, const VERSION: u32> Projection for Counted<WHO, VERSION> {
    type Event = AccountEvent;
    type State = Account;

    const NAME: &'static str = "accounts";
    const VERSION: u32 = VERSION;

    fn evolve(account: Account, event: &AccountEvent) -> Account {
        FOLDED[WHO].fetch_add(1, Ordering::SeqCst);
        match event {
            AccountEvent::Deposited { cents } => Account { cents: account.cents + cents },
            AccountEvent::Withdrawn { cents } => Account { cents: account.cents.saturating_sub(*cents) },
        }
    }
}

/// A replica with a directory of its own.
struct Replica<const WHO: usize, const VERSION: u32 = 1> {
    store: Store,
    view: View<Counted<WHO, VERSION>>,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl<const WHO: usize, const VERSION: u32> Replica<WHO, VERSION> {
    async fn start(url: &str, every: u64) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), url, every).await
    }

    async fn start_in(directory: tempfile::TempDir, url: &str, every: u64) -> Self {
        let config = StoreConfig {
            nats: Settings { url: url.into(), auth: Auth::None, ca: None, name: "bank".into() },
            replicas: 1,
            database: directory.path().join("bank"),
            cache_bytes: 8 << 20,
            snapshots: Some(SnapshotConfig { bucket: BUCKET.into(), every }),
            dead_letters: "DEAD".into(),
            dead_letters_prefix: "bank.dead".into(),
        };
        let shutdown = CancellationToken::new();
        let store = Store::open(config, shutdown.clone()).await.unwrap();
        let view = store.project("ACCOUNTS").unwrap();
        let ready = async {
            while store.readiness() != Readiness::Ready {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("ready");
        view.catch_up(PATIENCE).await.unwrap();
        Self { store, view, shutdown, _directory: directory }
    }

    /// How many events it has folded, the making of snapshots included.
    fn folded(&self) -> u64 {
        FOLDED[WHO].load(Ordering::SeqCst)
    }

    fn balances(&self) -> Vec<u64> {
        (0..ACCOUNTS).map(|account| self.view.head(&subject(account)).unwrap().state.cents).collect()
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.store.close().await;
    }
}

/// So many deposits to each account, behind those that are there.
async fn deposit(log: &Log, rounds: std::ops::Range<u64>) {
    for version in rounds {
        let deposits = (0..ACCOUNTS).map(|account| async move {
            let subject = subject(account);
            let expected = log.last_on(&subject).await.unwrap();
            let event = AccountEvent::Deposited { cents: 100 + account };
            log.append(&subject, &event, version, expected, Cause::Command).await.unwrap();
        });
        futures::future::join_all(deposits).await;
    }
}

async fn newest(connection: &Connection) -> Option<ObjectInfo> {
    let bucket = connection.jetstream().get_object_store(BUCKET).await.ok()?;
    bucket.info("projections").await.ok()
}

/// The snapshot that was made after `before`.
async fn another(connection: &Connection, before: Option<&ObjectInfo>) -> ObjectInfo {
    let made = async {
        loop {
            match newest(connection).await {
                Some(info) if before.is_none_or(|before| before.nuid != info.nuid) => return info,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("a snapshot in time")
}

async fn with_a_snapshot<const MAKER: usize>(events: u64) -> (NatsServer, Connection, Log, Vec<u64>) {
    let (server, connection, log) = server().await;
    deposit(&log, 0..events / ACCOUNTS).await;
    let maker = Replica::<MAKER>::start(server.url(), 1).await;
    another(&connection, None).await;
    let balances = maker.balances();
    maker.close().await;
    (server, connection, log, balances)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_replays_only_what_came_after_the_snapshot() {
    let (server, connection, log, balances) = with_a_snapshot::<0>(400).await;
    let first = newest(&connection).await.unwrap();
    let one = Replica::<1>::start(server.url(), 1_000).await;
    assert_eq!((one.folded(), one.balances()), (0, balances.clone()));
    assert!(one.view.head(&subject(3)).unwrap().version == Some(9), "decisions go on from it");
    one.close().await;

    deposit(&log, 10..12).await;
    // It is made of the one before: each event is folded once for what is read, and once for the copy.
    let two = Replica::<2>::start(server.url(), 50).await;
    assert_eq!(two.folded(), 80);
    let second = another(&connection, Some(&first)).await;
    assert_eq!(two.folded(), 160);
    assert!(second.metadata["accounts"].contains(r#""sequence":480"#), "{:?}", second.metadata);
    let all = two.balances();
    assert_ne!(all, balances);
    two.close().await;

    let three = Replica::<3>::start(server.url(), 1_000).await;
    assert_eq!((three.folded(), three.balances()), (0, all));
    three.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_shape_are_replayed_and_not_thrown_back() {
    let (server, connection, _log, balances) = with_a_snapshot::<4>(80).await;
    let old = newest(&connection).await.unwrap();
    let newer = Replica::<5, 2>::start(server.url(), 1).await;
    assert_eq!((newer.folded(), newer.balances()), (80, balances), "all of it, again");
    let new = another(&connection, Some(&old)).await;
    assert!(new.metadata["accounts"].contains(r#""projection_version":2"#), "{:?}", new.metadata);
    newer.close().await;

    let older = Replica::<5>::start(server.url(), 1).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(newest(&connection).await.unwrap().nuid, new.nuid, "the older one looked, and left it");
    older.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_fit_or_is_damaged_is_as_if_there_were_none() {
    let (server, connection, log, balances) = with_a_snapshot::<6>(80).await;
    let bucket = connection.jetstream().get_object_store(BUCKET).await.unwrap();
    let good = bucket.info("projections").await.unwrap();
    let replayed = async |what: &str| {
        let before = FOLDED[7].load(Ordering::SeqCst);
        let replica = Replica::<7>::start(server.url(), 1_000).await;
        assert_eq!((replica.folded() - before, replica.balances()), (80, balances.clone()), "{what}");
        replica.close().await;
    };

    let mut garbage: &[u8] = &[0xa5; 300_000];
    let metadata = ObjectMetadata {
        name: "projections".into(),
        metadata: good.metadata.clone(),
        ..ObjectMetadata::default()
    };
    bucket.put(metadata.clone(), &mut garbage).await.unwrap();
    replayed("garbage").await;

    let mut ahead = metadata.clone();
    let accounts = good.metadata["accounts"].replace(r#""sequence":80"#, r#""sequence":81"#);
    assert_ne!(accounts, good.metadata["accounts"]);
    ahead.metadata.insert("accounts".into(), accounts);
    bucket.put(ahead, &mut &[0xa5; 10][..]).await.unwrap();
    replayed("ahead of its stream").await;

    let mut other = metadata.clone();
    other.metadata.insert("format".into(), "papyrus".into());
    bucket.put(other, &mut &[0xa5; 10][..]).await.unwrap();
    replayed("of another format").await;

    bucket.delete("projections").await.unwrap();
    replayed("deleted").await;

    // A piece is missing.
    bucket.put(metadata, &mut &[0xa5; 300_000][..]).await.unwrap();
    let pieces = connection.jetstream().get_stream(format!("OBJ_{BUCKET}")).await.unwrap();
    let first = pieces.get_first_raw_message_by_subject(format!("$O.{BUCKET}.C.*"), 1).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a piece of a snapshot is no event")]
    pieces.delete_message(first.sequence).await.unwrap();
    replayed("torn").await;

    // Another stream by the same name.
    connection.jetstream().delete_stream(log.name()).await.unwrap();
    Log::create(&connection, &stream()).await.unwrap();
    deposit(&log, 0..2).await;
    replayed("of another stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_start_left_is_in_nobodys_way() {
    let (server, connection, log, balances) = with_a_snapshot::<0>(80).await;
    let first = newest(&connection).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let workshop = directory.path().join("bank.snapshot");
    std::fs::create_dir_all(workshop.join("unpacked")).unwrap();
    std::fs::write(workshop.join("unpacked/db"), b"half of it").unwrap();
    std::fs::write(workshop.join("fetched"), b"half of it").unwrap();
    let replica = Replica::<8>::start_in(directory, server.url(), 0).await;
    assert_eq!((replica.folded(), replica.balances()), (0, balances));
    deposit(&log, 2..3).await;
    another(&connection, Some(&first)).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while workshop.exists() {
        assert!(tokio::time::Instant::now() < deadline, "what it was made of is removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    replica.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_hides_an_event_that_only_a_later_version_can_read() {
    let (server, connection, log) = server().await;
    deposit(&log, 0..2).await;
    let unknown = json!({ "type": "renamed", "data": { "name": "Ann" } });
    log.append(&subject(99), &unknown, 0, 0, Cause::Command).await.unwrap();
    let replica = Replica::<0>::start(server.url(), 1).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(newest(&connection).await.is_none(), "it looked, and left it");
    replica.close().await;
}
