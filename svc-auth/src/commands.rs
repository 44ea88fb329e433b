//! The use cases: load, decide, append.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{UserId, http::User, stream::user_subject};
use eventstore::{Cause, Decider};
use uuid::Uuid;
use web::{Claims, Client, limit::Limit};

use crate::{
    domain::{self, Account, Address, Email, Password, Rejection},
    error::Error,
    passwords::Passwords,
    projections::Users,
    sealing::Field,
    user_keys::UserKeys,
};

/// How long to wait for the projection to reach the end of the stream before somebody is said not to exist.
const PATIENCE: Duration = Duration::from_secs(2);

/// An id that is nobody's.
const NOBODY: UserId = UserId(Uuid::nil());

/// What the use cases work on. Clones share it.
#[derive(Clone)]
pub struct App {
    pub(crate) users: Decider<Users>,
    pub(crate) user_keys: UserKeys,
    pub(crate) passwords: Passwords,
    pub(crate) signups: Arc<Limit<Client>>,
    pub(crate) signin_failures: SigninFailures,
}

/// How often a sign-in may fail. Clones share the count.
#[derive(Clone)]
pub(crate) struct SigninFailures(Arc<(Limit<Client>, Limit<String>)>);

impl SigninFailures {
    /// So many a minute from one client, and ten times as many at one account, whether or not anybody has it; 0 is no limit.
    ///
    /// With as few at an account, a single client could keep its owner out for as long as it likes.
    pub(crate) fn per_minute(count: u32) -> Self {
        Self(Arc::new((Limit::per_minute(count), Limit::per_minute(count.saturating_mul(10)))))
    }

    fn check(&self, client: Client, subject: &String) -> Result<(), Error> {
        let now = Instant::now();
        self.0.0.check(&client, now)?;
        self.0.1.check(subject, now)?;
        Ok(())
    }

    fn count(&self, client: Client, subject: &str) {
        let now = Instant::now();
        self.0.0.count(client, now);
        self.0.1.count(subject.to_owned(), now);
    }
}

/// A new user, and the sequence that a reader must have seen to see them.
pub(crate) struct SignedUp {
    pub(crate) user: User,
    pub(crate) sequence: u64,
}

/// Who signed in, and the epoch of their sessions.
pub(crate) struct SignedIn {
    pub(crate) user: User,
    pub(crate) epoch: u32,
}

/// Makes an account for whoever has this address.
pub(crate) async fn sign_up(
    app: &App,
    client: Client,
    email: Email,
    password: Password,
) -> Result<SignedUp, Error> {
    app.signups.take(client, Instant::now())?;
    let subject = user_subject(&app.user_keys.email_key(&email)?);
    refuse_early(app, &subject).await?;

    let turn = app.passwords.turn(client, None).await?;
    let hash = turn.hash(password).await?;
    drop(turn);
    let id = UserId(Uuid::now_v7());
    // Before the event: a key without an account harms nobody, an account without its key could never be opened.
    let key = app.user_keys.make(id).await?;
    let account = Account {
        id,
        email: key.seal(Field::Email, email.as_str())?,
        password_hash: key.seal(Field::PasswordHash, &hash)?,
        epoch: 0,
    };
    let decided =
        app.users.transact(&subject, Cause::Command, |address| domain::sign_up(address, &account)).await?;
    Ok(SignedUp { user: User { id, email: email.as_str().into() }, sequence: decided.sequence })
}

/// Who has this address and this password. Takes the same steps, and so the same time, whether it is the one or the
/// other that is wrong.
pub(crate) async fn sign_in(
    app: &App,
    client: Client,
    email: Email,
    password: Password,
) -> Result<SignedIn, Error> {
    let subject = user_subject(&app.user_keys.email_key(&email)?);
    app.signin_failures.check(client, &subject)?;
    app.users.view().catch_up(PATIENCE).await?;
    let account = match app.users.view().head(&subject)?.state {
        Address::Taken(account) => Some(account),
        Address::Free => None,
    };
    let (id, epoch) = account.as_ref().map_or((NOBODY, 0), |account| (account.id, account.epoch));
    let hash = password_hash(app, account.as_ref()).await?;
    verify(app, client, &subject, password, hash).await?;
    Ok(SignedIn { user: User { id, email: email.as_str().into() }, epoch })
}

/// Whether a session is still good: its user has its address, and has not ended their sessions since.
///
/// As of what this replica has read. Before it can tell, no session is good.
pub(crate) fn is_signed_in(app: &App, claims: &Claims) -> bool {
    address_of(app, claims)
        .is_some_and(|address| domain::is_signed_in(&address, UserId(claims.id), claims.epoch))
}

