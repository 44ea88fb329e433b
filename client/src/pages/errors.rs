//! Pages in place of the one that was asked for.

use maud::{Markup, html};

use crate::error::{Part, Problem};

pub(crate) fn not_found() -> Markup {
    html! {
        h1 { "Page not found" }
        p { "There is nothing at this address. It may have been typed wrongly, or what was here is gone." }
        p { a href="/" { "Tickets for sale" } }
    }
}

pub(crate) fn not_yours() -> Markup {
    html! {
        h1 { "This is not yours" }
        p { "It belongs to somebody else. You may be signed in with another account than you think." }
        p { a href="/account" { "My account" } }
    }
}

pub(crate) fn unavailable(part: Part) -> Markup {
    let what = match part {
        Part::Accounts => "Accounts are",
        Part::Tickets => "Tickets are",
        Part::Orders => "Orders are",
        Part::Payments => "Payments are",
    };
    html! {
        h1 { (what) " not available right now" }
        p { "Nothing is lost. Try again in a moment: " a href="" { "load the page again" } "." }
        @match part {
            Part::Payments => p {
                "If you were just paying: the order’s page will say whether that went through, and nobody pays twice."
            },
            Part::Orders => p { "A ticket that you have reserved stays reserved until its time is over." },
            Part::Accounts | Part::Tickets => {}
        }
    }
}

pub(crate) fn refused(problems: &[Problem]) -> Markup {
    html! {
        h1 { "That did not work" }
        @for problem in problems { p { (problem.message) } }
        p { a href="/" { "Tickets for sale" } }
    }
}

pub(crate) fn wrong() -> Markup {
    html! {
        h1 { "Something went wrong" }
        p { "That is our fault, and nothing of yours is lost. Try again in a moment." }
    }
}
