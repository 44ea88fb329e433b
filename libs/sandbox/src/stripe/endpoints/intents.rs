//! PaymentIntents: made, confirmed, captured, given up.

use serde_json::Value;

use super::{charges, methods};
use crate::stripe::books::{Action, AllowRedirects, Books, CaptureMethod, Intent, Status, new_id, now};
use crate::stripe::cards;
use crate::stripe::params::Params;
use crate::stripe::refusal::Refusal;
use crate::stripe::shapes;

/// Stripe's most for one payment: eight digits.
const MOST: i64 = 99_999_999;

/// The intent that a path names.
pub(super) fn find(books: &Books, id: &str) -> Result<Intent, Refusal> {
    books.intents.get(id).cloned().ok_or_else(|| Refusal::not_found("payment_intent", id, "intent"))
}

/// Keeps an intent as it has become, and tells of it.
pub(super) fn intent_is(books: &mut Books, intent: Intent, event: &'static str) -> Value {
    let body = shapes::intent(books, &intent);
    books.put(intent);
    books.happened(event, body.clone());
    body
}

pub(super) fn create(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let amount = amount(params)?;
    let currency = currency(params.required("currency")?)?;
    let capture_method = capture_method(params.get("capture_method"))?;
    let payment_method = methods::given(books, params)?;
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
        metadata: params.metadata(),
        status: match payment_method {
            Some(_) => Status::RequiresConfirmation,
            None => Status::RequiresPaymentMethod,
        },
        payment_method: payment_method.map(|method| method.id),
        action: None,
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
        refunds: 0,
    };
    let confirm = params.is_true("confirm");
    if confirm {
        check_return_url(&intent, params)?;
    }
    let body = intent_is(books, intent.clone(), "payment_intent.created");
    if confirm { try_card(books, intent, params) } else { Ok(body) }
}

/// Metadata and description; what else may be changed on Stripe is refused here, not ignored.
pub(super) fn update(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let mut intent = find(books, id)?;
    let known = |key: &str| ["metadata", "description", "expand"].iter().any(|known| key.starts_with(known));
    if let Some(unknown) = params.keys().find(|key| !known(key)) {
        return Err(Refusal::unknown(unknown));
    }
    if params.get("metadata") == Some("") {
        intent.metadata.clear();
    }
    for (key, value) in params.within("metadata").into_map() {
        if value.is_empty() {
            intent.metadata.remove(&key);
        } else {
            intent.metadata.insert(key, value);
        }
    }
    if let Some(description) = params.text("description") {
        intent.description = Some(description);
    }
    let body = shapes::intent(books, &intent);
    books.put(intent);
    Ok(body)
}

pub(super) fn confirm(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    use Status::{RequiresAction, RequiresConfirmation, RequiresPaymentMethod};
    let mut intent = find(books, id)?;
    if !matches!(intent.status, RequiresPaymentMethod | RequiresConfirmation | RequiresAction) {
        let from = "requires_payment_method, requires_confirmation, requires_action";
        return Err(unexpected(books, &intent, "confirmed", from));
    }
    check_return_url(&intent, params)?;
    if let Some(method) = methods::given(books, params)? {
        intent.payment_method = Some(method.id);
    }
    try_card(books, intent, params)
}

/// Who may be sent elsewhere needs a way back.
fn check_return_url(intent: &Intent, params: &Params) -> Result<(), Refusal> {
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
    Ok(())
}

/// Tries the card: authorised, paid at once, declined, or the customer's bank wants to hear from the customer.
fn try_card(books: &mut Books, mut intent: Intent, params: &Params) -> Result<Value, Refusal> {
    let Some(method) = intent.payment_method.as_deref().and_then(|id| books.methods.get(id)) else {
        return Err(Refusal::unexpected_state(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either \
             update the PaymentIntent with a payment method and then confirm it again, or confirm it again \
             directly with a payment method or ConfirmationToken.",
            shapes::intent(books, &intent),
        ));
    };
    if !method.card().authenticates {
        return charges::attempt(books, intent, false);
    }
    if params.is_true("error_on_requires_action") {
        let mut error = cards::AUTHENTICATION_NOT_HANDLED.error();
        error["payment_method"] = shapes::payment_method(method);
        return Err(Refusal::declined(decline(books, intent, error)));
    }
    intent.status = Status::RequiresAction;
    intent.last_payment_error = None;
    intent.action = Some(Action { source: new_id("src"), return_url: params.text("return_url") });
    Ok(intent_is(books, intent, "payment_intent.requires_action"))
}

/// Leaves the intent to another payment method. Returns the error as it is answered: with the intent.
pub(in crate::stripe) fn decline(books: &mut Books, mut intent: Intent, mut error: Value) -> Value {
    intent.status = Status::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.action = None;
    intent.last_payment_error = Some(error.clone());
    intent.declines += 1;
    error["payment_intent"] = intent_is(books, intent, "payment_intent.payment_failed");
    error
}

pub(super) fn capture(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let intent = find(books, id)?;
    let amount = params.integer("amount_to_capture")?;
    if intent.status != Status::RequiresCapture {
        return Err(unexpected(books, &intent, "captured", "requires_capture"));
    }
    if amount.is_some_and(|amount| amount < 1) {
        return Err(Refusal::too_small("amount_to_capture", 1));
    }
    if amount.is_some_and(|amount| amount > intent.amount) {
        let message =
            format!("The amount to capture must not exceed the capturable amount of {}.", intent.amount);
        return Err(Refusal::too_large("amount_to_capture", message));
    }
    let amount = amount.unwrap_or(intent.amount);
    Ok(charges::take(books, intent, amount, "charge.captured"))
}

pub(super) fn cancel(books: &mut Books, id: &str, params: &Params) -> Result<Value, Refusal> {
    let mut intent = find(books, id)?;
    let reason = params.text("cancellation_reason");
    const REASONS: [&str; 4] = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    if reason.as_deref().is_some_and(|reason| !REASONS.contains(&reason)) {
        let message = format!("Invalid cancellation_reason: must be one of {}", REASONS.join(", "));
        return Err(Refusal::invalid("cancellation_reason", message));
    }
    if matches!(intent.status, Status::Succeeded | Status::Canceled) {
        let from =
            "requires_payment_method, requires_capture, requires_confirmation, requires_action, processing";
        return Err(unexpected(books, &intent, "canceled", from));
    }
    if intent.status == Status::RequiresCapture {
        charges::release(books, &intent);
    }
    intent.status = Status::Canceled;
    intent.action = None;
    intent.canceled_at = Some(now());
    intent.cancellation_reason = reason;
    intent.cancellations += 1;
    Ok(intent_is(books, intent, "payment_intent.canceled"))
}

fn unexpected(books: &Books, intent: &Intent, done: &str, from: &str) -> Refusal {
    let status = intent.status.as_str();
    Refusal::unexpected_state(
        format!(
            "This PaymentIntent could not be {done} because it has a status of {status}. \
             Only a PaymentIntent with one of the following statuses may be {done}: {from}."
        ),
        shapes::intent(books, intent),
    )
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
        .flat_map(|name| params.list(name))
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
