//! The running system against its own OpenAPI document, by requests that somebody else's program makes up: valid ones and
//! every kind of invalid one, signed out and signed in.
//!
//! That is Schemathesis, with all of its checks but those named below. `SCHEMATHESIS_SECONDS` says how long each of the two
//! runs may take, `SCHEMATHESIS_SEED` makes others. Where there is no Python to install it with, the test says so and
//! does nothing, unless `CI` is true.

mod support;
mod whole;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::{Client, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use whole::Whole;

const VERSION: &str = "4.32.5";

/// What makes its requests up: of other versions a seed means other requests.
const BESIDE: [&str; 2] = ["hypothesis==6.170.17", "jsonschema-rs==0.60.3"];

/// How long each run takes at most, in seconds, unless it is said.
const SECONDS: &str = "40";

/// The same requests each time, as far as time allows: whoever looks for more says another.
const SEED: &str = "20261128";

/// An answer that has no end is none to wait for: tests/openapi.rs looks at how it begins.
const ENDLESS: &str = "/events$";

/// Nor is a session to be ended that is needed on.
const SIGNED_IN: &str = "/events$|/signout-all$";

/// Whatever the environment says, or the usual.
fn variable(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.into())
}

/// Where Schemathesis is installed, in a directory of the build's own; `None` where it cannot be.
fn installed() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (place, beside) = (target.join(format!("schemathesis-{VERSION}")), target.join("schemathesis-new"));
    if place.join("schemathesis").exists() {
        return Some(place);
    }
    let _ = std::fs::remove_dir_all(&beside);
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--target"];
    let mut command = Command::new("python3");
    let command = command.args(pip).arg(&beside).arg(format!("schemathesis=={VERSION}")).args(BESIDE);
    let done = command.stdout(Stdio::null()).status();
    if !done.is_ok_and(|status| status.success()) {
        return None;
    }
    // There whole or not at all, as somebody may stop this.
    std::fs::rename(&beside, &place).unwrap();
    Some(place)
}

struct Run {
    /// Whose session goes along.
    token: Option<String>,
    seed: String,
}

impl Run {
    fn of(self, url: &str, library: &Path) {
        let mut command = Command::new("python3");
        command
            .env("PYTHONPATH", library)
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .args(["-m", "schemathesis.cli", "--config-file"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml"))
            .args(["run", &format!("{url}/api/docs/openapi.json"), "--url", url])
            .args(["--checks", "all", "--workers", "1", "--no-color", "--max-failures", "20"])
            .args(["--continue-on-failure", "--request-timeout", "30", "--suppress-health-check", "all"])
            .args(["--max-time", &variable("SCHEMATHESIS_SECONDS", SECONDS), "--seed", &self.seed])
            .args(["--exclude-path-regex", if self.token.is_some() { SIGNED_IN } else { ENDLESS }]);
        // Whatever is valid by itself may be refused as things stand: an address is taken, a ticket is sold.
        // And an order that was deleted is cancelled, and still there to be read.
        let mut unfit = "positive_data_acceptance,use_after_free".to_owned();
        if let Some(token) = &self.token {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
            // It adds a bad cookie to the good token, and either is enough. What is good, tests/sessions.rs knows.
            unfit += ",ignored_auth";
        }
        command.args(["--exclude-checks", &unfit]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let who = if self.token.is_some() { "signed in" } else { "signed out" };
        eprintln!("{who}:\n{text}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{who}, SCHEMATHESIS_SEED={}\n{text}\n{errors}", self.seed);
        // That nothing was found means something only if something was asked.
        assert!(text.contains("generated"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_outside_the_document() {
    let Some(library) = installed() else {
        assert!(std::env::var("CI").is_err(), "python3 with pip is needed");
        return eprintln!("skipped: there is no python3 with pip");
    };
    let directory = TempDir::new().unwrap();
    let limits =
        ["SIGNUPS_PER_MINUTE", "SIGNIN_FAILURES_PER_MINUTE", "USER_REQUESTS_PER_MINUTE", "MAX_OPEN_ORDERS"];
    let limits: Vec<_> = limits.map(|limit| (limit, "0")).into_iter().chain([("RUST_LOG", "warn")]).collect();
    let whole = Whole::start(directory.path(), &limits).await;
    let body = json!({ "email": "ann@example.com", "password": "correct horse" });
    let answer =
        Client::new().post(format!("{}/api/users/signup", whole.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let token = cookie.strip_prefix("session=").unwrap().split(';').next().unwrap().to_owned();

    let seed = variable("SCHEMATHESIS_SEED", SEED);
    for token in [None, Some(token)] {
        let (run, url, library) = (Run { token, seed: seed.clone() }, whole.url.clone(), library.clone());
        tokio::task::spawn_blocking(move || run.of(&url, &library)).await.unwrap();
    }
    assert!(!whole.log().contains("panic"), "{}", whole.log());
}
