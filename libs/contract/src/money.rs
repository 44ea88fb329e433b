//! Money: integer cents everywhere inside, a JSON number of dollars in HTTP bodies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An amount in cents.
///
/// Serialises as that integer. In an HTTP body a price is a number of dollars: `#[serde(with = "contract::money::dollars")]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Cents(pub i64);

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a plain decimal number.
    #[error("not a decimal number")]
    NotDecimal,
    /// More than two digits after the point: cents are the smallest unit.
    #[error("more than two decimals")]
    TooPrecise,
    /// Over [`Cents::MAX_PRICE`].
    #[error("too large")]
    TooLarge,
}

impl Cents {
    /// The largest price: $999,999.99, the largest amount that Stripe charges in US dollars
    /// (<https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>).
    pub const MAX_PRICE: Cents = Cents(99_999_999);

    /// Reads an amount of dollars from its decimal text, digit by digit: no float takes part, so `"19.99"` is 1999.
    ///
    /// Takes an optional minus, digits, and up to two decimals (further ones only when they are zeros).
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse_dollars(text: &str) -> Result<Self, ParseError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (dollars, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(dollars) || !all_digits(decimals) {
            return Err(ParseError::NotDecimal);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > 2 {
            return Err(ParseError::TooPrecise);
        }
        let dollars = dollars.trim_start_matches('0');
        if dollars.len() > 6 {
            return Err(ParseError::TooLarge);
        }
        let cents =
            format!("{dollars:0>1}{decimals:0<2}").parse::<i64>().map_err(|_| ParseError::TooLarge)?;
        Ok(Cents(if negative { -cents } else { cents }))
    }
}

impl TryFrom<&serde_json::Value> for Cents {
    type Error = ParseError;

    /// Reads dollars from a JSON number or a numeric string.
    ///
    /// A JSON number is read from its shortest text: 19.99 in a body is the text `19.99` again, not the float's digits.
    fn try_from(value: &serde_json::Value) -> Result<Self, ParseError> {
        match value {
            serde_json::Value::Number(number) => match number.as_f64() {
                // Above this `Number` prints an exponent, which is no decimal text; it is far over the limit anyway.
                Some(float) if float.abs() >= 1e15 => Err(ParseError::TooLarge),
                _ => Cents::parse_dollars(&number.to_string()),
            },
            serde_json::Value::String(text) => Cents::parse_dollars(text.trim()),
            _ => Err(ParseError::NotDecimal),
        }
    }
}

/// Cents as a JSON number of dollars with at most two decimals.
pub mod dollars {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use utoipa::openapi::{
        Object, ObjectBuilder, Type,
        schema::{AnyOfBuilder, Schema},
    };

    use super::Cents;

    /// More than nothing, with at most two decimals, in digits.
    const ASKED: &str = r"^0*([1-9][0-9]{0,5}(\.[0-9]{1,2}0*)?|0\.(0[1-9]|[1-9][0-9]?)0*)$";

    /// Writes 1999 as `19.99` and 2000 as `20`.
    ///
    /// # Errors
    /// As the serializer's.
    pub fn serialize<S: Serializer>(cents: &Cents, serializer: S) -> Result<S::Ok, S::Error> {
        match cents.0 % 100 {
            0 => (cents.0 / 100).serialize(serializer),
            // Exact: an amount this small has no closer float than the one its shortest text names.
            _ => (cents.0 as f64 / 100.0).serialize(serializer),
        }
    }

    /// Reads a number or numeric string of dollars.
    ///
    /// # Errors
    /// When it is no amount with at most two decimals.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cents, D::Error> {
        Cents::try_from(&serde_json::Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// A price as an answer tells it.
    pub(crate) fn schema() -> Object {
        price().description(Some("In dollars, exact to the cent.")).examples([19.99]).build()
    }

    /// A price as a question may put it.
    pub(crate) fn asked() -> Schema {
        let largest = Cents::MAX_PRICE.0 as f64 / 100.0;
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(ASKED));
        AnyOfBuilder::new()
            .description(Some(
                "In dollars: a number, or its digits as a string. More than 0, at most 2 decimals.",
            ))
            .item(price().exclusive_minimum(Some(0)).maximum(Some(largest)))
            .item(text)
            .into()
    }

    fn price() -> ObjectBuilder {
        ObjectBuilder::new().schema_type(Type::Number).multiple_of(Some(0.01))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(body: serde_json::Value, expected: Result<i64, ParseError>) {
        assert_eq!(Cents::try_from(&body).map(|cents| cents.0), expected, "{body}");
    }

    #[test]
    fn dollars_become_exact_cents() {
        check(json!(19.99), Ok(1999));
        check(json!("19.99"), Ok(1999));
        check(json!(8.20), Ok(820));
        check(json!(0.01), Ok(1));
        check(json!(20), Ok(2000));
        check(json!("020.500"), Ok(2050));
        check(json!(999_999.99), Ok(99_999_999));
        check(json!(-1.5), Ok(-150));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        check(json!(19.999), Err(ParseError::TooPrecise));
        check(json!(0.001), Err(ParseError::TooPrecise));
        check(json!(1_000_000), Err(ParseError::TooLarge));
        check(json!(1e300), Err(ParseError::TooLarge));
        for text in ["", ".", "1.", ".5", "+1", "1e3", "0x10", "1,000", "NaN", "١"] {
            check(json!(text), Err(ParseError::NotDecimal));
        }
        check(json!(null), Err(ParseError::NotDecimal));
        check(json!([1]), Err(ParseError::NotDecimal));
    }

    proptest! {
        #[test]
        fn every_price_survives_a_body(cents in 0..=Cents::MAX_PRICE.0) {
            #[derive(Serialize, Deserialize)]
            struct Body(#[serde(with = "dollars")] Cents);
            let text = serde_json::to_string(&Body(Cents(cents))).unwrap();
            let back: Body = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.0, Cents(cents), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = Cents::parse_dollars(&text);
        }
    }
}
