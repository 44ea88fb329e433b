//! A key pair for sessions, for deployments where svc-auth alone can make them.

use anyhow::anyhow;
use ring::rand::{SecureRandom, SystemRandom};
use ticketing::say;
use web::KeyPairText;

/// Tells a new pair, as the two variables that it is for.
///
/// # Errors
/// Without randomness.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| anyhow!("no random bytes to be had"))?;
    let KeyPairText { private, public } = KeyPairText::of(seed);
    say(&format!("JWT_PRIVATE_KEY={private}\nJWT_PUBLIC_KEYS={public}"));
    Ok(())
}
