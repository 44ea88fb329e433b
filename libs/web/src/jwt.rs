//! Session tokens: JWT, signed with a secret that is shared or with a key of one's own, and nothing else.
//!
//! | who | signs | checks |
//! |---|---|---|
//! | whoever makes sessions | HS256 with `JWT_KEY`, or EdDSA with `JWT_PRIVATE_KEY` | with that, and with those below |
//! | everybody else | | with `JWT_KEY` and `JWT_KEY_PREVIOUS`, or `JWT_PUBLIC_KEYS` |
//!
//! With EdDSA nobody who only checks sessions could make one.
//!
//! Each key has a name (`kid`) that is computed of it, and one algorithm: a token says which key it wants to be checked
//! with, never how.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::{
    digest::{SHA256, digest},
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Env, env::Invalid};

/// How far another server's clock may be ahead: a token of a later time was not made yet.
const CLOCKS: Duration = Duration::from_secs(60);

/// What comes before the 32 bytes of an Ed25519 key in DER: private (RFC 8410, section 7; PKCS #8), and public (section 4).
const PRIVATE_DER: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PUBLIC_DER: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const SECRET: &str = "a secret of at least 32 characters";
const PRIVATE_KEY: &str = "an Ed25519 private key, PKCS #8 in PEM or base64";
const PUBLIC_KEYS: &str = "Ed25519 public keys in PEM or base64, separated by commas";

/// Whom a token was made out to, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user's id.
    pub id: Uuid,
    /// The address they signed in with.
    pub email: String,
    /// When the token was made, in seconds since 1970.
    pub iat: u64,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When its user signed in, in seconds since 1970: before `iat`, if the token took the place of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<u64>,
    /// How often its user had ended all their sessions when they signed in.
    #[serde(default, skip_serializing_if = "is_first")]
    pub epoch: u32,
}

fn is_first(epoch: &u32) -> bool {
    *epoch == 0
}

impl Claims {
    /// Somebody who signs in now, for `ttl` (whole seconds).
    pub fn new(id: Uuid, email: &str, epoch: u32, ttl: Duration) -> Self {
        let now = now();
        let exp = now + ttl.as_secs();
        Self { id, email: email.to_owned(), iat: now, exp, auth_time: Some(now), epoch }
    }

    /// When its user signed in, in seconds since 1970.
    pub fn signed_in_at(&self) -> u64 {
        self.auth_time.unwrap_or(self.iat)
    }

    /// How long the token is still good; zero when it has expired.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_secs(self.exp.saturating_sub(now()))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What tokens are checked with. Cheap to clone; never shows a key.
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

/// One key, and the one algorithm that it is for.
#[derive(Clone)]
struct Key {
    id: String,
    key: DecodingKey,
    validation: Validation,
}

impl Keys {
    /// Reads `JWT_PUBLIC_KEYS`, `JWT_KEY` and `JWT_KEY_PREVIOUS`: what is signed for any of them is good.
    ///
    /// # Errors
    /// When there is neither the first nor the second, or one is wrong: a secret that is shorter than 32 bytes could
    /// be guessed by whoever has a token.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let public = Self::public(env)?;
        let secret: Option<Secret> = match public.is_empty() {
            // A previous key alone would leave everybody out who signs in from now on.
            true => Some(env.secret("JWT_KEY", SECRET)?),
            false => env.optional_secret("JWT_KEY", SECRET)?,
        };
        let secret = secret.iter().map(Secret::key);
        Ok(Self(secret.chain(public).chain(Self::previous(env)?).collect()))
    }

    fn public(env: &Env) -> Result<Vec<Key>, Invalid> {
        // No secret, unless somebody has put the other half there.
        let keys: Option<PublicKeys> = env.optional_secret("JWT_PUBLIC_KEYS", PUBLIC_KEYS)?;
        Ok(keys.iter().flat_map(|keys| &keys.0).map(Key::public).collect())
    }

    fn previous(env: &Env) -> Result<Option<Key>, Invalid> {
        let secret: Option<Secret> = env.optional_secret("JWT_KEY_PREVIOUS", SECRET)?;
        Ok(secret.as_ref().map(Secret::key))
    }

    /// Whom the token was made out to, if one of the keys signed it and it is of now.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        let named = jsonwebtoken::decode_header(token).ok()?.kid;
        // Tokens of before keys had names say none.
        let mut keys = self.0.iter().filter(|key| named.as_ref().is_none_or(|named| *named == key.id));
        let claims = keys.find_map(|key| {
            jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation).ok().map(|data| data.claims)
        })?;
        (claims.iat <= now() + CLOCKS.as_secs()).then_some(claims)
    }
}

