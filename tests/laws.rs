//! The laws of the house, read off its source: who may depend on whom, what a domain may name, which rooms a service
//! has, and that what `docs/reference.md` says can be asked for, set and measured is what the code serves, reads and
//! counts; and that whatever the pages for people name or lead to is there.
//!
//! A law judges code: comments and `#[cfg(test)]` parts are left out. Each has a test that it catches its breach.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

#[test]
fn a_domain_is_pure() {
    let domains = services().into_iter().map(|service| File::read(&format!("{service}/src/domain.rs")));
    hold(domains.flat_map(|file| impurities(&file)));
}

#[test]
fn dependencies_point_to_the_libs() {
    hold(misdirected(&packages()));
}

#[test]
fn the_event_store_and_the_plumbing_know_no_business_noun() {
    let files = ["libs/eventstore/src", "libs/web/src", "libs/telemetry/src"].into_iter().flat_map(files_in);
    hold(files.flat_map(|file| nouns(&file)));
}

#[test]
fn every_service_has_the_same_rooms() {
    for service in services() {
        let rooms = files_in(&format!("{service}/src"));
        hold(misplaced(&service, &rooms));
    }
}

#[test]
fn only_config_and_main_read_the_environment() {
    let places = services().into_iter().chain(["client".to_owned()]);
    hold(places.flat_map(|place| files_in(&format!("{place}/src"))).flat_map(|file| peeks(&file)));
}

#[test]
fn on_a_page_everything_is_text() {
    hold(files_in("client/src").iter().flat_map(markup));
}

#[test]
fn every_variable_is_in_the_reference_and_read_somewhere() {
    let read: BTreeSet<String> = program().iter().flat_map(|file| variables(&file.code)).collect();
    hold(difference("variable", &read, &table(&reference(), "Configuration")));
}

#[test]
fn every_metric_is_in_the_reference_and_measured_somewhere() {
    let (names, nameless): (Vec<_>, Vec<_>) = program().iter().flat_map(metrics).partition(Result::is_ok);
    hold(nameless.into_iter().filter_map(Result::err));
    let measured = names.into_iter().flatten().collect();
    hold(difference("metric", &measured, &table(&reference(), "Metrics")));
}

#[test]
fn every_route_is_in_the_reference_and_served_somewhere() {
    let told = table(&reference(), "Routes").iter().map(|route| unnamed(route)).collect();
    hold(difference("route", &served(), &told));
}

#[test]
fn what_the_pages_lead_to_is_there() {
    let read = |path: &String| fs::read_to_string(root().join(path)).expect("a page is there");
    hold(pages().iter().flat_map(|path| dead_ends(path, &read(path))));
}

#[test]
fn every_route_is_in_the_document_and_served_somewhere() {
    let document = serde_json::to_value(contract::openapi::openapi()).expect("a document is JSON");
    let paths = document["paths"].as_object().expect("a document has paths").iter();
    let told: BTreeSet<String> = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("a path has methods").keys();
            methods
                .map(move |method| unnamed(&format!("{} {}", method.to_uppercase(), path.replace('{', ":"))))
        })
        .collect();
    let served = served();
    let untold =
        served.difference(&told).map(|route| format!("{route}: it is served, and not in the document"));
    let unserved =
        told.difference(&served).map(|route| format!("{route}: it is in the document, and not served"));
    hold(untold.chain(unserved));
}

/// All routes of the services, `GET /api/things/:`.
fn served() -> BTreeSet<String> {
    let files = services().into_iter().flat_map(|service| files_in(&format!("{service}/src")));
    let (routes, unclear): (Vec<_>, Vec<_>) = files.flat_map(|file| routes(&file)).partition(Result::is_ok);
    hold(unclear.into_iter().filter_map(Result::err));
    let of_every_service = system_routes(&File::read("libs/web/src/service.rs"));
    routes.into_iter().flatten().chain(of_every_service).collect()
}

