//! What people see.
//!
//! Whatever comes from elsewhere is text: maud escapes it, and nothing here is pre-escaped. An element that changes by
//! itself has an id and `data-version`; the script replaces it when a version comes that it does not show.

pub(crate) mod account;
pub(crate) mod docs;
pub(crate) mod errors;
pub(crate) mod listings;
pub(crate) mod orders;
pub(crate) mod parts;
pub(crate) mod tickets;

use std::time::SystemTime;

use contract::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::{assets, config::Stripe, error::Problem};

/// A page's own part: what is around it, [`Page::render`] adds.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) problems: &'a [Problem],
    pub(crate) content: Markup,
}

/// What is around every page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// The page's path.
    pub(crate) path: &'a str,
    pub(crate) signed_in: bool,
    pub(crate) stripe: &'a Stripe,
}

impl Page<'_> {
    pub(crate) fn render(&self, frame: Frame<'_>) -> Markup {
        let now = Timestamp::from(SystemTime::now());
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title {
                        @if !self.problems.is_empty() { "Error: " }
                        (self.title) " – Ticketing"
                    }
                    link rel="icon" href=(assets::url("icon.svg"));
                    link rel="stylesheet" href=(assets::url("style.css"));
                    script src=(assets::url("app.js")) defer {}
                    @if let Stripe::Live(_) = frame.stripe {
                        script src="https://js.stripe.com/v3/" defer {}
                    }
                }
                body data-now=(now) {
                    a.skip href="#main" { "Skip to content" }
                    (header(frame))
                    main #main tabindex="-1" {
                        (problems(self.problems))
                        (self.content)
                    }
                    (footer(frame))
                    div #announcer .visually-hidden role="status" {}
                }
            }
        }
    }
}

fn header(frame: Frame<'_>) -> Markup {
    let link = |path: &str, text: &str| {
        let current = (frame.path == path).then_some("page");
        html! { li { a href=(path) aria-current=[current] { (text) } } }
    };
    html! {
        header.site {
            nav aria-label="Main" {
                a.brand href="/" { span.mark aria-hidden="true" {} "Ticketing" }
                ul {
                    @if frame.signed_in {
                        (link("/tickets/new", "Sell Tickets"))
                        (link("/orders", "My Orders"))
                        (link("/listings", "My Listings"))
                        li { form method="post" action="/auth/signout" { button.link { "Sign Out" } } }
                    } @else {
                        (link("/auth/signup", "Sign Up"))
                        (link("/auth/signin", "Sign In"))
                    }
                }
            }
        }
    }
}

fn footer(frame: Frame<'_>) -> Markup {
    html! {
        footer.site {
            @if frame.signed_in { p { a href="/account" { "My account" } } }
            p { a href="/api/docs" { "API" } }
            @if let Stripe::Sandbox { .. } = frame.stripe { p { "Test mode: no card is ever charged." } }
        }
    }
}

/// All that is wrong, first on the page and focused: each leads to its field.
fn problems(problems: &[Problem]) -> Markup {
    html! {
        @if !problems.is_empty() {
            div #problems .problems role="alert" tabindex="-1" autofocus {
                h2 { "There is a problem" }
                ul {
                    @for problem in problems {
                        li {
                            @match &problem.field {
                                Some(field) => a href={ "#" (field) } { (problem.message) },
                                None => (problem.message),
                            }
                        }
                    }
                }
            }
        }
    }
}
