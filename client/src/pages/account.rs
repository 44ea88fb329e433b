//! Signing up, in and out, and leaving for good.

use maud::{Markup, html};

use super::parts::Field;
use crate::{api::encoded, forms::Form};

pub(crate) fn sign_up(form: &Form) -> Markup {
    html! {
        h1 { "Sign up" }
        section.panel {
            form method="post" action="/auth/signup" novalidate {
                (next(form))
                (Field::email().render(form))
                (Field::password("new-password").hint("8 to 128 characters. A few words are better than a few signs.").render(form))
                div.actions { button.primary { "Sign Up" } }
            }
        }
        p { "Have an account already? " a href=(going_on("/auth/signin", form)) { "Sign in" } }
    }
}

pub(crate) fn sign_in(form: &Form) -> Markup {
    html! {
        h1 { "Sign in" }
        section.panel {
            form method="post" action="/auth/signin" novalidate {
                (next(form))
                (Field::email().render(form))
                (Field::password("current-password").render(form))
                div.actions { button.primary { "Sign In" } }
            }
        }
        p { "No account yet? " a href=(going_on("/auth/signup", form)) { "Sign up" } }
    }
}

/// The other page, which goes on to the same one afterwards.
fn going_on(path: &str, form: &Form) -> String {
    match encoded([("next", form.value("next"))].into_iter()) {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Where to go on to afterwards.
fn next(form: &Form) -> Markup {
    let next = form.value("next");
    html! { @if !next.is_empty() { input type="hidden" name="next" value=(next); } }
}

pub(crate) fn sign_out() -> Markup {
    html! {
        h1 { "Sign out" }
        section.panel {
            form method="post" action="/auth/signout" {
                p { "You are about to sign out on this device." }
                div.actions { button.primary { "Sign Out" } }
            }
        }
    }
}

pub(crate) fn account(email: &str, form: &Form) -> Markup {
    html! {
        h1 { "My account" }
        dl.facts.panel { div { dt { "Email address" } dd { (email) } } }
        section.panel aria-labelledby="everywhere" {
            h2 #everywhere { "Sign out everywhere" }
            p { "On this device and on all others. Do so when you have lost one, or have signed in where others can." }
            form method="post" action="/account/signout-all" {
                div.actions { button { "Sign out everywhere" } }
            }
        }
        section.panel aria-labelledby="erase" {
            h2 #erase { "Erase my account" }
            p {
                "Your email address and your password are destroyed and cannot be brought back. "
                "Orders and tickets stay, without your name. You will not see them any more: "
                "finish what you are selling or buying first. Wherever you are signed in, that ends."
            }
            form method="post" action="/account/erase" novalidate {
                (Field::password("current-password").render(form))
                div.actions { button.danger { "Erase my account" } }
            }
        }
    }
}

pub(crate) fn erased() -> Markup {
    html! {
        h1 { "Your account is erased" }
        p { "Your email address and your password are gone. You can sign up again at any time, as somebody new." }
        p { a href="/" { "Tickets for sale" } }
    }
}
