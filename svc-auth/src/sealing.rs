//! Sealing: what names a person is encrypted with a key of that person's, and that key with one of ours.
//!
//! What is made here is kept for ever, so these forms are fixed:
//!
//! - A subkey is HKDF-SHA256 of a master key, salt `ticketing svc-auth`, info `email key`, `user key wrapping` or
//!   `fingerprint`.
//! - What stands for an address is the lowercase hex of HMAC-SHA256 over the address in its one spelling, with the email
//!   key. That was a subkey of the first master key. It stays what it was: subjects are made of it.
//! - A wrapped key is a byte, the version of the master key that wrapped it, 12 bytes of nonce, and AES-256-GCM over the
//!   key's 32 bytes with the additional data `user key <user id>` or `email key`.
//! - A sealed field is the lowercase hex of 12 bytes of nonce and AES-256-GCM over the text with the additional data
//!   `<field> <user id>`.
//!
//! Nonces are random. One user's key seals two texts; a wrapping key is good for 2^32 users (NIST SP 800-38D, 8.3).
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

const KEY_LEN: usize = 32;

/// What user keys are wrapped with: the one that wraps, and others that may have wrapped before, or will.
#[derive(Clone, Debug)]
pub struct MasterKeys {
    current: MasterKey,
    others: Vec<MasterKey>,
}

/// One of them. Does not show itself in a log.
#[derive(Clone)]
pub struct MasterKey {
    version: u8,
    wrapping: LessSafeKey,
    /// What was the email key before that was kept on its own.
    email_key: [u8; KEY_LEN],
    fingerprint: String,
}

/// What makes of an address what stands for it in a subject. Does not show itself in a log.
#[derive(Clone)]
pub struct EmailKey(hmac::Key);

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

/// What is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapped {
    /// The key of a user.
    UserKey(UserId),
    /// The email key.
    EmailKey,
}

/// Why something could not be sealed or opened. It says nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system gives no random numbers.
    #[error("there is no randomness")]
    NoRandomness,
    /// It was wrapped by a master key that is not at hand.
    #[error("it takes the master key of version {0}")]
    NoSuchVersion(u8),
    /// It was sealed otherwise than by us, for somebody else, or was changed since.
    #[error("what is sealed cannot be opened")]
    Broken,
}

/// The text is not 64 hexadecimal digits, or not a version before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl FromStr for MasterKey {
    type Err = NotAKey;

    /// Reads `2:` and 32 bytes as 64 hexadecimal digits. Without a version it is the first.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let (version, digits) = text.split_once(':').unwrap_or(("1", text));
        let version = version.parse().ok().filter(|version| *version > 0).ok_or(NotAKey)?;
        let bytes = unhex(digits).filter(|bytes| bytes.len() == KEY_LEN).ok_or(NotAKey)?;
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ticketing svc-auth").extract(&bytes);
        let derived = |info: &[u8]| {
            let mut derived = [0; KEY_LEN];
            // HKDF refuses lengths over 255 hashes; these are one hash each.
            master
                .expand(&[info], hmac::HMAC_SHA256)
                .and_then(|okm| okm.fill(&mut derived))
                .map(|()| derived)
                .map_err(|_| NotAKey)
        };
        let wrapping: UnboundKey =
            master.expand(&[b"user key wrapping"], &AES_256_GCM).map_err(|_| NotAKey)?.into();
        Ok(Self {
            version,
            wrapping: LessSafeKey::new(wrapping),
            email_key: derived(b"email key")?,
            fingerprint: hex(&derived(b"fingerprint")?[..8]),
        })
    }
}

