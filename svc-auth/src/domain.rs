//! Who may have an account: one for each email address, until it is erased.
//!
//! Pure: what is sealed comes in sealed, and ids are arguments.

use std::fmt;

use contract::{
    UserEvent, UserId,
    event::{Sealed, UserErased, UserSignedOut, UserSignedUp},
};
use icu_normalizer::ComposingNormalizerBorrowed;
use serde::{Deserialize, Serialize};

/// One email address, as its events tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Address {
    /// Nobody has it, or no longer.
    #[default]
    Free,
    /// Somebody signed up with it.
    Taken(Account),
}

/// Who signed up, with what only their own key opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The user.
    pub id: UserId,
    /// The address, sealed.
    pub email: Sealed,
    /// The password's hash in PHC form, sealed.
    pub password_hash: Sealed,
    /// How often all their sessions were ended: those of an earlier epoch are over.
    pub epoch: u32,
}

/// Why somebody cannot do what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Somebody has an account with this address.
    EmailInUse,
}

/// Folds one event into the address.
pub fn evolve(address: Address, event: &UserEvent) -> Address {
    match (event, address) {
        (UserEvent::SignedUp(UserSignedUp { id, email, password_hash }), _) => Address::Taken(Account {
            id: *id,
            email: email.clone(),
            password_hash: password_hash.clone(),
            epoch: 0,
        }),
        (UserEvent::SignedOut(UserSignedOut { id: _, epoch }), Address::Taken(account)) => {
            Address::Taken(Account { epoch: *epoch, ..account })
        }
        (UserEvent::SignedOut(_), Address::Free) | (UserEvent::Erased(UserErased { id: _ }), _) => {
            Address::Free
        }
    }
}

/// Whether somebody may sign up with this address.
///
/// # Errors
/// When it is taken.
pub fn vacant(address: &Address) -> Result<(), Rejection> {
    match address {
        Address::Free => Ok(()),
        Address::Taken(_) => Err(Rejection::EmailInUse),
    }
}

/// Makes the account, if nobody has the address.
///
/// # Errors
/// When it is taken.
pub fn sign_up(address: &Address, account: &Account) -> Result<Option<UserEvent>, Rejection> {
    vacant(address)?;
    let Account { id, email, password_hash, epoch: _ } = account.clone();
    Ok(Some(UserEvent::SignedUp(UserSignedUp { id, email, password_hash })))
}

/// Whether a session of this user and epoch is good: they have the address, and have not ended their sessions since. One of
/// an epoch to come is of before this replica heard of it.
pub fn is_signed_in(address: &Address, id: UserId, epoch: u32) -> bool {
    matches!(address, Address::Taken(account) if account.id == id && account.epoch <= epoch)
}

/// Whether a session of this user and epoch was ended, while they have their account: once that is erased, nobody can tell.
pub fn has_signed_out(address: &Address, id: UserId, epoch: u32) -> bool {
    matches!(address, Address::Taken(account) if account.id == id && account.epoch > epoch)
}

/// Ends all sessions of the user's, as somebody with a session of `epoch` asks for.
///
/// Nothing when that is over itself: whoever asks again, or later, does not end the sessions of after.
pub fn sign_out_everywhere(address: &Address, id: UserId, epoch: u32) -> Option<UserEvent> {
    is_signed_in(address, id, epoch).then(|| UserEvent::SignedOut(UserSignedOut { id, epoch: epoch + 1 }))
}

/// Gives the address of whoever is erased back.
///
/// Nothing when it is free, or somebody else's by now: then they were erased before.
pub fn erase(address: &Address, id: UserId) -> Option<UserEvent> {
    match address {
        Address::Taken(account) if account.id == id => Some(UserEvent::Erased(UserErased { id })),
        Address::Taken(_) | Address::Free => None,
    }
}

/// An email address in its one spelling: trimmed, lower case. Does not show itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// The longest address that mail can be sent to (RFC 5321, 4.5.3.1.3, less the angle brackets).
    const MAX_LENGTH: usize = 254;

    /// Reads what somebody typed; `None` when no mail could ever arrive there.
    ///
    /// Takes what a browser takes in a field for addresses (HTML, "valid e-mail address") where it is also a dot-atom
    /// of RFC 5322 at a name with a top-level domain. That mail does arrive, no check of letters can tell.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, domain) = text.split_once('@')?;
        let right = text.len() <= Self::MAX_LENGTH && is_dot_atom(local) && is_host(domain);
        right.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_dot_atom(local: &str) -> bool {
    let is_atom_text = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_text))
}

