//! What has to hold of whatever reads bytes from outside, whichever bytes they are.
//!
//! A property is given the reader that it judges, so that a test can hand it one that is broken. It says whether the
//! reader let the input in, or what does not hold. What a reader is compared with is worked out here in another way,
//! and as a rule in one direction: from what it let in to what must have stood there.
//!
//! The fuzz targets include this file, and `tests/fuzz.rs` does: so what is fuzzed for a night is tried in each build.

use std::{
    convert::Infallible,
    sync::{LazyLock, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use async_nats::{HeaderMap as NatsHeaders, Message};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use contract::{Cents, ExpirationEvent, OrderEvent, PaymentEvent, TicketEvent, UserEvent};
use futures::FutureExt;
use http_body_util::Empty;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt},
};
use ring::{hmac, signature};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use svc_auth::domain::{Email, Password};
use svc_payments::webhook::{self, Heard, Secrets};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;
use warp::{
    Filter,
    http::{HeaderMap, HeaderName, HeaderValue, Request, header},
};
use web::{Claims, Env, KeyPairText, Keys, Page, Query, Sessions, Signer};

/// Whether the input was let in; an error when something does not hold.
pub(crate) type Verdict = Result<bool>;

/// What is fuzzed: the directory of its seeds, and what has to hold.
/// What is held of an input.
type Property = fn(&[u8]) -> Verdict;

pub(crate) const TARGETS: [(&str, Property); 7] = [
    ("account", |input| account(Email::parse, |text, email| Password::parse_new(text, email).ok(), input)),
    ("cursor", |input| cursor(|query| query.page().ok(), input)),
    ("event", |input| event(decode, input)),
    ("money", |input| money(|price| Cents::try_from(price).ok(), input)),
    ("session", |input| session(identify, input)),
    ("trace", |input| trace(telemetry::http::extract, input)),
    ("webhook", |input| webhook(is_of_stripe, |body| webhook::read(body).ok(), input)),
];

/// What has to hold of a target's input.
pub(crate) fn property(target: &str) -> fn(&[u8]) -> Verdict {
    let found = TARGETS.into_iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("nothing is called {target}")).1
}

/// An input with what cannot stand in a file put in place of its name: `{ours}` is a token of ours, `{mac}` the
/// signature of the body below it. So that mutations begin at what is good.
pub(crate) fn filled_in(target: &str, input: &[u8]) -> Vec<u8> {
    match target {
        "session" => TOKENS.iter().fold(input.to_vec(), |input, (name, token)| replaced(&input, name, token)),
        "webhook" => {
            let body = input.iter().position(|byte| *byte == b'\n').map_or(&b""[..], |at| &input[at + 1..]);
            let macs = [("{mac}", CURRENT), ("{previous}", PREVIOUS_SECRET), ("{other}", OTHER_SECRET)];
            macs.into_iter().fold(input.to_vec(), |input, (name, secret)| {
                replaced(&input, name, &mac(secret, &NOW.to_string(), body))
            })
        }
        _ => input.to_vec(),
    }
}

fn replaced(input: &[u8], name: &str, by: &str) -> Vec<u8> {
    let Some(at) = input.windows(name.len()).position(|window| window == name.as_bytes()) else {
        return input.to_vec();
    };
    let (before, after) = (&input[..at], &input[at + name.len()..]);
    [before, by.as_bytes(), &replaced(after, name, by)].concat()
}

/// `name: value` in each line of the input, as a header would have it; what cannot be a header is left out.
fn lines(input: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    input.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
    })
}

fn http_headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines(input) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// What a filter of ours makes of a request.
fn extracted<T: Send + 'static>(
    filter: impl Filter<Extract = (T,), Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    request: Request<Empty<Bytes>>,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let routes = filter.map(move |found| {
        let _ = sender.send(found);
        warp::reply()
    });
    let answer = TowerToHyperService::new(warp::service(routes)).call(request);
    answer.now_or_never().expect("it waits for nothing").unwrap_or_else(|never| match never {});
    receiver.recv().expect("it takes every request")
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

// --- Addresses and passwords --------------------------------------------------------------------------------------

