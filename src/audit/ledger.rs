//! Stripe's books beside PAYMENTS: what was taken and given back there, and what the log says of it.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::{Context, bail};
use contract::stream::PAYMENTS;
use sandbox::stripe::LedgerEntry;
use stripe::{ClientBuilder, StripeError};
use stripe_core::{PaymentIntent, payment_intent::ListPaymentIntent};
use uuid::Uuid;

use super::{
    finding::{Code, Finding, Note},
    payments::{Status, Try},
    verdict::{Books, Found, Moment},
};

/// Where findings stand that no event shows.
const STRIPE: &str = "STRIPE";
/// Where the sandbox shows its ledger.
const LEDGER: &str = "/_sandbox/ledger";
/// Intents to a page of Stripe's list: its most.
const PAGE: i64 = 100;
/// How long Stripe may take for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the money of one PaymentIntent, in cents.
pub(crate) struct Intent {
    id: String,
    /// The order and the payment that it was made for, as its metadata has them; `None`: somebody else made it.
    of: Option<(Uuid, Uuid)>,
    captures: u32,
    captured: i64,
    refunded: i64,
}

impl Intent {
    fn new<'a>(id: &str, metadata: impl Fn(&str) -> Option<&'a String>) -> Self {
        let uuid = |name| metadata(name)?.parse::<Uuid>().ok();
        let of = uuid("order_id").zip(uuid("payment_id"));
        Self { id: id.to_owned(), of, captures: 0, captured: 0, refunded: 0 }
    }
}

impl From<LedgerEntry> for Intent {
    fn from(entry: LedgerEntry) -> Self {
        Self {
            captures: entry.captures,
            captured: entry.amount_captured,
            refunded: entry.amount_refunded,
            ..Self::new(&entry.id, |name| entry.metadata.get(name))
        }
    }
}

impl From<&PaymentIntent> for Intent {
    /// Stripe takes the money of an intent once at most.
    fn from(intent: &PaymentIntent) -> Self {
        let charge = intent.latest_charge.as_ref().and_then(|charge| charge.as_object());
        Self {
            captures: u32::from(intent.amount_received > 0),
            captured: intent.amount_received,
            refunded: charge.map_or(0, |charge| charge.amount_refunded),
            ..Self::new(intent.id.as_ref(), |name| intent.metadata.get(name))
        }
    }
}

/// Reads what Stripe has: with a key, its own list at that address; without, the ledger of a sandbox, from its
/// address, or from a file with what it says there.
///
/// # Errors
/// When it cannot be had, or is no ledger.
pub(crate) async fn read(place: &str, key: Option<&str>) -> anyhow::Result<Vec<Intent>> {
    let text = match (place.split_once("://"), key) {
        (Some(_), Some(key)) => return list(place.trim_end_matches('/'), key).await,
        (Some(("http", _)), None) => {
            let base = place.trim_end_matches('/').trim_end_matches(LEDGER);
            let answer = reqwest::get(format!("{base}{LEDGER}")).await;
            let answer = answer.and_then(reqwest::Response::error_for_status);
            answer.with_context(|| format!("no ledger of a Stripe sandbox at {base}"))?.text().await?
        }
        (Some(_), None) => {
            bail!("{place} is no http address of a Stripe sandbox; Stripe itself needs STRIPE_KEY")
        }
        (None, _) => {
            std::fs::read_to_string(Path::new(place)).with_context(|| format!("{place} cannot be read"))?
        }
    };
    let entries: Vec<LedgerEntry> =
        serde_json::from_str(&text).with_context(|| format!("{place} has no ledger of a Stripe sandbox"))?;
    Ok(entries.into_iter().map(Intent::from).collect())
}

