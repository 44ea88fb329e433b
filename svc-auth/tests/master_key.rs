//! The master key changes, and nobody notices: what is in the log stays as it is.

mod service;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, kv};
use contract::{UserId, stream::USERS};
use futures::StreamExt;
use reqwest::StatusCode;
use sandbox::nats::NatsServer;
use serde_json::json;
use svc_auth::{Config, MasterKey, MasterKeys};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::service::{PATIENCE, Service, config, keys_of, newcomer, user};

fn key(version: u8) -> MasterKey {
    format!("{version}:{}", format!("{version:02x}").repeat(32)).parse().unwrap()
}

/// Wraps with `current`, and opens what `other` wraps.
fn with(nats: &NatsServer, dir: &Path, current: u8, other: Option<u8>) -> Config {
    let master_keys = MasterKeys::new(key(current), other.map(key).into_iter().collect()).unwrap();
    Config { master_keys, ..config(nats, dir) }
}

/// By which master key each wrapped key is wrapped: the email key, and those of users.
async fn versions(keys: &kv::Store) -> (Option<u8>, Vec<u8>) {
    let mut users = Vec::new();
    let mut names = keys.keys().await.unwrap();
    while let Some(name) = names.next().await {
        let name = name.unwrap();
        if name.parse::<UserId>().is_ok() {
            users.push(keys.get(name).await.unwrap().unwrap()[0]);
        }
    }
    (keys.get("email-key").await.unwrap().map(|key| key[0]), users)
}

