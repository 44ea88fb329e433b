//! All that can be asked by HTTP, as OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.0>).
//!
//! One table for each service: a line is what a route is asked with, and what it answers. What follows from that by
//! itself stands in `Route::operation`: whoever reads a body may find it too large, whoever appends may meet conflicts.
//! A test of the workspace holds the tables against the routes of the services.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::{
    ToSchema,
    openapi::{
        Array, Components, Content, ExternalDocs, Header, HttpMethod, Info, License, Object, ObjectBuilder,
        OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required, Response, Schema, Tag, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::{AnyOfBuilder, ArrayBuilder, KnownFormat, SchemaFormat},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::{
    OrderEvent, OrderId, TicketId, UserId,
    http::{
        CurrentUser, Done, Erase, Health, HistoryEntry, NewOrder, NewPayment, NewTicket, Order, Payment,
        Problems, Received, Sale, SignIn, SignUp, Ticket, User,
    },
    schema::{self, Schemas},
};

const JSON: &str = "application/json";

const ABOUT: &str = "\
A ticket marketplace: sellers list tickets, buyers reserve one and pay within a window, or lose it.

JSON in and out. Times are RFC 3339 in UTC, ids are UUIDs, prices are dollars. Fields may be added to any \
answer: ignore those that you do not know. What you send beside the fields named here is ignored as well.

An error is `{\"errors\": [{\"message\", \"field\"?}]}`, one entry for each thing wrong; `field` is there \
when a field of the request is. It is judged in this order: signed in, valid, there, yours, possible as \
things stand.

You are signed in by the cookie `session`, or by the same token as `Authorization: Bearer`. A browser's \
page of another origin may change nothing by the cookie.

An answer to a change says in `x-position`, and in a cookie of ten seconds, how far the log is. Bring \
either back, and what you read is at least as new, whichever replica answers.

Lists come in parts: `Link` leads to the next one. GET may be HEAD. `traceparent` or `uber-trace-id` in a \
request makes it a part of your trace; the answer names its trace in `x-trace-id`.";

/// The document.
pub fn openapi() -> OpenApi {
    let mut license = License::new("MIT or Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".into());
    let mut info = Info::new("Ticketing", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.into());
    info.license = Some(license);

    let (mut paths, mut schemas) = (Paths::new(), Schemas::new());
    schema::add::<Problems>(&mut schemas);
    // What an order's history is made of.
    schema::add_parts::<OrderEvent>(&mut schemas);
    for route in [users(), tickets(), orders(), payments(), every_service()].into_iter().flatten() {
        schemas.extend(route.schemas.clone());
        paths.add_path_operation(route.path, vec![route.method.clone()], route.operation());
    }
    let mut components = Components::new();
    components.schemas = schemas;
    components.responses = refusals();
    components.security_schemes = security_schemes();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .tags(Some(tags()))
        .external_docs(Some(external_docs()))
        .build()
}

// --- The routes ---------------------------------------------------------------------------------------------------

fn users() -> Vec<Route> {
    vec![
        post("/api/users/signup", "signUp", "Makes a new account, and signs in to it")
            .takes::<SignUp>()
            .gives::<User>(201, "Who signed up")
            .refuses(400, "A field is wrong, the password is too common, or `Email in use`")
            .refuses(429, "Too many accounts were made from this address")
            .appends()
            .sets_session(),
        post("/api/users/signin", "signIn", "Signs in")
            .takes::<SignIn>()
            .gives::<User>(200, "Who signed in")
            .refuses(400, "A field is wrong, or `Invalid credentials`: which of the two, is not told")
            .refuses(429, "Too many sign-ins failed from this address, or at this account")
            .sets_session(),
        post("/api/users/signout", "signOut", "Signs out here: the cookie ends")
            .gives::<Done>(200, "Signed out, also when nobody was signed in")
            .sets_session(),
        post("/api/users/signout-all", "signOutEverywhere", "Signs out everywhere: all sessions end")
            .signed_in()
            .gives::<Done>(200, "Signed out, wherever that was")
            .appends()
            .sets_session(),
        get("/api/users/currentuser", "currentUser", "Says who is signed in")
            .about("A session that is more than a day old is renewed by this: then a new cookie comes along.")
            .maybe_signed_in()
            .gives::<CurrentUser>(200, "Who asks, or null")
            .sets_session(),
        delete("/api/users/me", "eraseMe", "Erases one's own account, for ever")
            .about("Email address and password are destroyed. Tickets and orders stay, without a name.")
            .signed_in()
            .takes::<Erase>()
            .ends(204, "Erased, and signed out")
            .refuses(400, "`You must supply a password`, or `Invalid credentials`")
            .appends()
            .sets_session(),
    ]
}

fn tickets() -> Vec<Route> {
    vec![
        get("/api/tickets", "listTickets", "Lists tickets, newest first")
            .about("A search may find nothing in one part of the list and something in the next.")
            .with(query("status", "Those that are reserved or sold as well", one_of("all")))
            .with(query("userId", "All of one seller's, whatever their status", Ref::new(of::<UserId>())))
            .with(query("search", "Words that the title has", text().max_length(Some(200))))
            .lists::<Ticket>("Those that can be bought, unless others are asked for")
            .reads_on(),
        post("/api/tickets", "listTicket", "Lists a ticket for sale")
            .signed_in()
            .takes::<NewTicket>()
            .gives::<Ticket>(201, "The ticket, which can be bought")
            .refuses(400, "The title or the price is wrong")
            .appends(),
        get("/api/tickets/events", "watchTickets", "Tells of tickets as they change")
            .streams::<Ticket>(
                "Events called `ticket`, each with a Ticket as it is now. `reload` comes in place of what was too \
                 much at once: then ask for the list again",
            )
            .refuses(429, "Too many listen from this address already"),
        get("/api/tickets/{id}", "readTicket", "Shows a ticket")
            .with(id::<TicketId>("id", "The ticket"))
            .reads_on()
            .gives::<Ticket>(200, "The ticket")
            .refuses_unknown(),
        put("/api/tickets/{id}", "editTicket", "Changes title and price of one's own ticket")
            .with(id::<TicketId>("id", "The ticket"))
            .reads_on()
            .signed_in()
            .takes::<NewTicket>()
            .gives::<Ticket>(200, "The ticket as it is now")
            .refuses(400, "The title or the price is wrong, or `Cannot edit a reserved ticket`")
            .refuses_unknown()
            .appends(),
    ]
}

fn orders() -> Vec<Route> {
    vec![
        get("/api/orders", "listOrders", "Lists one's own orders, oldest first")
            .with(query("order", "Newest first", one_of("newest")))
            .lists::<Order>("The orders")
            .reads_on()
            .signed_in(),
        post("/api/orders", "reserveTicket", "Reserves a ticket")
            .about("Nobody else can buy it until the window is over, or the order is paid or cancelled.")
            .reads_on()
            .signed_in()
            .takes::<NewOrder>()
            .gives::<Order>(201, "The order, which is to be paid until `expiresAt`")
            .refuses(
                400,
                "`TicketId must be provided`, `Ticket is already reserved`, or `You can hold at most 10 reservations \
                 at once` (or another number)",
            )
            .refuses_unknown()
            .appends(),
        get("/api/orders/sales", "listSales", "Lists what others ordered of one's own tickets, newest first")
            .with(query("ticketId", "The five latest of each of these tickets alone, in one part", ticket_ids()))
            .lists::<Sale>("The orders, as their seller sees them")
            .reads_on()
            .signed_in(),
        get("/api/orders/{id}", "readOrder", "Shows one of one's own orders")
            .with(id::<OrderId>("id", "The order"))
            .reads_on()
            .signed_in()
            .gives::<Order>(200, "The order")
            .refuses_unknown(),
        delete("/api/orders/{id}", "cancelOrder", "Cancels an order: its ticket is free again")
            .with(id::<OrderId>("id", "The order"))
            .reads_on()
            .signed_in()
            .ends(204, "Cancelled, now or before")
            .refuses(400, "`Cannot cancel an order that is being paid`, or `… that is paid`")
            .refuses_unknown()
            .appends(),
        get("/api/orders/{id}/history", "readOrderHistory", "Shows an order's events, oldest first")
            .with(id::<OrderId>("id", "The order"))
            .reads_on()
            .signed_in()
            .gives_all::<HistoryEntry>("Its events, as the log has them")
            .refuses_unknown(),
        get("/api/orders/{id}/events", "watchOrder", "Tells of an order as it changes")
            .with(id::<OrderId>("id", "The order"))
            .reads_on()
            .signed_in()
            .streams::<Order>("Events called `order`, each with an Order: first as it is now, then whenever that changes")
            .refuses_unknown(),
    ]
}

fn payments() -> Vec<Route> {
    vec![
        post("/api/payments", "pay", "Pays for an order")
            .about("Asked again, it is the same payment: nobody pays twice.")
            .reads_on()
            .signed_in()
            .takes::<NewPayment>()
            .gives::<Payment>(201, "The card was charged")
            .gives::<Payment>(
                202,
                "It is under way: Stripe has not answered, or the buyer's bank wants to hear from the buyer first, and \
                 then `clientSecret` is there for Stripe.js",
            )
            .refuses(400, "A field is wrong, or `Cannot pay for a cancelled order`")
            .refuses(402, "The card was declined. Another may be tried")
            .refuses_unknown()
            .appends(),
        get("/api/payments/{orderId}", "readPayment", "Shows how the payment for an order stands")
            .with(id::<OrderId>("orderId", "The order"))
            .reads_on()
            .signed_in()
            .gives::<Payment>(200, "The last try to pay for it")
            .refuses_unknown(),
        post("/api/payments/{orderId}/refund", "refund", "Gives the buyer of one's own ticket the money back")
            .about("The order is cancelled then, and the ticket is for sale again.")
            .with(id::<OrderId>("orderId", "The order"))
            .reads_on()
            .signed_in()
            .gives::<Payment>(200, "The money went back, now or before")
            .gives::<Payment>(202, "The money is to go back, and Stripe has not answered")
            .refuses(400, "`Cannot refund an order that is not paid`, or Stripe does not refund it")
            .refuses_unknown()
            .appends(),
        post("/api/payments/webhook", "hearStripe", "Takes an event of Stripe's")
            .about("Believed by its signature alone, and then only as a reason to ask Stripe.")
            .with(signature())
            .takes_any("An event of Stripe's, up to 256 KiB")
            .gives::<Received>(200, "Taken, or nothing to us")
            .refuses(400, "The signature is missing, too old or wrong, or it is no event")
            .refuses(413, "The body is over 256 KiB")
            // No position: it is nothing to Stripe.
            .refuses_conflicts(),
    ]
}

fn every_service() -> Vec<Route> {
    vec![
        get("/healthz", "isAlive", "Says that the service lives")
            .probe()
            .gives::<Health>(200, "It answers, so it lives"),
        get("/readyz", "isReady", "Says whether the service has caught up and is connected")
            .probe()
            .gives::<Health>(200, "It is ready")
            .gives::<Health>(503, "It is not ready, and why"),
        get("/metrics", "metrics", "Shows what is counted, for Prometheus")
            .probe()
            .gives_text(200, "The metrics"),
    ]
}

fn tags() -> Vec<Tag> {
    let about = [
        ("users", "Who people are: svc-auth"),
        ("tickets", "What is for sale: svc-tickets"),
        ("orders", "Who has reserved what: svc-orders"),
        ("payments", "What was paid, and what went back: svc-payments"),
        ("every service", "For operators. Not to be had from outside"),
    ];
    let tag = |(name, about): (&str, &str)| {
        let mut tag = Tag::new(name);
        tag.description = Some(about.into());
        tag
    };
    about.map(tag).into()
}

fn external_docs() -> ExternalDocs {
    let mut page = ExternalDocs::new("/api/docs");
    page.description = Some("A page to read it, with the events".into());
    page
}

// --- What a line of the tables says -------------------------------------------------------------------------------

/// Whether one has to be signed in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    Ignored,
    Looked,
    Needed,
}

