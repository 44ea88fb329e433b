//! Commands: load, decide, append; on a conflict again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    event::Cause,
    log::{AppendError, Appended, Log},
    rows::Head,
    view::{Projection, View, keeps_heads},
};

/// How often a decision is taken again because another process was faster.
const ATTEMPTS: u32 = 8;
/// How long a decision is taken again because somebody else of this process was faster: each time one of them lands.
const RIVALRY: Duration = Duration::from_secs(10);
/// How long a command waits for the projection to pass a sequence.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes decisions on the subjects of one log. Clones share it.
pub struct Decider<P: Projection> {
    log: Log,
    view: View<P>,
}

impl<P: Projection> Clone for Decider<P> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), view: self.view.clone() }
    }
}

impl<P: Projection> fmt::Debug for Decider<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decider({})", P::NAME)
    }
}

/// What came of a command.
pub struct Decided<P: Projection> {
    /// The subject's state afterwards.
    pub state: P::State,
    /// Its last event's version; `None` when it has none.
    pub version: Option<u64>,
    /// The sequence of its last message: what a reader must have seen to see this.
    pub sequence: u64,
    /// What was appended; `None` when nothing had to be.
    pub appended: Option<Appended>,
}

/// Why a command came to nothing. `R` is the domain's own reason.
#[derive(Debug, thiserror::Error)]
pub enum DecideError<R> {
    /// The domain says no.
    #[error("rejected")]
    Rejected(R),
    /// It was not for the domain.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl<P: Projection> Decider<P> {
    /// Decides on the subjects of the log that `view` follows. What has no state cannot be decided on: it does not
    /// compile.
    pub fn new(view: View<P>) -> Self {
        const { assert!(keeps_heads::<P>(), "nothing is kept of the subjects of a projection without state") };
        Self { log: view.log().clone(), view }
    }

    /// The rows it decides on.
    pub fn view(&self) -> &View<P> {
        &self.view
    }

    /// Lets `decide` look at the state of `subject`, and appends the event that it makes of it, if any.
    ///
    /// The state may be behind the log. An event decided on a stale state never gets in: the append conflicts, and
    /// `decide` is asked again with the newer one; so it must be pure but for what it captured. To decide *nothing*
    /// on a stale state is harmless for a [`Cause::Command`], whose caller can ask again; for a [`Cause::Event`], which
    /// is about to be acknowledged for ever, the state is first compared with the log's leader.
    ///
    /// Returns once the local projection shows the event, so that the caller reads what it wrote; or after 5 s, when
    /// the projection is late, as the event is in the log by then.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn transact<R>(
        &self,
        subject: &str,
        cause: Cause,
        mut decide: impl FnMut(&P::State) -> Result<Option<P::Event>, R>,
    ) -> Result<Decided<P>, DecideError<R>> {
        let (started, mut attempt) = (Instant::now(), 0);
        while attempt < ATTEMPTS && started.elapsed() < RIVALRY {
            // Who decides beside an append that is on its way decides in vain.
            if let Some(sequence) = self.log.settled(subject).await.map_err(Error::from)? {
                self.view.wait_for(sequence, PATIENCE).await?;
            }
            let head = self.view.head(subject)?;
            let decision = decide(&head.state);
            let Ok(Some(event)) = decision else {
                if matches!(cause, Cause::Event(_)) && !self.is_current(subject, &head).await? {
                    attempt += 1;
                    continue;
                }
                // Its rows come one by one, and who is answered reads on in them.
                self.view.wait_for(head.sequence, PATIENCE).await?;
                return match decision {
                    Ok(_) => Ok(Decided {
                        state: head.state,
                        version: head.version,
                        sequence: head.sequence,
                        appended: None,
                    }),
                    Err(rejection) => Err(DecideError::Rejected(rejection)),
                };
            };
            match self.log.append(subject, &event, head.next_version(), head.sequence, cause).await {
                Ok(appended) => return Ok(self.settle(head, &event, appended).await),
                Err(AppendError::Conflict { reached: Some(sequence) }) => {
                    self.view.wait_for(sequence, PATIENCE).await?;
                }
                Err(AppendError::Conflict { reached: None }) => {
                    tracing::debug!(subject, attempt, "deciding again after a conflict");
                    // Jitter: two that collided do not collide again in step.
                    tokio::time::sleep(jitter(attempt)).await;
                    self.is_current(subject, &head).await?;
                    attempt += 1;
                }
                Err(AppendError::Unavailable(error)) => return Err(DecideError::Failed(error.into())),
                Err(AppendError::Encode(error)) => return Err(DecideError::Failed(error.into())),
            }
        }
        Err(DecideError::Failed(Error::Conflicts))
    }

    /// The state of `subject` with all that the log's leader holds of it at this moment.
    ///
    /// # Errors
    /// When the leader cannot be asked, or the projection does not get there in time.
    pub async fn current(&self, subject: &str) -> Result<Head<P::State>, Error> {
        for _ in 0..ATTEMPTS {
            let head = self.view.head(subject)?;
            if self.is_current(subject, &head).await? {
                return Ok(head);
            }
        }
        Err(Error::Conflicts)
    }

    /// Whether nothing was appended to `subject` since `head`; if something was, returns once it is applied.
    async fn is_current(&self, subject: &str, head: &Head<P::State>) -> Result<bool, Error> {
        let last = self.log.last_on(subject).await?;
        if last <= head.sequence {
            return Ok(true);
        }
        self.view.wait_for(last, PATIENCE).await?;
        Ok(false)
    }

    async fn settle(&self, head: Head<P::State>, event: &P::Event, appended: Appended) -> Decided<P> {
        // The event is in the log whatever the projection does: being late is no failure of the command.
        if let Err(error) = self.view.wait_for(appended.sequence, PATIENCE).await {
            tracing::warn!(%error, "answering before the projection shows it");
        }
        let version = head.next_version();
        Decided {
            state: P::evolve(head.state, event),
            version: Some(version),
            sequence: appended.sequence,
            appended: Some(appended),
        }
    }
}

/// A random delay of up to a few milliseconds, longer with each attempt.
fn jitter(attempt: u32) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u64;
    Duration::from_micros(random % (2_000 << attempt.min(6)))
}