/// All intents of the account.
async fn list(base: &str, key: &str) -> anyhow::Result<Vec<Intent>> {
    let client = ClientBuilder::new(key).url(base).timeout(PATIENCE).build();
    let client = client.with_context(|| format!("STRIPE_KEY, or the address {base}, is wrong"))?;
    let mut intents = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut list = ListPaymentIntent::new().limit(PAGE).expand(["data.latest_charge".to_owned()]);
        if let Some(after) = after.take() {
            list = list.starting_after(after);
        }
        let page = match list.send(&client).await {
            Ok(page) => page,
            // Its words may quote what was asked with, the key.
            Err(StripeError::Stripe(_, status)) => bail!("Stripe at {base} answers {status}"),
            Err(error) => bail!("Stripe at {base} does not answer: {error}"),
        };
        intents.extend(page.data.iter().map(Intent::from));
        after = page.data.last().map(|intent| intent.id.to_string()).filter(|_| page.has_more);
        if after.is_none() {
            return Ok(intents);
        }
    }
}

/// What Stripe has of one try to pay, all its intents together.
#[derive(Default)]
struct AtStripe {
    captures: u32,
    captured: i64,
    refunded: i64,
    intents: Vec<String>,
}

/// Holds the ledger, read before the streams' ends were asked for, against PAYMENTS.
///
/// What happens at Stripe is in the log a moment later, or the other way round: a payment that has just changed is left
/// alone.
pub(crate) fn compare(books: &Books, moment: Moment, ledger: &[Intent], found: &mut Found) {
    let mut at_stripe: HashMap<Uuid, AtStripe> = HashMap::new();
    let mut foreign = 0;
    for intent in ledger {
        let Some((order, payment)) = intent.of else {
            foreign += 1;
            continue;
        };
        let tries = books.payments.fold.orders.get(&order).map_or(&[][..], Vec::as_slice);
        if !tries.iter().any(|one| one.payment == payment) && intent.captured > intent.refunded {
            let sum = intent.captured - intent.refunded;
            let explanation =
                format!("{sum} cents were taken for order {order}, of which the log has nothing");
            found.findings.push(Finding {
                code: Code::LedgerUnrecorded,
                stream: STRIPE,
                sequence: None,
                subject: intent.id.clone(),
                explanation,
            });
        }
        let all = at_stripe.entry(payment).or_default();
        all.captures += intent.captures;
        all.captured += intent.captured;
        all.refunded += intent.refunded;
        all.intents.push(intent.id.clone());
    }
    if foreign > 0 {
        let text = format!("{foreign} intents without an order of ours: another system's, it seems");
        found.notes.push(Note { stream: STRIPE, text });
    }
    let nothing = AtStripe::default();
    for (order, tries) in &books.payments.fold.orders {
        for one in tries.iter().filter(|one| moment.is_due(one.last.1)) {
            for (code, what) in differences(one, at_stripe.get(&one.payment).unwrap_or(&nothing)) {
                found.add(code, &PAYMENTS, one.last.0, *order, what);
            }
        }
    }
}

fn differences(one: &Try, stripe: &AtStripe) -> Vec<(Code, String)> {
    let mut differences = Vec::new();
    let (payment, at) = (one.payment, stripe.intents.join(", "));
    if one.captured.is_some() {
        if (stripe.captures, stripe.captured) != (1, one.amount) {
            let what = format!(
                "payment {payment} took {} cents once by the log, and {} cents in {} captures by Stripe ({at})",
                one.amount, stripe.captured, stripe.captures
            );
            differences.push((Code::LedgerDiffers, what));
        }
        let refunded = if one.status == Status::Refunded { one.amount } else { one.refunded };
        if stripe.refunded != refunded {
            let what = format!(
                "of payment {payment} {refunded} cents went back by the log, and {} by Stripe ({at})",
                stripe.refunded
            );
            differences.push((Code::LedgerRefundDiffers, what));
        }
        if let Some(intent) =
            one.intent.as_deref().filter(|intent| !stripe.intents.iter().any(|id| id == intent))
        {
            differences
                .push((Code::LedgerDiffers, format!("payment {payment} is at {intent}, which Stripe lacks")));
        }
    } else if stripe.captured > stripe.refunded {
        let sum = stripe.captured - stripe.refunded;
        let what = format!("payment {payment} is {:?}, and Stripe took {sum} cents ({at})", one.status);
        differences.push((Code::LedgerUnrecorded, what));
    }
    differences
}