/// What may be in a request's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Nothing,
    Json,
    Any,
}

/// A route with one of its methods.
struct Route {
    method: HttpMethod,
    path: &'static str,
    operation: Operation,
    session: Session,
    body: Body,
    appends: bool,
    sets_session: bool,
    is_probe: bool,
    answers: BTreeMap<u16, Response>,
    refusals: BTreeMap<u16, Option<&'static str>>,
    schemas: Schemas,
}

fn get(path: &'static str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Get, path, id, summary)
}

fn post(path: &'static str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Post, path, id, summary)
}

fn put(path: &'static str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Put, path, id, summary)
}

fn delete(path: &'static str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Delete, path, id, summary)
}

impl Route {
    fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        let mut operation = Operation::new();
        operation.operation_id = Some(id.into());
        operation.summary = Some(summary.into());
        let service = path.strip_prefix("/api/").and_then(|path| path.split('/').next());
        operation.tags = Some(vec![service.unwrap_or("every service").into()]);
        Self {
            method,
            path,
            operation,
            session: Session::Ignored,
            body: Body::Nothing,
            appends: false,
            sets_session: false,
            is_probe: false,
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
            schemas: Schemas::new(),
        }
    }

    fn about(mut self, text: &str) -> Self {
        self.operation.description = Some(text.into());
        self
    }

    fn with(mut self, parameter: impl Into<Parameter>) -> Self {
        self.operation.parameters.get_or_insert_default().push(parameter.into());
        self
    }

    /// A read that reflects what the caller has seen.
    fn reads_on(self) -> Self {
        self.with(
            ParameterBuilder::new()
                .name("x-position")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("How far you have seen, as an answer said. What is no position is ignored"))
                .schema(Some(text())),
        )
    }

    fn signed_in(mut self) -> Self {
        self.session = Session::Needed;
        self
    }

    fn maybe_signed_in(mut self) -> Self {
        self.session = Session::Looked;
        self
    }

    fn takes<T: ToSchema>(mut self) -> Self {
        schema::add::<T>(&mut self.schemas);
        self.body = Body::Json;
        self.operation.request_body = Some(request(JSON, Ref::new(of::<T>())).build());
        self
    }

    fn takes_any(mut self, what: &str) -> Self {
        self.body = Body::Any;
        let anything = Object::builder().schema_type(Type::Object).build();
        self.operation.request_body = Some(request(JSON, anything).description(Some(what)).build());
        self
    }

    fn gives<T: ToSchema>(mut self, status: u16, what: &str) -> Self {
        schema::add::<T>(&mut self.schemas);
        self.answer(status, what, JSON, Ref::new(of::<T>()))
    }

    fn gives_all<T: ToSchema>(mut self, what: &str) -> Self {
        schema::add::<T>(&mut self.schemas);
        self.answer(200, what, JSON, Array::new(Ref::new(of::<T>())))
    }

    /// A list in parts.
    fn lists<T: ToSchema>(self, what: &str) -> Self {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(1000))
            .default(Some(json!(100)));
        let cursor = text().pattern(Some("^[0-9a-fA-F]{32}$"));
        let mut route = self
            .with(query("limit", "How many at most", limit))
            .with(query("cursor", "Where the part begins: it stands in the Link to it", cursor))
            .gives_all::<T>(what)
            .refuses(400, "A parameter is wrong");
        let link = header("The next part, `<…>; rel=\"next\"`; absent at the end", text());
        if let Some(answer) = route.answers.get_mut(&200) {
            answer.headers.insert("Link".into(), link);
        }
        route
    }

    fn streams<T: ToSchema>(mut self, what: &str) -> Self {
        schema::add::<T>(&mut self.schemas);
        self.answer(200, what, "text/event-stream", text().build())
    }

    fn gives_text(self, status: u16, what: &str) -> Self {
        self.answer(status, what, "text/plain", text().build())
    }

    fn ends(mut self, status: u16, what: &str) -> Self {
        self.answers.insert(status, described(what));
        self
    }

    fn answer(mut self, status: u16, what: &str, media_type: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let mut answer = described(what);
        answer.content.insert(media_type.into(), Content::new(Some(schema)));
        self.answers.insert(status, answer);
        self
    }

    fn refuses(mut self, status: u16, why: &'static str) -> Self {
        self.refusals.insert(status, Some(why));
        self
    }

    fn refuses_unknown(mut self) -> Self {
        self.refusals.insert(404, None);
        self
    }

    fn refuses_conflicts(mut self) -> Self {
        self.refusals.insert(409, None);
        self
    }

    /// And says where, for reads to come.
    fn appends(mut self) -> Self {
        self.appends = true;
        self.refuses_conflicts()
    }

    /// Begins, renews or ends the session.
    fn sets_session(mut self) -> Self {
        self.sets_session = true;
        self
    }

    /// Served before anything else, also while the service starts.
    fn probe(mut self) -> Self {
        self.is_probe = true;
        self
    }

    /// With all that follows from what was said.
    fn operation(mut self) -> Operation {
        // Before any route is looked for.
        self.may(&[400, 414, 431]);
        if self.is_probe {
            // Asked all the time, and traced never.
            self.answers.values_mut().for_each(|answer| answer.headers.clear());
        } else {
            self.may(&[500, 503]);
        }
        if self.method != HttpMethod::Get {
            self.refusals.entry(401).or_insert(Some("A page of another origin asks, by the cookie"));
        }
        if self.session == Session::Needed {
            self.refusals.insert(401, None);
            self.may(&[429]);
        }
        match self.body {
            Body::Nothing => {}
            Body::Json => self.may(&[408, 413, 415]),
            Body::Any => self.may(&[408, 413]),
        }
        let with = |name: &str| [SecurityRequirement::new::<_, [&str; 0], &str>(name, [])];
        let signed_in = with("session").into_iter().chain(with("bearer"));
        self.operation.security = match self.session {
            Session::Ignored => None,
            Session::Looked => Some([SecurityRequirement::default()].into_iter().chain(signed_in).collect()),
            Session::Needed => Some(signed_in.collect()),
        };
        for answer in self.answers.values_mut().filter(|_| self.appends || self.sets_session) {
            let what = match (self.sets_session, self.appends) {
                (true, true) => "`session` and, for ten seconds, `position_<stream>`",
                (true, false) => "`session`",
                (false, _) => "`position_<stream>`, for ten seconds",
            };
            answer.headers.insert("Set-Cookie".into(), header(what, text()));
        }
        for answer in self.answers.values_mut().filter(|_| self.appends) {
            answer.headers.insert("x-position".into(), position());
        }
        let responses = &mut self.operation.responses.responses;
        for (status, why) in self.refusals {
            let mut refusal = Ref::from_response_name(status.to_string());
            refusal.description = why.unwrap_or_default().into();
            responses.insert(status.to_string(), refusal.into());
        }
        for (status, answer) in self.answers {
            responses.insert(status.to_string(), answer.into());
        }
        self.operation
    }

    fn may(&mut self, refusals: &[u16]) {
        for status in refusals {
            self.refusals.entry(*status).or_insert(None);
        }
    }
}

