//! A bank: the smallest domain that needs a consistency boundary.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod proxy;

use std::{path::Path, time::Duration};

use eventstore::{
    Auth, Cause, Condition, Connection, Database, DeadLetters, DecideError, Decider, Log, Order, Projection,
    Recorded, Rows, Settings, StreamConfig, Table, View,
};
use sandbox::nats::NatsServer;
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(crate) enum AccountEvent {
    #[serde(rename = "deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "withdrawn")]
    Withdrawn { cents: u64 },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) cents: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overdrawn;

pub(crate) fn withdraw(account: &Account, cents: u64) -> Result<Option<AccountEvent>, Overdrawn> {
    if account.cents < cents {
        return Err(Overdrawn);
    }
    Ok(Some(AccountEvent::Withdrawn { cents }))
}

/// `VERSION` is a parameter so that a test can change the shape of the rows.
#[derive(Debug)]
pub(crate) struct Accounts<const VERSION: u32 = 1>;

const BALANCES: Table<u64> = Table::new("balances");

impl<const VERSION: u32> Projection for Accounts<VERSION> {
    type Event = AccountEvent;
    type State = Account;

    const NAME: &'static str = "accounts";
    const VERSION: u32 = VERSION;

    fn evolve(account: Account, event: &AccountEvent) -> Account {
        match event {
            AccountEvent::Deposited { cents } => Account { cents: account.cents + cents },
            AccountEvent::Withdrawn { cents } => Account { cents: account.cents.saturating_sub(*cents) },
        }
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<AccountEvent>, account: &Account) {
        let balance = account.cents * u64::from(VERSION);
        rows.put(&BALANCES, recorded.subject.as_bytes(), &balance);
    }
}

pub(crate) fn balances<const VERSION: u32>(view: &View<Accounts<VERSION>>) -> Vec<(String, u64)> {
    let rows = view.scan(&BALANCES, b"", None, Order::Ascending, usize::MAX).unwrap();
    rows.into_iter().map(|(key, cents)| (String::from_utf8(key).unwrap(), cents)).collect()
}

pub(crate) fn subject(account: u64) -> String {
    format!("bank.accounts.{account}")
}

pub(crate) fn stream() -> StreamConfig {
    StreamConfig {
        name: "ACCOUNTS".into(),
        subjects: "bank.accounts.*".into(),
        replicas: 1,
        source: "bank".into(),
    }
}

pub(crate) async fn connect(url: &str) -> Connection {
    let settings = Settings { url: url.into(), auth: Auth::None, ca: None, name: "bank".into() };
    let connection = Connection::open(settings).await.unwrap();
    until("connected", || connection.is_up()).await;
    connection
}

pub(crate) async fn server() -> (NatsServer, Connection, Log) {
    let server = NatsServer::temporary().await.unwrap();
    let connection = connect(server.url()).await;
    let log = Log::create(&connection, &stream()).await.unwrap();
    (server, connection, log)
}

/// A running projection; dropping it, or [`Bank::close`], ends it.
pub(crate) struct Bank<const VERSION: u32 = 1> {
    pub(crate) view: View<Accounts<VERSION>>,
    pub(crate) decider: Decider<Accounts<VERSION>>,
    pub(crate) database: Database,
    tasks: TaskTracker,
    closed: tokio_util::sync::DropGuard,
}

impl<const VERSION: u32> Bank<VERSION> {
    pub(crate) fn open(directory: &Path, log: &Log) -> Self {
        let database = Database::open(&directory.join("bank"), 8 << 20).unwrap();
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let dead_letters = DeadLetters::new(log.connection(), "DEAD", "bank.dead", "bank");
        let view = View::start(&database, log.clone(), dead_letters, &tasks, closed.clone()).unwrap();
        let decider = Decider::new(view.clone());
        Self { view, decider, database, tasks, closed: closed.drop_guard() }
    }

    pub(crate) async fn close(self) {
        drop(self.closed);
        self.tasks.close();
        self.tasks.wait().await;
        self.database.close().await;
    }

    pub(crate) async fn deposit(&self, account: u64, cents: u64) -> u64 {
        let event = AccountEvent::Deposited { cents };
        let decided = self
            .decider
            .transact(&subject(account), Cause::Command, |_| Ok::<_, Overdrawn>(Some(event.clone())))
            .await;
        decided.unwrap().sequence
    }

    pub(crate) async fn withdraw(&self, account: u64, cents: u64) -> Result<u64, DecideError<Overdrawn>> {
        let decided = self
            .decider
            .transact(&subject(account), Cause::Command, |account| withdraw(account, cents))
            .await?;
        Ok(decided.sequence)
    }

    pub(crate) async fn live(&self) {
        tokio::time::timeout(PATIENCE, self.view.caught_up()).await.expect("caught up in time");
        self.view.catch_up(PATIENCE).await.unwrap();
    }

    pub(crate) async fn broken(&self) -> String {
        until("broken", || matches!(self.view.condition(), Condition::Broken(_))).await;
        match self.view.condition() {
            Condition::Broken(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
