//! What can be asked by HTTP and what the services tell each other, for people: the contract's two documents as a page.

use std::sync::LazyLock;

use contract::{
    asyncapi::{asyncapi, event_types},
    openapi::openapi,
    stream::{ALL, LISTENERS, Stream},
};
use maud::{Markup, html};
use serde_json::{Map, Value};

/// The same for everybody.
static PAGE: LazyLock<Markup> = LazyLock::new(|| Documents::read().page());
static OPENAPI: LazyLock<String> =
    LazyLock::new(|| serde_json::to_string_pretty(&openapi()).expect("text and numbers always serialise"));

const SCHEMAS: &str = "#/components/schemas/";
const RESPONSES: &str = "#/components/responses/";
/// In the order in which they are shown.
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

pub(crate) fn page() -> Markup {
    PAGE.clone()
}

/// The document of the routes, for programs.
pub(crate) fn for_programs() -> &'static str {
    &OPENAPI
}

struct Documents {
    /// Path, method and operation, in the document's own order.
    routes: Vec<(String, &'static str, Value)>,
    http: Value,
    events: Value,
    /// Of both.
    schemas: Map<String, Value>,
}

impl Documents {
    fn read() -> Self {
        let document = openapi();
        let (http, events) = (serde_json::to_value(&document).unwrap_or_default(), asyncapi());
        let routes = document.paths.paths.keys().flat_map(|path| {
            let item = &http["paths"][path];
            METHODS.iter().filter_map(move |method| Some((path.clone(), *method, item.get(method)?.clone())))
        });
        let all =
            [&events, &http].into_iter().filter_map(|document| document["components"]["schemas"].as_object());
        let schemas = all.flatten().map(|(name, schema)| (name.clone(), schema.clone())).collect();
        Self { routes: routes.collect(), http, events, schemas }
    }

    fn page(&self) -> Markup {
        let tags = self.http["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        html! {
            div.docs {
                h1 { "The API" }
                @for paragraph in said(&self.http["info"], "description").split("\n\n") { p { (prose(paragraph)) } }
                p {
                    "For programs: "
                    a href="/api/docs/openapi.json" { "the routes as OpenAPI 3.1" }
                    ". The events are printed as AsyncAPI 3.0 by " code { "ticketing schema asyncapi" } "."
                }
                nav aria-label="On this page" {
                    ul.contents {
                        @for tag in tags { li { a href={ "#tag-" (slug(said(tag, "name"))) } { (capital(said(tag, "name"))) } } }
                        li { a href="#answers" { "Answers alike everywhere" } }
                        li { a href="#events" { "Events" } }
                        li { a href="#schemas" { "What bodies and events hold" } }
                    }
                }
                @for tag in tags { (self.tag(tag)) }
                (self.refusals())
                (self.streams())
                (self.all_schemas())
            }
        }
    }

    // --- Routes ---------------------------------------------------------------------------------------------------

    fn tag(&self, tag: &Value) -> Markup {
        let name = said(tag, "name");
        let id = format!("tag-{}", slug(name));
        html! {
            section aria-labelledby=(id) {
                h2 #(id) { (capital(name)) }
                p { (prose(said(tag, "description"))) "." }
                @for (path, method, operation) in &self.routes {
                    @if operation["tags"][0] == name { (self.operation(path, method, operation)) }
                }
            }
        }
    }

    fn operation(&self, path: &str, method: &str, operation: &Value) -> Markup {
        let id = format!("op-{}", said(operation, "operationId"));
        let route = format!("{} {path}", method.to_uppercase());
        let needs_session = operation["security"]
            .as_array()
            .is_some_and(|ways| ways.iter().all(|way| way != &Value::Object(Map::new())));
        html! {
            article.panel aria-labelledby=(id) {
                h3 #(id) { span.method { (method.to_uppercase()) } " " code { (path) } }
                p { (prose(said(operation, "summary"))) "." @if let Some(about) = operation["description"].as_str() { " " (prose(about)) } }
                @if needs_session { p { "For those who are signed in." } }
                (self.takes(&route, operation))
                (self.answers(&route, operation))
            }
        }
    }

