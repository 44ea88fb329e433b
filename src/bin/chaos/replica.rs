//! One process of a service: its socket, its way to NATS, its data, its clock.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};

use anyhow::Context;
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};

use crate::{clock::Clocks, proxy::Proxy, schedule::Who};

/// This program once more: the one that runs, also when another was built in its place meanwhile.
pub(crate) fn this_program() -> Command {
    Command::new("/proc/self/exe")
}

/// A process that is started again and again.
pub(crate) struct Replica {
    who: Who,
    /// Held for the whole run, and lent to each process in turn.
    socket: TcpListener,
    url: String,
    pub(crate) way: Proxy,
    data_dir: PathBuf,
    log: PathBuf,
    variables: HashMap<&'static str, String>,
    pub(crate) ahead_ms: AtomicI64,
    running: Mutex<Option<Child>>,
    is_up: AtomicBool,
}

impl Replica {
    /// One that does not run yet.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub(crate) fn new(
        who: Who,
        directory: &Path,
        way: Proxy,
        mut variables: HashMap<&'static str, String>,
        ahead_ms: i64,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let data_dir = directory.join(who.to_string());
        variables.insert("DATA_DIR", data_dir.display().to_string());
        variables.insert("NATS_URL", way.url());
        Ok(Self {
            who,
            url: format!("http://{}", socket.local_addr()?),
            socket,
            way,
            data_dir,
            log: directory.join(format!("{who}.log")),
            variables,
            ahead_ms: ahead_ms.into(),
            running: Mutex::new(None),
            is_up: AtomicBool::new(false),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether there is a process. An ingress would know, too.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// What it has written to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) async fn start(&self, clocks: Option<&Clocks>) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let clock = clocks.map(|clocks| clocks.variables(self.ahead_ms.load(Relaxed)));
        let mut command = this_program();
        let command = command
            .args(["service", self.who.service.name()])
            .env_clear()
            .envs(std::env::var_os("RUST_LOG").map(|filter| ("RUST_LOG", filter)))
            .envs(&self.variables)
            .envs(clock.into_iter().flatten())
            .stdin(Stdio::from(OwnedFd::from(self.socket.try_clone()?)))
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for chaos alone. And a group whose parent is gone is not left stopped.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{} cannot be started", self.who))?;
        *self.running.lock().await = Some(child);
        self.is_up.store(true, Relaxed);
        Ok(())
    }

    /// SIGKILL. Returns how it had ended, if it was gone before: nobody else ends it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) async fn kill(&self) -> io::Result<Option<ExitStatus>> {
        self.is_up.store(false, Relaxed);
        let Some(mut child) = self.running.lock().await.take() else { return Ok(None) };
        let ended = child.try_wait()?;
        if ended.is_none() {
            child.kill().await?;
        }
        Ok(ended)
    }

    /// Sends a signal, by name.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(crate) async fn signal(&self, name: &str) -> anyhow::Result<()> {
        let Some(id) = self.running.lock().await.as_ref().and_then(Child::id) else { return Ok(()) };
        // The shell's own `kill`: not every machine has a program of that name.
        let script = format!("kill -{name} \"$0\"");
        let status = Command::new("sh").args(["-c", &script, &id.to_string()]).status().await?;
        anyhow::ensure!(status.success(), "SIG{name} to {}: {status}", self.who);
        Ok(())
    }

    /// Deletes its projections.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.data_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