// --- What is said alike in many places ----------------------------------------------------------------------------

/// Each answer that is no success, unless a route knows better what it means there.
fn refusals() -> BTreeMap<String, RefOr<Response>> {
    let refusals = [
        (400, "The request cannot be read"),
        (401, "Signed out, or it is somebody else's, or a page of another origin asks by the cookie"),
        (402, "The card was declined"),
        (404, "There is no such thing"),
        (408, "The body did not arrive within ten seconds"),
        (409, "Others changed the same thing again and again. Try again"),
        (413, "The body is too large: over 16 KiB"),
        (414, "The address is too long: over 8 KiB"),
        (415, "The body is not `application/json`"),
        (429, "Too many requests. Try again after so many seconds"),
        (431, "The headers are too large. There is no body, and the connection ends"),
        (500, "Something went wrong here"),
        (
            503,
            "Not now: the service starts, or its log is away. Nothing was done, or it will be the same if asked again",
        ),
    ];
    let refusal = |(status, what): (u16, &str)| -> (String, RefOr<Response>) {
        // Before there is a request to answer.
        if status == 431 {
            return (status.to_string(), Response::new(what).into());
        }
        let mut refusal = described(what);
        refusal.content.insert(JSON.into(), Content::new(Some(Ref::new(of::<Problems>()))));
        if [429, 503].contains(&status) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
            refusal.headers.insert("Retry-After".into(), header("In how many seconds to try again", seconds));
        }
        (status.to_string(), refusal.into())
    };
    refusals.into_iter().map(refusal).collect()
}

