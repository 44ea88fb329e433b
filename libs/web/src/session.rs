//! Who asks: from the cookie `session`, or `Authorization: Bearer`.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use warp::Filter;

use crate::{ApiError, Keys, User, cookie};

const COOKIE: &str = "session";

/// Who asks: a user, or nobody. A bad or expired token is nobody.
#[derive(Clone, Debug)]
pub struct Session(pub Option<User>);

impl Session {
    /// The user, or 401.
    pub fn user(&self) -> Result<&User, ApiError> {
        self.0.as_ref().ok_or_else(ApiError::not_authorized)
    }
}

/// Extracts who asks. Takes every request: that nobody is signed in is for the handler to judge.
pub fn session(
    keys: &Keys,
) -> impl Filter<Extract = (Session,), Error = Infallible> + Clone + Send + Sync + use<> {
    let keys = keys.clone();
    warp::header::headers_cloned().map(move |headers| Session(identify(&headers, &keys)))
}

fn identify(headers: &HeaderMap, keys: &Keys) -> Option<User> {
    let cookies = cookie::all(headers).filter(|(name, _)| *name == COOKIE).map(|(_, token)| token);
    cookies.chain(bearer(headers)).find_map(|token| keys.verify(token))
}

/// The token of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// How the session's cookie is set: HttpOnly, SameSite=Lax, for every path.
#[derive(Clone, Copy, Debug)]
pub struct SessionCookie {
    /// Whether browsers send it over https only. False is for http://localhost alone.
    pub secure: bool,
}

impl SessionCookie {
    /// The cookie that holds a token, kept as long as the token is good.
    pub fn holding(self, token: &str, ttl: Duration) -> HeaderValue {
        self.build(token, ttl.as_secs())
    }

    /// The cookie that ends the session.
    pub fn expired(self) -> HeaderValue {
        self.build("", 0)
    }

    fn build(self, token: &str, max_age: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{COOKIE}={token}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(text).expect("a JWT is base64url and dots")
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use uuid::Uuid;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn who(headers: &[(header::HeaderName, String)]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        identify(&headers, &keys()).map(|user| user.email)
    }

    fn keys() -> Keys {
        Keys::new("key", None)
    }

    fn token(email: &str) -> String {
        keys().sign(Uuid::nil(), email, HOUR)
    }

    #[test]
    fn the_cookie_comes_before_the_bearer_token() {
        let cookie = (header::COOKIE, format!("x=1; session={}", token("cookie")));
        let bearer = (AUTHORIZATION, format!("bearer {}", token("bearer")));
        assert_eq!(who(&[bearer.clone(), cookie]).as_deref(), Some("cookie"));
        assert_eq!(who(std::slice::from_ref(&bearer)).as_deref(), Some("bearer"));
        assert_eq!(who(&[bearer, (header::COOKIE, "session=stale".into())]).as_deref(), Some("bearer"));
    }

    #[test]
    fn anything_else_is_nobody() {
        assert_eq!(who(&[]), None);
        assert_eq!(who(&[(AUTHORIZATION, "Basic abc".into())]), None);
        assert_eq!(who(&[(AUTHORIZATION, token("no scheme"))]), None);
        assert_eq!(who(&[(header::COOKIE, "session=".into())]), None);
    }

    #[test]
    fn the_cookie_is_out_of_reach_for_scripts() {
        let cookie = SessionCookie { secure: true }.holding("a.b.c", HOUR);
        assert_eq!(cookie, "session=a.b.c; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax; Secure");
        let cookie = SessionCookie { secure: false }.expired();
        assert_eq!(cookie, "session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax");
    }
}
