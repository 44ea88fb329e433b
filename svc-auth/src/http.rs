//! The routes of svc-auth.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::{UserId, http::User, stream::USERS};
use serde_json::json;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
};
use web::{ApiError, Body, Claims, Client, Proxies, Seen, Session, SessionCookie, Sessions, Signer};

use crate::{
    commands::{self, App, SignedIn},
    domain::{BadPassword, Email, Password},
    error::Error,
};

/// How long a request waits for what its caller has written or seen elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long somebody stays signed in who does not come back.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How old a session's token gets before whoever asks who they are is given another one.
const RENEWED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long somebody stays signed in at most, however often they come back (NIST SP 800-63B, 4.1.3).
const SIGNED_IN_AT_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes sessions.
#[derive(Clone)]
struct Maker {
    signer: Signer,
    cookie: SessionCookie,
}

pub(crate) fn routes(
    app: &App,
    signer: &Signer,
    cookie: SessionCookie,
    proxies: &Proxies,
) -> BoxedFilter<(Response,)> {
    let with_app = {
        let app = app.clone();
        warp::any().map(move || app.clone())
    };
    let with_maker = {
        let maker = Maker { signer: signer.clone(), cookie };
        warp::any().map(move || maker.clone())
    };
    let asked = with_app.clone().and(with_maker.clone()).and(web::client(proxies)).and(web::body());
    let (judge, eraser) = (app.clone(), app.clone());
    let good = Sessions::new(signer.keys()).unless(move |claims| !commands::is_signed_in(&judge, claims));
    let erasing =
        Sessions::new(signer.keys()).unless(move |claims| !commands::may_be_erased(&eraser, claims));

    let sign_up = path!("api" / "users" / "signup").and(web::route("/api/users/signup"));
    let sign_in = path!("api" / "users" / "signin").and(web::route("/api/users/signin"));
    let sign_out = path!("api" / "users" / "signout").and(web::route("/api/users/signout"));
    let everywhere = path!("api" / "users" / "signout-all").and(web::route("/api/users/signout-all"));
    let current = path!("api" / "users" / "currentuser").and(web::route("/api/users/currentuser"));
    let me = path!("api" / "users" / "me").and(web::route("/api/users/me"));

    let sign_up = sign_up.and(web::post()).and(asked.clone()).then(self::sign_up).map(web::reply);
    let sign_in = sign_in.and(web::post()).and(asked.clone()).then(self::sign_in).map(web::reply);
    let sign_out = sign_out.and(web::post()).map(move || self::sign_out(cookie));
    // A session may be of a moment ago, and of another replica.
    let caught_up = web::seen().and(with_app.clone()).then(catch_up_with).untuple_one();
    let everywhere = everywhere
        .and(web::post())
        .and(caught_up.clone())
        .and(with_app)
        .and(with_maker.clone())
        .and(web::session(&good))
        .then(sign_out_everywhere)
        .map(web::reply);
    let current =
        current.and(web::get()).and(caught_up).and(with_maker).and(web::session(&good)).map(current_user);
    let erase =
        me.and(web::delete()).and(asked).and(web::session(&erasing)).then(self::erase).map(web::reply);

    sign_up
        .or(sign_in)
        .unify()
        .or(sign_out)
        .unify()
        .or(everywhere)
        .unify()
        .or(current)
        .unify()
        .or(erase)
        .unify()
        .boxed()
}

/// Waits for what the caller has written or seen on another replica. In vain is no error: it is judged by what there is.
async fn catch_up_with(seen: Seen, app: App) {
    if let Some(sequence) = seen.at(USERS.name) {
        let _ = app.users.view().wait_for(sequence, PATIENCE).await;
    }
}

async fn sign_up(app: App, maker: Maker, client: Client, body: Body) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password = fields.judge("password", |value| {
        Password::parse_new(value.as_str().unwrap_or_default(), email.as_ref()).map_err(|bad| match bad {
            BadPassword::Length => "Password must be between 8 and 128 characters",
            BadPassword::Common => "Password is too common, choose another",
        })
    });
    let (email, password) = fields.finish(email.zip(password))?;
    let signed_up = commands::sign_up(&app, client, email, password).await?;
    let reply = maker.begin(StatusCode::CREATED, &signed_up.user, 0);
    Ok(web::with_position(reply, USERS.name, signed_up.sequence))
}

