//! A small disk of our own for the log, which can be full.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// How a program gets mounts of its own, that nobody else sees and that are gone when it is: as root, or as anybody where
/// the kernel lets them.
const APART: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// Starts this program again where its mounts are its own, with `argument` added to its command line. Returns only when
/// that is not possible.
pub(crate) fn start_apart(argument: &str) {
    use std::os::unix::process::CommandExt;

    let is_possible = |how: &&&[&str]| {
        let mut tried = Command::new("unshare");
        let tried = tried.args(**how).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
        let status = tried.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if let Some(how) = APART.iter().find(is_possible)
        && let Ok(program) = std::env::current_exe()
    {
        let mut command = Command::new("unshare");
        let _ = command.args(*how).arg(program).args(std::env::args_os().skip(1)).arg(argument).exec();
    }
}

/// A tmpfs.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts it at `path`, which must be there.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn mount(path: &Path, megabytes: u64) -> anyhow::Result<Self> {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(path);
        let status = mount.stdin(Stdio::null()).status().context("mount cannot be started")?;
        ensure!(status.success(), "mount: {status}");
        Ok(Self { path: path.to_owned() })
    }

    /// Leaves no byte on it.
    ///
    /// # Errors
    /// When something else is wrong with it.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.ballast())?;
        for size in [1 << 20, 4 << 10, 1] {
            let block = vec![0; size];
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// There is room again.
    ///
    /// # Errors
    /// When it was not full.
    pub(crate) fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    /// Unmounts it, and with it goes what is on it; a copy stays at `kept`.
    ///
    /// # Errors
    /// When the copy is not whole, or somebody still has a file open there.
    pub(crate) fn unmount(self, kept: Option<&Path>) -> anyhow::Result<()> {
        if let Some(kept) = kept {
            let status = Command::new("cp").arg("-r").arg(&self.path).arg(kept).status()?;
            ensure!(status.success(), "cp: {status}");
        }
        let status = Command::new("umount").arg(&self.path).status()?;
        ensure!(status.success(), "umount: {status}");
        Ok(())
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}