/// Fails with all that is wrong at once.
fn hold(breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

// --- What a domain may name ---------------------------------------------------------------------------------------

/// Words that a domain does not name, and what each would make of it.
const IMPURE: [(&str, &[&str]); 5] = [
    ("waits", &["async", "await", "tokio", "tokio_util", "futures"]),
    ("knows HTTP", &["warp", "web", "http", "reqwest", "stripe", "stripe_core"]),
    ("knows the log", &["sled", "async_nats", "eventstore"]),
    ("reads a clock", &["SystemTime", "Instant", "now_utc", "now_local", "::now"]),
    (
        "draws lots or does IO",
        &["now_v7", "new_v4", "rand", "getrandom", "SystemRandom", "fs", "net", "env", "tracing"],
    ),
];

fn impurities(file: &File) -> Vec<String> {
    let words = IMPURE.iter().flat_map(|(does, words)| words.iter().map(move |word| (does, word)));
    words
        .flat_map(|(does, word)| {
            file.lines_naming(word)
                .into_iter()
                .map(move |line| format!("{}:{line}: a domain is pure, and `{word}` {does}", file.path))
        })
        .collect()
}

#[test]
fn an_impure_domain_is_caught() {
    let caught = |text| impurities(&File::of("svc-x/src/domain.rs", text)).len();
    assert_eq!(caught("pub fn reserve(now: Timestamp) {} // not async, no tokio\n/* sled */"), 0);
    assert_eq!(
        caught("/// Instant\nconst NOTE: &str = \"async {\"; fn fs_like(renewed: u8, knows: u8) {}"),
        0
    );
    assert_eq!(
        caught("#[cfg(test)]\nmod tests { async fn it() { '{'; \"}\"; let id = Uuid::new_v4(); } }"),
        0
    );
    assert_eq!(caught("#[cfg(test)]\nmod tests { fn it() {} }\nasync fn after() {}"), 1);
    assert_eq!(caught("use tokio::sync::watch;"), 1);
    assert_eq!(
        caught("let id = Uuid::now_v7();\nlet at = OffsetDateTime::now_utc();\nlet t = Utc::now();"),
        3
    );
    assert_eq!(caught("let lifetime: &'static str; let quote = '\"'; let when = Instant::now();"), 2);
}

// --- Who may depend on whom ---------------------------------------------------------------------------------------

/// A package of this workspace.
struct Package {
    /// Its directory, `libs/web`; empty for the root.
    home: String,
    /// The directories of the packages of ours that it depends on, and whether only its tests do.
    needs: Vec<(String, bool)>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let home = |path: &Value| {
        let path = Path::new(path.as_str().expect("a path is text"));
        path.strip_prefix(root()).expect("what is ours is here").to_str().expect("UTF-8").replace('\\', "/")
    };
    let array = |value: &Value| value.as_array().expect("a list").clone();
    let packages = array(&metadata["packages"]).into_iter().map(|package| Package {
        home: home(&package["manifest_path"]).trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
        needs: array(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["path"].is_string())
            .map(|dependency| (home(&dependency["path"]), dependency["kind"] == "dev"))
            .collect(),
    });
    packages.collect()
}

fn misdirected(packages: &[Package]) -> Vec<String> {
    let needs =
        packages.iter().flat_map(|package| package.needs.iter().map(move |need| (&package.home, need)));
    needs
        .filter_map(|(home, (need, only_tests))| {
            let law = match home.as_str() {
                "" => return None,
                "libs/contract" => "contract depends on nothing of ours",
                "libs/eventstore" if !only_tests => "the event store could be published alone",
                "libs/eventstore" | "libs/web" if need == "libs/contract" => "it knows no business noun",
                _ if !need.starts_with("libs/") => "what we build depends on libs only",
                _ => return None,
            };
            Some(format!("{home}/Cargo.toml: depends on {need}, but {law}"))
        })
        .collect()
}

#[test]
fn a_misdirected_dependency_is_caught() {
    let caught = |home: &str, need: &str, only_tests| {
        misdirected(&[Package { home: home.into(), needs: vec![(need.into(), only_tests)] }]).len()
    };
    assert_eq!(caught("", "svc-orders", false), 0);
    assert_eq!(caught("svc-orders", "libs/contract", false), 0);
    assert_eq!(caught("svc-orders", "svc-tickets", true), 1);
    assert_eq!(caught("client", "svc-auth", false), 1);
    assert_eq!(caught("libs/contract", "libs/web", true), 1);
    assert_eq!(caught("libs/eventstore", "libs/telemetry", false), 1);
    assert_eq!(caught("libs/eventstore", "libs/sandbox", true), 0);
    assert_eq!(caught("libs/web", "libs/contract", true), 1);
    assert_eq!(caught("libs/web", "libs/telemetry", false), 0);
}

#[test]
fn the_workspace_is_all_there() {
    let packages = packages();
    let needs = |home: &str| {
        let package = packages.iter().find(|package| package.home == home);
        package.unwrap_or_else(|| panic!("no package in {home}")).needs.len()
    };
    for service in services() {
        assert!(needs(&service) > 0, "{service}");
    }
    assert!(needs("") >= services().len());
    assert!(services().len() >= 5);
}

// --- Business nouns -----------------------------------------------------------------------------------------------

/// What only the marketplace has. Compared with the parts of a name, `TicketId` and `ticket_id` as `ticket` `id`.
const NOUNS: [&str; 20] = [
    "ticket",
    "tickets",
    "ticketing",
    "orders",
    "payment",
    "payments",
    "stripe",
    "buyer",
    "buyers",
    "seller",
    "sellers",
    "price",
    "prices",
    "cents",
    "expiration",
    "expirations",
    "reservation",
    "marketplace",
    "purchase",
    "refund",
];

/// HTTP's own name of status 402.
const OF_HTTP: &str = "payment_required";

/// What logs and traces are to leave out: the name of a library, as it happens.
const OF_A_LIBRARY: [&str; 2] = ["stripe=error", "stripe=off"];

fn nouns(file: &File) -> Vec<String> {
    let mut breaches = Vec::new();
    for (line, text) in (1..).zip(file.code.lines()) {
        let text = OF_A_LIBRARY.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
        for name in words(&text).into_iter().filter(|name| !name.eq_ignore_ascii_case(OF_HTTP)) {
            let parts = parts(name);
            // `Order` alone is the direction of a scan; `OrderId` is the marketplace's.
            let noun = |part: &str| NOUNS.contains(&part) || (part == "order" && parts.len() > 1);
            if let Some(noun) = parts.iter().find(|part| noun(part)) {
                let path = &file.path;
                breaches
                    .push(format!("{path}:{line}: `{name}`: no business noun here, and \"{noun}\" is one"));
            }
        }
    }
    breaches
}

/// `OrderId`, `order_id` and `ORDER_ID` as `order` `id`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_lower = false;
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && after_lower) {
            parts.push(String::new());
        }
        if letter != '_' {
            parts.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn a_business_noun_is_caught() {
    let caught = |text| nouns(&File::of("libs/web/src/x.rs", text)).len();
    assert_eq!(
        caught("use std::cmp::Ordering; pull::OrderedConfig; enum Order { Ascending } fn f(order: Order)"),
        0
    );
    assert_eq!(caught("// a ticket\n/// GET /api/orders\nfn pricey(percents: u8, user: User) {}"), 0);
    assert_eq!(caught("StatusCode::PAYMENT_REQUIRED"), 0);
    assert_eq!(caught("EnvFilter::new(\"info,stripe=error\")"), 0);
    assert_eq!(caught("let stripe = 1;"), 1);
    assert_eq!(caught("fn f(id: TicketId) {}"), 1);
    assert_eq!(caught("fn f(order_id: Uuid) {}"), 1);
    assert_eq!(caught("const STREAM: &str = \"ORDERS\";"), 1);
    assert_eq!(caught("match event { OrderEvent::Created => {} }"), 1);
    assert_eq!(caught("path!(\"api\" / \"tickets\")"), 1);
}

// --- Rooms --------------------------------------------------------------------------------------------------------

/// The rooms a service may have, and those that none is without.
const ROOMS: [&str; 9] =
    ["main", "lib", "config", "domain", "commands", "projections", "reactors", "http", "error"];
const ALWAYS: [&str; 7] = ["main", "lib", "config", "domain", "commands", "projections", "error"];

/// The rooms that one service has beside, because only it does such a thing.
const OWN_ROOMS: [(&str, &[&str]); 2] = [
    // Secrets of people.
    ("svc-auth", &["passwords", "sealing", "user_keys"]),
    // The one that talks to somebody outside, is talked to by them, and compares.
    ("svc-payments", &["reconciler", "stripe", "webhook"]),
];

fn misplaced(service: &str, files: &[File]) -> Vec<String> {
    let own = OWN_ROOMS.iter().find(|(of, _)| *of == service).map_or(&[] as &[&str], |(_, rooms)| rooms);
    let src = format!("{service}/src/");
    let rooms: BTreeMap<&str, &File> = files
        .iter()
        .filter_map(|file| Some((file.path.strip_prefix(&src)?.split(['/', '.']).next()?, file)))
        .collect();
    let map = rooms.get("lib").map_or("", |lib| &lib.text);
    let mut breaches = Vec::new();
    for room in rooms.keys() {
        if !ROOMS.contains(room) && !own.contains(room) {
            breaches.push(format!("{src}{room}.rs: not a room that services have: {ROOMS:?}"));
        }
        let mapped = map.lines().any(|line| line.starts_with("//! |") && line.contains(&format!("`{room}`")));
        if !mapped && !["main", "lib"].contains(room) {
            breaches.push(format!("{src}lib.rs: its map leaves out `{room}`"));
        }
    }
    for room in ALWAYS.iter().chain(own).filter(|room| !rooms.contains_key(*room)) {
        breaches.push(format!("{src}{room}.rs: this room is missing"));
    }
    if !rooms.get("lib").is_some_and(|lib| lib.code.contains("pub async fn run(")) {
        breaches.push(format!("{src}lib.rs: `pub async fn run(` is the only way in"));
    }
    breaches
}

#[test]
fn a_misplaced_room_is_caught() {
    let lib =
        "//! | `config` `domain` `commands` |\n//! | [`projections`] `error` `http` |\npub async fn run() {}";
    let caught = |rooms: &[&str], lib: &str| {
        let text = |room: &str| if room == "lib" { lib.to_owned() } else { String::new() };
        let files = rooms.iter().map(|room| File::of(&format!("svc-x/src/{room}.rs"), &text(room)));
        misplaced("svc-x", &files.collect::<Vec<_>>())
    };
    assert_eq!(caught(&ALWAYS, lib), [""; 0]);
    assert_eq!(caught(&[&ALWAYS[..], &["http"]].concat(), lib), [""; 0]);
    assert_eq!(caught(&[&ALWAYS[..], &["utils"]].concat(), lib).len(), 2);
    assert_eq!(caught(&[&ALWAYS[..], &["reactors"]].concat(), lib).len(), 1);
    assert_eq!(caught(&ALWAYS[..6], lib).len(), 1);
    assert_eq!(caught(&ALWAYS, &lib.replace("run", "start")).len(), 1);
}

// --- What is set and measured -------------------------------------------------------------------------------------

fn peeks(file: &File) -> Vec<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let forbidden: &[&str] = match name {
        "config.rs" => &["env::", "Env::process"],
        "main.rs" => &["env::"],
        _ => &["env::", "Env"],
    };
    let lines =
        forbidden.iter().flat_map(|word| file.lines_naming(word).into_iter().map(move |line| (line, word)));
    lines
        // `web::env::Invalid` is an error, not the environment.
        .filter(|(line, _)| {
            let line = file.code.lines().nth(line - 1).unwrap_or_default();
            !line.contains("env::Invalid") && !line.contains("env::{Invalid")
        })
        .map(|(line, word)| format!("{}:{line}: `{word}`: only config.rs reads the environment", file.path))
        .collect()
}

