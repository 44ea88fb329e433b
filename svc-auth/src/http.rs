//! The routes of svc-auth.

use std::time::Duration;

use contract::{http::User, stream::USERS};
use serde_json::json;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
};
use web::{Body, Keys, Peer, Session, SessionCookie};

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

pub(crate) fn routes(app: &App, keys: &Keys, cookie: SessionCookie) -> BoxedFilter<(Response,)> {
    let state = {
        let (app, sessions) = (app.clone(), Sessions { keys: keys.clone(), cookie });
        warp::any().map(move || (app.clone(), sessions.clone())).untuple_one()
    };
    let asked = state.and(web::peer()).and(web::body());

    let sign_up = path!("api" / "users" / "signup")
        .and(web::route("/api/users/signup"))
        .and(warp::post())
        .and(asked.clone());
    let sign_in =
        path!("api" / "users" / "signin").and(web::route("/api/users/signin")).and(warp::post()).and(asked);
    let sign_out = path!("api" / "users" / "signout").and(web::route("/api/users/signout")).and(warp::post());
    let current = path!("api" / "users" / "currentuser")
        .and(web::route("/api/users/currentuser"))
        .and(warp::get())
        .and(web::session(keys));

    let sign_up = sign_up.then(self::sign_up).map(web::reply);
    let sign_in = sign_in.then(self::sign_in).map(web::reply);
    let sign_out = sign_out.map(move || self::sign_out(cookie));
    let current = current.map(current_user);

    sign_up.or(sign_in).unify().or(sign_out).unify().or(current).unify().boxed()
}

async fn sign_up(app: App, sessions: Sessions, Peer(peer): Peer, body: Body) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password =
        fields.text("password", "Password must be between 8 and 128 characters", Password::parse_new);
    let (email, password) = fields.finish(email.zip(password))?;
    let signed_up = commands::sign_up(&app, peer.ip(), email, password).await?;
    let reply = sessions.begin(StatusCode::CREATED, &signed_up.user);
    Ok(web::with_position(reply, USERS.name, signed_up.sequence))
}

async fn sign_in(app: App, sessions: Sessions, Peer(peer): Peer, body: Body) -> Result<Response, Error> {
    let mut fields = body.fields()?;
    let email = fields.text("email", "Email must be valid", Email::parse);
    let password = fields.text("password", "You must supply a password", Password::parse);
    let (email, password) = fields.finish(email.zip(password))?;
    let user = commands::sign_in(&app, peer.ip(), email, password).await?;
    Ok(sessions.begin(StatusCode::OK, &user))
}

fn sign_out(cookie: SessionCookie) -> Response {
    web::with_cookie(json(&json!({})), cookie.expired())
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