/// Whether a session may ask for its user to be erased: whoever is erased already may ask again.
pub(crate) fn may_be_erased(app: &App, claims: &Claims) -> bool {
    address_of(app, claims)
        .is_some_and(|address| !domain::has_signed_out(&address, UserId(claims.id), claims.epoch))
}

/// What is known of the address that a session was made for.
fn address_of(app: &App, claims: &Claims) -> Option<Address> {
    // Another than those that anybody can have is none of ours.
    let email = Email::parse(&claims.email)?;
    let email_key = app.user_keys.email_key(&email).ok()?;
    let head = app.users.view().head(&user_subject(&email_key));
    head.inspect_err(|error| tracing::error!(%error, "nobody's session can be judged"))
        .ok()
        .map(|head| head.state)
}

/// Ends all sessions of whoever has this one; returns the sequence that a reader must have seen.
pub(crate) async fn sign_out_everywhere(app: &App, claims: &Claims, email: &Email) -> Result<u64, Error> {
    let subject = user_subject(&app.user_keys.email_key(email)?);
    let decided = app
        .users
        .transact(&subject, Cause::Command, |address| {
            Ok::<_, Rejection>(domain::sign_out_everywhere(address, UserId(claims.id), claims.epoch))
        })
        .await?;
    Ok(decided.sequence)
}

/// Erases whoever has the session, if it is their password; returns the sequence that a reader must have seen.
///
/// The key first, then the event. A crash between the two leaves an address that is still taken by somebody whom nobody
/// can read any more; the other way round it would leave a free address, and a key that opens what is in the log for
/// ever, as nothing would tell that it is one too many.
///
/// Whoever asks again gets to the same end. With the key in place, nothing has happened yet. Without it there is no
/// hash to compare with: it was destroyed by somebody who knew the password, so the event is all that is missing.
/// And where the address is free, or another's by now, that is there, too.
pub(crate) async fn erase(
    app: &App,
    client: Client,
    id: UserId,
    email: Email,
    password: Password,
) -> Result<u64, Error> {
    let subject = user_subject(&app.user_keys.email_key(&email)?);
    app.signin_failures.check(client, &subject)?;
    app.users.view().catch_up(PATIENCE).await?;
    if let Address::Taken(account) = app.users.view().head(&subject)?.state
        && account.id == id
        && let Some(hash) = password_hash(app, Some(&account)).await?
    {
        verify(app, client, &subject, password, Some(hash)).await?;
    }
    // Also when it seems gone already: destroyed twice, it is gone once.
    app.user_keys.destroy(id).await?;
    let decided = app
        .users
        .transact(&subject, Cause::Command, |address| Ok::<_, Rejection>(domain::erase(address, id)))
        .await?;
    Ok(decided.sequence)
}

/// The hash of the account's password; `None` without an account, and without its key: then its owner is erased, even
/// if the event is still to come.
async fn password_hash(app: &App, account: Option<&Account>) -> Result<Option<String>, Error> {
    let id = account.map_or(NOBODY, |account| account.id);
    // Asked for nobody, too: that takes as long.
    let key = app.user_keys.get(id).await?;
    let Some((account, key)) = account.zip(key) else { return Ok(None) };
    Ok(Some(key.open(Field::PasswordHash, &account.password_hash)?))
}

/// Holds the password against the hash, and a failure against the client and the address.
async fn verify(
    app: &App,
    client: Client,
    subject: &String,
    password: Password,
    hash: Option<String>,
) -> Result<(), Error> {
    let turn = app.passwords.turn(client, hash.as_deref()).await?;
    // Again: others of this client's may have failed while this one waited. The turn is held until its own failure
    // counts, so trying many at once gains no more tries than there are turns.
    app.signin_failures.check(client, subject)?;
    if !turn.verify(password, hash).await? {
        app.signin_failures.count(client, subject);
        return Err(Error::InvalidCredentials);
    }
    Ok(())
}

/// Spares the work for an address that is taken. For one that seems free, the decision that follows the work counts.
async fn refuse_early(app: &App, subject: &str) -> Result<(), Error> {
    let view = app.users.view();
    if domain::vacant(&view.head(subject)?.state).is_ok() {
        return Ok(());
    }
    // Another replica may have erased them a moment ago.
    view.catch_up(PATIENCE).await?;
    Ok(domain::vacant(&view.head(subject)?.state)?)
}
