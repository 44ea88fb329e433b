//! The connection to NATS.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    ConnectOptions, Server,
    connection::State,
    jetstream,
    rustls::{
        self, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

/// How long one request to the server may take before its outcome counts as unknown.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Where NATS is and who we are there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One URL, or several separated by commas.
    pub url: String,
    /// How we prove who we are.
    pub auth: Auth,
    /// The file (PEM) of the authorities that may say who the server is: none other is believed, and nothing is said
    /// before TLS. `None`: TLS only if the server insists on it.
    pub ca: Option<PathBuf>,
    /// Shown by the server in its list of connections.
    pub name: String,
}

/// How a client proves who it is.
#[derive(Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// With a password.
    Password {
        /// The NATS user.
        user: String,
        /// Its password.
        password: String,
    },
    /// With a credentials file: a JWT and the seed of its key.
    Credentials(PathBuf),
    /// With a file that holds the seed of an nkey: the server knows the public half alone.
    Nkey(PathBuf),
}

impl Auth {
    /// The strongest proof there is: a credentials file, else an nkey, else a user with a password, else none.
    pub fn from_parts(
        user: Option<String>,
        password: Option<String>,
        credentials: Option<PathBuf>,
        nkey: Option<PathBuf>,
    ) -> Self {
        match (credentials, nkey, user) {
            (Some(path), ..) => Auth::Credentials(path),
            (None, Some(path), _) => Auth::Nkey(path),
            (None, None, Some(user)) => Auth::Password { user, password: password.unwrap_or_default() },
            (None, None, None) => Auth::None,
        }
    }
}

impl std::fmt::Debug for Auth {
    /// Names the kind alone: a password does not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::None => "None",
            Auth::Password { .. } => "Password",
            Auth::Credentials(_) => "Credentials",
            Auth::Nkey(_) => "Nkey",
        })
    }
}

/// A connection that heals itself: it is there at once and reconnects for ever.
#[derive(Clone, Debug)]
pub struct Connection {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    /// Why the last attempt to connect failed.
    failure: Arc<Mutex<Option<String>>>,
}

/// The connection's settings cannot work, whatever the server says.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that proves who we are, or who the server is, cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// No server could be believed.
    #[error("{} holds no certificate of an authority: {reason}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: rustls::Error,
    },
    /// The URL is malformed.
    #[error("NATS cannot be connected: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

impl Connection {
    /// Starts to connect, and returns before it has: [`Connection::is_up`] tells when.
    ///
    /// # Errors
    /// When the settings cannot work. A server that does not answer is not an error.
    pub async fn open(settings: Settings) -> Result<Self, ConnectError> {
        let options = match settings.auth {
            Auth::None => ConnectOptions::new(),
            Auth::Password { user, password } => ConnectOptions::with_user_and_password(user, password),
            Auth::Credentials(path) => ConnectOptions::with_credentials(&read(&path)?)
                .map_err(|source| ConnectError::File { path, source })?,
            Auth::Nkey(path) => ConnectOptions::with_nkey(read(&path)?.trim().to_owned()),
        };
        let servers: Vec<&str> = settings.url.split(',').map(str::trim).collect();
        let options = match settings.ca {
            // Read at each attempt, so that a renewed file counts without a restart.
            Some(path) => {
                hold_an_authority(&path)?;
                options.add_root_certificates(path).require_tls(true)
            }
            None => options,
        };
        let failure = Arc::new(Mutex::default());
        let noted = failure.clone();
        let client = options
            // Of our own, so that the server can keep others from listening to our answers.
            .custom_inbox_prefix(format!("_INBOX.{}", settings.name))
            .name(settings.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| Duration::from_millis(50 * (attempt as u64).min(20)))
            .request_timeout(Some(REQUEST_TIMEOUT))
            // A server that freezes is left for another within seconds.
            .ping_interval(Duration::from_secs(5))
            // A burst of acknowledgements must not make a consumer of ours a slow one.
            .subscription_capacity(64 * 1024)
            .event_callback(async |event| tracing::info!(nats.event = %event, "nats connection"))
            // Asked before each attempt: the events do not say why the one before failed. The choice is not ours.
            .reconnect_to_server_callback(move |servers, _| {
                note(&noted, &servers);
                async { None }
            })
            .connect(servers)
            .await?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(64 * 1024)
            .build(client.clone());
        Ok(Self { client, jetstream, failure })
    }

    /// Whether the server is connected right now.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Why it is not connected, as far as the last attempt tells.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// JetStream on this connection.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Sends what is still buffered: at the end, so that the last acknowledgements arrive.
    pub async fn flush(&self) {
        if self.is_up() {
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await;
        }
    }
}

fn read(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|source| ConnectError::File { path: path.to_owned(), source })
}

/// Whether a server could be believed at all: told at the start, and not by a connection that never comes.
fn hold_an_authority(path: &Path) -> Result<(), ConnectError> {
    let pem = read(path)?;
    let mut authorities = RootCertStore::empty();
    let added = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| certificate.map_err(|error| rustls::Error::General(error.to_string())))
        .try_for_each(|certificate| authorities.add(certificate?));
    let held = added.and_then(|()| match authorities.is_empty() {
        true => Err(rustls::Error::General("there is none in it".into())),
        false => Ok(()),
    });
    held.map_err(|reason| ConnectError::Authority { path: path.to_owned(), reason })
}

/// Keeps why servers could not be connected, and says so when it is something new.
fn note(failure: &Mutex<Option<String>>, servers: &[Server]) {
    let failed = servers.iter().find_map(|server| Some((&server.addr, server.last_error.clone()?)));
    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
    // Not the whole address: there may be a password in it.
    if let Some((server, reason)) = &failed
        && failure.as_ref() != Some(reason)
    {
        let (host, port) = (server.host(), server.port());
        tracing::warn!(nats.host = host, nats.port = port, nats.error = %reason, "nats cannot be connected");
    }
    *failure = failed.map(|(_, reason)| reason);
}
