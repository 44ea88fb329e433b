//! The customer's bank: 3-D Secure, asked for by some cards.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::OperatorError;
use super::books::{Books, Intent, Status};
use super::endpoints::{charges, intents};
use super::refusal::doc_url;
use super::shapes;

/// What a customer did when the bank asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// It is them. The card is then charged, and may still be declined.
    Succeeds,
    /// It is not, or they gave up.
    Fails,
}

/// Where an authentication has led.
#[derive(Debug, Serialize)]
pub(super) struct Settled {
    id: String,
    pub(super) status: Status,
    /// Where the customer's browser goes, if the shop redirects.
    return_url: Option<String>,
}

/// Settles an intent that `requires_action`.
pub(super) fn settle(books: &mut Books, id: &str, outcome: Authentication) -> Result<Settled, OperatorError> {
    let waiting = |intent: &&Intent| intent.status == Status::RequiresAction;
    let intent = match books.intents.get(id) {
        None => return Err(OperatorError::NoSuch { id: id.to_owned() }),
        Some(intent) => Some(intent).filter(waiting).cloned().ok_or_else(|| OperatorError::Unfit {
            id: id.to_owned(),
            reason: "it does not wait for an authentication",
        })?,
    };
    let return_url = intent.action.as_ref().and_then(|action| action.return_url.clone());
    let secret = intent.client_secret.clone();
    match outcome {
        // A decline is on the intent.
        Authentication::Succeeds => drop(charges::attempt(books, intent, true)),
        Authentication::Fails => {
            let code = "payment_intent_authentication_failure";
            let method = intent.payment_method.as_deref().and_then(|id| books.methods.get(id));
            let error = json!({
                "type": "invalid_request_error",
                "code": code,
                "doc_url": doc_url(code),
                "message": "The provided PaymentMethod has failed authentication. You can provide \
                            payment_method_data or a new PaymentMethod to attempt to fulfill this PaymentIntent \
                            again.",
                "payment_method": method.map(shapes::payment_method),
            });
            intents::decline(books, intent, error);
        }
    }
    let status = books.intents.get(id).map_or(Status::RequiresPaymentMethod, |intent| intent.status);
    let redirect_status = if status == Status::RequiresPaymentMethod { "failed" } else { "succeeded" };
    let return_url = return_url.map(|url| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("payment_intent", id);
        query.append_pair("payment_intent_client_secret", &secret);
        query.append_pair("redirect_status", redirect_status);
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}{}", query.finish())
    });
    Ok(Settled { id: id.to_owned(), status, return_url })
}

/// The bank's page for an intent, that `next_action` leads to.
pub(super) fn page(intent: &Intent) -> String {
    let amount = format!("{}.{:02}", intent.amount / 100, intent.amount % 100);
    PAGE.replace("AMOUNT", &amount)
        .replace("CURRENCY", &intent.currency.to_uppercase())
        .replace("INTENT", &intent.id)
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>3-D Secure sandbox</title>
<style>body { font: 1rem system-ui; max-width: 28rem; margin: 3rem auto; padding: 0 1rem }
button { font: inherit; padding: .5rem 1rem; margin: 0 .5rem .5rem 0 }</style>
<h1>3-D Secure sandbox</h1>
<p>A shop wants CURRENCY AMOUNT of your test card (INTENT). Is it you?</p>
<p><button data-outcome="succeeds">Complete authentication</button>
<button data-outcome="fails">Fail authentication</button></p>
<p id="result" role="status"></p>
<script>
const result = document.getElementById("result");
const buttons = document.querySelectorAll("button");
async function decide(outcome) {
  buttons.forEach(button => { button.disabled = true; });
  try {
    const response = await fetch("/_sandbox/payment_intents/INTENT/authenticate", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ outcome }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    result.textContent = "Done: the payment is " + answer.status + ". You may close this page.";
    if (window.parent !== window) window.parent.postMessage({ paymentIntent: answer.id, status: answer.status }, "*");
    if (answer.return_url) window.location.assign(answer.return_url);
  } catch (error) {
    result.textContent = "That did not work: " + error.message;
    buttons.forEach(button => { button.disabled = false; });
  }
}
buttons.forEach(button => button.addEventListener("click", () => decide(button.dataset.outcome)));
</script>
</html>
"#;
