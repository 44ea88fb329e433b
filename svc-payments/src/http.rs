//! The routes of svc-payments.

use std::time::Duration;

use contract::{
    OrderId, UserId,
    http::PaymentStatus,
    stream::{ORDERS, PAYMENTS},
};
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
};
use web::{Body, Keys, Seen, Session};

use crate::{
    commands::{self, App},
    domain::Token,
    error::Error,
};

/// How long a read waits for what its caller has written or seen elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes(app: &App, keys: &Keys) -> BoxedFilter<(Response,)> {
    let app = {
        let app = app.clone();
        warp::any().map(move || app.clone())
    };
    let caller = app.and(web::session(keys)).and(web::seen());

    let all = path!("api" / "payments");
    let one = path!("api" / "payments" / String);

    let pay = all.and(warp::post()).and(caller.clone()).and(web::body()).then(pay).map(web::reply);
    let read = one.and(warp::get()).and(caller).then(read).map(web::reply);

    pay.or(read).unify().boxed()
}

async fn pay(app: App, session: Session, seen: Seen, body: Body) -> Result<Response, Error> {
    let by = UserId(session.user()?.id);
    let mut fields = body.fields()?;
    let token = fields.text("token", "Token must be provided", |text| text.parse::<Token>().ok());
    let order = fields.text("orderId", "OrderId must be provided", |text| text.parse::<OrderId>().ok());
    let (token, order) = fields.finish(token.zip(order))?;
    catch_up_with(&app, &seen).await;
    let paid = commands::pay(&app, by, order, &token).await?;
    let status = match paid.payment.status {
        PaymentStatus::Created => StatusCode::CREATED,
        _ => StatusCode::ACCEPTED,
    };
    Ok(web::with_position(with_status(json(&paid.payment), status), PAYMENTS.name, paid.sequence))
}

async fn read(order: String, app: App, session: Session, seen: Seen) -> Result<Response, Error> {
    let reader = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let order = order.parse().map_err(|_| Error::NotFound)?;
    let payment = commands::read(&app, order, reader).await?;
    Ok(json(&payment).into_response())
}

/// Waits for what the caller has written or seen on another replica. In vain is no error: it reads what there is.
async fn catch_up_with(app: &App, seen: &Seen) {
    if let Some(sequence) = seen.at(PAYMENTS.name) {
        let _ = app.payments.view().wait_for(sequence, PATIENCE).await;
    }
    if let Some(sequence) = seen.at(ORDERS.name) {
        let _ = app.orders.wait_for(sequence, PATIENCE).await;
    }
}
