//! Session tokens: JWT, HS256 and nothing else.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Env, env::Invalid};

/// Whom a token was made out to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The address they signed in with.
    pub email: String,
    /// When the token was made, in seconds since 1970.
    pub iat: u64,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
}

/// The key that signs, and those that verify. Cheap to clone; never shows a key.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    sign: EncodingKey,
    verify: Vec<DecodingKey>,
    validation: Validation,
}

impl Keys {
    /// Signs with `current`; a token signed with `previous` is still good, so that a key can be changed without
    /// signing everybody out.
    pub fn new(current: impl AsRef<[u8]>, previous: Option<&[u8]>) -> Self {
        // The algorithm is pinned: a token does not choose how it is checked.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        let current = current.as_ref();
        let verify = std::iter::once(current).chain(previous).map(DecodingKey::from_secret).collect();
        Self(Arc::new(Inner { sign: EncodingKey::from_secret(current), verify, validation }))
    }

    /// Reads `JWT_KEY`, and `JWT_KEY_PREVIOUS` if it is set.
    ///
    /// # Errors
    /// When a key is missing or shorter than 32 bytes: whoever has a token could guess it.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let right = "a secret of at least 32 characters";
        let current: Secret = env.secret("JWT_KEY", right)?;
        let previous: Option<Secret> = env.optional_secret("JWT_KEY_PREVIOUS", right)?;
        Ok(Self::new(current.0, previous.as_ref().map(|secret| secret.0.as_bytes())))
    }

    /// A token for a user, good for `ttl` from now (whole seconds).
    pub fn sign(&self, id: Uuid, email: &str, ttl: Duration) -> String {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let user = User { id, email: email.to_owned(), iat, exp: iat + ttl.as_secs() };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &user, &self.0.sign)
            .expect("a map of strings and numbers, signed with an HMAC, always encodes")
    }

    /// Whom the token was made out to, if one of the keys signed it and it has not expired.
    pub fn verify(&self, token: &str) -> Option<User> {
        let decode = |key| jsonwebtoken::decode(token, key, &self.0.validation).ok();
        self.0.verify.iter().find_map(decode).map(|data| data.claims)
    }
}

/// Long enough for HS256 (RFC 7518, section 3.2).
struct Secret(String);

impl FromStr for Secret {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() < 32 { Err(()) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);
    const HOUR: Duration = Duration::from_secs(3600);

    fn user(exp: u64) -> User {
        User { id: ID, email: "a@b.c".into(), iat: 0, exp }
    }

    fn forge(algorithm: Algorithm, claims: &impl Serialize, key: &str) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes()))
            .unwrap()
    }

    #[test]
    fn a_token_comes_back_as_its_user() {
        let keys = Keys::new("key", None);
        let user = keys.verify(&keys.sign(ID, "a@b.c", HOUR)).unwrap();
        assert_eq!((user.id, user.email.as_str(), user.exp - user.iat), (ID, "a@b.c", 3600));
    }

    #[test]
    fn the_previous_key_still_verifies_and_no_longer_signs() {
        let (old, new) = (Keys::new("old", None), Keys::new("new", Some(b"old")));
        assert!(new.verify(&old.sign(ID, "", HOUR)).is_some());
        assert!(old.verify(&new.sign(ID, "", HOUR)).is_none());
    }

    #[test]
    fn a_forged_or_expired_token_is_nobodys() {
        let keys = Keys::new("key", None);
        let good = forge(Algorithm::HS256, &user(u64::MAX >> 2), "key");
        assert!(keys.verify(&good).is_some());
        assert!(keys.verify(&forge(Algorithm::HS256, &user(u64::MAX >> 2), "other")).is_none());
        assert!(keys.verify(&forge(Algorithm::HS256, &user(1), "key")).is_none());
        assert!(keys.verify(&forge(Algorithm::HS512, &user(u64::MAX >> 2), "key")).is_none());
        // {"alg":"none","typ":"JWT"}
        let claims = good.split('.').nth(1).unwrap();
        assert!(keys.verify(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")).is_none());
        assert!(keys.verify("").is_none());
    }

    #[test]
    fn a_token_without_expiry_is_nobodys() {
        #[derive(Serialize)]
        struct Claims {
            id: Uuid,
            email: &'static str,
            iat: u64,
        }
        let token = forge(Algorithm::HS256, &Claims { id: ID, email: "", iat: 0 }, "key");
        assert!(Keys::new("key", None).verify(&token).is_none());
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Keys::new("hunter2", None)), "Keys");
    }
}