fn is_host(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // No top-level domain is one letter, or starts with a digit: so an IP address is none either.
    let is_top_level =
        |label: &str| label.len() >= 2 && label.starts_with(|first: char| first.is_ascii_alphabetic());
    let top_level = domain.rsplit_once('.').map(|(_, label)| label);
    domain.split('.').all(is_label) && top_level.is_some_and(is_top_level)
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email")
    }
}

/// What is tried first by whoever guesses, in lower case: from lists of passwords that were leaked, those of eight
/// characters or more that stand near the top of many.
const COMMON_PASSWORDS: &str = include_str!("common_passwords.txt");

/// A password in its one spelling: the same letters may be typed in several ways (Unicode's NFKC, as NIST SP 800-63B,
/// 5.1.1.2, says). Does not show itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    spelt: String,
    /// As it was typed, where that is another spelling.
    typed: Option<String>,
}

/// Why a password is none to sign up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPassword {
    /// It has too few characters, or too many.
    Length,
    /// It is what others try first: one of the commonest, one letter again and again, or its owner's address.
    Common,
}

impl Password {
    /// A password to sign up with: 8 to 128 characters, as typed and as spelt, and any characters, as NIST SP 800-63B has
    /// it. Of which kinds they are does not matter; that nobody guesses it does.
    ///
    /// # Errors
    /// With the rule that it breaks. `email` is its owner's, if that is known.
    pub fn parse_new(text: &str, email: Option<&Email>) -> Result<Self, BadPassword> {
        let Self { spelt, .. } = Self::spelt(text);
        // A sign may be several when it is spelt, and several typed ones a letter.
        if [text, &spelt].iter().any(|form| !(8..=128).contains(&form.chars().count())) {
            return Err(BadPassword::Length);
        }
        let lower = spelt.to_lowercase();
        let first = lower.chars().next();
        let is_guessed = COMMON_PASSWORDS.lines().any(|common| common == lower)
            || lower.chars().all(|letter| Some(letter) == first)
            || email.is_some_and(|Email(email)| *email == lower);
        if is_guessed { Err(BadPassword::Common) } else { Ok(Self { spelt, typed: None }) }
    }