// --- What a page may be made of -----------------------------------------------------------------------------------

/// Words by which text of somebody's would become markup, or a page carry what its policy forbids.
fn markup(file: &File) -> Vec<String> {
    let inline = ["style=", "onclick=", "onsubmit=", "javascript:"];
    let lines = file.code.lines().zip(1..);
    let inline = lines.filter(move |(line, _)| inline.iter().any(|word| line.contains(word)));
    let inline = inline.map(|(_, line)| line);
    let lines = file.lines_naming("PreEscaped").into_iter().chain(inline);
    lines.map(|line| format!("{}:{line}: pages are text and links, nothing inline", file.path)).collect()
}

#[test]
fn markup_from_elsewhere_is_caught() {
    let caught = |text| markup(&File::of("client/src/pages/x.rs", text)).len();
    assert_eq!(caught("html! { p { (ticket.title) } } // no PreEscaped"), 0);
    assert_eq!(caught("html! { p { (PreEscaped(&ticket.title)) } }"), 1);
    assert_eq!(caught("html! { p style=\"color: red\" { \"x\" } }"), 1);
}

#[test]
fn a_peek_at_the_environment_is_caught() {
    let caught = |path: &str, text| peeks(&File::of(path, text)).len();
    assert_eq!(caught("svc-x/src/config.rs", "use web::{Env, env::Invalid};\nfn from_env(env: &Env) {}"), 0);
    assert_eq!(caught("svc-x/src/main.rs", "let env = Env::process();"), 0);
    assert_eq!(caught("svc-x/src/config.rs", "let port = std::env::var(\"PORT\");"), 1);
    assert_eq!(caught("svc-x/src/config.rs", "let env = Env::process();"), 1);
    assert_eq!(caught("svc-x/src/http.rs", "fn routes(env: &Env) {}"), 1);
    assert_eq!(caught("svc-x/src/lib.rs", "let home = env::var_os(\"HOME\");"), 1);
}

