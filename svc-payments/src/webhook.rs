//! What Stripe tells by itself: events, posted to us and signed.
//!
//! An event is a hint, not a fact. Its snapshot may be old, and events come twice and in any order; so nothing is taken
//! from it but what to look at. Who sends it matters all the same: a look costs a request to Stripe.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contract::OrderId;
use ring::hmac;
use serde::Deserialize;

use crate::domain::Happened;

/// How far the time of a signature may be from now: what Stripe's own libraries allow
/// (<https://docs.stripe.com/webhooks#verify-official-libraries>).
const TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures that are looked at: each costs an HMAC of the whole body. Stripe sends one for each secret that is good.
const MOST_SIGNATURES: usize = 8;

/// The signing secret of a webhook endpoint, `whsec_…`. Never shown.
#[derive(Clone)]
pub struct Secret(hmac::Key);

/// A text that is no such secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSecret;

impl FromStr for Secret {
    type Err = InvalidSecret;

    /// # Errors
    /// When it does not begin as one, or has blanks in it.
    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let rest = text.strip_prefix("whsec_").ok_or(InvalidSecret)?;
        match !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            // The prefix is a part of the key.
            true => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))),
            false => Err(InvalidSecret),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The secrets that are good at present: two while one takes the other's place.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Secret>);

/// Why an event is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// We have no secret to verify it with.
    #[error("Webhooks are not set up")]
    NoSecret,
    /// It carries no signature, or one that is none.
    #[error("Stripe-Signature is missing or malformed")]
    Malformed,
    /// It was signed too long ago, or in the future.
    #[error("Stripe-Signature is not of this time")]
    Stale,
    /// Nobody who knows a secret signed it.
    #[error("Stripe-Signature does not match")]
    Mismatch,
    /// It is signed, and no event.
    #[error("Body is not an event of Stripe's")]
    NoEvent,
}

impl Secrets {
    /// The current secret, and the one before it.
    pub fn new(current: Option<Secret>, previous: Option<Secret>) -> Self {
        Self(current.into_iter().chain(previous).collect())
    }

    /// Whether there is none: then nothing is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the header `Stripe-Signature` of a body: `t=<Unix seconds>,v1=<hex>` with any number of `v1`, each an
    /// HMAC-SHA256 of the time, a dot, and the body as it came. Compares in constant time.
    ///
    /// # Errors
    /// See [`Forged`].
    pub fn verify(&self, header: Option<&str>, body: &[u8], now: SystemTime) -> Result<(), Forged> {
        if self.is_empty() {
            return Err(Forged::NoSecret);
        }
        let parts = header.ok_or(Forged::Malformed)?.split(',').filter_map(|part| part.split_once('='));
        let (mut time, mut signatures) = (None, Vec::new());
        for (name, value) in parts {
            match name.trim() {
                "t" => time = Some(value),
                "v1" if signatures.len() < MOST_SIGNATURES => signatures.extend(unhex(value)),
                // `v0` and what is yet to come.
                _ => {}
            }
        }
        let time = time.filter(|_| !signatures.is_empty()).ok_or(Forged::Malformed)?;
        let signed_at = time.parse::<u32>().map_err(|_| Forged::Malformed)?;
        let signed_at = UNIX_EPOCH + Duration::from_secs(signed_at.into());
        let off = now.duration_since(signed_at).unwrap_or_else(|earlier| earlier.duration());
        if off > TOLERANCE {
            return Err(Forged::Stale);
        }
        let signed = [time.as_bytes(), b".", body].concat();
        let fits = |secret: &Secret| {
            signatures.iter().any(|signature| hmac::verify(&secret.0, &signed, signature).is_ok())
        };
        match self.0.iter().any(fits) {
            true => Ok(()),
            false => Err(Forged::Mismatch),
        }
    }
}

/// The 32 bytes of an HMAC-SHA256; nothing else is worth computing one for.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// What an event is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something happened to an intent.
    About(Notice),
    /// Something else, which is nothing to us.
    Other,
}