    fn takes(&self, route: &str, operation: &Value) -> Markup {
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let body = &operation["requestBody"];
        let content = content(body);
        let fields = content.map(|(_, schema)| self.fields(schema)).unwrap_or_default();
        html! {
            @if !parameters.is_empty() || content.is_some() {
                table.rows {
                    caption.visually-hidden { "What " (route) " takes" }
                    thead { tr { th scope="col" { "Takes" } th scope="col" { "Where" } th scope="col" { "What" } th scope="col" { "Meaning" } } }
                    tbody {
                        @for parameter in parameters {
                            tr {
                                th scope="row" { code { (said(parameter, "name")) } }
                                td data-label="Where" { (said(parameter, "in")) }
                                td data-label="What" { (kind(&parameter["schema"])) @if parameter["required"] != true { ", if at all" } }
                                td data-label="Meaning" { (prose(said(parameter, "description"))) "." }
                            }
                        }
                        @for field in &fields { (field.row(Some("body"))) }
                        @if let (Some((media_type, _)), true) = (content, fields.is_empty()) {
                            tr {
                                th scope="row" { "The body" }
                                td data-label="Where" { "body" }
                                td data-label="What" { (media_type) }
                                td data-label="Meaning" { (prose(said(body, "description"))) "." }
                            }
                        }
                    }
                }
            }
        }
    }

    fn answers(&self, route: &str, operation: &Value) -> Markup {
        let all = operation["responses"].as_object().cloned().unwrap_or_default();
        // What is said of them for all routes is not said again.
        let (own, alike): (Vec<_>, Vec<_>) =
            all.iter().partition(|(_, answer)| answer["description"].is_string());
        html! {
            table.rows {
                caption.visually-hidden { "What " (route) " answers" }
                thead { tr { th scope="col" { "Answers" } th scope="col" { "What" } th scope="col" { "Meaning" } } }
                tbody {
                    @for (status, answer) in own { (self.answer(status, answer)) }
                }
            }
            @if !alike.is_empty() {
                p.hint {
                    "As everywhere: "
                    @for (number, (status, _)) in alike.iter().enumerate() {
                        @if number > 0 { ", " }
                        a href={ "#answer-" (status) } { (status) }
                    }
                    "."
                }
            }
        }
    }

    fn answer(&self, status: &str, answer: &Value) -> Markup {
        let shared = answer["$ref"].as_str().and_then(|to| to.strip_prefix(RESPONSES));
        let full = shared.map_or(answer, |name| &self.http["components"]["responses"][name]);
        let headers = full["headers"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        // Which every answer has.
        let headers: Vec<&str> = headers.filter(|name| *name != "x-trace-id").collect();
        html! {
            tr {
                th scope="row" { code { (status) } }
                td data-label="What" {
                    @match content(full) {
                        Some((media_type, _)) if media_type != "application/json" => code { (media_type) },
                        Some((_, schema)) => (kind(schema)),
                        None => "nothing",
                    }
                }
                td data-label="Meaning" {
                    (prose(said(answer, "description"))) "."
                    @for (number, name) in headers.iter().enumerate() { @if number == 0 { " With " } @else { ", " } code { (name) } }
                    @if !headers.is_empty() { "." }
                }
            }
        }
    }

    fn refusals(&self) -> Markup {
        html! {
            section aria-labelledby="answers" {
                h2 #answers { "Answers alike everywhere" }
                table.rows {
                    caption.visually-hidden { "Answers alike everywhere" }
                    thead { tr { th scope="col" { "Answer" } th scope="col" { "What" } th scope="col" { "Meaning" } } }
                    @for (status, answer) in self.http["components"]["responses"].as_object().into_iter().flatten() {
                        tbody #{ "answer-" (status) } { (self.answer(status, answer)) }
                    }
                }
            }
        }
    }

    // --- Events ---------------------------------------------------------------------------------------------------

    fn streams(&self) -> Markup {
        html! {
            section aria-labelledby="events" {
                h2 #events { "Events" }
                @for paragraph in said(&self.events["info"], "description").split("\n\n") { p { (prose(paragraph)) } }
                @for stream in ALL { (self.stream(stream)) }
                article.panel aria-labelledby="around" {
                    h3 #around { "What is around the data" }
                    (self.table("Envelope"))
                    p { "And in the headers:" }
                    (self.table("EventHeaders"))
                }
            }
        }
    }

    fn stream(&self, stream: Stream) -> Markup {
        let channel = &self.events["channels"][stream.name];
        let messages = event_types().into_iter().filter_map(|event_type| {
            let name = event_type.replace([':', '/'], "-");
            channel["messages"].get(&name)?;
            Some((event_type, &self.events["components"]["messages"][name]))
        });
        let id = format!("stream-{}", stream.name);
        let listen = |listens: fn(&contract::stream::Listener) -> &'static [Stream]| {
            let all = LISTENERS.iter().filter(|listener| listens(listener).contains(&stream));
            all.map(|listener| listener.service).collect::<Vec<_>>().join(", ")
        };
        let (act, read) = (listen(|listener| listener.reacts), listen(|listener| listener.reads));
        html! {
            article.panel aria-labelledby=(id) {
                h3 #(id) { (stream.name) }
                p { code { (said(channel, "address")) } " " (prose(said(channel, "description"))) }
                dl.facts {
                    div { dt { "Written by" } dd { (stream.source) } }
                    @if !act.is_empty() { div { dt { "Acted on by" } dd { (act) } } }
                    @if !read.is_empty() { div { dt { "Read by" } dd { (read) } } }
                }
                @for (event_type, message) in messages {
                    h4 #{ "event-" (slug(&event_type)) } { code { (event_type) } }
                    p { (prose(said(message, "summary"))) }
                    @if let Some(data) = message["payload"]["allOf"][0]["$ref"].as_str().and_then(|to| to.strip_prefix(SCHEMAS)) {
                        (self.table_of(data, &event_type))
                    }
                }
            }
        }
    }