impl Key {
    fn new(id: String, algorithm: Algorithm, key: DecodingKey) -> Self {
        // The algorithm is pinned: a token does not choose how it is checked.
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        Self { id, key, validation }
    }

    fn secret(secret: &[u8]) -> Self {
        let id = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"kid");
        let id = URL_SAFE_NO_PAD.encode(&id.as_ref()[..8]);
        Self::new(id, Algorithm::HS256, DecodingKey::from_secret(secret))
    }

    fn public(public: &[u8; 32]) -> Self {
        // The thumbprint of RFC 7638 for a key of RFC 8037: so whoever has the key can tell the name.
        let x = URL_SAFE_NO_PAD.encode(public);
        let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes()));
        Self::new(id, Algorithm::EdDSA, DecodingKey::from_ed_der(public))
    }
}

/// What makes tokens. Cheap to clone; never shows a key.
#[derive(Clone)]
pub struct Signer {
    key: Arc<EncodingKey>,
    header: Header,
    keys: Keys,
}

impl Signer {
    /// Signs with a secret that whoever checks has, too.
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        Self::of(EncodingKey::from_secret(secret), Algorithm::HS256, Key::secret(secret), Vec::new())
    }

    /// Signs with `JWT_PRIVATE_KEY`, or where that is not set with `JWT_KEY`. What is good elsewhere is good here: so a
    /// key can be changed without signing anybody out.
    ///
    /// # Errors
    /// When there is neither, or one is wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let others: Vec<_> = Keys::public(env)?.into_iter().chain(Keys::previous(env)?).collect();
        let private: Option<PrivateKey> = env.optional_secret("JWT_PRIVATE_KEY", PRIVATE_KEY)?;
        let Some(private) = private else {
            let Secret(secret) = env.secret("JWT_KEY", SECRET)?;
            let key = Key::secret(secret.as_bytes());
            return Ok(Self::of(EncodingKey::from_secret(secret.as_bytes()), Algorithm::HS256, key, others));
        };
        let secret: Option<Secret> = env.optional_secret("JWT_KEY", SECRET)?;
        let others = others.into_iter().chain(secret.iter().map(Secret::key)).collect();
        let key = Key::public(&private.public);
        Ok(Self::of(EncodingKey::from_ed_der(&private.der), Algorithm::EdDSA, key, others))
    }

    fn of(key: EncodingKey, algorithm: Algorithm, own: Key, others: Vec<Key>) -> Self {
        let header = Header { kid: Some(own.id.clone()), ..Header::new(algorithm) };
        let keys = Keys(std::iter::once(own).chain(others).collect());
        Self { key: Arc::new(key), header, keys }
    }

    /// What the tokens that it makes are checked with, and those of before.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A token.
    pub fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&self.header, claims, &self.key)
            .expect("a map of strings and numbers, signed with a key that was read, always encodes")
    }
}

/// A key pair for sessions, as `JWT_PRIVATE_KEY` and `JWT_PUBLIC_KEYS` have it: base64, on one line each.
pub struct KeyPairText {
    /// For whoever makes sessions.
    pub private: String,
    /// For everybody else.
    pub public: String,
}

impl KeyPairText {
    /// The pair of 32 bytes that nobody can guess.
    ///
    /// # Panics
    /// Never: any 32 bytes are a key.
    pub fn of(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let der = |prefix: &[u8], key: &[u8]| STANDARD.encode([prefix, key].concat());
        Self { private: der(PRIVATE_DER, &seed), public: der(PUBLIC_DER, pair.public_key().as_ref()) }
    }

    /// The public key of a private one, in any form that `JWT_PRIVATE_KEY` may have. `None` when it is none.
    pub fn public_of(private: &str) -> Option<String> {
        let PrivateKey { public, .. } = private.parse().ok()?;
        Some(STANDARD.encode([PUBLIC_DER, &public].concat()))
    }
}

/// Long enough for HS256 (RFC 7518, section 3.2).
struct Secret(String);

impl Secret {
    fn key(&self) -> Key {
        Key::secret(self.0.as_bytes())
    }
}

impl FromStr for Secret {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() < 32 { Err(()) } else { Ok(Self(text.to_owned())) }
    }
}

struct PrivateKey {
    der: Vec<u8>,
    public: [u8; 32],
}

