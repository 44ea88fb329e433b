//! Who asks: from the cookie `session`, or `Authorization: Bearer`.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use uuid::Uuid;
use warp::Filter;

use crate::{
    ApiError, Claims, Keys, cookie,
    limit::{Limit, TooMany},
};

const COOKIE: &str = "session";

/// How often it is looked whether a session is over that an answer without an end was begun for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who is believed to ask, and how often they may. Clones share the count.
#[derive(Clone)]
pub struct Sessions {
    keys: Keys,
    is_over: IsOver,
    requests: Arc<Limit<Uuid>>,
}

/// Whether a session is over though its token has not expired.
#[derive(Clone)]
struct IsOver(Arc<dyn Fn(&Claims) -> bool + Send + Sync>);

impl Sessions {
    /// Whoever has a token that one of these keys signed, as often as they like.
    pub fn new(keys: &Keys) -> Self {
        let is_over = IsOver(Arc::new(|_| false));
        Self { keys: keys.clone(), is_over, requests: Arc::new(Limit::per_minute(0)) }
    }

    /// Not those whose session is over before its token expires.
    pub fn unless(self, is_over: impl Fn(&Claims) -> bool + Send + Sync + 'static) -> Self {
        Self { is_over: IsOver(Arc::new(is_over)), ..self }
    }

    /// Each user so many times a minute; 0 is no limit.
    pub fn at_most(self, requests_per_minute: u32) -> Self {
        Self { requests: Arc::new(Limit::per_minute(requests_per_minute)), ..self }
    }

    fn identify(&self, headers: &HeaderMap) -> Session {
        let cookies = cookie::all(headers).filter(|(name, _)| *name == COOKIE).map(|(_, token)| token);
        let good = |token| self.keys.verify(token).filter(|claims| !self.is_over.0(claims));
        let claims = cookies.chain(bearer(headers)).find_map(good);
        let allowed = match &claims {
            Some(claims) => self.requests.take(claims.id, Instant::now()),
            None => Ok(()),
        };
        Session { claims, allowed, is_over: self.is_over.clone() }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl fmt::Debug for IsOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsOver")
    }
}

/// Who asks: a user, or nobody. A token that is bad, expired or of a session that is over is nobody's.
#[derive(Clone, Debug)]
pub struct Session {
    claims: Option<Claims>,
    allowed: Result<(), TooMany>,
    is_over: IsOver,
}

impl Session {
    /// The user.
    ///
    /// # Errors
    /// 401 when it is nobody, 429 when they ask too often.
    pub fn user(&self) -> Result<&Claims, ApiError> {
        let claims = self.claims.as_ref().ok_or_else(ApiError::not_authorized)?;
        self.allowed?;
        Ok(claims)
    }

    /// The user, however often they ask.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Returns when the session is over, some seconds late at most: its token has expired, or its user has ended it. At
    /// once when it is nobody's.
    pub async fn over(self) {
        let Some(claims) = self.claims else { return };
        loop {
            let left = claims.left();
            if left.is_zero() || self.is_over.0(&claims) {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }
}

/// Extracts who asks. Takes every request: that nobody is signed in is for the handler to judge.
pub fn session(
    sessions: &Sessions,
) -> impl Filter<Extract = (Session,), Error = Infallible> + Clone + Send + Sync + use<> {
    let sessions = sessions.clone();
    warp::header::headers_cloned().map(move |headers| sessions.identify(&headers))
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

    use super::*;
    use crate::Signer;

    const HOUR: Duration = Duration::from_secs(3600);

    fn of(headers: &[(header::HeaderName, String)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn who(headers: &[(header::HeaderName, String)]) -> Option<String> {
        sessions().identify(&of(headers)).claims().map(|user| user.email.clone())
    }

    fn sessions() -> Sessions {
        Sessions::new(Signer::new("key").keys())
    }

    fn token(email: &str) -> String {
        Signer::new("key").sign(&Claims::new(Uuid::nil(), email, 0, HOUR))
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
    fn a_session_that_is_over_is_nobodys() {
        let headers = of(&[(header::COOKIE, format!("session={}", token("ann")))]);
        let sessions = sessions().unless(|claims| claims.email == "ann");
        assert!(sessions.identify(&headers).claims().is_none());
        assert!(
            sessions.identify(&of(&[(AUTHORIZATION, format!("Bearer {}", token("bob")))])).user().is_ok()
        );
    }

    #[tokio::test]
    async fn a_session_ends_with_its_token() {
        let at =
            |ttl| format!("Bearer {}", Signer::new("key").sign(&Claims::new(Uuid::nil(), "ann", 0, ttl)));
        let of_an_hour = sessions().identify(&of(&[(AUTHORIZATION, at(HOUR))]));
        let of_seconds = sessions().identify(&of(&[(AUTHORIZATION, at(Duration::from_secs(2)))]));
        let started = Instant::now();
        tokio::select! {
            () = of_an_hour.over() => panic!("it goes on"),
            () = of_seconds.over() => assert!(started.elapsed() < Duration::from_secs(5)),
        }
        sessions().identify(&HeaderMap::new()).over().await;
    }

    #[test]
    fn who_asks_too_often_is_told_so_and_is_still_somebody() {
        let headers = of(&[(header::COOKIE, format!("session={}", token("ann")))]);
        let sessions = sessions().at_most(2);
        let statuses =
            [(); 3].map(|()| sessions.identify(&headers).user().map_err(|error| error.status()).err());
        assert_eq!(statuses, [None, None, Some(http::StatusCode::TOO_MANY_REQUESTS)]);
        assert!(sessions.identify(&headers).claims().is_some());
    }

    #[test]
    fn the_cookie_is_out_of_reach_for_scripts() {
        let cookie = SessionCookie { secure: true }.holding("a.b.c", HOUR);
        assert_eq!(cookie, "session=a.b.c; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax; Secure");
        let cookie = SessionCookie { secure: false }.expired();
        assert_eq!(cookie, "session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax");
    }
}