/// The functions that read a variable: those of `web::Env`, and the standard library's.
const READERS: [&str; 7] = ["or", "optional", "required", "secret", "optional_secret", "var", "var_os"];

/// The names of the environment's variables that `code` reads.
fn variables(code: &str) -> Vec<String> {
    let mut variables = Vec::new();
    for (quote, _) in code.match_indices('"') {
        let Some((name, _)) = code[quote + 1..].split_once('"') else { continue };
        let is_name = name.starts_with(|letter: char| letter.is_ascii_uppercase())
            && name
                .chars()
                .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
        if is_name && is_read(code[..quote].trim_end()) {
            variables.push(name.to_owned());
        }
    }
    // tracing-subscriber's default.
    if code.contains("from_default_env") {
        variables.push("RUST_LOG".into());
    }
    variables
}

/// Whether what stands before a literal takes it as a variable's name: `env.or::<u16>(`, clap's `env = `.
fn is_read(before: &str) -> bool {
    if let Some(before) = before.strip_suffix('=') {
        return words(before).last() == Some(&"env") && before.trim_end().ends_with("env");
    }
    let Some(callee) = before.strip_suffix('(') else { return false };
    let callee = match callee.rfind("::<") {
        Some(turbofish) if callee.ends_with('>') => &callee[..turbofish],
        _ => callee,
    };
    callee.ends_with(char::is_alphanumeric) && words(callee).last().is_some_and(|name| READERS.contains(name))
}