fn security_schemes() -> BTreeMap<String, SecurityScheme> {
    let session = ApiKeyValue::with_description("session", "Set by signing in. Out of reach for scripts");
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    let bearer = bearer.description(Some("The token of that cookie"));
    BTreeMap::from([
        ("session".into(), SecurityScheme::ApiKey(ApiKey::Cookie(session))),
        ("bearer".into(), SecurityScheme::Http(bearer.build())),
    ])
}

/// An answer that says which trace it is of.
fn described(what: &str) -> Response {
    let mut answer = Response::new(what);
    let trace = header("The trace that the request was a part of", text().pattern(Some("^[0-9a-f]{32}$")));
    answer.headers.insert("x-trace-id".into(), trace);
    answer
}

fn position() -> Header {
    let what = "How far the answer reaches, as `ORDERS=12`. A read that brings it back reflects it";
    header(what, text().pattern(Some("^[A-Z]+=[0-9]+$")))
}

fn header(what: &str, schema: ObjectBuilder) -> Header {
    let mut header = Header::new(schema.build());
    header.description = Some(what.into());
    header
}

fn request(media_type: &str, schema: impl Into<RefOr<Schema>>) -> RequestBodyBuilder {
    RequestBody::builder().required(Some(Required::True)).content(media_type, Content::new(Some(schema)))
}

fn id<T: ToSchema>(name: &str, what: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(what))
        .schema(Some(Ref::new(of::<T>())))
}

fn query(name: &str, what: &str, schema: impl Into<RefOr<Schema>>) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(schema))
}

/// What Stripe proves itself by.
fn signature() -> ParameterBuilder {
    ParameterBuilder::new()
        .name("Stripe-Signature")
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some("`t=<Unix seconds>,v1=<hex>`, with the webhook's secret"))
        .schema(Some(text()))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn one_of(word: &str) -> ObjectBuilder {
    text().enum_values(Some([word]))
}

fn ticket_ids() -> ArrayBuilder {
    let id = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    ArrayBuilder::new().items(id).max_items(Some(100))
}

/// The data of any event of an order.
pub(crate) fn order_data() -> Schema {
    let names = ["OrderCreated", "OrderAwaitingPayment", "OrderCancelled", "OrderCompleted"];
    let any = AnyOfBuilder::new().description(Some("Its data, as in the log."));
    names.into_iter().map(Ref::from_schema_name).fold(any, AnyOfBuilder::item).into()
}

/// Where the document has the schema of `T`.
fn of<T: ToSchema>() -> String {
    format!("#/components/schemas/{}", T::name())
}
