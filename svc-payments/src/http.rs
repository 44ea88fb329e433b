//! The routes of svc-payments.

use std::time::{Duration, SystemTime};

use contract::{
    OrderId, UserId,
    http::PaymentStatus,
    stream::{ORDERS, PAYMENTS},
};
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    header,
    http::{HeaderMap, StatusCode},
    path,
    reply::{Response, json, with_status},
};
use web::{ApiError, Body, Seen, Session, Sessions};

use crate::{
    commands::{self, App, Looked},
    domain::Token,
    error::Error,
    webhook::{self, Heard, Secrets},
};

/// How long a read waits for what its caller has written or seen elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// Far more than any event of Stripe's about a payment.
const LONGEST_EVENT: usize = 256 * 1024;

pub(crate) fn routes(app: &App, sessions: &Sessions, webhook: Secrets) -> BoxedFilter<(Response,)> {
    let app = {
        let app = app.clone();
        warp::any().map(move || app.clone())
    };
    let caller = app.clone().and(web::session(sessions)).and(web::seen());
    let signature = header::headers_cloned().map(|headers: HeaderMap| {
        let text = headers.get("stripe-signature").map(|value| value.to_str().map(str::to_owned));
        text.transpose().map_err(|_| ApiError::bad_request("Invalid header"))
    });

    let all = path!("api" / "payments").and(web::route("/api/payments"));
    let one = path!("api" / "payments" / String).and(web::route("/api/payments/:orderId"));
    let back = path!("api" / "payments" / String / "refund").and(web::route("/api/payments/:orderId/refund"));
    let told = path!("api" / "payments" / "webhook").and(web::route("/api/payments/webhook"));

    let pay = all.and(web::post()).and(caller.clone()).and(web::body()).then(pay).map(web::reply);
    let read = one.and(web::get()).and(caller.clone()).then(read).map(web::reply);
    let refund = back.and(web::post()).and(caller).then(refund).map(web::reply);
    let hear = told
        .and(web::post())
        .and(app)
        .and(web::with(webhook))
        .and(signature)
        .and(web::body_up_to(LONGEST_EVENT))
        .then(hear)
        .map(web::reply);

    hear.or(told.and(web::nothing_else())).unify().or(pay).unify().or(read).unify().or(refund).unify().boxed()
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

async fn refund(order: String, app: App, session: Session, seen: Seen) -> Result<Response, Error> {
    let by = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let order = order.parse().map_err(|_| Error::NotFound)?;
    let paid = commands::refund(&app, by, order).await?;
    let status = match paid.payment.status {
        PaymentStatus::Refunded => StatusCode::OK,
        _ => StatusCode::ACCEPTED,
    };
    Ok(web::with_position(with_status(json(&paid.payment), status), PAYMENTS.name, paid.sequence))
}

/// Stripe tells something. Answered with 200 once it stands in the log, or nothing has to: else Stripe tells it again.
async fn hear(
    app: App,
    secrets: Secrets,
    signature: Result<Option<String>, ApiError>,
    body: Body,
) -> Result<Response, Error> {
    let signature = signature?;
    let bytes = body.bytes()?;
    let verified = secrets.verify(signature.as_deref(), bytes, SystemTime::now());
    let (kind, looked) = match verified.and_then(|()| webhook::read(bytes)) {
        Ok(Heard::About(notice)) => (notice.kind, commands::hear(&app, &notice).await.map(Some)),
        Ok(Heard::Other) => ("other", Ok(None)),
        Err(forged) => ("forged", Err(Error::Forged(forged))),
    };
    let outcome = match &looked {
        Ok(Some(Looked::Alike)) => "alike",
        Ok(Some(Looked::Mended)) => "recorded",
        Ok(Some(Looked::Foreign)) => "foreign",
        Ok(Some(Looked::Differs)) => "differs",
        Ok(None) => "ignored",
        Err(Error::Forged(_)) => "refused",
        Err(_) => "failed",
    };
    metrics::counter!("payments_webhooks_total", "type" => kind, "outcome" => outcome).increment(1);
    looked.map(|_| json(&serde_json::json!({ "received": true })).into_response())
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