/// The metrics that `file` counts in; an error for one whose name is not there to be read.
fn metrics(file: &File) -> Vec<Result<String, String>> {
    let invoked = ["counter!(", "gauge!(", "histogram!("].into_iter().flat_map(|macro_| {
        file.code.match_indices(macro_).map(move |(at, _)| (at, &file.code[at + macro_.len()..]))
    });
    invoked
        .map(|(at, arguments)| {
            match arguments.trim_start().strip_prefix('"').and_then(|name| name.split_once('"')) {
                Some((name, _)) => Ok(name.to_owned()),
                None => {
                    let line = file.code[..at].lines().count();
                    Err(format!(
                        "{}:{line}: a metric is named by a literal, so that it can be found",
                        file.path
                    ))
                }
            }
        })
        .collect()
}

/// What stands in backticks in the first column of the table under `heading`; of a metric without its labels.
fn table(page: &str, heading: &str) -> BTreeSet<String> {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = page.lines().skip_while(|line| {
        level(line) == 0 || !line.trim_start_matches('#').trim().eq_ignore_ascii_case(heading)
    });
    let above =
        level(lines.next().unwrap_or_else(|| panic!("docs/reference.md has no heading \"{heading}\"")));
    let section = lines.take_while(|line| level(line) == 0 || level(line) > above);
    let cells = section.filter_map(|line| line.trim_start().strip_prefix('|')?.split('|').next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.split('{').next().unwrap_or(name).to_owned()).collect()
}

fn difference(what: &str, found: &BTreeSet<String>, told: &BTreeSet<String>) -> Vec<String> {
    let untold = found
        .difference(told)
        .map(|name| format!("docs/reference.md: {what} `{name}` is in the code, not in its table"));
    let unfound = told
        .difference(found)
        .map(|name| format!("docs/reference.md: {what} `{name}` is in its table, not in the code"));
    untold.chain(unfound).collect()
}

#[test]
fn variables_are_found_however_they_are_read() {
    let file = File::of(
        "svc-x/src/config.rs",
        r##"
        env.or("PORT", 3000_u16, "PORT is a number")?;
        env.optional_secret::<String>(
            "JWT_KEY_PREVIOUS", "the secret before")?;
        #[arg(long, env = "NATS_URL")]
        std::env::var_os("HOME2"); // env.or("COMMENTED", 1, "")
        let source = r#"env.or("QUOTED", 1, "")"#;
        from(&[("GIVEN", "value")]); assert_eq!("LEFT", "RIGHT"); name == "MATCHED";
        #[cfg(test)]
        mod tests { fn read() { env.required("TESTED", "") } }
        "##,
    );
    // What is quoted is not told apart: nothing quotes code that reads a variable.
    assert_eq!(variables(&file.code), ["PORT", "JWT_KEY_PREVIOUS", "NATS_URL", "HOME2", "QUOTED"]);
    assert_eq!(variables("EnvFilter::try_from_default_env()"), ["RUST_LOG"]);
}

