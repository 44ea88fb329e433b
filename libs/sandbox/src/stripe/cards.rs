//! The test cards, as <https://docs.stripe.com/testing> lists them.

use serde_json::{Value, json};

use super::refusal::{Refusal, doc_url};

/// A card of test mode, and what becomes of a payment with it.
#[derive(Debug)]
pub(super) struct Card {
    /// What follows `tok_` and `pm_card_`.
    name: &'static str,
    pub(super) brand: &'static str,
    pub(super) number: &'static str,
    /// Whether its bank wants the customer to authenticate, before it says yes or no.
    pub(super) authenticates: bool,
    pub(super) decline: Option<Decline>,
    pub(super) later: Later,
}

/// What comes of a payment after all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    Nothing,
    /// As soon as the money is taken, the cardholder disputes it.
    Dispute,
    /// A refund succeeds, then the bank sends it back.
    RefundFails,
}

/// The decline of a payment that was not to ask for anything, with a card that authenticates.
pub(super) const AUTHENTICATION_NOT_HANDLED: Decline = Decline {
    code: "authentication_required",
    reason: "authentication_not_handled",
    message: "This payment required an authentication action to complete, but `error_on_requires_action` was \
              set. When you're ready, you can upgrade your integration to handle actions at \
              https://stripe.com/docs/payments/payment-intents/upgrade-to-handle-actions.",
    param: None,
};

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
    authenticating("authenticationRequired", "4000002760003184", None),
    authenticating("threeDSecure2Required", "4000000000003220", None),
    authenticating(
        "authenticationRequiredChargeDeclinedInsufficientFunds",
        "4000008260003178",
        Some(card_declined("insufficient_funds", "Your card has insufficient funds.")),
    ),
    Card { later: Later::Dispute, ..good("createDispute", "visa", "4000000000000259") },
    Card { later: Later::RefundFails, ..good("refundFail", "visa", "4000000000005126") },
];

const fn good(name: &'static str, brand: &'static str, number: &'static str) -> Card {
    Card { name, brand, number, authenticates: false, decline: None, later: Later::Nothing }
}

const fn bad(name: &'static str, number: &'static str, decline: Decline) -> Card {
    Card { decline: Some(decline), ..good(name, "visa", number) }
}

const fn authenticating(name: &'static str, number: &'static str, decline: Option<Decline>) -> Card {
    Card { authenticates: true, decline, ..good(name, "visa", number) }
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
        card.name == name
            || (card.decline.is_some()
                && !card.authenticates
                && name.strip_prefix("visa_") == Some(card.name))
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
    pub(super) fn last4(&self) -> &'static str {
        &self.number[self.number.len() - 4..]
    }

    pub(super) fn funding(&self) -> &'static str {
        if self.name.ends_with("_debit") { "debit" } else { "credit" }
    }

    /// The same for every PaymentMethod of this card.
    pub(super) fn fingerprint(&self) -> String {
        format!("sandbox{}", self.number)
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
            "doc_url": doc_url(self.code),
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