impl MasterKey {
    /// Counts the master keys from 1.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Tells one master key from another, and nothing else about it. May be shown.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn wrap(&self, what: Wrapped, key: &[u8]) -> Result<Vec<u8>, Error> {
        let mut wrapped = vec![self.version];
        wrapped.extend(encrypt(&self.wrapping, &what.aad(), key)?);
        Ok(wrapped)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

impl From<MasterKey> for MasterKeys {
    fn from(current: MasterKey) -> Self {
        Self { current, others: Vec::new() }
    }
}

impl MasterKeys {
    /// Wraps with `current`, and opens what `others` have wrapped.
    ///
    /// # Errors
    /// With a version that two of them have.
    pub fn new(current: MasterKey, others: Vec<MasterKey>) -> Result<Self, u8> {
        let mut versions: Vec<_> = others.iter().chain([&current]).map(MasterKey::version).collect();
        versions.sort_unstable();
        match versions.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(twice[0]),
            None => Ok(Self { current, others }),
        }
    }

    /// The one that wraps.
    pub fn current(&self) -> &MasterKey {
        &self.current
    }

    /// All of them, the one that wraps first.
    pub fn all(&self) -> impl Iterator<Item = &MasterKey> {
        [&self.current].into_iter().chain(&self.others)
    }

    /// The one of that version.
    ///
    /// # Errors
    /// When it is not at hand.
    pub fn of(&self, version: u8) -> Result<&MasterKey, Error> {
        self.all().find(|key| key.version == version).ok_or(Error::NoSuchVersion(version))
    }

    /// Makes a key for a user; the second form of it is the one to keep.
    ///
    /// # Errors
    /// Without randomness.
    pub fn new_user_key(&self, owner: UserId) -> Result<(UserKey, Vec<u8>), Error> {
        let bytes: [u8; KEY_LEN] = random()?;
        Ok((UserKey::new(owner, &bytes)?, self.current.wrap(Wrapped::UserKey(owner), &bytes)?))
    }

    /// The key that was kept for a user.
    ///
    /// # Errors
    /// When it is not one that [`new_user_key`](Self::new_user_key) made for them.
    pub fn unwrap(&self, owner: UserId, wrapped: &[u8]) -> Result<UserKey, Error> {
        UserKey::new(owner, &self.open(Wrapped::UserKey(owner), wrapped)?)
    }

    /// The email key as the master key `of` had it, and the form of it to keep.
    ///
    /// # Errors
    /// Without randomness.
    pub fn first_email_key(&self, of: &MasterKey) -> Result<(EmailKey, Vec<u8>), Error> {
        Ok((EmailKey::new(&of.email_key), self.current.wrap(Wrapped::EmailKey, &of.email_key)?))
    }

    /// The email key that was kept.
    ///
    /// # Errors
    /// When it is none.
    pub fn unwrap_email_key(&self, wrapped: &[u8]) -> Result<EmailKey, Error> {
        Ok(EmailKey::new(&self.open(Wrapped::EmailKey, wrapped)?))
    }

    /// The same key, wrapped by the one that wraps now. Nothing when it is so already, or by one to come.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn wrap_again(&self, what: Wrapped, wrapped: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let version = *wrapped.first().ok_or(Error::Broken)?;
        if version >= self.current.version {
            return Ok(None);
        }
        self.current.wrap(what, &self.open(what, wrapped)?).map(Some)
    }

    fn open(&self, what: Wrapped, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        let (version, rest) = wrapped.split_first().ok_or(Error::Broken)?;
        decrypt(&self.of(*version)?.wrapping, &what.aad(), rest)
    }
}

impl Wrapped {
    fn aad(self) -> String {
        match self {
            Self::UserKey(owner) => format!("user key {owner}"),
            Self::EmailKey => "email key".into(),
        }
    }
}

impl EmailKey {
    fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// What stands for an address in a subject: nobody without the key can tell which address it is.
    pub fn of(&self, email: &Email) -> String {
        hex(hmac::sign(&self.0, email.as_str().as_bytes()).as_ref())
    }
}