#[test]
fn metrics_are_found_and_must_be_named() {
    let file = |text| File::of("svc-x/src/lib.rs", text);
    let found = metrics(&file(
        "metrics::counter!(\n  \"a_total\", \"x\" => 1); gauge!(\"b\").set(1.0); // counter!(\"c\")",
    ));
    assert_eq!(found, [Ok("a_total".to_owned()), Ok("b".to_owned())]);
    assert_eq!(
        metrics(&file("fn f() {\n metrics::histogram!(NAME).record(1.0) }"))
            .iter()
            .filter(|name| name.is_err())
            .count(),
        1
    );
}

#[test]
fn a_difference_to_the_reference_is_caught() {
    let page = "# x\n`NOT`\n## Configuration\n| variable | `default` |\n|---|---|\n| `A`, `B` | `C` |\n### more\n\
                  | `D{label}` | |\n## Metrics\n| `E` | |\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(table(page, "configuration"), set(&["A", "B", "D"]));
    assert_eq!(table(page, "Metrics"), set(&["E"]));
    assert_eq!(difference("variable", &set(&["A", "B"]), &set(&["B", "C"])).len(), 2);
    assert_eq!(difference("variable", &set(&["A"]), &set(&["A"])), [""; 0]);
}

// --- Pages for people ---------------------------------------------------------------------------------------------

/// What the page at `path` (from the root) leads to or names and is not there: links within the project, their headings,
/// and Rust files between backticks.
fn dead_ends(path: &str, text: &str) -> Vec<String> {
    let folder = Path::new(path).parent().expect("a page is in a folder");
    let outside_code = || text.split("```").step_by(2);
    let links =
        outside_code().flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://")).filter_map(|link| {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { root().join(path) } else { root().join(folder).join(file) };
        let there = match heading {
            "" => target.exists(),
            _ if file.is_empty() => anchors(text).contains(heading),
            _ => fs::read_to_string(&target).is_ok_and(|page| anchors(&page).contains(heading)),
        };
        (!there).then(|| format!("{path}: a link to {link}, which is not there"))
    });
    let names = outside_code().flat_map(|part| part.split('`').skip(1).step_by(2));
    let files =
        names.filter(|name| name.ends_with(".rs") && name.contains('/') && !name.contains(['*', '<', ' ']));
    let files = files.filter(|name| !root().join(name).exists() && !root().join(folder).join(name).exists());
    links.chain(files.map(|name| format!("{path}: {name} is named, and not there"))).collect()
}

/// The headings of a page as links name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            heading.chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
        })
        .collect()
}

/// Every page in Markdown, from the root: those in its own folders, one and two levels down.
fn pages() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("the folder is there").flatten() {
            let name = entry.file_name().into_string().expect("UTF-8");
            let path = folder.join(&name);
            if entry.path().is_dir() {
                if depth < 2 && !name.starts_with('.') && name != "target" {
                    folders.push((path, depth + 1));
                }
            } else if name.ends_with(".md") {
                found.push(path.to_str().expect("UTF-8").replace('\\', "/"));
            }
        }
    }
    found
}

#[test]
fn a_dead_end_is_caught() {
    let dead = |text: &str| dead_ends("docs/x.md", text).len();
    assert_eq!(
        dead("[a](../README.md) [b](../README.md#one-purchase) [c](reference.md) [d](https://x.example)"),
        0
    );
    assert_eq!(
        dead("`tests/laws.rs` `svc-*/src/lib.rs` `domain.rs`\n```\n[e](gone.md) `tests/gone.rs`\n```\n"),
        0
    );
    assert_eq!(dead("[a](README.md) [b](../README.md#two-purchases) `tests/gone.rs`"), 3);
    assert!(anchors("## Who may do what, at NATS?\n").contains("who-may-do-what-at-nats"));
}

// --- What is served -----------------------------------------------------------------------------------------------