/// An address has one spelling, and so has a password, however they are typed. A new password is of 8 to 128
/// characters, and not its owner's address.
pub(crate) fn account(
    email: impl Fn(&str) -> Option<Email>,
    new_password: impl Fn(&str, Option<&Email>) -> Option<Password>,
    input: &[u8],
) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(false) };
    let address = email(text);
    if let Some(address) = &address {
        let spelling = address.as_str();
        ensure!(spelling.eq_ignore_ascii_case(text.trim()), "{spelling:?} is another address than was typed");
        ensure!(!spelling.bytes().any(|byte| byte.is_ascii_uppercase()), "{spelling:?} has capital letters");
        ensure!(
            spelling.bytes().all(|byte| byte.is_ascii_graphic()),
            "{spelling:?} has what no mail may have"
        );
        ensure!(spelling.matches('@').count() == 1 && spelling.len() <= 254, "{spelling:?} is no address");
        for other in [spelling.to_owned(), text.to_ascii_uppercase(), format!("\t {text}\n")] {
            ensure!(email(&other).as_ref() == Some(address), "{other:?} is not the address that {text:?} is");
        }
        ensure!(new_password(spelling, Some(address)).is_none(), "{spelling:?} is its owner's password, too");
    }

    let bytes = |password: &Password| password.as_bytes().to_vec();
    let typed = Password::parse(text);
    ensure!(typed.is_some() != text.is_empty(), "{text:?} is a password to sign in with, or nothing is");
    if let Some(password) = &typed {
        let spelling = std::str::from_utf8(password.as_bytes())?;
        let again = Password::parse(spelling);
        ensure!(again.as_ref().map(bytes) == Some(bytes(password)), "{spelling:?} is spelt in two ways");
        let as_typed = password.as_typed().unwrap_or(password.as_bytes());
        ensure!(as_typed == text.as_bytes(), "{text:?} was not typed so");
        ensure!(!text.is_ascii() || spelling == text, "{text:?} is hashed as {spelling:?}");
    }
    let new = new_password(text, address.as_ref());
    if let Some(password) = &new {
        ensure!(
            typed.as_ref().map(bytes) == Some(bytes(password)),
            "who signs up with {text:?} could not sign in"
        );
        let characters: Vec<_> = std::str::from_utf8(password.as_bytes())?.chars().collect();
        for count in [characters.len(), text.chars().count()] {
            ensure!((8..=128).contains(&count), "{count} characters are a new password");
        }
        ensure!(characters.iter().any(|letter| letter != &characters[0]), "one letter is a new password");
        ensure!(format!("{password:?}") == "Password", "a password shows itself");
    }
    Ok(address.is_some() || new.is_some())
}

// --- Cursors ------------------------------------------------------------------------------------------------------

