//! `ticketing nats-keys`: a key for each who talks to NATS, and the configuration that lets each do what it needs.
//!
//! The server learns public keys alone. Keys that are there stay: run again, it writes the configuration anew, and a key
//! for whoever has none yet.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::{nats_users::users, say};

/// The server's own account: what happens in it is about the server, not the marketplace.
const SYSTEM: &str = "system";

/// Where keys and configuration go.
#[derive(Args)]
pub(crate) struct NatsKeys {
    /// The directory for USER.nk, each the secret of one user, and users.conf, which nats-server includes
    #[arg(long, default_value = "./nats-keys")]
    out: PathBuf,
}

impl NatsKeys {
    /// Writes what is missing, and says what goes where.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds no key.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let directory = &self.out;
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let mut members = Vec::new();
        for user in users() {
            let key = kept(&secret(directory, user.name))?;
            members.push(json!({ "nkey": key.public_key(), "permissions": user.permissions }));
        }
        let system = kept(&secret(directory, SYSTEM))?;
        let configuration = directory.join("users.conf");
        write(&configuration, &accounts(&members, &system.public_key()))
            .with_context(|| format!("{} cannot be written", configuration.display()))?;
        say(&summary(directory));
        Ok(())
    }
}

fn secret(directory: &Path, user: &str) -> PathBuf {
    directory.join(format!("{user}.nk"))
}

/// The key whose seed the file holds, made if there is none.
fn kept(path: &Path) -> anyhow::Result<KeyPair> {
    let seed = match fs::read_to_string(path) {
        Ok(seed) => seed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = KeyPair::new_user().seed().with_context(|| "no key could be made")?;
            let mut file =
                create_private(path).with_context(|| format!("{} cannot be made", path.display()))?;
            // Synced: a server that knows the key must not be left with nobody who has it.
            file.write_all(format!("{seed}\n").as_bytes()).and_then(|()| file.sync_all())?;
            seed
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    // What the file holds is never shown.
    KeyPair::from_seed(seed.trim())
        .map_err(|_| anyhow::anyhow!("{} holds no seed of an nkey", path.display()))
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// In one move: a server that reloads meanwhile reads the old one or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// In the server's language, which takes JSON for values.
fn accounts(members: &[Value], system: &str) -> String {
    let marketplace = json!({ "jetstream": "enabled", "users": members });
    let own = json!({ "users": [{ "nkey": system }] });
    format!(
        "# Written by `ticketing nats-keys`: who may do what. No secret is in here.\n\
         accounts: {{\n  TICKETING: {marketplace:#}\n  SYSTEM: {own:#}\n}}\nsystem_account: SYSTEM\n"
    )
}

fn summary(directory: &Path) -> String {
    let names = users().into_iter().map(|user| user.name);
    let services = names.filter(|name| *name != "operator");
    let mut lines = vec![format!(
        "{}: include it in nats-server's configuration",
        directory.join("users.conf").display()
    )];
    lines
        .extend(services.map(|name| format!("  {name:14}  NATS_NKEY={}", secret(directory, name).display())));
    lines.push(format!(
        "  {:14}  nats context add ticketing --nkey {}",
        "people",
        secret(directory, "operator").display()
    ));
    lines.push(format!(
        "  {:14}  nats context add system --nkey {}",
        "the server",
        secret(directory, SYSTEM).display()
    ));
    lines.join("\n")
}