/// The routes of `file`, `GET /api/things/:`: each `path!(…)`, straight or by its name, with each of its methods. An
/// error for a path or a method that is not put together so.
fn routes(file: &File) -> Vec<Result<String, String>> {
    let code = &file.code;
    let unclear = |at: usize, what: &str| {
        let line = code[..at].lines().count();
        Err(format!(
            "{}:{line}: {what}: a route is a `path!(…)` and its method, so that it can be found",
            file.path
        ))
    };
    let paths: Vec<usize> = code.match_indices("path!(").map(|(at, _)| at).collect();
    let mut used = BTreeSet::new();
    let mut routes = Vec::new();
    for (at, _) in code.match_indices(".and(web::") {
        let Some((method, _)) = code[at + ".and(web::".len()..].split_once("())") else { continue };
        if !["get", "post", "put", "patch", "delete"].contains(&method) {
            continue;
        }
        let before = code[..at].trim_end();
        let straight = paths.iter().rev().find(|path| **path < at).filter(|_| before.ends_with(')'));
        let named = || {
            let name = words(before).pop().filter(|name| before.ends_with(name))?;
            paths.iter().rev().find(|path| code[..**path].ends_with(&format!("let {name} = ")))
        };
        match straight.or_else(named) {
            Some(path) => {
                used.insert(*path);
                routes.push(Ok(format!("{} {}", method.to_uppercase(), path_at(&code[*path..]))));
            }
            None => routes.push(unclear(at, "a method of nothing")),
        }
    }
    routes.extend(paths.iter().filter(|path| !used.contains(path)).map(|path| unclear(*path, "no method")));
    routes
}

/// `path!("api" / "things" / Uuid)` as `/api/things/:`.
fn path_at(code: &str) -> String {
    let inside = code.trim_start_matches("path!(").split(')').next().unwrap_or_default();
    let segments = inside.split('/').map(str::trim);
    let segment = |segment: &str| match segment.strip_prefix('"') {
        Some(word) => format!("/{}", word.trim_end_matches('"')),
        None => "/:".to_owned(),
    };
    segments.map(segment).collect()
}

/// A route without the names of its parameters.
fn unnamed(route: &str) -> String {
    let parts: Vec<_> = route.split('/').map(|part| if part.starts_with(':') { ":" } else { part }).collect();
    parts.join("/")
}

/// The paths that a `match` tells apart: what every service answers before its own routes.
fn system_routes(file: &File) -> Vec<String> {
    let arms = file.code.match_indices("\" =>").filter_map(|(at, _)| file.code[..at].rsplit('"').next());
    arms.filter(|path| path.starts_with('/')).map(|path| format!("GET {path}")).collect()
}

#[test]
fn routes_are_found_and_must_have_a_method() {
    let found = |text: &str| routes(&File::of("svc-x/src/http.rs", text));
    let ok = |routes: &[&str]| routes.iter().map(|route| Ok((*route).to_owned())).collect::<Vec<_>>();
    let straight = "let a = path!(\"api\" / \"things\")\n    .and(web::post()).and(body());";
    assert_eq!(found(straight), ok(&["POST /api/things"]));
    let named = "let all = path!(\"api\");\nlet one = path!(\"api\" / Uuid / \"x\");\n\
                 let one = one.and(web::get()).then(f); // path!(\"not\")\n\
                 let both = all.and(web::get()).or(all.and(web::delete()));";
    assert_eq!(found(named), ok(&["GET /api/:/x", "GET /api", "DELETE /api"]));
    let wrong = |text| found(text).iter().filter(|route| route.is_err()).count();
    assert_eq!(wrong("let all = path!(\"api\"); all.and(things());"), 1);
    assert_eq!(wrong("let all = warp::path(\"api\"); all.and(web::get());"), 1);
    assert_eq!(wrong("let all = path!(\"api\"); other.and(web::get());"), 2);

    let web =
        File::of("libs/web/src/x.rs", "match path { \"/healthz\" => live(), \"word\" => no(), _ => () }");
    assert_eq!(system_routes(&web), ["GET /healthz"]);
    assert_eq!(unnamed("GET /api/things/:thingId/x"), "GET /api/things/:/x");

    let page = "## Routes\n| `GET /api/:id` | |\n| `PUT /gone` | `GET /no` |\n";
    let told = table(page, "Routes").iter().map(|route| unnamed(route)).collect();
    let served = ["GET /api/:", "POST /new"].map(str::to_owned).into();
    assert_eq!(difference("route", &served, &told).len(), 2);
}

// --- Reading source -----------------------------------------------------------------------------------------------

struct File {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
    /// The text without comments and tests, line by line in its place.
    code: String,
    /// The code without what its literals say.
    bare: String,
}

