//! The all-in-one binary as a process, in a directory of its own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{self, PATIENCE};

/// How long the process may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The line of its summary that comes last.
const LAST_LINE: &str = "  stripe";

/// A running all-in-one. Dropping it kills it.
pub(crate) struct Whole {
    child: Child,
    /// Where its API is: `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    /// What it said on stdout when it was ready.
    pub(crate) summary: Vec<String>,
    directory: PathBuf,
}

impl Whole {
    /// Starts one that keeps everything in `directory`, and waits until it says that it is ready.
    pub(crate) async fn start(directory: &Path, variables: &[(&str, &str)]) -> Self {
        let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
        let mut child = command(directory, variables).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut summary = Vec::new();
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let last = line.starts_with(LAST_LINE);
                summary.push(line);
                if last {
                    break;
                }
            }
        };
        let read = timeout(PATIENCE, read).await;
        let port = summary.first().and_then(|line| line.strip_prefix("ready: http://localhost:"));
        let (Ok(()), Some(port)) = (read, port) else {
            panic!("not ready; it says:\n{}", fs::read_to_string(directory.join("log")).unwrap());
        };
        let url = format!("http://127.0.0.1:{port}");
        Self { child, url, summary, directory: directory.to_owned() }
    }

    /// Runs one that is expected to end by itself.
    pub(crate) async fn attempt(directory: &Path, variables: &[(&str, &str)]) -> Output {
        let child = command(directory, variables).stderr(Stdio::piped()).spawn().unwrap();
        timeout(PATIENCE, child.wait_with_output()).await.expect("ends by itself").unwrap()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Where its log is, for clients of NATS.
    pub(crate) fn nats_url(&self) -> &str {
        let line = self.summary.iter().find_map(|line| line.trim().strip_prefix("nats "));
        line.expect("a line about nats").trim()
    }

    /// SIGTERM or SIGINT, by name; waits until it has ended.
    pub(crate) async fn stop(mut self, signal: &str) -> ExitStatus {
        support::send(signal, self.child.id().unwrap());
        timeout(ENDS_WITHIN, self.child.wait()).await.expect("ends in time").unwrap()
    }

    /// SIGKILL; waits until it is dead, which says nothing of its nats-server.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// What it has written to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

/// The nats-servers that keep their logs in `directory`.
pub(crate) fn nats_servers_of(directory: &Path) -> Vec<u32> {
    let directory = directory.to_str().unwrap();
    let is_one = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let mut arguments = arguments.split('\0');
        let program = arguments.next().unwrap_or_default();
        program.ends_with("nats-server") && arguments.any(|argument| argument.starts_with(directory))
    };
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

fn command(directory: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    // What a nats-server is found by; nothing else of the tester's world.
    let kept = ["PATH", "HOME", "XDG_CACHE_HOME"];
    command
        .env_clear()
        .envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs([("PORT", "0"), ("SCRYPT_LOG_N", "14")])
        .env("DATA_DIR", directory.join("data"))
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}
