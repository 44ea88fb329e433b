//! What the fuzz targets try for as long as they are let, tried for a second each: the seeds in `fuzz/corpus`, and what
//! becomes of them by the same mutations every time. `fuzz/README.md` tells how to go on from here.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Cents;
use fastrand::Rng;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use properties::{TARGETS, Verdict};
use svc_auth::domain::{Email, Password};
use svc_payments::webhook;
use warp::http::header;
use web::Page;

/// How many mutations are tried of each target's seeds.
const ROUNDS: usize = 20_000;
/// What they begin with: the same in every run.
const SEED: u64 = 20_261_122;

#[test]
fn an_address_has_one_spelling_and_a_password_is_its_bytes() {
    hold("account");
}

#[test]
fn a_cursor_that_is_read_is_written_the_same() {
    hold("cursor");
}

#[test]
fn an_event_that_is_read_is_written_the_same() {
    hold("event");
}

#[test]
fn cents_are_what_the_text_says() {
    hold("money");
}

#[test]
fn a_token_that_we_did_not_sign_is_nobodys() {
    hold("session");
}

#[test]
fn a_trace_is_passed_on_as_it_came() {
    hold("trace");
}

#[test]
fn nobody_but_stripe_is_believed() {
    hold("webhook");
}

/// Else a seed could be good for nothing, and nobody would know.
#[test]
fn every_target_has_a_program_and_seeds_and_a_test() {
    let home = home();
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(home.join(directory)).expect("it is there").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let manifest: toml::Table = fs::read_to_string(home.join("Cargo.toml")).unwrap().parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter();
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    assert_eq!(
        programs.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(),
        targets
    );
    for target in targets {
        let text = fs::read_to_string(home.join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(text.contains(&format!("properties::property({target:?})")), "{target} tries something else");
        assert!(include_str!("fuzz.rs").contains(&format!("hold({target:?});")), "{target} has no test");
    }
}

// --- That a bug would be found ------------------------------------------------------------------------------------

#[test]
fn a_reader_of_addresses_that_mends_them_is_caught() {
    let mends = |text: &str| Email::parse(&text.replace(' ', ""));
    let new = |text: &str, email: Option<&Email>| Password::parse_new(text, email).ok();
    catch("account", |input| properties::account(mends, new, input));
}

#[test]
fn a_reader_of_passwords_that_counts_bytes_is_caught() {
    let counts_bytes = |text: &str, _: Option<&Email>| {
        (8..=128).contains(&text.len()).then(|| Password::parse(text)).flatten()
    };
    catch("account", |input| properties::account(Email::parse, counts_bytes, input));
}

#[test]
fn a_reader_of_cursors_that_drops_a_byte_is_caught() {
    catch("cursor", |input| {
        let drops = |query: &web::Query| {
            let Page { limit, cursor } = query.page().ok()?;
            let cursor = cursor.map(|mut bytes| {
                bytes.truncate(16);
                bytes
            });
            Some(Page { limit, cursor })
        };
        properties::cursor(drops, input)
    });
}

#[test]
fn a_reader_of_events_that_takes_copies_is_caught() {
    catch("event", |input| {
        let takes_copies = |message: &async_nats::Message| {
            let named = message.headers.as_ref().and_then(|headers| headers.get("ce-subject"));
            let subject = named.map_or(message.subject.clone(), |named| named.as_str().into());
            properties::decode(&async_nats::Message { subject, ..message.clone() })
        };
        properties::event(takes_copies, input)
    });
}

#[test]
fn a_reader_of_events_that_takes_floats_for_cents_is_caught() {
    catch("event", |input| {
        let rounds = |message: &async_nats::Message| {
            let payload = String::from_utf8_lossy(&message.payload).replace(".0", "");
            properties::decode(&async_nats::Message { payload: payload.into(), ..message.clone() })
        };
        properties::event(rounds, input)
    });
}

#[test]
fn a_reader_of_prices_that_reckons_in_floats_is_caught() {
    let floats = |price: &serde_json::Value| {
        let dollars = price.as_f64().or_else(|| price.as_str()?.parse().ok())?;
        Some(Cents((dollars * 100.0) as i64))
    };
    catch("money", |input| properties::money(floats, input));
}

#[test]
fn a_reader_of_tokens_that_checks_no_signature_is_caught() {
    catch("session", |input| {
        let trusts = |headers: &header::HeaderMap| {
            let token = headers.get(header::COOKIE)?.to_str().ok()?.strip_prefix("session=")?;
            let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
            serde_json::from_slice(&claims).ok()
        };
        properties::session(trusts, input)
    });
}

#[test]
fn a_reader_of_traces_that_makes_one_up_is_caught() {
    catch("trace", |input| {
        let makes_up = |headers: &header::HeaderMap| {
            let found = telemetry::http::extract(headers);
            let made = || {
                let (trace, span) = (TraceId::from(7), SpanId::from(7));
                SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
            };
            let is_found = found.span().span_context().is_valid();
            if is_found { found } else { Context::new().with_remote_span_context(made()) }
        };
        properties::trace(makes_up, input)
    });
}

#[test]
fn a_reader_of_webhooks_that_signs_only_a_part_is_caught() {
    catch("webhook", |input| {
        let trims =
            |header: Option<&str>, body: &[u8]| properties::is_of_stripe(header, body.trim_ascii_end());
        properties::webhook(trims, |body| webhook::read(body).ok(), input)
    });
}

#[test]
fn a_reader_of_webhooks_that_believes_what_is_old_is_caught() {
    catch("webhook", |input| {
        let is_late = |header: Option<&str>, body: &[u8]| {
            let mut times =
                [0, 1_000].map(|ago| UNIX_EPOCH + Duration::from_secs(properties::NOW - ago)).into_iter();
            times.any(|now| properties::SECRETS.verify(header, body, now).is_ok())
        };
        properties::webhook(is_late, |body| webhook::read(body).ok(), input)
    });
}

/// A reader that panics is found with what it panicked at.
#[test]
fn a_reader_that_panics_is_caught() {
    let panics = |price: &serde_json::Value| {
        assert!(price.as_str() != Some("19.99"), "a planted bug");
        None
    };
    let finding = catch("money", |input| properties::money(panics, input));
    assert!(finding.contains("it panicked"), "{finding}");
}

fn catch(target: &str, property: impl Fn(&[u8]) -> Verdict) -> String {
    tried(target, property).err().unwrap_or_else(|| panic!("a broken reader of {target} was not found"))
}

// --- Seeds and what becomes of them -------------------------------------------------------------------------------

fn hold(target: &str) {
    let (let_in, tried) =
        self::tried(target, properties::property(target)).unwrap_or_else(|finding| panic!("\n{finding}\n"));
    assert!(let_in > 0 && let_in < tried, "{target}: {let_in} of {tried} are let in, which tries nothing");
}

/// How many inputs were let in, and of how many; or what was found, and by which input.
fn tried(target: &str, property: impl Fn(&[u8]) -> Verdict) -> Result<(usize, usize), String> {
    let check = |input: &[u8], what: &str| {
        let verdict = panic::catch_unwind(AssertUnwindSafe(|| property(input)));
        verdict.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))).map_err(|wrong| {
            let text = input.escape_ascii();
            format!("{target}, {what}: {wrong:#}\n    b\"{text}\"\nA test of it: that input in fuzz/corpus/{target}")
        })
    };
    let mut let_in = 0;
    let seeds = seeds(target);
    for (name, seed) in &seeds {
        let_in += usize::from(check(seed, name)?);
    }
    let seeds: Vec<_> = seeds.into_iter().map(|(_, seed)| properties::filled_in(target, &seed)).collect();
    let mut rng = Rng::with_seed(SEED);
    for round in 0..ROUNDS {
        let input = mutated(&mut rng, &seeds);
        let_in += usize::from(check(&input, &format!("round {round} of seed {SEED}"))?);
    }
    Ok((let_in, seeds.len() + ROUNDS))
}

