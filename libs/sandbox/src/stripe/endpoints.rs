//! What each endpoint does to the books. Everything here happens at once, under one lock.

use serde_json::{Value, json};
use warp::http::Method;

use super::books::{
    AllowRedirects, Books, CaptureMethod, Intent, PaymentMethod, Refund, Row, Status, new_id, now,
};
use super::cards;
use super::faults::Step;
use super::params::Params;
use super::refusal::Refusal;

/// Stripe's most for one payment: eight digits.
const MOST: i64 = 99_999_999;

/// The part of Stripe's API that is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endpoint<'a> {
    CreateIntent,
    ListIntents,
    Intent(&'a str),
    Confirm(&'a str),
    Capture(&'a str),
    Cancel(&'a str),
    CreatePaymentMethod,
    PaymentMethod(&'a str),
    CreateRefund,
    Refund(&'a str),
}

impl<'a> Endpoint<'a> {
    /// `path` begins with `/v1/`.
    pub(super) fn find(method: &Method, path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        Some(match (method.as_str(), segments.as_slice()) {
            ("POST", ["payment_intents"]) => Self::CreateIntent,
            ("GET", ["payment_intents"]) => Self::ListIntents,
            ("GET", ["payment_intents", id]) => Self::Intent(id),
            ("POST", ["payment_intents", id, "confirm"]) => Self::Confirm(id),
            ("POST", ["payment_intents", id, "capture"]) => Self::Capture(id),
            ("POST", ["payment_intents", id, "cancel"]) => Self::Cancel(id),
            ("POST", ["payment_methods"]) => Self::CreatePaymentMethod,
            ("GET", ["payment_methods", id]) => Self::PaymentMethod(id),
            ("POST", ["refunds"]) => Self::CreateRefund,
            ("GET", ["refunds", id]) => Self::Refund(id),
            _ => return None,
        })
    }

    pub(super) fn step(self) -> Step {
        match self {
            Self::CreateIntent => Step::Create,
            Self::Confirm(_) => Step::Confirm,
            Self::Capture(_) => Step::Capture,
            Self::Cancel(_) => Step::Cancel,
            Self::CreatePaymentMethod => Step::PaymentMethod,
            Self::CreateRefund => Step::Refund,
            Self::ListIntents | Self::Intent(_) | Self::PaymentMethod(_) | Self::Refund(_) => Step::Retrieve,
        }
    }

    pub(super) fn run(self, books: &mut Books, params: &Params) -> Result<Value, Refusal> {
        match self {
            Self::CreateIntent => create_intent(books, params),
            Self::ListIntents => list_intents(books, params),
            Self::Intent(id) => Ok(intent(books, id)?.body()),
            Self::Confirm(id) => confirm_intent(books, id, params),
            Self::Capture(id) => capture_intent(books, id, params),
            Self::Cancel(id) => cancel_intent(books, id, params),
            Self::CreatePaymentMethod => create_payment_method(books, params),
            Self::PaymentMethod(id) => match books.methods.get(id) {
                Some(method) => Ok(method.body()),
                None => Err(Refusal::not_found("PaymentMethod", id, "payment_method")),
            },
            Self::CreateRefund => create_refund(books, params),
            Self::Refund(id) => match books.refunds.get(id) {
                Some(refund) => Ok(refund.body()),
                None => Err(Refusal::not_found("refund", id, "id")),
            },
        }
    }
}

fn intent(books: &Books, id: &str) -> Result<Intent, Refusal> {
    books.intents.get(id).cloned().ok_or_else(|| Refusal::not_found("payment_intent", id, "intent"))
}

fn create_intent(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let amount = amount(params)?;
    let currency = currency(params.required("currency")?)?;
    let capture_method = capture_method(params.get("capture_method"))?;
    let payment_method = given_method(books, params)?;
    let types = payment_method_types(params);
    let id = new_id("pi");
    let intent = Intent {
        client_secret: format!("{id}_{}", new_id("secret")),
        id,
        created: now(),
        amount,
        currency,
        capture_method,
        automatic_payment_methods: automatic_payment_methods(params, &types)?,
        payment_method_types: if types.is_empty() { vec!["card".into()] } else { types },
        description: params.text("description"),
        metadata: params.within("metadata").into_map(),
        status: match payment_method {
            Some(_) => Status::RequiresConfirmation,
            None => Status::RequiresPaymentMethod,
        },
        payment_method: payment_method.map(|method| method.id),
        latest_charge: None,
        last_payment_error: None,
        canceled_at: None,
        cancellation_reason: None,
        amount_captured: 0,
        amount_refunded: 0,
        authorizations: 0,
        declines: 0,
        captures: 0,
        cancellations: 0,
    };
    if params.is_true("confirm") {
        return confirm(books, intent, params);
    }
    let body = intent.body();
    books.put(intent);
    Ok(body)
}

fn confirm_intent(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let mut intent = intent(books, id)?;
    if !matches!(intent.status, Status::RequiresPaymentMethod | Status::RequiresConfirmation) {
        return Err(unexpected(&intent, "confirmed", "requires_payment_method, requires_confirmation"));
    }
    if let Some(method) = given_method(books, params)? {
        intent.payment_method = Some(method.id);
    }
    confirm(books, intent, params)
}

/// Tries the card: authorised, paid at once, or declined.
fn confirm(books: &mut Books, mut intent: Intent, params: &Params) -> Result<Value, Refusal> {
    if intent.automatic_payment_methods == Some(AllowRedirects::Always) && params.get("return_url").is_none()
    {
        return Err(Refusal::invalid(
            "return_url",
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because \
             some of these payment methods might redirect your customer off of your page, you must provide a \
             `return_url`. If you don't want to accept redirect-based payment methods, set \
             `automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` \
             to `never` when creating Setup Intents and Payment Intents.",
        ));
    }
    let Some(method) = intent.payment_method.as_deref().and_then(|id| books.methods.get(id)) else {
        return Err(Refusal::unexpected_state(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either \
             update the PaymentIntent with a payment method and then confirm it again, or confirm it again \
             directly with a payment method or ConfirmationToken.",
            intent.body(),
        ));
    };
    let charge = new_id("ch");
    intent.latest_charge = Some(charge.clone());

    if let Some(decline) = &method.card().decline {
        let mut error = decline.error();
        error["charge"] = charge.into();
        error["payment_method"] = method.body();
        intent.status = Status::RequiresPaymentMethod;
        intent.payment_method = None;
        intent.last_payment_error = Some(error.clone());
        intent.declines += 1;
        error["payment_intent"] = intent.body();
        books.put(intent);
        return Err(Refusal::declined(error));
    }

    intent.last_payment_error = None;
    intent.authorizations += 1;
    match intent.capture_method {
        CaptureMethod::Manual => intent.status = Status::RequiresCapture,
        CaptureMethod::Automatic | CaptureMethod::AutomaticAsync => take(&mut intent, None),
    }
    let body = intent.body();
    books.put(intent);
    Ok(body)
}

/// Takes the money; what is not taken of an authorised amount is let go.
fn take(intent: &mut Intent, amount: Option<i64>) {
    intent.status = Status::Succeeded;
    intent.amount_captured = amount.unwrap_or(intent.amount);
    intent.captures += 1;
}

fn capture_intent(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let mut intent = intent(books, id)?;
    let amount = params.integer("amount_to_capture")?;
    if intent.status != Status::RequiresCapture {
        return Err(unexpected(&intent, "captured", "requires_capture"));
    }
    if amount.is_some_and(|amount| amount < 1) {
        return Err(Refusal::too_small("amount_to_capture", 1));
    }
    if amount.is_some_and(|amount| amount > intent.amount) {
        let message =
            format!("The amount to capture must not exceed the capturable amount of {}.", intent.amount);
        return Err(Refusal::too_large("amount_to_capture", message));
    }
    take(&mut intent, amount);
    let body = intent.body();
    books.put(intent);
    Ok(body)
}

fn cancel_intent(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let mut intent = intent(books, id)?;
    let reason = params.text("cancellation_reason");
    const REASONS: [&str; 4] = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    if reason.as_deref().is_some_and(|reason| !REASONS.contains(&reason)) {
        let message = format!("Invalid cancellation_reason: must be one of {}", REASONS.join(", "));
        return Err(Refusal::invalid("cancellation_reason", message));
    }
    if matches!(intent.status, Status::Succeeded | Status::Canceled) {
        let from =
            "requires_payment_method, requires_capture, requires_confirmation, requires_action, processing";
        return Err(unexpected(&intent, "canceled", from));
    }
    intent.status = Status::Canceled;
    intent.canceled_at = Some(now());
    intent.cancellation_reason = reason;
    intent.cancellations += 1;
    let body = intent.body();
    books.put(intent);
    Ok(body)
}

fn unexpected(intent: &Intent, done: &str, from: &str) -> Refusal {
    let status = intent.status.as_str();
    Refusal::unexpected_state(
        format!(
            "This PaymentIntent could not be {done} because it has a status of {status}. \
             Only a PaymentIntent with one of the following statuses may be {done}: {from}."
        ),
        intent.body(),
    )
}

fn list_intents(books: &Books, params: &Params) -> Result<Value, Refusal> {
    let limit = params.integer("limit")?.unwrap_or(10);
    if limit < 1 {
        return Err(Refusal::too_small("limit", 1));
    }
    let limit = usize::try_from(limit.min(100)).unwrap_or(100);
    let created = params.within("created");
    let (exactly, after, from, before, until) = (
        params.integer("created")?,
        created.integer("gt")?,
        created.integer("gte")?,
        created.integer("lt")?,
        created.integer("lte")?,
    );
    let within = |intent: &&Intent| {
        let at = intent.created;
        exactly.is_none_or(|time| at == time)
            && after.is_none_or(|time| at > time)
            && from.is_none_or(|time| at >= time)
            && before.is_none_or(|time| at < time)
            && until.is_none_or(|time| at <= time)
    };
    let newest_first = books.intents.iter().rev();
    let mut page: Vec<Value> = match params.get("starting_after") {
        None => newest_first.filter(within).take(limit + 1).map(Intent::body).collect(),
        Some(id) if books.intents.get(id).is_none() => {
            return Err(Refusal::no_such("payment_intent", id, "starting_after"));
        }
        Some(id) => newest_first
            .skip_while(|intent| intent.id() != id)
            .skip(1)
            .filter(within)
            .take(limit + 1)
            .map(Intent::body)
            .collect(),
    };
    let has_more = page.len() > limit;
    page.truncate(limit);
    Ok(json!({ "object": "list", "url": "/v1/payment_intents", "has_more": has_more, "data": page }))
}

fn create_payment_method(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let method = new_method(params)?;
    let body = method.body();
    books.put(method);
    Ok(body)
}

/// A PaymentMethod of `type=card` with `card[token]` or `card[number]`.
fn new_method(params: &Params) -> Result<PaymentMethod, Refusal> {
    match params.required("type")? {
        "card" => {}
        other => {
            return Err(Refusal::invalid("type", format!("This sandbox has cards only, not '{other}'.")));
        }
    }
    let card = match (params.get("card[token]"), params.get("card[number]")) {
        (Some(token), _) => {
            cards::of_token(token).ok_or_else(|| Refusal::no_such("token", token, "card[token]"))?
        }
        (None, Some(number)) => cards::of_number(&number.replace(' ', ""))?,
        (None, None) => return Err(Refusal::missing("card")),
    };
    Ok(PaymentMethod::new(card, params.within("metadata").into_map()))
}

/// The PaymentMethod a request pays with, if it says. As Stripe does, a test name like `pm_card_visa`
/// makes a PaymentMethod of its own each time.
fn given_method(books: &mut Books, params: &Params) -> Result<Option<PaymentMethod>, Refusal> {
    let data = params.within("payment_method_data");
    let method = match params.get("payment_method") {
        Some(id) => match (books.methods.get(id), cards::of_payment_method(id)) {
            (Some(method), _) => return Ok(Some(method.clone())),
            (None, Some(card)) => PaymentMethod::new(card, Default::default()),
            (None, None) => return Err(Refusal::no_such("PaymentMethod", id, "payment_method")),
        },
        None if data.get("type").is_some() => new_method(&data)?,
        None => return Ok(None),
    };
    books.put(method.clone());
    Ok(Some(method))
}

fn create_refund(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let mut intent = match (params.get("payment_intent"), params.get("charge")) {
        (Some(id), _) => books
            .intents
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::no_such("payment_intent", id, "payment_intent"))?,
        (None, Some(id)) => books
            .intents
            .iter()
            .find(|intent| intent.latest_charge.as_deref() == Some(id))
            .cloned()
            .ok_or_else(|| Refusal::no_such("charge", id, "charge"))?,
        (None, None) => return Err(Refusal::missing("payment_intent")),
    };
    let asked = params.integer("amount")?;
    let charge = match &intent.latest_charge {
        Some(charge) if intent.status == Status::Succeeded => charge.clone(),
        _ => {
            let message =
                format!("This PaymentIntent ({}) does not have a successful charge to refund.", intent.id);
            return Err(Refusal::unexpected_state(message, intent.body()));
        }
    };
    let left = intent.amount_captured - intent.amount_refunded;
    if left == 0 {
        return Err(Refusal::already_refunded(&charge));
    }
    let amount = asked.unwrap_or(left);
    if amount < 1 {
        return Err(Refusal::too_small("amount", 1));
    }
    if amount > left {
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).");
        return Err(Refusal::invalid("amount", message));
    }
    intent.amount_refunded += amount;
    let refund = Refund {
        id: new_id("re"),
        created: now(),
        amount,
        currency: intent.currency.clone(),
        payment_intent: intent.id.clone(),
        charge,
        reason: params.text("reason"),
        metadata: params.within("metadata").into_map(),
    };
    let body = refund.body();
    books.put(intent);
    books.put(refund);
    Ok(body)
}

fn amount(params: &Params) -> Result<i64, Refusal> {
    let amount = params.integer("amount")?.ok_or_else(|| Refusal::missing("amount"))?;
    // Stripe's least is 50 cents for usd. Here a ticket may cost one.
    if amount < 1 {
        return Err(Refusal::too_small("amount", 1));
    }
    if amount > MOST {
        return Err(Refusal::too_large("amount", "Amount must be no more than $999,999.99"));
    }
    Ok(amount)
}

fn currency(code: &str) -> Result<String, Refusal> {
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Ok(code.to_owned());
    }
    Err(Refusal::invalid("currency", format!("Invalid currency: {code}.")))
}

fn capture_method(name: Option<&str>) -> Result<CaptureMethod, Refusal> {
    match name {
        None | Some("automatic_async") => Ok(CaptureMethod::AutomaticAsync),
        Some("automatic") => Ok(CaptureMethod::Automatic),
        Some("manual") => Ok(CaptureMethod::Manual),
        Some(_) => Err(Refusal::invalid(
            "capture_method",
            "Invalid capture_method: must be one of automatic, automatic_async, or manual",
        )),
    }
}

fn payment_method_types(params: &Params) -> Vec<String> {
    ["payment_method_types", "allowed_payment_method_types"]
        .into_iter()
        .flat_map(|name| params.within(name).into_map().into_values())
        .collect()
}

/// Stripe's default since API version 2023-08-16: whatever the account takes, redirects included.
fn automatic_payment_methods(params: &Params, types: &[String]) -> Result<Option<AllowRedirects>, Refusal> {
    let automatic = params.within("automatic_payment_methods");
    if !types.is_empty() || automatic.get("enabled") == Some("false") {
        return Ok(None);
    }
    match automatic.get("allow_redirects") {
        None | Some("always") => Ok(Some(AllowRedirects::Always)),
        Some("never") => Ok(Some(AllowRedirects::Never)),
        Some(_) => Err(Refusal::invalid(
            "automatic_payment_methods[allow_redirects]",
            "Invalid allow_redirects: must be one of always or never",
        )),
    }
}