    /// A password to sign in with: anything that is not empty, since rules for new ones may change.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::spelt(text))
    }

    fn spelt(text: &str) -> Self {
        let spelt = ComposingNormalizerBorrowed::new_nfkc().normalize(text).into_owned();
        let typed = (spelt != text).then(|| text.to_owned());
        Self { spelt, typed }
    }

    /// The password's bytes, as they are hashed.
    pub fn as_bytes(&self) -> &[u8] {
        self.spelt.as_bytes()
    }

    /// As it was typed, where that differs: before passwords had one spelling, that was hashed.
    pub fn as_typed(&self) -> Option<&[u8]> {
        self.typed.as_ref().map(String::as_bytes)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn account(number: u128) -> Account {
        let sealed = |what: &str| Sealed(format!("{what} {number}"));
        Account {
            id: UserId(Uuid::from_u128(number)),
            email: sealed("email"),
            password_hash: sealed("hash"),
            epoch: 0,
        }
    }

    fn signed_up(number: u128) -> UserEvent {
        let Account { id, email, password_hash, epoch: _ } = account(number);
        UserEvent::SignedUp(UserSignedUp { id, email, password_hash })
    }

    fn erased(number: u128) -> UserEvent {
        UserEvent::Erased(UserErased { id: UserId(Uuid::from_u128(number)) })
    }

    fn signed_out(number: u128, epoch: u32) -> UserEvent {
        UserEvent::SignedOut(UserSignedOut { id: UserId(Uuid::from_u128(number)), epoch })
    }

    fn given(events: &[UserEvent]) -> Address {
        events.iter().fold(Address::default(), evolve)
    }

    #[test]
    fn anybody_may_sign_up_with_a_free_address() {
        assert_eq!(sign_up(&given(&[]), &account(1)), Ok(Some(signed_up(1))));
        assert_eq!(given(&[signed_up(1)]), Address::Taken(account(1)));
    }

    #[test]
    fn an_address_is_taken_once() {
        assert_eq!(sign_up(&given(&[signed_up(1)]), &account(2)), Err(Rejection::EmailInUse));
        assert_eq!(sign_up(&given(&[signed_up(1)]), &account(1)), Err(Rejection::EmailInUse));
    }

    #[test]
    fn an_erased_address_is_free_again() {
        let address = given(&[signed_up(1), erased(1)]);
        assert_eq!(address, Address::Free);
        assert_eq!(sign_up(&address, &account(2)), Ok(Some(signed_up(2))));
    }

    #[test]
    fn whoever_has_the_address_is_erased() {
        assert_eq!(erase(&given(&[signed_up(1)]), account(1).id), Some(erased(1)));
        assert_eq!(erase(&given(&[signed_up(1), erased(1), signed_up(2)]), account(2).id), Some(erased(2)));
    }

    #[test]
    fn who_is_erased_already_is_left_alone_and_so_is_whoever_came_after() {
        assert_eq!(erase(&given(&[]), account(1).id), None);
        assert_eq!(erase(&given(&[signed_up(1), erased(1)]), account(1).id), None);
        assert_eq!(erase(&given(&[signed_up(1), erased(1), signed_up(2)]), account(1).id), None);
    }

    #[test]
    fn signing_out_everywhere_ends_the_sessions_of_before_and_none_of_after() {
        let id = account(1).id;
        let before = given(&[signed_up(1)]);
        assert!(is_signed_in(&before, id, 0));
        assert_eq!(sign_out_everywhere(&before, id, 0), Some(signed_out(1, 1)));
        let after = given(&[signed_up(1), signed_out(1, 1)]);
        assert!(!is_signed_in(&after, id, 0));
        assert!(is_signed_in(&after, id, 1));
        assert!(has_signed_out(&after, id, 0) && !has_signed_out(&after, id, 1));
        assert!(!has_signed_out(&given(&[signed_up(1), signed_out(1, 1), erased(1)]), id, 0));
        assert_eq!(sign_out_everywhere(&after, id, 0), None);
        assert_eq!(sign_out_everywhere(&after, id, 1), Some(signed_out(1, 2)));
    }

    #[test]
    fn nobody_signs_out_who_is_erased_or_another() {
        let erased = given(&[signed_up(1), erased(1)]);
        let another = given(&[signed_up(2)]);
        for address in [erased, another] {
            assert!(!is_signed_in(&address, account(1).id, 0));
            assert_eq!(sign_out_everywhere(&address, account(1).id, 0), None);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        SignUp,
        /// Of one of those who signed up so far, or will.
        Erase(u128),
    }

    proptest! {
        #[test]
        fn nobody_signs_up_while_another_has_the_address(
            steps in prop::collection::vec(prop_oneof![Just(Step::SignUp), (1..20_u128).prop_map(Step::Erase)], 0..40),
        ) {
            let mut address = Address::default();
            let mut holder = None;
            for (number, step) in (1..).zip(steps) {
                let event = match step {
                    Step::SignUp => {
                        let decision = sign_up(&address, &account(number));
                        prop_assert_eq!(decision.is_ok(), holder.is_none());
                        let Ok(Some(event)) = decision else { continue };
                        holder = Some(number);
                        event
                    }
                    Step::Erase(of) => {
                        let event = erase(&address, account(of).id);
                        prop_assert_eq!(event.is_some(), holder == Some(of));
                        let Some(event) = event else { continue };
                        holder = None;
                        event
                    }
                };
                address = evolve(address, &event);
                let expected = holder.map_or(Address::Free, |number| Address::Taken(account(number)));
                prop_assert_eq!(&address, &expected);
            }
        }

        #[test]
        fn an_address_has_one_spelling(text in "\\PC{0,40}|[ ]?[A-Za-z0-9.+]{1,9}@[A-Za-z0-9.-]{1,9}[.][a-z]{1,4}") {
            if let Some(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()), Some(email.clone()));
                prop_assert_eq!(Email::parse(&text.to_ascii_uppercase()), Some(email));
            }
        }
    }

    fn check_email(text: &str, expected: Option<&str>) {
        assert_eq!(Email::parse(text).as_ref().map(Email::as_str), expected, "{text:?}");
    }

    #[test]
    fn an_address_is_trimmed_and_in_lower_case() {
        check_email("ann@example.com", Some("ann@example.com"));
        check_email(" Ann.O'Neil+tickets@Mail.Example.COM\n", Some("ann.o'neil+tickets@mail.example.com"));
        check_email("a@xn--bcher-kva.xn--p1ai", Some("a@xn--bcher-kva.xn--p1ai"));
        let longest = format!("{}@{}.example.com", "a".repeat(64), vec!["b".repeat(58); 3].join("."));
        check_email(&longest, Some(&longest));
    }

    #[test]
    fn where_no_mail_can_arrive_is_no_address() {
        for text in [
            "",
            " ",
            "@",
            "ann",
            "ann@",
            "@example.com",
            "ann@example",
            "ann@example.",
            "ann@.com",
            "ann@exam ple.com",
            "ann@@example.com",
            "an n@example.com",
            ".ann@example.com",
            "ann.@example.com",
            "an..n@example.com",
            "ann@-example.com",
            "ann@example-.com",
            "ann@example..com",
            "ann@127.0.0.1",
            "ann@example.c",
            "ann@[::1]",
            "\"ann\"@example.com",
            "ann@example.com\0",
            "änn@example.com",
            "ann@exämple.com",
            "ann@example.com,bob@example.com",
        ] {
            check_email(text, None);
        }
        check_email(&format!("{}@example.com", "a".repeat(65)), None);
        check_email(&format!("a@{}.com", "b".repeat(64)), None);
        check_email(&format!("{}@{}.com", "a".repeat(64), vec!["b".repeat(62); 3].join(".")), None);
    }

    #[test]
    fn a_new_password_is_counted_in_characters() {
        for (text, expected) in [
            ("hunter2".to_owned(), Some(BadPassword::Length)),
            ("hunter22".to_owned(), None),
            ("äöüßáéí".to_owned(), Some(BadPassword::Length)),
            ("äöüßáéíó".to_owned(), None),
            ("🎫🎟".repeat(64), None),
            // Four letters that are typed as eight characters, and four signs that are spelt as eight.
            ("a\u{308}".repeat(4), Some(BadPassword::Length)),
            ("\u{af}".repeat(4), Some(BadPassword::Length)),
            ("xy".repeat(64) + "z", Some(BadPassword::Length)),
            (" ".repeat(4) + "    \t\n", None),
        ] {
            assert_eq!(Password::parse_new(&text, None).err(), expected, "{text}");
        }
        assert!(Password::parse("x").is_some());
        assert!(Password::parse("").is_none());
    }

    #[test]
    fn what_others_try_first_is_no_new_password() {
        let email = Email::parse("ann@example.com");
        for text in ["password", "PassWord1", "qwertyuiop", "1234567890", "zzzzzzzzzz", "Ann@Example.com"] {
            assert_eq!(Password::parse_new(text, email.as_ref()).err(), Some(BadPassword::Common), "{text}");
            assert!(Password::parse(text).is_some(), "who has it signs in");
        }
        assert!(Password::parse_new("correct horse", email.as_ref()).is_ok());
        assert!(COMMON_PASSWORDS.lines().all(|common| common.len() >= 8 && common == common.to_lowercase()));
    }

    #[test]
    fn a_password_has_one_spelling() {
        // An umlaut as one character, and as a letter with two dots: it depends on the keyboard.
        let (one, two) = (Password::parse("sch\u{f6}nes wetter"), Password::parse("scho\u{308}nes wetter"));
        assert_eq!(
            one.map(|password| password.as_bytes().to_vec()),
            two.map(|password| password.as_bytes().to_vec())
        );
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!("{:?} {:?}", Email::parse("ann@example.com"), Password::parse("hunter22"));
        assert_eq!(shown, "Some(Email) Some(Password)");
    }
}