/// A cursor is the bytes that it spells, and the next page's link brings back the one that it was given, with all else
/// that was asked.
pub(crate) fn cursor(page: impl Fn(&Query) -> Option<Page>, input: &[u8]) -> Verdict {
    let Some(query) = std::str::from_utf8(input).ok().and_then(query) else { return Ok(false) };
    let read = page(&query);
    if let Some(Page { limit, cursor }) = &read {
        ensure!((1..=1000).contains(limit), "a page of {limit}");
        let spelled = query.get("cursor").map(str::to_ascii_lowercase);
        ensure!(cursor.as_ref().map(hex) == spelled, "{spelled:?} is read as {cursor:?}");
    }

    let given = read.as_ref().and_then(|page| page.cursor.as_deref()).unwrap_or(b"\0\xff");
    let answer = query.with_next(warp::reply(), given);
    let link = answer.headers()[header::LINK].to_str()?;
    let target = link.strip_prefix("</api/things?").and_then(|link| link.strip_suffix(r#">; rel="next""#));
    let target = target.with_context(|| format!("{link} is no link"))?;
    let next = self::query(target).with_context(|| format!("{target} is no query"))?;
    for name in ["limit", "status", "search", "userId"] {
        ensure!(next.get_all(name).eq(query.get_all(name)), "{link} asks for another {name}");
    }
    ensure!(next.get_all("cursor").eq([hex(given)]), "{link} leads to another page");
    let expected = read.as_ref().map(|read| Page { limit: read.limit, cursor: Some(given.to_vec()) });
    ensure!(read.is_none() || page(&next) == expected, "{link} is another page");
    Ok(read.is_some_and(|page| page.cursor.is_some()))
}

/// `None` when no request could have it.
fn query(raw: &str) -> Option<Query> {
    let request = Request::get(format!("/api/things?{raw}")).body(Empty::new()).ok()?;
    Some(extracted(web::query(), request))
}

// --- Events -------------------------------------------------------------------------------------------------------

/// What is read of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Read {
    pub(crate) id: Uuid,
    pub(crate) subject: String,
    pub(crate) version: u64,
    pub(crate) time: OffsetDateTime,
    pub(crate) cause: Option<Uuid>,
    /// `{"type": …, "data": {…}}`
    pub(crate) event: Value,
    pub(crate) trace: Option<String>,
}

/// A message of a stream is one event, or none: of the subject that it names, with what it says and nothing else. It
/// reads the same when it is written again, and cents are whole numbers in it.
pub(crate) fn event(decode: impl Fn(&Message) -> Vec<Read>, input: &[u8]) -> Verdict {
    let message = message(input);
    let read = decode(&message);
    let [read] = &read[..] else {
        ensure!(read.is_empty(), "two streams would take it for theirs: {read:?}");
        return Ok(false);
    };

    let header = |name: &str| header_of(&message, name).map(str::to_owned);
    ensure!(header("ce-subject").as_deref() == Some(&*read.subject), "it was written to another subject");
    ensure!(*read.subject == *message.subject, "it came on another subject");
    ensure!(header("ce-id").and_then(|id| id.parse().ok()) == Some(read.id), "{} is not its id", read.id);
    let tag = read.event["type"].as_str().context("an event has a type")?;
    let name = header("ce-type").unwrap_or_default();
    ensure!(tag.split('/').next() == Some(&*name), "{name} was read as {tag}");

    // What is not looked at may be what only a stricter reader would refuse.
    if let Ok(payload) = serde_json::from_slice::<Value>(&message.payload) {
        ensure!(payload["version"] == read.version, "{} is not its version", read.version);
        cents_are_whole(&payload, &read.event["data"])?;
        if let Some(trace) = &read.trace {
            let traces = payload["_trace"].as_object().into_iter().flat_map(Map::values);
            ensure!(traces.filter_map(Value::as_str).any(|text| text == trace), "{trace} is not its trace");
        }
    }
    let again = decode(&written(read));
    ensure!(again == [read.clone()], "{read:?} is written and read as {again:?}");
    Ok(true)
}

/// Each amount of the data stands in the payload as that whole number, not as one with a point.
fn cents_are_whole(payload: &Value, data: &Value) -> Result<()> {
    for (name, value) in data.as_object().into_iter().flatten() {
        if name.ends_with("Cents") {
            ensure!(value.is_i64() && payload[name] == *value, "{name}: {} read as {value}", payload[name]);
        }
        cents_are_whole(&payload[name], value)?;
    }
    Ok(())
}

/// Headers up to an empty line, the subject among them; then the payload.
fn message(input: &[u8]) -> Message {
    let end = input.windows(2).position(|window| window == b"\n\n").unwrap_or(input.len());
    let mut headers = NatsHeaders::new();
    let mut subject = String::new();
    for (name, value) in lines(&input[..end]) {
        let Ok(value) = std::str::from_utf8(value) else { continue };
        match (name, name.parse::<async_nats::HeaderName>(), value.parse::<async_nats::HeaderValue>()) {
            ("subject", ..) => value.clone_into(&mut subject),
            (_, Ok(name), Ok(value)) => headers.append(name, value),
            _ => {}
        }
    }
    let payload = Bytes::copy_from_slice(input.get(end + 2..).unwrap_or_default());
    message_of(subject, headers, payload)
}

fn message_of(subject: String, headers: NatsHeaders, payload: Bytes) -> Message {
    Message {
        subject: subject.into(),
        reply: None,
        payload,
        headers: Some(headers),
        status: None,
        description: None,
        length: 0,
    }
}

/// The message that would be read so.
fn written(read: &Read) -> Message {
    let tag = read.event["type"].as_str().unwrap_or_default();
    let (name, schema) = tag.split_once('/').unwrap_or((tag, "1"));
    let mut headers = NatsHeaders::new();
    for (name, value) in [
        ("ce-id", read.id.to_string()),
        ("ce-type", name.to_owned()),
        ("ce-schemaversion", schema.to_owned()),
        ("ce-subject", read.subject.clone()),
        ("ce-time", read.time.format(&Rfc3339).unwrap_or_default()),
    ] {
        headers.insert(name, value);
    }
    if let Some(cause) = read.cause {
        headers.insert("ce-causationid", cause.to_string());
    }
    let mut payload = read.event["data"].clone();
    payload["version"] = read.version.into();
    if let Some(trace) = &read.trace {
        payload["_trace"] = json!({ "uber-trace-id": trace });
    }
    message_of(read.subject.clone(), headers, payload.to_string().into())
}

fn header_of<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// As whom each service reads it.
pub(crate) fn decode(message: &Message) -> Vec<Read> {
    let readers = [
        decode_as::<UserEvent>,
        decode_as::<TicketEvent>,
        decode_as::<OrderEvent>,
        decode_as::<PaymentEvent>,
        decode_as::<ExpirationEvent>,
    ];
    readers.into_iter().filter_map(|decode| decode(message)).collect()
}

fn decode_as<E: Serialize + DeserializeOwned>(message: &Message) -> Option<Read> {
    let recorded = eventstore::decode::<E>(1, message).ok()?;
    let _ = recorded.trace_context();
    Some(Read {
        id: recorded.id,
        subject: recorded.subject.clone(),
        version: recorded.version,
        time: recorded.time,
        cause: recorded.causation_id,
        event: serde_json::to_value(&recorded.event).ok()?,
        trace: recorded.trace_text(),
    })
}

// --- Money --------------------------------------------------------------------------------------------------------

/// A price is the cents that its text says, digit by digit, and survives an answer and an event.
pub(crate) fn money(price: impl Fn(&Value) -> Option<Cents>, input: &[u8]) -> Verdict {
    #[derive(Serialize, Deserialize)]
    struct Body(#[serde(with = "contract::money::dollars")] Cents);

    let mut let_in = false;
    let typed = std::str::from_utf8(input).ok().map(|text| Value::String(text.to_owned()));
    let sent = serde_json::from_slice::<Value>(input).ok();
    for value in typed.into_iter().chain(sent) {
        let Some(Cents(cents)) = price(&value) else { continue };
        let_in = true;
        ensure!(cents.abs() <= Cents::MAX_PRICE.0, "{value} is {cents}, over the largest price");
        let text = match &value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => {
                // The nearest number with a point to so many cents is the one that was sent.
                ensure!(number.as_f64() == Some(cents as f64 / 100.0), "{number} is read as {cents}");
                number.to_string()
            }
            other => anyhow::bail!("{other} is no amount, and is read as {cents}"),
        };
        ensure!(says(&text, cents), "{text:?} is read as {cents}");

        let body = serde_json::to_string(&Body(Cents(cents)))?;
        ensure!(says(&body, cents), "{cents} is written as {body}");
        let Body(back) = serde_json::from_str(&body)?;
        ensure!(back == Cents(cents), "{cents} is written as {body} and read as {back:?}");
    }

    // Of an event, where it is a number of cents.
    if let Ok(Cents(cents)) = serde_json::from_slice(input) {
        let text = std::str::from_utf8(input)?.trim();
        ensure!(text.parse::<i64>() == Ok(cents), "{text} is no whole number, and is read as {cents} cents");
        ensure!(serde_json::to_string(&Cents(cents))? == cents.to_string(), "{cents} is written otherwise");
        let_in = true;
    }
    Ok(let_in)
}

/// Whether a decimal text is so many cents, reckoned in whole numbers.
fn says(text: &str, cents: i64) -> bool {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let decimals = decimals.trim_end_matches('0');
    let digits = format!("{}{decimals}", whole.trim_start_matches('0'));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.len() > 30 {
        return false;
    }
    let digits: i128 = format!("0{digits}").parse().expect("thirty digits are not too many");
    let scale = 10_i128.pow(decimals.len().try_into().expect("thirty are not too many"));
    sign * digits * 100 == scale * i128::from(cents)
}

// --- Sessions -----------------------------------------------------------------------------------------------------

const KEY: &str = "a key that only fuzzing signs with, 32 characters";
const PREVIOUS_KEY: &str = "another key, that it signed with before, as long";
const OTHER_KEY: &str = "a key that nobody here has ever heard of, as long";

static PAIR: LazyLock<KeyPairText> = LazyLock::new(|| KeyPairText::of([7; 32]));

static OURS: LazyLock<Signer> = LazyLock::new(|| Signer::new(KEY));

static SESSIONS: LazyLock<Sessions> = LazyLock::new(|| {
    let env = Env::from(|name| match name {
        "JWT_KEY" => Some(KEY.to_owned()),
        "JWT_KEY_PREVIOUS" => Some(PREVIOUS_KEY.to_owned()),
        "JWT_PUBLIC_KEYS" => Some(PAIR.public.clone()),
        _ => None,
    });
    Sessions::new(&Keys::from_env(&env).expect("the keys are good"))
});

/// What stands for a token in a seed, and that token.
static TOKENS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let pair = |name: &str| (name == "JWT_PRIVATE_KEY").then(|| PAIR.private.clone());
    let of_the_pair = Signer::from_env(&Env::from(pair)).expect("the key is good");
    let ann = Claims {
        id: Uuid::from_u128(7),
        email: "ann@example.com".into(),
        iat: 1_700_000_000,
        exp: 9_999_999_999,
        auth_time: Some(1_700_000_000),
        epoch: 3,
    };
    let expired = Claims { exp: 1_700_000_001, ..ann.clone() };
    let not_yet = Claims { iat: 9_999_999_998, ..ann.clone() };
    let ours = OURS.sign(&ann);
    let claims = ours.split('.').nth(1).unwrap_or_default();
    let unsigned = |header: &str| format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header));
    vec![
        ("{previous}", Signer::new(PREVIOUS_KEY).sign(&ann)),
        ("{pair}", of_the_pair.sign(&ann)),
        ("{other}", Signer::new(OTHER_KEY).sign(&ann)),
        // What is public is no secret.
        ("{public}", Signer::new(&PAIR.public).sign(&ann)),
        ("{expired}", OURS.sign(&expired)),
        ("{not-yet}", OURS.sign(&not_yet)),
        ("{none}", unsigned(r#"{"alg":"none","typ":"JWT"}"#)),
        ("{no-signature}", unsigned(r#"{"alg":"HS256","typ":"JWT"}"#)),
        ("{ours}", ours),
    ]
});

/// Whoever is believed to ask has a token in the cookie or the header that one of our keys signed, of now, and is whom
/// it says.
pub(crate) fn session(identify: impl Fn(&HeaderMap) -> Option<Claims>, input: &[u8]) -> Verdict {
    let headers = http_headers(&filled_in("session", input));
    let Some(claims) = identify(&headers) else { return Ok(false) };
    let mut signed = Vec::new();
    for (name, before) in [(header::COOKIE, "session="), (header::AUTHORIZATION, "bearer ")] {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        for value in values.filter(|value| value.to_ascii_lowercase().contains(before)) {
            let is_of_a_token = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            signed.extend(value.split(|letter| !is_of_a_token(letter)).filter_map(claims_signed_by_us));
        }
    }
    let said = serde_json::to_value(&claims)?;
    ensure!(
        signed
            .iter()
            .any(|signed| ["id", "email", "iat", "exp"].iter().all(|name| signed[name] == said[name])),
        "nobody signed that it is {said}"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(claims.exp >= now && claims.iat <= now + 60, "{said} is not of now");

    let cookie = HeaderValue::try_from(format!("session={}", OURS.sign(&claims)))?;
    let again = identify(&HeaderMap::from_iter([(header::COOKIE, cookie)]));
    ensure!(again.as_ref() == Some(&claims), "{said} is signed again and read as {again:?}");
    Ok(true)
}

/// What a token says, if one of our keys signed it, by other code than the one that is tried.
fn claims_signed_by_us(token: &str) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let json = |part| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let good = match json(header)?["alg"].as_str()? {
        "HS256" => [KEY, PREVIOUS_KEY].iter().any(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
            hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
        }),
        "EdDSA" => {
            let der = base64::engine::general_purpose::STANDARD.decode(&PAIR.public).ok()?;
            let public = signature::UnparsedPublicKey::new(&signature::ED25519, &der[der.len() - 32..]);
            public.verify(signed.as_bytes(), &signature).is_ok()
        }
        _ => false,
    };
    good.then(|| json(claims)).flatten()
}

fn identify(headers: &HeaderMap) -> Option<Claims> {
    let mut request = Request::new(Empty::new());
    headers.clone_into(request.headers_mut());
    extracted(web::session(&SESSIONS), request).user().ok().cloned()
}

// --- Traces -------------------------------------------------------------------------------------------------------

/// Whatever trace is continued is one that a header names, and is passed on as it came.
pub(crate) fn trace(extract: impl Fn(&HeaderMap) -> Context, input: &[u8]) -> Verdict {
    let headers = http_headers(input);
    let context = extract(&headers);
    let found = context.span().span_context().clone();
    if !found.is_valid() {
        return Ok(false);
    }
    let [trace, span] = [found.trace_id().to_string(), found.span_id().to_string()];
    let told: Vec<String> = ["uber-trace-id", "traceparent"]
        .iter()
        .flat_map(|name| headers.get_all(*name))
        .filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase()))
        .collect();
    let names = |id: &str| told.iter().any(|told| told.contains(id.trim_start_matches('0')));
    ensure!(names(&trace) && names(&span), "nobody told of {trace}:{span}");
    ensure!(found.is_remote(), "{trace} did not begin here");

    let mut sent = HeaderMap::new();
    telemetry::http::inject(&context, &mut sent);
    let alone = ["uber-trace-id", "traceparent"].map(|name| -> Result<HeaderMap> {
        let value = sent.get(name).with_context(|| format!("{name} is not passed on"))?;
        Ok(HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]))
    });
    for headers in [Ok(sent.clone())].into_iter().chain(alone) {
        let context = extract(&headers?);
        let again = context.span().span_context().clone();
        let same = |of: fn(&SpanContext) -> String| of(&again) == of(&found);
        ensure!(
            same(|span| span.trace_id().to_string())
                && same(|span| span.span_id().to_string())
                && again.is_sampled() == found.is_sampled(),
            "{found:?} is passed on as {again:?}"
        );
    }
    Ok(true)
}

