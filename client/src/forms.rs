//! What people typed, and what was wrong with it.

use std::collections::HashMap;

use ::http::StatusCode;
use web::{ApiError, Body};

use crate::error::{Error, Problem, Refusal};

/// A form as it is shown: what was typed stays, with what was wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Form {
    values: HashMap<String, String>,
    problems: Vec<Problem>,
}

impl Form {
    /// Reads a form that was sent.
    pub(crate) fn sent(body: &Body) -> Result<Self, ApiError> {
        let values = form_urlencoded::parse(body.bytes()?).into_owned().collect();
        Ok(Self { values, problems: Vec::new() })
    }

    /// A form that is filled in already.
    pub(crate) fn holding<const N: usize>(values: [(&str, String); N]) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { values, problems: Vec::new() }
    }

    /// What was typed into the field; nothing, if it was not sent.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// What is wrong, in all.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What is wrong with the field.
    pub(crate) fn problem(&self, name: &str) -> Option<&str> {
        let wrong = |problem: &&Problem| problem.field.as_deref() == Some(name);
        self.problems.iter().find(wrong).map(|problem| problem.message.as_str())
    }

    /// The form with what was wrong with it, and the status to show it with. Any other error is not the form's.
    pub(crate) fn refused(mut self, error: Error) -> Result<(StatusCode, Self), Error> {
        match error {
            Error::Refused(Refusal { status, problems, retry_after }) => {
                self.problems = problems;
                if let (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) = (status, retry_after) {
                    let message = format!("Too many tries. Try again in {}.", duration(seconds));
                    self.problems = vec![Problem { message, field: None }];
                }
                Ok((status, self))
            }
            error => Err(error),
        }
    }
}

/// Seconds, as people say them.
fn duration(seconds: u64) -> String {
    let (count, unit) = if seconds < 120 { (seconds, "second") } else { (seconds.div_ceil(60), "minute") };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Where to go on to after signing in: a page of ours, whatever the address said.
pub(crate) fn local_path(text: &str) -> &str {
    let ours = text.starts_with('/')
        && !text.starts_with("//")
        && !text.starts_with("/auth/")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if ours { text } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_only_sent_on_to_pages_of_ours() {
        for path in ["/", "/tickets/new", "/orders/1?x=%20"] {
            assert_eq!(local_path(path), path);
        }
        for path in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a\nb", "/auth/signout"]
        {
            assert_eq!(local_path(path), "/", "{path:?}");
        }
    }

    #[test]
    fn what_was_typed_stays_with_what_was_wrong_with_it() {
        let form = Form::holding([("title", "Concert".into()), ("price", "x".into())]);
        let problem = Problem { message: "Price must be greater than 0".into(), field: Some("price".into()) };
        let refusal = Refusal { status: StatusCode::BAD_REQUEST, problems: vec![problem], retry_after: None };
        let (status, form) = form.refused(Error::Refused(refusal)).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!((form.value("title"), form.problem("title")), ("Concert", None));
        assert_eq!(form.problem("price"), Some("Price must be greater than 0"));
        assert!(Form::default().refused(Error::NotFound).is_err());
    }

    #[test]
    fn too_many_tries_say_until_when() {
        let refusal = |seconds| {
            let problems = vec![Problem { message: "Too many requests".into(), field: None }];
            let status = StatusCode::TOO_MANY_REQUESTS;
            let refusal = Refusal { status, problems, retry_after: Some(seconds) };
            Form::default().refused(Error::Refused(refusal)).unwrap().1.problems[0].message.clone()
        };
        assert_eq!(refusal(1), "Too many tries. Try again in 1 second.");
        assert_eq!(refusal(150), "Too many tries. Try again in 3 minutes.");
    }
}
