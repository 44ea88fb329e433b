//! Alive, and ready: what the parts of a process say about themselves.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Map, Value, json};
use warp::{Reply, reply::Response};

use crate::ApiError;

/// What one part says about itself. The text says why, for operators; it is shown by `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Ready,
    /// Not yet caught up: `replaying ORDERS 120 of 4000`.
    Starting(String),
    /// Works with less than it should, and comes back by itself: a connection is lost. Not ready, but requests
    /// are still served as far as they can be.
    Disconnected(String),
    /// Stopped for good, and what it knows may be wrong: nothing is served.
    Broken(String),
}

/// What all parts of a service say about themselves. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: RwLock<Vec<(String, Check)>>,
    was_ready: AtomicBool,
}

type Check = Box<dyn Fn() -> Status + Send + Sync>;

impl Health {
    /// Without any check: ready. Checks are added before [`serve`](crate::serve).
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part. It is asked for each request while the service starts and for each probe: it must be quick.
    pub fn check(&self, name: impl Into<String>, check: impl Fn() -> Status + Send + Sync + 'static) {
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push((name.into(), Box::new(check)));
    }

    /// What each part says, in the order they were added.
    pub fn report(&self) -> Vec<(String, Status)> {
        let checks = self.0.checks.read().unwrap_or_else(PoisonError::into_inner);
        let report: Vec<_> = checks.iter().map(|(name, check)| (name.clone(), check())).collect();
        if report.iter().all(|(_, status)| *status == Status::Ready) {
            self.0.was_ready.store(true, Ordering::Relaxed);
        }
        report
    }

    /// The worst that any part says, with the part's name in the reason.
    pub fn status(&self) -> Status {
        let unready = self.report().into_iter().filter_map(|(name, status)| {
            let text = |why| format!("{name}: {why}");
            match status {
                Status::Ready => None,
                Status::Starting(why) => Some(Status::Starting(text(why))),
                Status::Disconnected(why) => Some(Status::Disconnected(text(why))),
                Status::Broken(why) => Some(Status::Broken(text(why))),
            }
        });
        // By severity first: the order of the variants.
        unready.max().unwrap_or(Status::Ready)
    }

    /// Whether all parts are ready.
    pub fn is_ready(&self) -> bool {
        self.status() == Status::Ready
    }

    /// Waits until all parts are ready.
    pub async fn ready(&self) {
        while !self.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why no request is served now: it was never ready yet, it is building its rows anew, or it is broken.
    pub(crate) fn gate(&self) -> Result<(), ApiError> {
        match self.status() {
            Status::Broken(_) => Err(ApiError::unavailable(1)),
            Status::Starting(_) => Err(ApiError::starting()),
            _ if self.0.was_ready.load(Ordering::Relaxed) => Ok(()),
            _ => Err(ApiError::starting()),
        }
    }

    /// `/readyz`.
    pub(crate) fn readiness(&self) -> Response {
        let mut reasons = Map::new();
        for (name, status) in self.report() {
            if status != Status::Ready {
                reasons.insert(name, Value::String(status.to_string()));
            }
        }
        if reasons.is_empty() {
            return warp::reply::json(&json!({"status": "ready"})).into_response();
        }
        let body = warp::reply::json(&json!({"status": "not ready", "reasons": reasons}));
        warp::reply::with_status(body, StatusCode::SERVICE_UNAVAILABLE).into_response()
    }
}

/// `/healthz`: it answers, so it lives.
pub(crate) fn liveness() -> Response {
    warp::reply::json(&json!({"status": "ok"})).into_response()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Ready => f.write_str("ready"),
            Status::Starting(why) => write!(f, "starting: {why}"),
            Status::Disconnected(why) => write!(f, "disconnected: {why}"),
            Status::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.report()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A health whose one part says what it is told to.
    fn told() -> (Health, impl Fn(Status)) {
        let says = Arc::new(Mutex::new(Status::Starting("replaying".into())));
        let health = Health::new();
        let told = says.clone();
        health.check("log", move || told.lock().unwrap().clone());
        (health, move |status| *says.lock().unwrap() = status)
    }

    #[test]
    fn the_gate_opens_once_ready_and_stays_open_without_a_connection() {
        let (health, say) = told();
        assert!(health.gate().is_err());
        say(Status::Disconnected("no server".into()));
        assert!(health.gate().is_err());
        say(Status::Ready);
        assert!(health.gate().is_ok());
        say(Status::Disconnected("no server".into()));
        assert!(health.gate().is_ok());
        assert!(!health.is_ready());
    }

    #[test]
    fn the_gate_closes_on_what_is_broken() {
        let (health, say) = told();
        say(Status::Ready);
        assert!(health.gate().is_ok());
        say(Status::Broken("gap at 7".into()));
        assert!(health.gate().is_err());
    }

    #[test]
    fn the_worst_part_speaks_for_all() {
        let health = Health::new();
        assert_eq!(health.status(), Status::Ready);
        health.check("a", || Status::Broken("gap".into()));
        health.check("b", || Status::Starting("replaying".into()));
        health.check("c", || Status::Ready);
        assert_eq!(health.status(), Status::Broken("a: gap".into()));
        assert_eq!(health.readiness().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
