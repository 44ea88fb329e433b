//! PaymentMethods: of test cards.

use serde_json::Value;

use crate::stripe::books::{Books, PaymentMethod};
use crate::stripe::cards;
use crate::stripe::params::Params;
use crate::stripe::refusal::Refusal;
use crate::stripe::shapes;

pub(super) fn create(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let method = new_method(params)?;
    let body = shapes::payment_method(&method);
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
    Ok(PaymentMethod::new(card, params.metadata()))
}

/// The PaymentMethod a request pays with, if it says. As Stripe does, a test name like `pm_card_visa`
/// makes a PaymentMethod of its own each time.
pub(super) fn given(books: &mut Books, params: &Params) -> Result<Option<PaymentMethod>, Refusal> {
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
