//! The routes of svc-auth.

use std::time::Duration;

use contract::{UserId, http::User, stream::USERS};
use serde_json::json;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
};
use web::{ApiError, Body, Client, Keys, Proxies, Session, SessionCookie};

use crate::{
    commands::{self, App},
    domain::{Email, Password},
    error::Error,
};

/// How long somebody stays signed in. A token cannot be called back before that, short of a new `JWT_KEY`.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Makes sessions.
#[derive(Clone)]
struct Sessions {
    keys: Keys,
    cookie: SessionCookie,
}

pub(crate) fn routes(
    app: &App,
    keys: &Keys,
    cookie: SessionCookie,
    proxies: &Proxies,
) -> BoxedFilter<(Response,)> {
    let state = {
        let (app, sessions) = (app.clone(), Sessions { keys: keys.clone(), cookie });
        warp::any().map(move || (app.clone(), sessions.clone())).untuple_one()
    };
    let asked = state.and(web::client(proxies)).and(web::body());

    let sign_up = path!("api" / "users" / "signup")
        .and(web::route("/api/users/signup"))
        .and(warp::post())
        .and(asked.clone());
    let sign_in = path!("api" / "users" / "signin")
        .and(web::route("/api/users/signin"))
        .and(warp::post())
        .and(asked.clone());
    let sign_out = path!("api" / "users" / "signout").and(web::route("/api/users/signout")).and(warp::post());
    let current = path!("api" / "users" / "currentuser")
        .and(web::route("/api/users/currentuser"))
        .and(warp::get())
        .and(web::session(keys));

    let erase = path!("api" / "users" / "me")
        .and(web::route("/api/users/me"))
        .and(warp::delete())
        .and(asked)
        .and(web::session(keys));

    let sign_up = sign_up.then(self::sign_up).map(web::reply);
    let sign_in = sign_in.then(self::sign_in).map(web::reply);
    let sign_out = sign_out.map(move || self::sign_out(cookie));
    let current = current.map(current_user);
    let erase = erase.then(self::erase).map(web::reply);

    sign_up.or(sign_in).unify().or(sign_out).unify().or(current).unify().or(erase).unify().boxed()
}

async fn sign_up(
    app: App,
    sessions: Sessions,
    Client(client): Client,
    body: Body,
) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password =
        fields.text("password", "Password must be between 8 and 128 characters", Password::parse_new);
    let (email, password) = fields.finish(email.zip(password))?;
    let signed_up = commands::sign_up(&app, client, email, password).await?;
    let reply = sessions.begin(StatusCode::CREATED, &signed_up.user);
    Ok(web::with_position(reply, USERS.name, signed_up.sequence))
}

async fn sign_in(
    app: App,
    sessions: Sessions,
    Client(client): Client,
    body: Body,
) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password = fields.text("password", "You must supply a password", Password::parse);
    let (email, password) = fields.finish(email.zip(password))?;
    let user = commands::sign_in(&app, client, email, password).await?;
    Ok(sessions.begin(StatusCode::OK, &user))
}

fn sign_out(cookie: SessionCookie) -> Response {
    web::with_cookie(json(&json!({})), cookie.expired())
}

async fn erase(
    app: App,
    sessions: Sessions,
    Client(client): Client,
    body: Body,
    session: Session,
) -> Result<Response, Error> {
    let user = session.user()?;
    // What a session was made for is an address: another is none of ours.
    let email = Email::parse(&user.email).ok_or_else(ApiError::not_authorized)?;
    let mut fields = body.fields()?;
    let password = fields.text("password", "You must supply a password", Password::parse);
    let password = fields.finish(password)?;
    let sequence = commands::erase(&app, client, UserId(user.id), email, password).await?;
    let reply = web::with_cookie(StatusCode::NO_CONTENT, sessions.cookie.expired());
    Ok(web::with_position(reply, USERS.name, sequence))
}

fn current_user(session: Session) -> Response {
    json(&json!({ "currentUser": session.0 })).into_response()
}

impl Sessions {
    /// Tells somebody who they are, from now on in each of their requests too.
    fn begin(&self, status: StatusCode, user: &User) -> Response {
        let token = self.keys.sign(user.id.0, &user.email, SESSION);
        web::with_cookie(with_status(json(user), status), self.cookie.holding(&token, SESSION))
    }
}
