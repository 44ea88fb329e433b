//! Who may have an account: one for each email address, until it is erased.
//!
//! Pure: what is sealed comes in sealed, and ids are arguments.

use std::fmt;

use contract::{
    UserEvent, UserId,
    event::{Sealed, UserErased, UserSignedUp},
};
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
}

/// Why somebody cannot do what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Somebody has an account with this address.
    EmailInUse,
}

/// Folds one event into the address.
pub fn evolve(_: Address, event: &UserEvent) -> Address {
    match event {
        UserEvent::SignedUp(UserSignedUp { id, email, password_hash }) => {
            Address::Taken(Account { id: *id, email: email.clone(), password_hash: password_hash.clone() })
        }
        UserEvent::Erased(UserErased { id: _ }) => Address::Free,
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
    let Account { id, email, password_hash } = account.clone();
    Ok(Some(UserEvent::SignedUp(UserSignedUp { id, email, password_hash })))
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

/// A password. Does not show itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password to sign up with: 8 to 128 characters, and any characters.
    pub fn parse_new(text: &str) -> Option<Self> {
        (8..=128).contains(&text.chars().count()).then(|| Self(text.to_owned()))
    }

    /// A password to sign in with: anything that is not empty, since rules for new ones may change.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The password's bytes, as they are hashed.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
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
        Account { id: UserId(Uuid::from_u128(number)), email: sealed("email"), password_hash: sealed("hash") }
    }

    fn signed_up(number: u128) -> UserEvent {
        let Account { id, email, password_hash } = account(number);
        UserEvent::SignedUp(UserSignedUp { id, email, password_hash })
    }

    fn erased(number: u128) -> UserEvent {
        UserEvent::Erased(UserErased { id: UserId(Uuid::from_u128(number)) })
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
            ("1234567".to_owned(), false),
            ("12345678".to_owned(), true),
            ("ä".repeat(7), false),
            ("ä".repeat(8), true),
            ("🎫".repeat(128), true),
            ("x".repeat(129), false),
        ] {
            assert_eq!(Password::parse_new(&text).is_some(), expected, "{text}");
        }
        assert!(Password::parse("x").is_some());
        assert!(Password::parse("").is_none());
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!("{:?} {:?}", Email::parse("ann@example.com"), Password::parse("hunter22"));
        assert_eq!(shown, "Some(Email) Some(Password)");
    }
}
