//! Sealing: what names a person is encrypted with a key of that person's, and that key with one of ours.
//!
//! What is made here is kept for ever, so these forms are fixed:
//!
//! - A subkey is HKDF-SHA256 of the master key, salt `ticketing svc-auth`, info `email key`, `user key wrapping` or
//!   `fingerprint`.
//! - An email key is the lowercase hex of HMAC-SHA256 over the address in its one spelling.
//! - A wrapped user key is the byte 1, 12 bytes of nonce, and AES-256-GCM over the key's 32 bytes with the additional
//!   data `user key <user id>`.
//! - A sealed field is the lowercase hex of 12 bytes of nonce and AES-256-GCM over the text with the additional data
//!   `<field> <user id>`.
//!
//! The first byte of a wrapped key names the master key that wrapped it: another one will be 2. The email key stays
//! with the first, because subjects are made of it.
//!
//! Nonces are random. One user's key seals two texts; the wrapping key is good for 2^32 users (NIST SP 800-38D, 8.3).
//!
//! Absent: IO, and any cache. A user whose key is deleted can be opened no more, from that moment on.

use std::{fmt, str::FromStr};

use contract::{UserId, event::Sealed};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};

use crate::domain::Email;

/// Which master key wraps: the first byte of a wrapped user key.
const WRAPPED_BY_FIRST: u8 = 1;
const USER_KEY_LEN: usize = 32;

/// What everything else is derived from. Does not show itself in a log.
#[derive(Clone)]
pub struct MasterKey {
    email: hmac::Key,
    wrapping: LessSafeKey,
    fingerprint: String,
}

/// A user's own key.
pub struct UserKey {
    owner: UserId,
    key: LessSafeKey,
}

/// What of a user is sealed: a sealed address is not taken for a hash, nor one user's for another's.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// The email address.
    Email,
    /// The password's hash.
    PasswordHash,
}

/// Why something could not be sealed or opened. It says nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system gives no random numbers.
    #[error("there is no randomness")]
    NoRandomness,
    /// It was sealed otherwise than by us, for somebody else, or was changed since.
    #[error("what is sealed cannot be opened")]
    Broken,
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl FromStr for MasterKey {
    type Err = NotAKey;

    /// Reads 32 bytes as 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = unhex(text).filter(|bytes| bytes.len() == 32).ok_or(NotAKey)?;
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ticketing svc-auth").extract(&bytes);
        // HKDF refuses lengths over 255 hashes; these are one hash each.
        let email = master.expand(&[b"email key"], hmac::HMAC_SHA256).map_err(|_| NotAKey)?.into();
        let wrapping: UnboundKey =
            master.expand(&[b"user key wrapping"], &AES_256_GCM).map_err(|_| NotAKey)?.into();
        let mut fingerprint = [0; 32];
        let derived =
            master.expand(&[b"fingerprint"], hmac::HMAC_SHA256).and_then(|okm| okm.fill(&mut fingerprint));
        derived.map_err(|_| NotAKey)?;
        Ok(Self { email, wrapping: LessSafeKey::new(wrapping), fingerprint: hex(&fingerprint[..8]) })
    }
}

impl MasterKey {
    /// What stands for an address in a subject: nobody without the master key can tell which address it is.
    pub fn email_key(&self, email: &Email) -> String {
        hex(hmac::sign(&self.email, email.as_str().as_bytes()).as_ref())
    }

    /// Tells one master key from another, and nothing else about it. May be shown.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Makes a key for a user; the second form of it is the one to keep.
    ///
    /// # Errors
    /// Without randomness.
    pub fn new_user_key(&self, owner: UserId) -> Result<(UserKey, Vec<u8>), Error> {
        let bytes: [u8; USER_KEY_LEN] = random()?;
        let mut wrapped = vec![WRAPPED_BY_FIRST];
        wrapped.extend(encrypt(&self.wrapping, &wrapping_aad(owner), &bytes)?);
        Ok((UserKey::new(owner, &bytes)?, wrapped))
    }

