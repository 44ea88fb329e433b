//! Many services behind one socket, each at its own path, in one process.

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
};

use futures::FutureExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::Reply;

use crate::{
    ApiError, Health, Listener,
    health::Status,
    metrics,
    serve::accept,
    service::{Answer, Handler, Life, Request, observe, system},
};

/// One socket for many services. A request goes to the service at the longest prefix of its path, within this
/// process and as it came: neither parsed again nor copied.
///
/// A service that is not served (yet, or any more) answers 503. `/healthz`, `/readyz` and `/metrics` are the
/// front's own, for all of them.
#[derive(Debug, Default)]
pub struct Front {
    mounts: Vec<Arc<Slot>>,
    health: Health,
}

/// A service's place on a front.
#[derive(Debug)]
pub(crate) struct Mount(Arc<Slot>);

struct Slot {
    name: Arc<str>,
    /// `None`: no path leads here.
    prefix: Option<String>,
    serving: RwLock<Option<(Handler, Health)>>,
}

impl Front {
    /// A front without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// A place for the service `name` at `prefix` (`/api/orders`) and below; `/` takes what no other does.
    pub fn mount(&mut self, name: &str, prefix: &str) -> Listener {
        self.add(name, Some(prefix.trim_end_matches('/').to_owned()))
    }

    /// A place without a path, for the service `name` that answers nobody: its health counts all the same.
    pub fn mount_hidden(&mut self, name: &str) -> Listener {
        self.add(name, None)
    }

    fn add(&mut self, name: &str, prefix: Option<String>) -> Listener {
        let slot = Arc::new(Slot { name: name.into(), prefix, serving: RwLock::default() });
        self.mounts.push(slot.clone());
        let asked = slot.clone();
        self.health.check(name, move || asked.status());
        Mount(slot).into()
    }

    /// Ready when every service is.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves all of them until the shutdown. Returns when no request runs any more, or after eight seconds.
    ///
    /// # Errors
    /// As [`serve`](crate::serve).
    pub async fn serve(self, tcp: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        metrics::handle();
        let life = Life::until(shutdown.clone());
        let handler: Handler = Arc::new(move |request| match self.find(request.uri().path()) {
            Target::Service(handler) => handler(request),
            Target::NotServing => {
                observe(request, &life, |_| async { ApiError::starting().into_response() }).boxed()
            }
            Target::Front => self.own(request, &life).boxed(),
        });
        accept(tcp, handler, shutdown).await
    }

    fn find(&self, path: &str) -> Target {
        if matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return Target::Front;
        }
        let covering = self.mounts.iter().filter(|slot| slot.covers(path));
        let longest = covering.max_by_key(|slot| slot.prefix.as_ref().map(String::len));
        match longest.map(|slot| slot.handler()) {
            Some(Some(handler)) => Target::Service(handler),
            Some(None) => Target::NotServing,
            None => Target::Front,
        }
    }

    fn own(&self, request: Request, life: &Life) -> impl Future<Output = Answer> + Send + 'static {
        let health = self.health.clone();
        observe(request, life, |request| async move {
            system(&request, &health).unwrap_or_else(|| ApiError::not_found().into_response())
        })
    }
}

enum Target {
    Service(Handler),
    NotServing,
    Front,
}

impl Slot {
    /// Whole segments only: `/api/orders` is no prefix of `/api/ordersx`.
    fn covers(&self, path: &str) -> bool {
        let rest = self.prefix.as_ref().and_then(|prefix| path.strip_prefix(prefix.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn handler(&self) -> Option<Handler> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        serving.as_ref().map(|(handler, _)| handler.clone())
    }

    fn status(&self) -> Status {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        serving.as_ref().map_or(Status::Starting("not serving".into()), |(_, health)| health.status())
    }
}

impl Mount {
    pub(crate) fn name(&self) -> Arc<str> {
        self.0.name.clone()
    }

    pub(crate) fn open(&self, handler: Handler, health: Health) {
        *self.0.serving.write().unwrap_or_else(PoisonError::into_inner) = Some((handler, health));
    }

    pub(crate) fn close(&self) {
        *self.0.serving.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Mount {
    /// A service that failed must not look as if it served.
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("prefix", &self.prefix).field("status", &self.status()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(prefix: &str, path: &str) -> bool {
        let mut front = Front::new();
        let _listener = front.mount("service", prefix);
        front.mounts[0].covers(path)
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        assert!(covers("/api/orders", "/api/orders"));
        assert!(covers("/api/orders", "/api/orders/7/events"));
        assert!(covers("/api/orders/", "/api/orders"));
        assert!(!covers("/api/orders", "/api/ordersx"));
        assert!(!covers("/api/orders", "/api"));
        assert!(covers("/", "/"));
        assert!(covers("/", "/api/ordersx"));
    }

    #[test]
    fn a_hidden_service_has_no_path_and_still_counts() {
        let mut front = Front::new();
        let _listener = front.mount_hidden("service");
        assert!(["", "/", "*", "/service"].iter().all(|path| !front.mounts[0].covers(path)));
        assert!(!front.health().is_ready());
    }
}