/// Something happened to an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event's type.
    pub kind: &'static str,
    /// The PaymentIntent that it is about.
    pub intent: String,
    /// The order that it was made for, where the event says so.
    pub order: Option<OrderId>,
    /// What happened, as Stripe says.
    pub happened: Happened,
}

/// The types that are listened to.
const KINDS: [(&str, Happened); 9] = [
    ("payment_intent.amount_capturable_updated", Happened::Held),
    ("payment_intent.succeeded", Happened::Taken),
    ("payment_intent.payment_failed", Happened::Refused),
    ("payment_intent.canceled", Happened::GivenUp),
    ("charge.refunded", Happened::Reversed),
    ("charge.dispute.created", Happened::Reversed),
    // A refund may fail days after it was said to have succeeded.
    ("refund.updated", Happened::Reversed),
    ("refund.failed", Happened::Reversed),
    ("charge.refund.updated", Happened::Reversed),
];

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct About {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

/// What a PaymentIntent, a Charge, a Refund and a Dispute have in common.
#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    object: Option<String>,
    payment_intent: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    order_id: Option<String>,
}

/// Reads an event that was verified.
///
/// # Errors
/// When it is none.
pub fn read(body: &[u8]) -> Result<Heard, Forged> {
    let event: Event = serde_json::from_slice(body).map_err(|_| Forged::NoEvent)?;
    let Some((kind, happened)) = KINDS.into_iter().find(|(kind, _)| *kind == event.kind) else {
        return Ok(Heard::Other);
    };
    let About { data } = serde_json::from_slice(body).map_err(|_| Forged::NoEvent)?;
    let object = data.object;
    let intent = match object.object.as_deref() {
        Some("payment_intent") => object.id,
        _ => object.payment_intent,
    };
    // A charge without an intent was not made by us.
    let Some(intent) = intent else { return Ok(Heard::Other) };
    let order = object.metadata.and_then(|metadata| metadata.order_id?.parse().ok());
    Ok(Heard::About(Notice { kind, intent, order, happened }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn secrets(current: &str, previous: Option<&str>) -> Secrets {
        let secret = |text: &str| text.parse::<Secret>().unwrap();
        Secrets::new(Some(secret(current)), previous.map(secret))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn mac(secret: &str, time: &str, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, &[time.as_bytes(), b".", body].concat());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check(secrets: &Secrets, header: &str, body: &[u8], expected: Result<(), Forged>) {
        assert_eq!(secrets.verify(Some(header), body, at(1_000_000)), expected, "{header}");
    }

    /// Made with another program: `printf '1000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_1`.
    #[test]
    fn a_signature_is_what_others_make_it() {
        let header = "t=1000000,v1=354a88b4890ccf2291451842adf4fcafc9c88fc4fd8ca10be5c76c0a204a9fdb";
        check(&secrets("whsec_1", None), header, BODY, Ok(()));
    }

    #[test]
    fn only_who_knows_a_secret_is_believed() {
        let (ours, others) = (mac("whsec_1", "1000000", BODY), mac("whsec_2", "1000000", BODY));
        let one = secrets("whsec_1", None);
        check(&one, &format!("t=1000000,v1={ours}"), BODY, Ok(()));
        check(&one, &format!("t=1000000,v1={others}"), BODY, Err(Forged::Mismatch));
        check(&one, &format!("t=1000000,v1={others},v1={ours}"), BODY, Ok(()));
        check(&one, &format!("t=1000000,v0={ours}"), BODY, Err(Forged::Malformed));
        check(&secrets("whsec_3", Some("whsec_1")), &format!("t=1000000,v1={ours}"), BODY, Ok(()));
        let nobody = Secrets::default().verify(Some("t=1,v1=00"), BODY, at(1));
        assert_eq!(nobody, Err(Forged::NoSecret));
    }

    #[test]
    fn what_was_changed_on_the_way_is_not_believed() {
        let one = secrets("whsec_1", None);
        let header = format!("t=1000000,v1={}", mac("whsec_1", "1000000", BODY));
        check(&one, &header, br#"{"id":"evt_2"}"#, Err(Forged::Mismatch));
        check(&one, &header, &BODY[..BODY.len() - 1], Err(Forged::Mismatch));
        check(&one, &header, b"", Err(Forged::Mismatch));
        check(&one, &header.replace("t=1000000", "t=1000001"), BODY, Err(Forged::Mismatch));
        check(&one, &header[..header.len() - 2], BODY, Err(Forged::Malformed));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes() {
        let one = secrets("whsec_1", None);
        for (time, expected) in [
            ("999700", Ok(())),
            ("1000300", Ok(())),
            ("999699", Err(Forged::Stale)),
            ("1000301", Err(Forged::Stale)),
        ] {
            check(&one, &format!("t={time},v1={}", mac("whsec_1", time, BODY)), BODY, expected);
        }
    }

    /// Each signature costs an HMAC of the body: a header full of them must not.
    #[test]
    fn only_a_few_signatures_are_looked_at() {
        let one = secrets("whsec_1", None);
        let (none, ours) = ("0".repeat(64), mac("whsec_1", "1000000", BODY));
        let many = |count: usize| format!("t=1000000,{}v1={ours}", format!("v1={none},").repeat(count));
        check(&one, &many(7), BODY, Ok(()));
        check(&one, &many(8), BODY, Err(Forged::Mismatch));
        check(&one, &format!("t=1000000,{}v1={ours}", "v1=,".repeat(1000)), BODY, Ok(()));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let one = secrets("whsec_1", None);
        for header in ["", "t", "v1=00", "t=1000000", "t=1000000,v1=", "t=x,v1=00", "t=-1,v1=00", "t=1,v1=0g"]
        {
            let refused = one.verify(Some(header), BODY, at(1_000_000));
            assert!(matches!(refused, Err(Forged::Malformed | Forged::Stale | Forged::Mismatch)), "{header}");
        }
        assert_eq!(one.verify(None, BODY, at(1)), Err(Forged::Malformed));
    }

    #[test]
    fn an_event_says_what_to_look_at() {
        let names = r#""metadata":{"order_id":"019aa9f2-44be-7f19-a1d7-38c05b6e92f4",
            "payment_id":"019aa9f3-0b61-7e2c-8f95-c74d1a60b3e8","other":"1"}"#;
        let read = |kind: &str, object: String| {
            read(format!(r#"{{"id":"evt_1","type":"{kind}","data":{{"object":{{{object}}}}}}}"#).as_bytes())
        };
        let intent = format!(r#""object":"payment_intent","id":"pi_1",{names}"#);
        let Ok(Heard::About(notice)) = read("payment_intent.succeeded", intent.clone()) else { panic!() };
        assert_eq!((notice.intent.as_str(), notice.happened), ("pi_1", Happened::Taken));
        assert!(notice.order.is_some());
        let dispute = r#""object":"dispute","id":"dp_1","payment_intent":"pi_1","metadata":{}"#.to_owned();
        let Ok(Heard::About(about)) = read("charge.dispute.created", dispute) else { panic!() };
        assert_eq!((about.intent.as_str(), about.order), ("pi_1", None));
        assert_eq!(read("payment_intent.created", intent), Ok(Heard::Other));
        assert_eq!(read("customer.created", r#""id":"cus_1""#.into()), Ok(Heard::Other));
        assert_eq!(super::read(br#"{"id":"evt_1","type":"v2.core.event"}"#), Ok(Heard::Other));
        for body in ["", "{}", "[]", "null", r#"{"id":"evt_1","type":"charge.refunded"}"#] {
            assert_eq!(super::read(body.as_bytes()), Err(Forged::NoEvent), "{body}");
        }
    }
}