    /// The key that was kept for a user.
    ///
    /// # Errors
    /// When it is not one that [`new_user_key`](Self::new_user_key) made for them.
    pub fn unwrap(&self, owner: UserId, wrapped: &[u8]) -> Result<UserKey, Error> {
        match wrapped.split_first() {
            Some((&WRAPPED_BY_FIRST, rest)) => {
                UserKey::new(owner, &decrypt(&self.wrapping, &wrapping_aad(owner), rest)?)
            }
            _ => Err(Error::Broken),
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

impl UserKey {
    fn new(owner: UserId, bytes: &[u8]) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| Error::Broken)?;
        Ok(Self { owner, key: LessSafeKey::new(key) })
    }

    /// Seals a text of its owner's.
    ///
    /// # Errors
    /// Without randomness.
    pub fn seal(&self, field: Field, text: &str) -> Result<Sealed, Error> {
        Ok(Sealed(hex(&encrypt(&self.key, &self.aad(field), text.as_bytes())?)))
    }

    /// Opens what was sealed as that field of its owner's.
    ///
    /// # Errors
    /// When it was sealed otherwise, or changed.
    pub fn open(&self, field: Field, sealed: &Sealed) -> Result<String, Error> {
        let sealed = unhex(&sealed.0).ok_or(Error::Broken)?;
        String::from_utf8(decrypt(&self.key, &self.aad(field), &sealed)?).map_err(|_| Error::Broken)
    }

    fn aad(&self, field: Field) -> String {
        let field = match field {
            Field::Email => "email",
            Field::PasswordHash => "password hash",
        };
        format!("{field} {}", self.owner)
    }
}

fn wrapping_aad(owner: UserId) -> String {
    format!("user key {owner}")
}

fn encrypt(key: &LessSafeKey, aad: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut sealed = [&nonce, plain].concat();
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad.as_bytes()),
            &mut sealed[NONCE_LEN..],
        )
        .map_err(|_| Error::Broken)?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn decrypt(key: &LessSafeKey, aad: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(Error::Broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Broken)?;
    let mut rest = rest.to_vec();
    let plain = key
        .open_in_place(nonce, Aad::from(aad.as_bytes()), &mut rest)
        .map_err(|_: ring::error::Unspecified| Error::Broken)?;
    Ok(plain.to_vec())
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ANN: UserId = UserId(Uuid::from_u128(1));
    const BOB: UserId = UserId(Uuid::from_u128(2));

    fn master(digit: &str) -> MasterKey {
        digit.repeat(64).parse().unwrap()
    }

    fn email() -> Email {
        Email::parse("ann@example.com").unwrap()
    }

    #[test]
    fn a_master_key_is_64_hexadecimal_digits() {
        for text in ["", "0", &"0".repeat(62), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<MasterKey>().err(), Some(NotAKey), "{text}");
        }
        assert_eq!(master("a").fingerprint(), master("A").fingerprint());
        assert_ne!(master("a").fingerprint(), master("b").fingerprint());
        assert_eq!(format!("{:?}", master("a")), "MasterKey");
    }

    /// Fixed for ever: subjects are made of it. Computed once with another implementation of HKDF and HMAC.
    #[test]
    fn the_email_key_never_changes() {
        assert_eq!(
            master("a").email_key(&email()),
            "4efc2353697f07bd6aefcea0bacc64ff72fdcdd55f0b8efbcd14a67875ec879e"
        );
        assert_ne!(master("b").email_key(&email()), master("a").email_key(&email()));
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_key_that_was_kept() {
        let (key, wrapped) = master("a").new_user_key(ANN).unwrap();
        let sealed = key.seal(Field::Email, "ann@example.com").unwrap();
        assert_eq!(sealed.0.len(), 2 * (12 + "ann@example.com".len() + 16));
        let kept = master("a").unwrap(ANN, &wrapped).unwrap();
        assert_eq!(kept.open(Field::Email, &sealed).unwrap(), "ann@example.com");
        assert_ne!(key.seal(Field::Email, "ann@example.com").unwrap(), sealed);
    }

    #[test]
    fn nothing_opens_for_another_field_user_or_master_key() {
        let (key, wrapped) = master("a").new_user_key(ANN).unwrap();
        let sealed = key.seal(Field::Email, "ann@example.com").unwrap();
        assert_eq!(key.open(Field::PasswordHash, &sealed), Err(Error::Broken));
        assert!(master("a").unwrap(BOB, &wrapped).is_err());
        assert!(master("b").unwrap(ANN, &wrapped).is_err());
        let (other, _) = master("a").new_user_key(ANN).unwrap();
        assert_eq!(other.open(Field::Email, &sealed), Err(Error::Broken));
    }

    #[test]
    fn whatever_is_changed_does_not_open() {
        let (key, wrapped) = master("a").new_user_key(ANN).unwrap();
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(master("a").unwrap(ANN, &changed).is_err(), "byte {at}");
            assert!(master("a").unwrap(ANN, &wrapped[..at]).is_err(), "{at} bytes");
        }
        let Sealed(sealed) = key.seal(Field::Email, "ann@example.com").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, if &sealed[at..=at] == "0" { "1" } else { "0" });
            assert!(key.open(Field::Email, &Sealed(changed)).is_err(), "digit {at}");
            assert!(key.open(Field::Email, &Sealed(sealed[..at].into())).is_err(), "{at} digits");
        }
        assert!(key.open(Field::Email, &Sealed("not hex".into())).is_err());
    }
}