impl FromStr for PrivateKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [der] = &ders(text)?[..] else { return Err(()) };
        let seed = der.strip_prefix(PRIVATE_DER).filter(|seed| seed.len() == 32).ok_or(())?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| ())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| ())?;
        Ok(Self { der: der.clone(), public })
    }
}

struct PublicKeys(Vec<[u8; 32]>);

impl FromStr for PublicKeys {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let key = |der: Vec<u8>| der.strip_prefix(PUBLIC_DER)?.try_into().ok();
        let keys: Option<Vec<_>> = ders(text)?.into_iter().map(key).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self).ok_or(())
    }
}

/// What is in base64, one after the other: between commas, or between the lines that PEM has around it.
fn ders(text: &str) -> Result<Vec<Vec<u8>>, ()> {
    let bare: String =
        text.lines().map(str::trim).map(|line| if line.starts_with("-----") { "," } else { line }).collect();
    let parts = bare.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| STANDARD.decode(part).map_err(|_| ())).collect()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl fmt::Debug for KeyPairText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPairText")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);
    const HOUR: Duration = Duration::from_secs(3600);
    const OLD: &str = "an old secret of 32 characters or more";
    const NEW: &str = "a new secret of 32 characters or more";

    fn ann() -> Claims {
        Claims::new(ID, "a@b.c", 0, HOUR)
    }

    fn pair(byte: u8) -> KeyPairText {
        KeyPairText::of([byte; 32])
    }

    fn env(set: &[(&'static str, &str)]) -> Env {
        let set: Vec<_> = set.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Env::from(move |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone()))
    }

    fn signer(set: &[(&'static str, &str)]) -> Signer {
        Signer::from_env(&env(set)).unwrap()
    }

    fn keys(set: &[(&'static str, &str)]) -> Keys {
        Keys::from_env(&env(set)).unwrap()
    }

    fn forge(header: &Header, claims: &impl Serialize, key: &str) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
    }

    #[test]
    fn a_token_comes_back_as_its_user() {
        let signer = Signer::new("key");
        let ann = Claims { epoch: 3, ..ann() };
        assert_eq!(signer.keys().verify(&signer.sign(&ann)), Some(ann));
    }

    #[test]
    fn a_secret_is_changed_in_two_rounds_and_nobody_is_signed_out() {
        let old = signer(&[("JWT_KEY", OLD)]);
        let prepared = keys(&[("JWT_KEY", OLD), ("JWT_KEY_PREVIOUS", NEW)]);
        let new = signer(&[("JWT_KEY", NEW), ("JWT_KEY_PREVIOUS", OLD)]);
        assert!(prepared.verify(&new.sign(&ann())).is_some());
        assert!(new.keys().verify(&old.sign(&ann())).is_some());
        assert!(old.keys().verify(&new.sign(&ann())).is_none());
    }

    #[test]
    fn a_private_key_makes_what_its_public_key_believes() {
        let signer = signer(&[("JWT_PRIVATE_KEY", &pair(1).private)]);
        let token = signer.sign(&ann());
        assert!(signer.keys().verify(&token).is_some());
        assert!(keys(&[("JWT_PUBLIC_KEYS", &pair(1).public)]).verify(&token).is_some());
        assert!(keys(&[("JWT_PUBLIC_KEYS", &pair(2).public)]).verify(&token).is_none());
        assert!(keys(&[("JWT_KEY", OLD)]).verify(&token).is_none());
        let both = format!("{},{}", pair(2).public, pair(1).public);
        assert!(keys(&[("JWT_PUBLIC_KEYS", &both)]).verify(&token).is_some());
    }

    #[test]
    fn from_a_secret_to_a_private_key_nobody_is_signed_out() {
        let old = signer(&[("JWT_KEY", OLD)]).sign(&ann());
        let between = signer(&[("JWT_KEY", OLD), ("JWT_PRIVATE_KEY", &pair(1).private)]);
        assert!(between.keys().verify(&old).is_some());
        let others = keys(&[("JWT_KEY", OLD), ("JWT_PUBLIC_KEYS", &pair(1).public)]);
        assert!(others.verify(&old).is_some());
        assert!(others.verify(&between.sign(&ann())).is_some());
    }

    /// The classic: the public key, which everybody may know, taken for a secret.
    #[test]
    fn a_public_key_is_no_secret_to_sign_with() {
        let public = pair(1).public;
        let keys = keys(&[("JWT_PUBLIC_KEYS", &public)]);
        let id = keys.0[0].id.clone();
        for kid in [None, Some(id)] {
            let header = Header { kid, ..Header::new(Algorithm::HS256) };
            assert!(keys.verify(&forge(&header, &ann(), &public)).is_none());
            let raw = EncodingKey::from_secret(&STANDARD.decode(&public).unwrap()[PUBLIC_DER.len()..]);
            assert!(keys.verify(&jsonwebtoken::encode(&header, &ann(), &raw).unwrap()).is_none());
        }
    }

    #[test]
    fn a_forged_token_is_nobodys() {
        let keys = Signer::new("key").keys;
        let hs256 = Header::new(Algorithm::HS256);
        let good = forge(&hs256, &ann(), "key");
        assert!(keys.verify(&good).is_some(), "tokens of before keys had names are good");
        assert!(keys.verify(&forge(&hs256, &ann(), "other")).is_none());
        assert!(keys.verify(&forge(&Header::new(Algorithm::HS512), &ann(), "key")).is_none());
        let other_key = Header { kid: Some("another".into()), ..hs256 };
        assert!(keys.verify(&forge(&other_key, &ann(), "key")).is_none());
        // {"alg":"none","typ":"JWT"}
        let claims = good.split('.').nth(1).unwrap();
        assert!(keys.verify(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")).is_none());
        assert!(keys.verify("").is_none());
    }

    #[test]
    fn a_token_is_of_now() {
        let signer = Signer::new("key");
        let good = |claims: Claims| signer.keys().verify(&signer.sign(&claims)).is_some();
        assert!(good(ann()));
        assert!(good(Claims { iat: now() + 30, ..ann() }), "clocks differ");
        assert!(!good(Claims { exp: now() - 1, ..ann() }));
        assert!(!good(Claims { iat: now() + 3600, exp: now() + 7200, ..ann() }));
    }

    #[test]
    fn a_token_without_expiry_is_nobodys() {
        #[derive(Serialize)]
        struct Claims {
            id: Uuid,
            email: &'static str,
            iat: u64,
        }
        let token = forge(&Header::new(Algorithm::HS256), &Claims { id: ID, email: "", iat: 0 }, "key");
        assert!(Signer::new("key").keys().verify(&token).is_none());
    }

    /// The key pair and the thumbprint of RFC 8037, appendices A.1 to A.3.
    #[test]
    fn a_public_keys_name_is_its_thumbprint() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pair = KeyPairText::of(seed.try_into().unwrap());
        let keys = keys(&[("JWT_PUBLIC_KEYS", &pair.public)]);
        assert_eq!(keys.0[0].id, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(KeyPairText::public_of(&pair.private).as_ref(), Some(&pair.public));
    }

    #[test]
    fn keys_may_be_in_pem() {
        let (one, two) = (pair(1), pair(2));
        let pem = |kind: &str, text: &str| {
            let (first, second) = text.split_at(30);
            format!("-----BEGIN {kind} KEY-----\n{first}\n{second}\n-----END {kind} KEY-----\n")
        };
        let token = signer(&[("JWT_PRIVATE_KEY", &pem("PRIVATE", &two.private))]).sign(&ann());
        let public = pem("PUBLIC", &one.public) + &pem("PUBLIC", &two.public);
        assert!(keys(&[("JWT_PUBLIC_KEYS", &public)]).verify(&token).is_some());
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_shown() {
        let error = |set: &[(&'static str, &str)]| Signer::from_env(&env(set)).unwrap_err().to_string();
        assert_eq!(error(&[]), format!("JWT_KEY is not set; it must be {SECRET}"));
        assert_eq!(
            error(&[("JWT_KEY", "hunter2")]),
            format!("JWT_KEY is set to something else (not shown); it must be {SECRET}")
        );
        for wrong in ["hunter2", &pair(1).public, ","] {
            assert_eq!(
                error(&[("JWT_PRIVATE_KEY", wrong)]),
                format!("JWT_PRIVATE_KEY is set to something else (not shown); it must be {PRIVATE_KEY}")
            );
        }
        for wrong in [&pair(1).private, ","] {
            let error = Keys::from_env(&env(&[("JWT_PUBLIC_KEYS", wrong)])).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("JWT_PUBLIC_KEYS is set to something else (not shown); it must be {PUBLIC_KEYS}")
            );
        }
    }

    #[test]
    fn a_previous_key_alone_is_no_start() {
        assert!(Keys::from_env(&env(&[("JWT_KEY_PREVIOUS", OLD)])).is_err());
        assert!(Keys::from_env(&env(&[])).is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let signer = Signer::new("hunter2");
        assert_eq!(format!("{:?} {:?} {:?}", signer.keys(), signer, pair(1)), "Keys Signer KeyPairText");
    }
}