// --- Stripe's events ----------------------------------------------------------------------------------------------

const CURRENT: &str = "whsec_that_only_fuzzing_signs_with";
const PREVIOUS_SECRET: &str = "whsec_that_it_signed_with_before";
const OTHER_SECRET: &str = "whsec_of_somebody_else";

/// The time at which everything is tried, in seconds since 1970.
pub(crate) const NOW: u64 = 1_000_000;

pub(crate) static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let secret = |text: &str| Some(text.parse().expect("the secret is good"));
    Secrets::new(secret(CURRENT), secret(PREVIOUS_SECRET))
});

/// A body is believed if somebody who knows a secret signed it within five minutes, and says only what stands in it.
/// The input's first line is the header.
pub(crate) fn webhook(
    is_believed: impl Fn(Option<&str>, &[u8]) -> bool,
    read: impl Fn(&[u8]) -> Option<Heard>,
    input: &[u8],
) -> Verdict {
    let input = filled_in("webhook", input);
    let (head, body) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len()));
    let (head, body) = (std::str::from_utf8(head).ok(), body.get(1..).unwrap_or_default());

    let believed = is_believed(head, body);
    if believed {
        let head = head.context("nothing is believed without a signature")?;
        // However it is written, so it is signed.
        let times =
            head.split(',').filter_map(|part| part.trim().strip_prefix('t')?.trim_start().strip_prefix('='));
        let mut near = times.filter(|time| time.parse().is_ok_and(|time: u64| time.abs_diff(NOW) <= 300));
        let signatures = head.to_ascii_lowercase();
        let is_signed = |time| {
            [CURRENT, PREVIOUS_SECRET].iter().any(|secret| signatures.contains(&mac(secret, time, body)))
        };
        ensure!(near.any(is_signed), "nobody signed it");
        ensure!(!is_believed(Some(head), &[body, b" "].concat()), "a longer body is believed as well");
        ensure!(!is_believed(None, body), "it is believed without a signature");
    }
    let by = |secret| format!("t={NOW},v1={}", mac(secret, &NOW.to_string(), body));
    ensure!(is_believed(Some(&by(CURRENT)), body), "Stripe itself is not believed");
    ensure!(!is_believed(Some(&by(OTHER_SECRET)), body), "somebody else is believed");

    let heard = read(body);
    // Where what is not looked at is as good.
    let value = serde_json::from_slice::<Value>(body).ok().filter(|_| heard.is_some());
    if let Some(value) = value {
        let again = read(value.to_string().as_bytes());
        ensure!(again == heard, "{heard:?} is written and read as {again:?}");
        if let Some(Heard::About(notice)) = &heard {
            let object = &value["data"]["object"];
            let intent = if object["object"] == "payment_intent" { "id" } else { "payment_intent" };
            ensure!(value["type"] == notice.kind, "{} is read as {}", value["type"], notice.kind);
            ensure!(object[intent] == *notice.intent, "{} is read as {}", object[intent], notice.intent);
            let order = object["metadata"]["order_id"].as_str().unwrap_or_default().to_ascii_lowercase();
            ensure!(notice.order.is_none_or(|read| read.to_string() == order), "{order:?} is another order");
        }
    }
    Ok(believed && heard.is_some())
}

pub(crate) fn is_of_stripe(header: Option<&str>, body: &[u8]) -> bool {
    SECRETS.verify(header, body, UNIX_EPOCH + Duration::from_secs(NOW)).is_ok()
}

fn mac(secret: &str, time: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, &[time.as_bytes(), b".", body].concat()))
}