async fn sign_in(app: App, maker: Maker, client: Client, body: Body) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password = fields.text("password", "You must supply a password", Password::parse);
    let (email, password) = fields.finish(email.zip(password))?;
    let SignedIn { user, epoch } = commands::sign_in(&app, client, email, password).await?;
    Ok(maker.begin(StatusCode::OK, &user, epoch))
}

fn sign_out(cookie: SessionCookie) -> Response {
    web::with_cookie(json(&json!({})), cookie.expired())
}

async fn sign_out_everywhere(app: App, maker: Maker, session: Session) -> Result<Response, Error> {
    let claims = session.user()?;
    let email = Email::parse(&claims.email).ok_or_else(ApiError::not_authorized)?;
    let sequence = commands::sign_out_everywhere(&app, claims, &email).await?;
    Ok(web::with_position(sign_out(maker.cookie), USERS.name, sequence))
}

async fn erase(
    app: App,
    maker: Maker,
    client: Client,
    body: Body,
    session: Session,
) -> Result<Response, Error> {
    let user = session.user()?;
    let email = Email::parse(&user.email).ok_or_else(ApiError::not_authorized)?;
    let mut fields = body.fields()?;
    let password = fields.text("password", "You must supply a password", Password::parse);
    let password = fields.finish(password)?;
    let sequence = commands::erase(&app, client, UserId(user.id), email, password).await?;
    let reply = web::with_cookie(StatusCode::NO_CONTENT, maker.cookie.expired());
    Ok(web::with_position(reply, USERS.name, sequence))
}

fn current_user(maker: Maker, session: Session) -> Response {
    match session.claims() {
        None => json(&json!({ "currentUser": null })).into_response(),
        Some(claims) => match renewed(claims, now()) {
            None => json(&shown(claims)).into_response(),
            Some(renewed) => maker.hand_over(json(&shown(&renewed)), &renewed),
        },
    }
}

fn shown(Claims { id, email, iat, exp, .. }: &Claims) -> serde_json::Value {
    json!({ "currentUser": { "id": id, "email": email, "iat": iat, "exp": exp } })
}

/// The session for longer, if it is time for that. `now` is in seconds since 1970.
fn renewed(claims: &Claims, now: u64) -> Option<Claims> {
    let end = claims.signed_in_at() + SIGNED_IN_AT_MOST.as_secs();
    let exp = end.min(now + SESSION.as_secs());
    let is_due = now >= claims.iat + RENEWED_AFTER.as_secs() && exp > claims.exp;
    is_due.then(|| Claims { iat: now, exp, auth_time: Some(claims.signed_in_at()), ..claims.clone() })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Maker {
    /// Tells somebody who they are, from now on in each of their requests too.
    fn begin(&self, status: StatusCode, user: &User, epoch: u32) -> Response {
        let claims = Claims::new(user.id.0, &user.email, epoch, SESSION);
        self.hand_over(with_status(json(user), status), &claims)
    }

    fn hand_over(&self, reply: impl Reply, claims: &Claims) -> Response {
        let for_how_long = Duration::from_secs(claims.exp - claims.iat);
        web::with_cookie(reply, self.cookie.holding(&self.signer.sign(claims), for_how_long))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    /// Of the days since the sign-in: made, expires.
    fn token(made: u64, expires: u64) -> Claims {
        let (iat, exp) = (made * DAY, expires * DAY);
        Claims { id: Uuid::nil(), email: "a@b.cd".into(), iat, exp, auth_time: Some(0), epoch: 2 }
    }

    fn check(claims: &Claims, day: u64, expected: Option<u64>) {
        let renewed = renewed(claims, day * DAY);
        assert_eq!(renewed.as_ref().map(|renewed| renewed.exp / DAY), expected, "{claims:?} on day {day}");
        if let Some(renewed) = renewed {
            assert_eq!(renewed, Claims { iat: day * DAY, exp: renewed.exp, ..claims.clone() });
        }
    }

    #[test]
    fn a_session_is_renewed_once_a_day_and_ends_after_a_month() {
        check(&token(0, 7), 0, None);
        check(&token(0, 7), 1, Some(8));
        check(&token(5, 12), 6, Some(13));
        check(&token(22, 29), 23, Some(30));
        check(&token(23, 30), 25, None);
    }

    #[test]
    fn a_token_of_before_sign_ins_had_a_time_counts_from_when_it_was_made() {
        let claims = Claims { auth_time: None, ..token(10, 17) };
        let renewed = renewed(&claims, 12 * DAY).unwrap();
        assert_eq!((renewed.exp, renewed.auth_time), (19 * DAY, Some(10 * DAY)));
    }
}