async fn all_wrapped_by(keys: &kv::Store, version: u8) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (email_key, users) = versions(keys).await;
        if email_key == Some(version) && users.iter().all(|user| *user == version) {
            return;
        }
        assert!(Instant::now() < deadline, "{email_key:?} {users:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until it is noted that every user's key was looked at.
async fn noted_all(keys: &kv::Store) {
    let mut last = 0;
    let mut names = keys.keys().await.unwrap();
    while let Some(name) = names.next().await {
        let entry = keys.entry(name.unwrap()).await.unwrap().unwrap();
        if entry.key.parse::<UserId>().is_ok() {
            last = last.max(entry.revision);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let note = keys.get("wrapped-since").await.unwrap().unwrap_or_default();
        let note = String::from_utf8(note.to_vec()).unwrap();
        if note.split_once(' ').is_some_and(|(_, up_to)| up_to.parse::<u64>().unwrap() >= last) {
            return;
        }
        assert!(Instant::now() < deadline, "{note:?} {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Why svc-auth does not start.
async fn refusal(config: Config) -> String {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let run = svc_auth::run(config, tcp.into(), CancellationToken::new());
    timeout(PATIENCE, run).await.unwrap().unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_changed_in_two_rounds_while_people_sign_in() {
    let nats = NatsServer::temporary().await.unwrap();
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let before = Service::start(with(&nats, dirs[0].path(), 1, None)).await;
    let mut people = Vec::new();
    for number in 0..20 {
        let email = format!("person{number}@example.com");
        people.push((newcomer(&before, &email, "correct horse").await.0, email));
    }
    before.stop().await;
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let keys = keys_of(&nats).await;
    assert_eq!(versions(&keys).await, (Some(1), vec![1; 20]));

    // Round one: all could open what the second wraps. Nothing is wrapped again.
    let prepared = Service::start(with(&nats, dirs[0].path(), 1, Some(2))).await;
    // Round two, one replica after the other: the first still wraps by the old one.
    let changed = Service::start(with(&nats, dirs[1].path(), 2, Some(1))).await;
    all_wrapped_by(&keys, 2).await;
    noted_all(&keys).await;
    let (late, _) = newcomer(&prepared, "late@example.com", "correct horse").await;
    assert_eq!(keys.get(late.id.to_string()).await.unwrap().unwrap()[0], 1);
    for (person, email) in &people {
        for auth in [&prepared, &changed] {
            assert_eq!(user(auth.sign_in(email, "correct horse").await, StatusCode::OK).await, *person);
        }
    }
    // Somebody is erased meanwhile: that stays so.
    let (gone, token) = newcomer(&changed, "gone@example.com", "correct horse").await;
    let erased = prepared.erase(&token, &json!({ "password": "correct horse" })).await;
    assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    prepared.stop().await;
    // What was wrapped by the old one since is found, too.
    all_wrapped_by(&keys, 2).await;
    assert_eq!(user(changed.sign_in("late@example.com", "correct horse").await, StatusCode::OK).await, late);
    assert_eq!(keys.get(gone.id.to_string()).await.unwrap(), None);
    changed.stop().await;

    // The old one is needed no more, and of no more use.
    let after = Service::start(with(&nats, dirs[1].path(), 2, None)).await;
    for (person, email) in &people {
        assert_eq!(user(after.sign_in(email, "correct horse").await, StatusCode::OK).await, *person);
    }
    newcomer(&after, "new@example.com", "correct horse").await;
    after.stop().await;
    let error = refusal(with(&nats, dirs[0].path(), 1, None)).await;
    assert!(error.contains("master key"), "{error}");
    // A signing up for each, and one erasure: nothing of the change is in the log.
    let users = jetstream.get_stream(USERS.name).await.unwrap();
    assert_eq!(users.cached_info().state.messages, 24);
}

/// A replica that was forgotten in the second round wraps by the old key when all has been wrapped again.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_that_a_late_replica_has_wrapped_by_it_does_not_start() {
    let nats = NatsServer::temporary().await.unwrap();
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let forgotten = Service::start(with(&nats, dirs[0].path(), 1, Some(2))).await;
    newcomer(&forgotten, "ann@example.com", "correct horse").await;
    let keys = keys_of(&nats).await;
    let change = async || {
        let changed = Service::start(with(&nats, dirs[1].path(), 2, Some(1))).await;
        all_wrapped_by(&keys, 2).await;
        noted_all(&keys).await;
        changed.stop().await;
    };
    change().await;
    let (late, _) = newcomer(&forgotten, "late@example.com", "correct horse").await;
    forgotten.stop().await;

    let error = refusal(with(&nats, dirs[1].path(), 2, None)).await;
    assert!(error.contains("master key that still wraps"), "{error}");
    change().await;
    let after = Service::start(with(&nats, dirs[1].path(), 2, None)).await;
    assert_eq!(user(after.sign_in("late@example.com", "correct horse").await, StatusCode::OK).await, late);
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_master_key_of_before_it_does_not_start() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let before = Service::start(with(&nats, dir.path(), 1, None)).await;
    newcomer(&before, "ann@example.com", "correct horse").await;
    before.stop().await;
    let error = refusal(with(&nats, dir.path(), 2, None)).await;
    assert!(error.contains("master key that still wraps"), "{error}");
    // Not even a mistake for it.
    let wrong: MasterKey = "1".repeat(64).parse().unwrap();
    let wrong = MasterKeys::new(key(2), vec![wrong]).unwrap();
    let error = refusal(Config { master_keys: wrong, ..config(&nats, dir.path()) }).await;
    assert!(error.contains("fingerprint"), "{error}");
    // Nothing has come of it: with the right one it goes on.
    let right = Service::start(with(&nats, dir.path(), 2, Some(1))).await;
    assert_eq!(right.sign_in("ann@example.com", "correct horse").await.status(), StatusCode::OK);
    right.stop().await;
}

/// Before the email key was kept on its own, it was made anew of the master key.
#[tokio::test(flavor = "multi_thread")]
async fn who_signed_up_before_the_email_key_was_kept_is_still_found() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let before = Service::start(with(&nats, dir.path(), 1, None)).await;
    let (ann, _) = newcomer(&before, "ann@example.com", "correct horse").await;
    before.stop().await;
    let keys = keys_of(&nats).await;
    keys.purge("email-key").await.unwrap();

    // Even when it is changed in the same step.
    let after = Service::start(with(&nats, dir.path(), 2, Some(1))).await;
    assert_eq!(user(after.sign_in("ann@example.com", "correct horse").await, StatusCode::OK).await, ann);
    all_wrapped_by(&keys, 2).await;
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_system_may_begin_with_any_version() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    for _ in 0..2 {
        let auth = Service::start(with(&nats, dir.path(), 3, None)).await;
        auth.sign_up("ann@example.com", "correct horse").await;
        assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status(), StatusCode::OK);
        auth.stop().await;
    }
}