    // --- Schemas --------------------------------------------------------------------------------------------------

    fn all_schemas(&self) -> Markup {
        html! {
            section aria-labelledby="schemas" {
                h2 #schemas { "What bodies and events hold" }
                @for (name, schema) in &self.schemas {
                    // Told with the events.
                    @if !["Envelope", "EventHeaders"].contains(&name.as_str()) {
                        article.panel #{ "schema-" (name) } aria-labelledby={ "name-" (name) } {
                            h3 #{ "name-" (name) } { (name) }
                            p { (prose(said(schema, "description"))) }
                            @if schema["properties"].is_object() { (self.table(name)) } @else { p { (kind(schema)) } }
                        }
                    }
                }
            }
        }
    }

    fn table(&self, name: &str) -> Markup {
        self.table_of(name, name)
    }

    fn table_of(&self, name: &str, of: &str) -> Markup {
        let Some(schema) = self.schemas.get(name) else { return html! {} };
        html! {
            table.rows {
                caption.visually-hidden { "What " (of) " holds" }
                thead { tr { th scope="col" { "Field" } th scope="col" { "What" } th scope="col" { "Meaning" } } }
                tbody { @for field in self.fields(schema) { (field.row(None)) } }
            }
        }
    }

    /// The fields of an object: those that are always there first, as they were declared.
    fn fields<'a>(&'a self, schema: &'a Value) -> Vec<Field<'a>> {
        let name = schema["$ref"].as_str().and_then(|to| to.strip_prefix(SCHEMAS));
        let schema = name.and_then(|name| self.schemas.get(name)).unwrap_or(schema);
        let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let required: Vec<&str> = required.collect();
        let optional = properties.keys().map(String::as_str).filter(|name| !required.contains(name));
        let field =
            |name: &'a str, is_required| Some(Field { name, schema: properties.get(name)?, is_required });
        let always = required.iter().filter_map(|name| field(name, true));
        always.chain(optional.filter_map(|name| field(name, false))).collect()
    }
}

/// A field of an object.
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
    is_required: bool,
}

impl Field<'_> {
    /// `place` is where it is, in a table of several places.
    fn row(&self, place: Option<&str>) -> Markup {
        html! {
            tr {
                th scope="row" { code { (self.name) } }
                @if let Some(place) = place { td data-label="Where" { (place) } }
                td data-label="What" { (kind(self.schema)) @if !self.is_required { ", if at all" } }
                td data-label="Meaning" { (prose(meaning(self.schema))) }
            }
        }
    }
}

/// What is said of a field, which may stand with its kind where there are several.
fn meaning(schema: &Value) -> &str {
    let several = schema["oneOf"].as_array().into_iter().flatten();
    let all = std::iter::once(schema).chain(several);
    all.map(|schema| said(schema, "description")).find(|text| !text.is_empty()).unwrap_or_default()
}