impl File {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self::of(path, &text)
    }

    fn of(path: &str, text: &str) -> Self {
        let (mut code, mut bare) = blanked(text);
        while let Some(tests) = test_part(&bare) {
            for text in [&mut code, &mut bare] {
                text[tests.clone()]
                    .iter_mut()
                    .filter(|letter| **letter != '\n')
                    .for_each(|letter| *letter = ' ');
            }
        }
        Self {
            path: path.into(),
            text: text.into(),
            code: code.into_iter().collect(),
            bare: bare.into_iter().collect(),
        }
    }

    /// The lines, from 1, that name `word` as a whole, which may be a piece of a path, `env::` or `::now`.
    fn lines_naming(&self, word: &str) -> Vec<usize> {
        let part_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let named = |line: &str| {
            line.match_indices(word).any(|(at, _)| {
                let (before, after) = (&line[..at], &line[at + word.len()..]);
                (word.starts_with(':') || !before.ends_with(part_of_name))
                    && (word.ends_with(':') || !after.starts_with(part_of_name))
            })
        };
        let lines = self.bare.lines().enumerate();
        lines.filter(|(_, line)| named(line)).map(|(number, _)| number + 1).collect()
    }
}

/// The text without comments, and that without the content of literals too. Spaces stand for what is left out, so
/// both have the text's length and lines.
fn blanked(text: &str) -> (Vec<char>, Vec<char>) {
    let text: Vec<char> = text.chars().collect();
    let (mut code, mut bare) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (length, in_code, in_bare) = match rest {
            ['/', '/', ..] => (until(rest, |rest| rest[0] == '\n'), false, false),
            ['/', '*', ..] => (until(rest, |rest| rest.starts_with(&['*', '/'])) + 2, false, false),
            ['r', '"' | '#', ..] if raw_string(rest).is_some() => {
                (raw_string(rest).unwrap_or(1), true, false)
            }
            ['"', ..] => (string(rest), true, false),
            ['\'', '\\', ..] => (3 + until(&rest[2..], |rest| rest[0] == '\'').max(1), true, false),
            ['\'', _, '\'', ..] => (3, true, false),
            _ => (1, true, true),
        };
        for letter in rest.iter().take(length) {
            let shown = |keep| if keep || *letter == '\n' { *letter } else { ' ' };
            code.push(shown(in_code));
            bare.push(shown(in_bare));
        }
        at += length;
    }
    (code, bare)
}

/// How many letters come before the first place where `here` holds; all, if there is none.
fn until(text: &[char], here: impl Fn(&[char]) -> bool) -> usize {
    (0..text.len()).find(|at| here(&text[*at..])).unwrap_or(text.len())
}

/// The length of the string that `text` begins with.
fn string(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of the raw string that `text` begins with, if it does.
fn raw_string(text: &[char]) -> Option<usize> {
    let hashes = text[1..].iter().take_while(|letter| **letter == '#').count();
    let open = 1 + hashes;
    (text.get(open) == Some(&'"')).then(|| {
        let mut close = vec!['#'; hashes + 1];
        close[0] = '"';
        open + 1 + until(&text[open + 1..], |rest| rest.starts_with(&close)) + close.len()
    })
}

/// The first item of `bare` that only tests have.
fn test_part(bare: &[char]) -> Option<std::ops::Range<usize>> {
    let mark: Vec<char> = "#[cfg(test)]".chars().collect();
    let start = bare.windows(mark.len()).position(|window| window == mark)?;
    let mut depth = 0_usize;
    for (at, letter) in bare.iter().enumerate().skip(start + mark.len()) {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(start..at + 1),
            '}' => depth -= 1,
            ';' if depth == 0 => return Some(start..at + 1),
            _ => {}
        }
    }
    Some(start..bare.len())
}

fn words(text: &str) -> Vec<&str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> String {
    fs::read_to_string(root().join("docs/reference.md")).expect("docs/reference.md is there")
}

/// The directories of the services.
fn services() -> Vec<String> {
    let entries = fs::read_dir(root()).expect("the root is there").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut services: Vec<String> = names.filter(|name| name.starts_with("svc-")).collect();
    services.sort();
    services
}

/// All source that ends up in a program.
fn program() -> Vec<File> {
    let mut folders = services();
    for parent in ["libs", "."] {
        let entries = fs::read_dir(root().join(parent)).expect("it is there").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ours =
            names.filter(|name| parent == "libs" || ["client", "nats-test", "src"].contains(&name.as_str()));
        folders.extend(ours.map(|name| format!("{parent}/{name}").trim_start_matches("./").to_owned()));
    }
    let sources =
        folders.into_iter().map(|folder| if folder == "src" { folder } else { format!("{folder}/src") });
    sources.flat_map(|folder| files_in(&folder)).collect()
}

/// The Rust files in `folder` and below.
fn files_in(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(File::read(&path.to_str().expect("UTF-8").replace('\\', "/")));
            }
        }
    }
    files
}
