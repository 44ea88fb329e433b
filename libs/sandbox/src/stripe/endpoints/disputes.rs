//! Disputes: of a whole charge, and final as far as this sandbox goes.

use crate::stripe::books::{Books, Charge, Dispute, new_id, now};
use crate::stripe::shapes;

/// The cardholder says it was not them. Returns the dispute's id.
pub(in crate::stripe) fn raise(books: &mut Books, mut charge: Charge) -> String {
    let dispute = Dispute {
        id: new_id("dp"),
        created: now(),
        amount: charge.amount_captured,
        currency: charge.currency.clone(),
        payment_intent: charge.payment_intent.clone(),
        charge: charge.id.clone(),
    };
    charge.disputed = true;
    books.put(charge);
    let (id, body) = (dispute.id.clone(), shapes::dispute(books, &dispute));
    books.put(dispute);
    books.happened("charge.dispute.created", body);
    id
}