/// What a value is, in words.
fn kind(schema: &Value) -> Markup {
    let several = ["oneOf", "anyOf"].into_iter().find_map(|word| schema[word].as_array());
    let name = schema["$ref"].as_str().and_then(|to| to.strip_prefix(SCHEMAS));
    html! {
        @if let Some(name) = name {
            a href={ "#schema-" (name) } { (name) }
        } @else if let Some(several) = several {
            @for (number, one) in several.iter().enumerate() { @if number > 0 { " or " } (kind(one)) }
        } @else if let Some(words) = schema["enum"].as_array() {
            @for (number, word) in words.iter().enumerate() { @if number > 0 { " or " } code { (word.as_str().unwrap_or_default()) } }
        } @else if let Some(word) = schema["const"].as_str() {
            code { (word) }
        } @else if schema["type"] == "array" {
            "list of " (kind(&schema["items"]))
        } @else {
            (schema["type"].as_str().unwrap_or("anything"))
            @if let Some(format) = schema["format"].as_str() { " (" (format) ")" }
        }
        (limits(schema))
    }
}

/// What a value has to be beside that.
fn limits(schema: &Value) -> Markup {
    html! {
        (range(&schema["minLength"], &schema["maxLength"], " characters"))
        (range(&schema["minimum"], &schema["maximum"], ""))
        (range(&schema["minItems"], &schema["maxItems"], " of them"))
        @if let Some(least) = schema["exclusiveMinimum"].as_f64() { ", over " (least) }
        @if let Some(step) = schema["multipleOf"].as_f64() { ", in steps of " (step) }
        @if !schema["default"].is_null() { ", else " (schema["default"]) }
        @if let Some(pattern) = schema["pattern"].as_str() { ", as " code { (pattern) } }
    }
}

fn range(least: &Value, most: &Value, unit: &str) -> Markup {
    // That a count is not negative goes without saying.
    let (least, most) = (least.as_f64().filter(|least| *least > 0.0), most.as_f64());
    html! {
        @match (least, most) {
            (Some(least), Some(most)) => { ", " (least) " to " (most) (unit) }
            (None, Some(most)) => { ", up to " (most) (unit) }
            (Some(1.0), None) if !unit.is_empty() => ", not empty",
            (Some(least), None) => { ", from " (least) (unit) }
            (None, None) => {}
        }
    }
}

/// The one media type of a body, and what is in it.
fn content(body: &Value) -> Option<(&str, &Value)> {
    let (media_type, content) = body["content"].as_object()?.iter().next()?;
    Some((media_type.as_str(), &content["schema"]))
}

fn said<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Text in which what stands in backticks is code.
fn prose(text: &str) -> Markup {
    html! {
        @for (number, part) in text.split('`').enumerate() {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn slug(text: &str) -> String {
    text.replace([' ', ':', '/'], "-")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn html() -> String {
        page().into_string()
    }

    /// The values of an attribute, in the order in which they stand.
    fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
        let start = format!(" {attribute}=\"");
        let pieces = html.split(&start).skip(1);
        pieces.filter_map(|piece| piece.split('"').next()).collect()
    }

    #[test]
    fn every_route_and_every_event_is_on_the_page() {
        let html = html();
        let ids: BTreeSet<&str> = values(&html, "id").into_iter().collect();
        for (_, _, operation) in Documents::read().routes {
            assert!(ids.contains(format!("op-{}", said(&operation, "operationId")).as_str()), "{operation}");
        }
        for event_type in event_types() {
            assert!(ids.contains(format!("event-{}", slug(&event_type)).as_str()), "{event_type}");
        }
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere_and_no_two_places_are_called_alike() {
        let html = html();
        let ids = values(&html, "id");
        let places: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(places.len(), ids.len());
        let links = values(&html, "href").into_iter().filter_map(|link| link.strip_prefix('#'));
        let lost: BTreeSet<&str> = links.filter(|link| !places.contains(link)).collect();
        assert_eq!(lost, BTreeSet::new());
    }

    #[test]
    fn what_is_said_in_backticks_is_code_and_all_of_it_is_text() {
        assert_eq!(prose("a `<b>` & c").into_string(), "a <code>&lt;b&gt;</code> &amp; c");
        let html = html();
        assert!(!html.contains('`'), "{:?}", html.split('`').nth(1));
    }

    #[test]
    fn the_document_for_programs_is_the_contracts() {
        let document: Value = serde_json::from_str(for_programs()).unwrap();
        assert_eq!(document, serde_json::to_value(openapi()).unwrap());
    }
}
