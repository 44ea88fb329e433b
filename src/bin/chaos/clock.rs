//! A clock of its own for each process: a few lines of C between it and the C library.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

const SOURCE: &str = include_str!("clock.c");

/// What a process is started with to be ahead, or behind.
pub(crate) struct Clocks {
    library: PathBuf,
}

impl Clocks {
    /// Compiles the library into `directory`, by the C compiler that building this needs anyway.
    ///
    /// # Errors
    /// When there is none, or this is a system whose clock is asked in another way.
    pub(crate) fn compile(directory: &Path) -> anyhow::Result<Self> {
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        let compiler =
            compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
        let output = compiler.stdin(Stdio::null()).output().context("cc cannot be started")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { library })
    }

    /// The variables for a process that is so far ahead.
    pub(crate) fn variables(&self, ahead_ms: i64) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("CLOCK_AHEAD_MS", ahead_ms.to_string())]
    }
}
