//! `ticketing nats-keys`: a key for each who talks to NATS, the configuration that lets each do what it needs, and
//! certificates.
//!
//! Everybody has a directory, which holds all that they are to have and nothing else: it can be handed over as it is. The
//! server learns public keys alone. Keys that are there stay: run again, it writes the configuration and the server's
//! certificate anew, and a key for whoever has none yet.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use nkeys::KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{nats_users, say};

/// The server's own account: what happens in it is about the server, not the marketplace.
const SYSTEM: &str = "system";

/// The directory of nats-server itself.
const SERVER: &str = "server";

/// The directory of the authority, which nobody needs but this program.
const AUTHORITY: &str = "authority";

/// How long certificates are good for. Nobody but our own services and servers believes them, and they are replaced by
/// running this again.
const GOOD_FOR: Duration = Duration::days(3653);

/// Where keys and configuration go.
#[derive(Args)]
pub(crate) struct NatsKeys {
    /// The directory. USER/nats.nk in it is the secret of one user; server/users.conf is what nats-server includes
    #[arg(long, default_value = "./nats-keys")]
    out: PathBuf,
    /// Makes an authority and a certificate for servers of these names and addresses, too: for TLS, and for the routes
    /// between them
    #[arg(long, value_name = "HOST", num_args = 1..)]
    tls: Vec<String>,
}

impl NatsKeys {
    /// Writes what is missing, and says what goes where.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds no key; when something is no name of a host.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let directory = &self.out;
        let public_key = |user: &str| anyhow::Ok(user_key(directory, user)?.public_key());
        let mut accounts = nats_users::accounts(public_key)?;
        accounts.insert("SYSTEM".to_owned(), json!({ "users": [{ "nkey": public_key(SYSTEM)? }] }));
        write(&directory.join(SERVER), "users.conf", &configuration(&accounts))?;
        if !self.tls.is_empty() {
            certify(directory, self.tls)?;
        }
        let authority = directory.join(AUTHORITY).join("ca.pem");
        let has_tls = authority.exists();
        if has_tls {
            let authority = read(&authority)?;
            for owner in everybody().into_iter().chain([SERVER]) {
                write(&directory.join(owner), "ca.pem", &authority)?;
            }
        }
        say(&summary(directory, has_tls));
        Ok(())
    }
}

fn everybody() -> Vec<&'static str> {
    nats_users::names().into_iter().chain([SYSTEM]).collect()
}

/// The key of a user, made if there is none.
fn user_key(directory: &Path, user: &str) -> anyhow::Result<KeyPair> {
    let made = || KeyPair::new_user().seed().with_context(|| "no key could be made");
    let path = directory.join(user).join("nats.nk");
    // What the file holds is never shown.
    KeyPair::from_seed(kept(&path, made)?.trim())
        .map_err(|_| anyhow::anyhow!("{} holds no seed of an nkey", path.display()))
}

/// A certificate for the hosts, by an authority that is made if there is none.
fn certify(directory: &Path, hosts: Vec<String>) -> anyhow::Result<()> {
    let key = |owner: &str, name: &str| -> anyhow::Result<rcgen::KeyPair> {
        let path = directory.join(owner).join(name);
        let pem = kept(&path, || Ok(rcgen::KeyPair::generate()?.serialize_pem()))?;
        rcgen::KeyPair::from_pem(&pem).map_err(|_| anyhow::anyhow!("{} holds no private key", path.display()))
    };
    let (authority, key_of_authority) = (authority(), key(AUTHORITY, "ca.key")?);
    kept(&directory.join(AUTHORITY).join("ca.pem"), || Ok(authority.self_signed(&key_of_authority)?.pem()))?;
    let mut server =
        CertificateParams::new(hosts).with_context(|| "--tls wants names and addresses of hosts")?;
    server.distinguished_name = name("nats-server");
    server.not_before = authority.not_before;
    server.not_after = authority.not_after;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A server is also the client of another one, at the end of a route.
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    server.use_authority_key_identifier_extension = true;
    // The name and the key are what a certificate is followed back by, so an authority made earlier is the same one.
    let issuer = Issuer::from_params(&authority, &key_of_authority);
    let certificate = server.signed_by(&key(SERVER, "server.key")?, &issuer)?.pem();
    write(&directory.join(SERVER), "server.pem", &certificate)
}

/// One that signs certificates of servers, and no other authority.
fn authority() -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority.distinguished_name = name("ticketing NATS");
    // Clocks differ.
    authority.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    authority.not_after = OffsetDateTime::now_utc() + GOOD_FOR;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// What a file holds that only its owner may read, made if there is none, or nothing in it.
fn kept(path: &Path, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let cut_off = match fs::read_to_string(path) {
        // A crash came between making and writing it.
        Ok(text) if text.trim().is_empty() => true,
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let text = format!("{}\n", make()?.trim_end());
    let create = || {
        make_private(path.parent().unwrap_or(path))?;
        if cut_off {
            fs::remove_file(path)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // Synced: a server that knows the key must not be left with nobody who has it.
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all())
    };
    create().with_context(|| format!("{} cannot be made", path.display()))?;
    Ok(text)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// In one move: whoever reads meanwhile reads the old one or the new one.
fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    let new = path.with_extension("new");
    let written =
        make_private(directory).and_then(|()| fs::write(&new, text)).and_then(|()| fs::rename(new, &path));
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Makes the directory if it is missing; then its owner alone can look into it.
fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// In the server's language, which takes JSON for values.
fn configuration(accounts: &Map<String, Value>) -> String {
    let accounts = Value::from(accounts.clone());
    format!(
        "# Written by `ticketing nats-keys`: who may do what. No secret is in here.\n\
         accounts: {accounts:#}\nsystem_account: SYSTEM\n"
    )
}

fn summary(directory: &Path, has_tls: bool) -> String {
    let at = |owner: &str, name: &str| directory.join(owner).join(name).display().to_string();
    let line = |who: &str, what: String| format!("  {who:14}  {what}");
    let mut lines = vec![format!("{}: include it in nats-server's configuration", at(SERVER, "users.conf"))];
    if has_tls {
        let (certificate, key) = (at(SERVER, "server.pem"), at(SERVER, "server.key"));
        lines.push(line("nats-server", format!("--tls --tlscert={certificate} --tlskey={key}")));
    }
    for user in nats_users::names() {
        let (key, authority) = (at(user, "nats.nk"), at(user, "ca.pem"));
        let context = match user {
            "operator" => "nats context add ticketing",
            "admin" => "nats context add ticketing-admin",
            _ => {
                let authority = if has_tls { format!(" NATS_CA={authority}") } else { String::new() };
                lines.push(line(user, format!("NATS_NKEY={key}{authority}")));
                continue;
            }
        };
        lines.push(line(user, person(context, &key, has_tls.then_some(&authority))));
    }
    let authority = at(SYSTEM, "ca.pem");
    let system =
        person("nats context add ticketing-system", &at(SYSTEM, "nats.nk"), has_tls.then_some(&authority));
    lines.push(line(SYSTEM, system));
    lines.join("\n")
}

/// A context of the nats CLI.
fn person(context: &str, key: &str, authority: Option<&String>) -> String {
    let authority = authority.map_or(String::new(), |authority| format!(" --tlsca {authority}"));
    format!("{context} --nkey {key}{authority}")
}
