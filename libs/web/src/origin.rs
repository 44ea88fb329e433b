//! Against other sites that make a signed-in browser send requests here.

use http::{HeaderMap, Method, Uri, header};

use crate::{ApiError, session};

/// Refuses a request that changes something and says that it comes from a page of another origin.
///
/// Browsers send `Origin` with every such request. A bearer token is proof enough: no browser adds one by itself.
pub(crate) fn check(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if method.is_safe() || session::bearer(headers).is_some() || same_origin(headers) {
        Ok(())
    } else {
        Err(ApiError::not_authorized())
    }
}

fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let text = |value: &header::HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let host = headers.get(header::HOST).and_then(text);
    // `null`, which a sandboxed frame sends, has neither scheme nor host.
    let origin = text(origin).and_then(|origin| origin.parse::<Uri>().ok());
    match (origin, host) {
        (Some(origin), Some(host)) => match (origin.scheme_str(), origin.authority()) {
            (Some(scheme), Some(authority)) => {
                default_port(scheme, authority.as_str()) == default_port(scheme, &host)
            }
            _ => false,
        },
        _ => false,
    }
}

/// An authority without the port that its scheme implies.
fn default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(method: Method, pairs: &[(header::HeaderName, &str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        check(&method, &headers).is_ok()
    }

    fn post(origin: &str, host: &str) -> bool {
        passes(Method::POST, &[(header::ORIGIN, origin), (header::HOST, host)])
    }

    #[test]
    fn a_page_of_ones_own_may_change_things() {
        assert!(post("http://localhost:3000", "localhost:3000"));
        assert!(post("https://Tickets.example", "tickets.example"));
        assert!(post("https://tickets.example", "tickets.example:443"));
        assert!(passes(Method::POST, &[(header::HOST, "tickets.example")]));
    }

    #[test]
    fn a_page_of_another_origin_may_not() {
        assert!(!post("https://evil.example", "tickets.example"));
        assert!(!post("http://localhost:3001", "localhost:3000"));
        assert!(!post("https://tickets.example.evil.example", "tickets.example"));
        assert!(!post("null", "tickets.example"));
        assert!(!post("tickets.example", "tickets.example"));
        assert!(!passes(Method::DELETE, &[(header::ORIGIN, "https://tickets.example")]));
    }

    #[test]
    fn reading_and_bearer_tokens_are_exempt() {
        let evil = (header::ORIGIN, "https://evil.example");
        assert!(passes(Method::GET, std::slice::from_ref(&evil)));
        assert!(passes(Method::POST, &[evil.clone(), (header::AUTHORIZATION, "Bearer a.b.c")]));
        assert!(!passes(Method::POST, &[evil, (header::AUTHORIZATION, "Basic abc")]));
    }
}