/// By name, in order: so that a round is the same everywhere.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(home().join("corpus").join(target)).expect("there are seeds").flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("a seed's name is text");
        (name, fs::read(entry.path()).expect("a seed can be read"))
    };
    let mut seeds: Vec<_> = entries.map(read).collect();
    seeds.sort();
    seeds
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What readers stumble over, between bars.
const TOKENS: &[u8] = b"\0|\n|\r\n|\t| |\"|\\|\\u0000|\\ud800|{|}|[|]|,|:|;|=|&|%|%00|%3A|.|..|-|-0|+|0|.5|0.1|1e999|\
    1e-9|18446744073709551616|-9223372036854775808|null|true|@|/2|\xff|\xc3\xa9|\xe2\x80\xae|\xf0\x9f\x8e\xab|\xef\xbb\xbf|\
    t=|v1=|session=|Bearer |version|_trace|Z|+23:59|-23:59|9999|0000";

/// One of the seeds, hurt in one to four ways.
fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let tokens: Vec<&[u8]> = TOKENS.split(|byte| *byte == b'|').collect();
    let mut input = seeds[rng.usize(..seeds.len())].clone();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len().min(at + 16));
        match rng.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            1 if at < input.len() => input[at] = rng.u8(..),
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let other = &seeds[rng.usize(..seeds.len())];
                input.splice(at.., other[rng.usize(..=other.len())..].iter().copied());
            }
            6 => drop(input.splice(at..end, tokens[rng.usize(..tokens.len())].iter().copied())),
            _ => drop(input.splice(at..at, tokens[rng.usize(..tokens.len())].iter().copied())),
        }
    }
    input
}

#[test]
fn mutations_are_the_same_every_time_and_of_many_kinds() {
    let made = || {
        let mut rng = Rng::with_seed(SEED);
        let seeds = [b"t=1,v1=00".to_vec(), b"19.99".to_vec()];
        (0..1_000).map(|_| mutated(&mut rng, &seeds)).collect::<Vec<_>>()
    };
    assert_eq!(made(), made());
    assert!(made().into_iter().collect::<BTreeSet<_>>().len() > 700);
}
