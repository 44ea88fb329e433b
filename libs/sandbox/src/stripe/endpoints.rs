//! What each endpoint does to the books. Everything here happens at once, under one lock.

pub(super) mod charges;
pub(super) mod disputes;
pub(super) mod intents;
mod lists;
mod methods;
mod refunds;

use std::collections::BTreeMap;

use serde_json::Value;
use warp::http::Method;

use super::books::{Books, Intent};
use super::expand::Paths;
use super::faults::Step;
use super::params::Params;
use super::refusal::Refusal;
use super::shapes;

/// The part of Stripe's API that is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endpoint<'a> {
    CreateIntent,
    ListIntents,
    SearchIntents,
    Intent(&'a str),
    UpdateIntent(&'a str),
    Confirm(&'a str),
    Capture(&'a str),
    Cancel(&'a str),
    CreatePaymentMethod,
    PaymentMethod(&'a str),
    ListCharges,
    Charge(&'a str),
    CreateRefund,
    ListRefunds,
    Refund(&'a str),
    ListDisputes,
    Dispute(&'a str),
}

impl<'a> Endpoint<'a> {
    /// `path` begins with `/v1/`.
    pub(super) fn find(method: &Method, path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        Some(match (method.as_str(), segments.as_slice()) {
            ("POST", ["payment_intents"]) => Self::CreateIntent,
            ("GET", ["payment_intents"]) => Self::ListIntents,
            ("GET", ["payment_intents", "search"]) => Self::SearchIntents,
            ("GET", ["payment_intents", id]) => Self::Intent(id),
            ("POST", ["payment_intents", id]) => Self::UpdateIntent(id),
            ("POST", ["payment_intents", id, "confirm"]) => Self::Confirm(id),
            ("POST", ["payment_intents", id, "capture"]) => Self::Capture(id),
            ("POST", ["payment_intents", id, "cancel"]) => Self::Cancel(id),
            ("POST", ["payment_methods"]) => Self::CreatePaymentMethod,
            ("GET", ["payment_methods", id]) => Self::PaymentMethod(id),
            ("GET", ["charges"]) => Self::ListCharges,
            ("GET", ["charges", id]) => Self::Charge(id),
            ("POST", ["refunds"]) => Self::CreateRefund,
            ("GET", ["refunds"]) => Self::ListRefunds,
            ("GET", ["refunds", id]) => Self::Refund(id),
            ("GET", ["disputes"]) => Self::ListDisputes,
            ("GET", ["disputes", id]) => Self::Dispute(id),
            _ => return None,
        })
    }

    pub(super) fn step(self) -> Step {
        match self {
            Self::CreateIntent => Step::Create,
            Self::UpdateIntent(_) => Step::Update,
            Self::Confirm(_) => Step::Confirm,
            Self::Capture(_) => Step::Capture,
            Self::Cancel(_) => Step::Cancel,
            Self::CreatePaymentMethod => Step::PaymentMethod,
            Self::CreateRefund => Step::Refund,
            Self::ListIntents
            | Self::SearchIntents
            | Self::Intent(_)
            | Self::PaymentMethod(_)
            | Self::ListCharges
            | Self::Charge(_)
            | Self::ListRefunds
            | Self::Refund(_)
            | Self::ListDisputes
            | Self::Dispute(_) => Step::Retrieve,
        }
    }

    /// The metadata of the intent that this is about; for something new its own.
    pub(super) fn about(self, books: &Books, params: &Params) -> BTreeMap<String, String> {
        let intent = match self {
            Self::CreateIntent | Self::CreatePaymentMethod => return params.metadata(),
            Self::ListIntents | Self::SearchIntents | Self::PaymentMethod(_) => None,
            Self::Intent(id)
            | Self::UpdateIntent(id)
            | Self::Confirm(id)
            | Self::Capture(id)
            | Self::Cancel(id) => books.intents.get(id),
            Self::Charge(id) => books.charges.get(id).and_then(|row| books.intents.get(&row.payment_intent)),
            Self::Refund(id) => books.refunds.get(id).and_then(|row| books.intents.get(&row.payment_intent)),
            Self::Dispute(id) => {
                books.disputes.get(id).and_then(|row| books.intents.get(&row.payment_intent))
            }
            Self::CreateRefund | Self::ListCharges | Self::ListRefunds | Self::ListDisputes => {
                refunds::intent(books, params).ok()
            }
        };
        intent.map(|intent: &Intent| intent.metadata.clone()).unwrap_or_default()
    }

    /// What the request wants expanded; an error if its answer does not have it.
    pub(super) fn expansions(self, params: &Params) -> Result<Paths, Refusal> {
        let (object, listed) = match self {
            Self::ListIntents | Self::SearchIntents => ("payment_intent", true),
            Self::CreateIntent
            | Self::Intent(_)
            | Self::UpdateIntent(_)
            | Self::Confirm(_)
            | Self::Capture(_)
            | Self::Cancel(_) => ("payment_intent", false),
            Self::CreatePaymentMethod | Self::PaymentMethod(_) => ("payment_method", false),
            Self::ListCharges => ("charge", true),
            Self::Charge(_) => ("charge", false),
            Self::ListRefunds => ("refund", true),
            Self::CreateRefund | Self::Refund(_) => ("refund", false),
            Self::ListDisputes => ("dispute", true),
            Self::Dispute(_) => ("dispute", false),
        };
        Paths::parse(params, object, listed)
    }

    pub(super) fn run(self, books: &mut Books, params: &Params) -> Result<Value, Refusal> {
        let of = |payment_intent: &str, charge: &str| {
            params.get("payment_intent").is_none_or(|wanted| wanted == payment_intent)
                && params.get("charge").is_none_or(|wanted| wanted == charge)
        };
        let books_now = &*books;
        match self {
            Self::CreateIntent => intents::create(books, params),
            Self::ListIntents => lists::page(
                &books_now.intents,
                "payment_intent",
                params,
                |_| true,
                |intent| shapes::intent(books_now, intent),
            ),
            Self::SearchIntents => lists::search(books, params),
            Self::Intent(id) => Ok(shapes::intent(books, &intents::find(books, id)?)),
            Self::UpdateIntent(id) => intents::update(books, id, params),
            Self::Confirm(id) => intents::confirm(books, id, params),
            Self::Capture(id) => intents::capture(books, id, params),
            Self::Cancel(id) => intents::cancel(books, id, params),
            Self::CreatePaymentMethod => methods::create(books, params),
            Self::PaymentMethod(id) => match books.methods.get(id) {
                Some(method) => Ok(shapes::payment_method(method)),
                None => Err(Refusal::not_found("PaymentMethod", id, "payment_method")),
            },
            Self::ListCharges => lists::page(
                &books_now.charges,
                "charge",
                params,
                |charge| of(&charge.payment_intent, &charge.id),
                |charge| shapes::charge(books_now, charge),
            ),
            Self::Charge(id) => match books.charges.get(id) {
                Some(charge) => Ok(shapes::charge(books, charge)),
                None => Err(Refusal::not_found("charge", id, "id")),
            },
            Self::CreateRefund => refunds::create(books, params),
            Self::ListRefunds => lists::page(
                &books_now.refunds,
                "refund",
                params,
                |refund| of(&refund.payment_intent, &refund.charge),
                shapes::refund,
            ),
            Self::Refund(id) => match books.refunds.get(id) {
                Some(refund) => Ok(shapes::refund(refund)),
                None => Err(Refusal::not_found("refund", id, "id")),
            },
            Self::ListDisputes => lists::page(
                &books_now.disputes,
                "dispute",
                params,
                |dispute| of(&dispute.payment_intent, &dispute.charge),
                |dispute| shapes::dispute(books_now, dispute),
            ),
            Self::Dispute(id) => match books.disputes.get(id) {
                Some(dispute) => Ok(shapes::dispute(books, dispute)),
                None => Err(Refusal::not_found("dispute", id, "id")),
            },
        }
    }
}