impl fmt::Debug for EmailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailKey")
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

    fn key(text: &str) -> MasterKey {
        text.parse().unwrap()
    }

    fn master(digit: &str) -> MasterKeys {
        key(&digit.repeat(64)).into()
    }

    /// The second, with the first beside it.
    fn second() -> MasterKeys {
        let second = key(&format!("2:{}", "b".repeat(64)));
        MasterKeys::new(second, vec![key(&"a".repeat(64))]).unwrap()
    }

    fn email() -> Email {
        Email::parse("ann@example.com").unwrap()
    }

    #[test]
    fn a_master_key_is_64_hexadecimal_digits_and_may_have_a_version() {
        let digits = "0".repeat(64);
        for text in ["", "0", &"0".repeat(62), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<MasterKey>().err(), Some(NotAKey), "{text}");
        }
        for (version, expected) in
            [("1", Some(1)), ("255", Some(255)), ("0", None), ("256", None), ("", None)]
        {
            let parsed = format!("{version}:{digits}").parse::<MasterKey>();
            assert_eq!(parsed.ok().map(|key| key.version()), expected, "{version}");
        }
        assert_eq!(key(&digits).version(), 1);
        assert_eq!(key(&"a".repeat(64)).fingerprint(), key(&"A".repeat(64)).fingerprint());
        assert_ne!(key(&"a".repeat(64)).fingerprint(), key(&"b".repeat(64)).fingerprint());
        assert_eq!(format!("{:?}", key(&digits)), "MasterKey");
        assert_eq!(MasterKeys::new(key(&digits), vec![key(&"a".repeat(64))]).err(), Some(1));
    }

    /// Fixed for ever: subjects are made of it. Computed once with another implementation of HKDF and HMAC.
    #[test]
    fn the_email_key_never_changes() {
        let of = |keys: &MasterKeys| keys.first_email_key(keys.current()).unwrap().0.of(&email());
        assert_eq!(of(&master("a")), "4efc2353697f07bd6aefcea0bacc64ff72fdcdd55f0b8efbcd14a67875ec879e");
        assert_ne!(of(&master("b")), of(&master("a")));
    }

    #[test]
    fn with_another_master_key_the_email_key_is_the_one_that_was_kept() {
        let (first, kept) = master("a").first_email_key(master("a").current()).unwrap();
        let again = second().wrap_again(Wrapped::EmailKey, &kept).unwrap().unwrap();
        let alone = MasterKeys::from(second().current().clone());
        assert_eq!(alone.unwrap_email_key(&again).unwrap().of(&email()), first.of(&email()));
        assert_eq!(alone.unwrap_email_key(&kept).err(), Some(Error::NoSuchVersion(1)));
        let of_first = second().first_email_key(second().of(1).unwrap()).unwrap().0;
        assert_eq!(of_first.of(&email()), first.of(&email()));
    }

    #[test]
    fn a_user_key_that_is_wrapped_again_opens_what_it_sealed() {
        let (key, wrapped) = master("a").new_user_key(ANN).unwrap();
        let sealed = key.seal(Field::Email, "ann@example.com").unwrap();
        let again = second().wrap_again(Wrapped::UserKey(ANN), &wrapped).unwrap().unwrap();
        let alone = MasterKeys::from(second().current().clone());
        let opened = alone.unwrap(ANN, &again).unwrap().open(Field::Email, &sealed).unwrap();
        assert_eq!(opened, "ann@example.com");
        assert_eq!(alone.unwrap(ANN, &wrapped).err(), Some(Error::NoSuchVersion(1)));
        assert_eq!(second().wrap_again(Wrapped::UserKey(ANN), &again), Ok(None));
        assert!(second().wrap_again(Wrapped::UserKey(BOB), &wrapped).is_err());
        assert!(second().unwrap(ANN, &wrapped).is_ok());
    }

    /// Between the rounds of a change: what is to come opens already, and nothing is wrapped back.
    #[test]
    fn what_the_next_master_key_wrapped_stays_as_it_is() {
        let next = key(&format!("2:{}", "b".repeat(64)));
        let prepared = MasterKeys::new(key(&"a".repeat(64)), vec![next]).unwrap();
        let (_, wrapped) = second().new_user_key(ANN).unwrap();
        assert!(prepared.unwrap(ANN, &wrapped).is_ok());
        assert_eq!(prepared.wrap_again(Wrapped::UserKey(ANN), &wrapped), Ok(None));
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
