//! `expand[]`: ids in an answer replaced by what they name.

use serde_json::{Value, json};

use super::books::Books;
use super::params::Params;
use super::refusal::Refusal;
use super::shapes;

/// Stripe's depth.
const DEEPEST: usize = 4;

/// A field that may be expanded.
struct Field {
    /// The object that has it.
    object: &'static str,
    name: &'static str,
    /// The object that it names; `None`: there is nothing further to expand.
    names: Option<&'static str>,
}

const fn field(object: &'static str, name: &'static str, names: Option<&'static str>) -> Field {
    Field { object, name, names }
}

const FIELDS: [Field; 15] = [
    field("payment_intent", "latest_charge", Some("charge")),
    field("payment_intent", "payment_method", Some("payment_method")),
    field("payment_intent", "customer", None),
    field("payment_intent", "review", None),
    field("charge", "payment_intent", Some("payment_intent")),
    field("charge", "refunds", None),
    field("charge", "balance_transaction", None),
    field("charge", "customer", None),
    field("refund", "charge", Some("charge")),
    field("refund", "payment_intent", Some("payment_intent")),
    field("refund", "balance_transaction", None),
    field("refund", "failure_balance_transaction", None),
    field("dispute", "charge", Some("charge")),
    field("dispute", "payment_intent", Some("payment_intent")),
    field("payment_method", "customer", None),
];

fn find(object: &str, name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.object == object && field.name == name)
}

/// The paths of one request, known to fit its answer.
#[derive(Debug)]
pub(super) struct Paths(Vec<Vec<String>>);

impl Paths {
    /// `object` is what the endpoint answers with, or the element of what it lists.
    pub(super) fn parse(params: &Params, object: &str, listed: bool) -> Result<Self, Refusal> {
        let mut paths = Vec::new();
        for path in params.list("expand") {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            let fields = match names.split_first() {
                Some((first, rest)) if listed && first == "data" => rest,
                _ if listed => return Err(Refusal::not_expandable(&path)),
                _ => &names[..],
            };
            if names.len() > DEEPEST {
                return Err(Refusal::expanded_too_deep());
            }
            let mut object = Some(object);
            for name in fields {
                match object.and_then(|object| find(object, name)) {
                    Some(field) => object = field.names,
                    None => return Err(Refusal::not_expandable(&path)),
                }
            }
            if fields.is_empty() {
                return Err(Refusal::not_expandable(&path));
            }
            paths.push(fields.to_vec());
        }
        Ok(Self(paths))
    }

    /// Expands an answer, or each element of a list.
    pub(super) fn expand(&self, books: &Books, answer: &mut Value) {
        for path in &self.0 {
            match answer.get_mut("data").and_then(Value::as_array_mut) {
                Some(elements) => elements.iter_mut().for_each(|element| expand(books, element, path)),
                None => expand(books, answer, path),
            }
        }
    }
}

fn expand(books: &Books, object: &mut Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    let Some(field) = object["object"].as_str().and_then(|object| find(object, name)) else { return };
    if (field.object, field.name) == ("charge", "refunds") {
        object["refunds"] = refunds(books, object["id"].as_str().unwrap_or_default());
    }
    let value = &mut object[name.as_str()];
    if let (Some(id), Some(names)) = (value.as_str(), field.names) {
        *value = fetch(books, names, id).unwrap_or(Value::Null);
    }
    if value.is_object() {
        expand(books, value, rest);
    }
}

/// A list that is left out of a charge unless it is asked for. It is whole; Stripe shows the ten newest.
fn refunds(books: &Books, charge: &str) -> Value {
    let of_charge = books.refunds.iter().rev().filter(|refund| refund.charge == charge);
    json!({
        "object": "list",
        "url": format!("/v1/charges/{charge}/refunds"),
        "has_more": false,
        "data": of_charge.map(shapes::refund).collect::<Vec<_>>(),
    })
}

fn fetch(books: &Books, object: &str, id: &str) -> Option<Value> {
    Some(match object {
        "payment_intent" => shapes::intent(books, books.intents.get(id)?),
        "charge" => shapes::charge(books, books.charges.get(id)?),
        "payment_method" => shapes::payment_method(books.methods.get(id)?),
        _ => return None,
    })
}
