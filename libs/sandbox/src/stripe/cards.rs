//! The test cards, as <https://docs.stripe.com/testing> lists them.

use serde_json::{Value, json};

use super::refusal::Refusal;

/// A card of test mode, and what becomes of a payment with it.
#[derive(Debug)]
pub(super) struct Card {
    /// What follows `tok_` and `pm_card_`.
    name: &'static str,
    brand: &'static str,
    pub(super) number: &'static str,
    pub(super) decline: Option<Decline>,
}

/// How an issuer says no.
#[derive(Debug)]
pub(super) struct Decline {
    code: &'static str,
    reason: &'static str,
    message: &'static str,
    param: Option<&'static str>,
}

const CARDS: &[Card] = &[
    good("visa", "visa", "4242424242424242"),
    good("visa_debit", "visa", "4000056655665556"),
    good("mastercard", "mastercard", "5555555555554444"),
    good("amex", "amex", "378282246310005"),
    good("discover", "discover", "6011111111111117"),
    bad("chargeDeclined", "4000000000000002", card_declined("generic_decline", "Your card was declined.")),
    bad(
        "chargeDeclinedInsufficientFunds",
        "4000000000009995",
        card_declined("insufficient_funds", "Your card has insufficient funds."),
    ),
    bad("chargeDeclinedLostCard", "4000000000009987", card_declined("lost_card", "Your card was declined.")),
    bad(
        "chargeDeclinedStolenCard",
        "4000000000009979",
        card_declined("stolen_card", "Your card was declined."),
    ),
    bad(
        "chargeDeclinedExpiredCard",
        "4000000000000069",
        Decline {
            code: "expired_card",
            reason: "expired_card",
            message: "Your card has expired.",
            param: Some("exp_month"),
        },
    ),
    bad(
        "chargeDeclinedIncorrectCvc",
        "4000000000000127",
        Decline {
            code: "incorrect_cvc",
            reason: "incorrect_cvc",
            message: "Your card's security code is incorrect.",
            param: Some("cvc"),
        },
    ),
    bad(
        "chargeDeclinedProcessingError",
        "4000000000000119",
        Decline {
            code: "processing_error",
            reason: "processing_error",
            message: "An error occurred while processing your card. Try again in a little bit.",
            param: None,
        },
    ),
];

const fn good(name: &'static str, brand: &'static str, number: &'static str) -> Card {
    Card { name, brand, number, decline: None }
}

const fn bad(name: &'static str, number: &'static str, decline: Decline) -> Card {
    Card { name, brand: "visa", number, decline: Some(decline) }
}

const fn card_declined(reason: &'static str, message: &'static str) -> Decline {
    Decline { code: "card_declined", reason, message, param: None }
}

/// The card behind `pm_card_…`. The declined ones go by two names: `pm_card_visa_chargeDeclined`, too.
pub(super) fn of_payment_method(id: &str) -> Option<&'static Card> {
    named(id.strip_prefix("pm_card_")?)
}

/// The card behind `tok_…`.
pub(super) fn of_token(id: &str) -> Option<&'static Card> {
    named(id.strip_prefix("tok_")?)
}

fn named(name: &str) -> Option<&'static Card> {
    CARDS.iter().find(|card| {
        card.name == name || (card.decline.is_some() && name.strip_prefix("visa_") == Some(card.name))
    })
}

/// The card with a number; real ones are refused, as test mode does.
pub(super) fn of_number(number: &str) -> Result<&'static Card, Refusal> {
    CARDS.iter().find(|card| card.number == number).ok_or_else(|| {
        let decline = card_declined(
            "test_mode_live_card",
            "Your card was declined. Your request was in test mode, but used a non test card. \
             For a list of valid test cards, visit: https://stripe.com/docs/testing.",
        );
        Refusal::declined(decline.error())
    })
}

impl Card {
    /// The `card` of a PaymentMethod.
    pub(super) fn body(&self) -> Value {
        json!({
            "brand": self.brand,
            "checks": { "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "unchecked" },
            "country": "US",
            "display_brand": self.brand,
            "exp_month": 12,
            "exp_year": 2040,
            "funding": if self.name.ends_with("_debit") { "debit" } else { "credit" },
            "last4": &self.number[self.number.len() - 4..],
        })
    }
}

impl Decline {
    /// A card error, without what it was about.
    pub(super) fn error(&self) -> Value {
        let mut error = json!({
            "type": "card_error",
            "code": self.code,
            "decline_code": self.reason,
            "message": self.message,
            "doc_url": format!("https://stripe.com/docs/error-codes/{}", self.code),
        });
        if let Some(param) = self.param {
            error["param"] = param.into();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_goes_by_its_names_and_its_number() {
        for id in ["pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"] {
            assert_eq!(of_payment_method(id).map(|card| card.number), Some("4000000000000002"), "{id}");
        }
        assert_eq!(of_token("tok_visa").map(|card| card.number), Some("4242424242424242"));
        assert_eq!(of_number("378282246310005").expect("amex").brand, "amex");
    }

    #[test]
    fn what_stripe_does_not_list_is_no_card() {
        for id in ["pm_card_", "pm_card_visa_visa", "pm_card_nonsense", "tok_visa", "pm_1"] {
            assert!(of_payment_method(id).is_none(), "{id}");
        }
        assert!(of_number("4111111111111112").is_err());
    }
}
