//! Who may do what at NATS: each service publishes its own events, reads the streams that it listens to, and may ask for
//! nothing else.
//!
//! A subject is an API call at JetStream
//! (<https://docs.nats.io/reference/reference-protocols/nats_api_reference>), so what may be published says what may be
//! asked. No service may ask to delete, purge or change a stream of events, nor to delete a consumer: what is not listed
//! is refused. Names of consumers have no common prefix that a rule could name, so whoever may read a stream is denied the
//! other services' durables on it by name. Rules look at subjects alone, and of a consumer that is made without a name
//! in the subject the body says the name, which could be anybody's durable. So only the admin has that call.
//!
//! Whoever asks says where the answer goes, and the server does not hold that against what they may publish: in the
//! account of the streams, an answer could be had as a message of a stream, and an empty one as a request to delete
//! one. So each service has an account of its own, which holds nothing. What it may ask is exported by the account of
//! the streams to it alone and imported there, subject by subject. The server then puts an address of its own in place
//! of the one that the service has named, and brings the answer to that one within the service's account, where nothing
//! else is. An answer is not imported in its turn: not even into one's own stream.
//!
//! Not closed: what a body says of subjects. A consumer that is pushed to delivers where its maker says, within the
//! account of the streams. The server does so only while somebody listens to that very subject, and no service can listen
//! there; streams listen to wildcards. The exception is the call by which a durable is pulled: so the key of a service can
//! draw what another's durable would hand out next, which is lost to nobody, and comes again after the acknowledgement
//! wait. Nor is it closed before the first start: a stream or bucket that is not there yet is made as the service says.
//!
//! People are two users, so that looking cannot go wrong: [`operator`] and [`admin`]. They are in the account of the
//! streams, so for them these rules are against mistakes. To back a stream up is to say in a body where its parts go, and
//! the last one is empty: with an account of its own the operator's key could still have a stream deleted.

use std::collections::BTreeMap;

use contract::stream::{ALL, DEAD_LETTERS, DEAD_LETTERS_PREFIX, LISTENERS, Stream, USERS};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The account that holds the streams. The server keeps them in a directory of this name.
const STREAMS: &str = "TICKETING";

/// How long the server remembers where further answers to a request go, after the last one. While a pull request stands
/// there is a heartbeat every 15 seconds at least; what the server's default of two minutes keeps would add up.
const ANSWERED_WITHIN: &str = "30s";

/// One who connects to NATS.
struct User {
    name: &'static str,
    /// What the account of its own may ask of that of the streams; without one, it is in the latter itself.
    imports: Option<Vec<Request>>,
    permissions: Permissions,
}

/// A subject, or many, that somebody may publish to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    subject: String,
    answers: Answers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answers {
    /// Or none.
    One,
    /// As messages come.
    Many,
}

/// What somebody may send and hear, as the server's configuration has it.
#[derive(Serialize)]
struct Permissions {
    publish: Rules,
    subscribe: Rules,
}

#[derive(Serialize)]
struct Rules {
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

/// What a service does at NATS, as the contract has it.
struct Work {
    owns: Stream,
    /// Whose rows it keeps: of its own stream, and of those that it reads.
    projects: Vec<Stream>,
    /// What it acts on.
    reacts: &'static [Stream],
    durable: Option<&'static str>,
    /// The stream of a key-value bucket of its own.
    bucket: Option<&'static str>,
}

/// Everybody who connects, but for the server's own account.
pub(crate) fn names() -> Vec<&'static str> {
    users().into_iter().map(|user| user.name).collect()
}

/// The accounts as the server's configuration has them, with the key that `key` knows for each user.
pub(crate) fn accounts<E>(
    mut key: impl FnMut(&'static str) -> Result<String, E>,
) -> Result<Map<String, Value>, E> {
    let mut accounts = Map::new();
    let mut exports = BTreeMap::<Request, Vec<&str>>::new();
    let mut people = Vec::new();
    for User { name, imports, permissions } in users() {
        let user = json!({ "nkey": key(name)?, "permissions": permissions });
        let Some(imports) = imports else {
            people.push(user);
            continue;
        };
        let from_streams =
            |import: &Request| json!({ "service": { "account": STREAMS, "subject": import.subject } });
        let account =
            json!({ "users": [user], "imports": imports.iter().map(from_streams).collect::<Vec<_>>() });
        accounts.insert(name.to_owned(), account);
        for import in imports {
            exports.entry(import).or_default().push(name);
        }
    }
    let exports: Vec<_> =
        exports.into_iter().map(|(request, importers)| request.exported_to(&importers)).collect();
    accounts
        .insert(STREAMS.to_owned(), json!({ "jetstream": "enabled", "users": people, "exports": exports }));
    Ok(accounts)
}

fn users() -> Vec<User> {
    let services = ALL.into_iter().map(|owned| Work::of(owned).user());
    let people = [("operator", operator()), ("admin", admin())];
    services.chain(people.map(|(name, permissions)| User { name, imports: None, permissions })).collect()
}

/// Looks at everything and may ask for no change, with the nats CLI. To look, it makes consumers that nobody else knows,
/// by a name in the subject. Backups are a way of looking.
fn operator() -> Permissions {
    let everybodys = LISTENERS.iter().map(|listener| listener.durable);
    let looks = [
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.INFO.*",
        "STREAM.MSG.GET.*",
        "STREAM.SNAPSHOT.*",
        "DIRECT.GET.>",
        "CONSUMER.NAMES.*",
        "CONSUMER.LIST.*",
        "CONSUMER.INFO.*.*",
        "CONSUMER.CREATE.*.>",
        "CONSUMER.MSG.NEXT.*.*",
    ];
    let mut allow: Vec<String> = looks.iter().map(|call| api(call)).collect();
    // What the server pushes is paced by answers to these.
    allow.extend(["$JS.FC.>", "$JS.SNAPSHOT.ACK.>"].map(str::to_owned));
    Permissions {
        publish: Rules {
            allow,
            deny: everybodys
                .flat_map(|durable| taking_over("*", durable))
                .map(|request| request.subject)
                .collect(),
        },
        subscribe: Rules { allow: vec!["_INBOX.>".to_owned(), "ticketing.>".to_owned()], deny: Vec::new() },
    }
}

/// Whatever JetStream can be asked for, deleting and restoring included. Events come of services alone: it publishes
/// none, and takes or acknowledges none in a service's place.
fn admin() -> Permissions {
    let allow = ["$JS.API.>", "$JS.FC.>", "$JS.SNAPSHOT.ACK.>", "$JS.SNAPSHOT.RESTORE.>"].map(str::to_owned);
    let everybodys = LISTENERS.iter().map(|listener| listener.durable);
    let deny = everybodys.map(|durable| api(&format!("CONSUMER.MSG.NEXT.*.{durable}")));
    Permissions {
        publish: Rules { allow: allow.into(), deny: deny.collect() },
        subscribe: Rules { allow: vec!["_INBOX.>".to_owned(), "ticketing.>".to_owned()], deny: Vec::new() },
    }
}

impl Request {
    fn answered_once(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), answers: Answers::One }
    }

    fn answered_often(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), answers: Answers::Many }
    }

    /// Whether whoever may publish here may publish there, too.
    fn covers(&self, other: &Self) -> bool {
        self != other
            && self.subject.strip_suffix('>').is_some_and(|prefix| other.subject.starts_with(prefix))
    }

    fn exported_to(&self, accounts: &[&str]) -> Value {
        let mut export = json!({ "service": self.subject, "accounts": accounts });
        if self.answers == Answers::Many {
            export["response_type"] = "stream".into();
            export["response_threshold"] = ANSWERED_WITHIN.into();
        }
        export
    }
}

impl Work {
    /// Of the service that owns the stream.
    fn of(owns: Stream) -> Self {
        let listener = LISTENERS.iter().find(|listener| listener.service == owns.source);
        let (reads, reacts) =
            listener.map_or((&[][..], &[][..]), |listener| (listener.reads, listener.reacts));
        Self {
            owns,
            projects: [&[owns], reads].concat(),
            reacts,
            durable: listener.map(|listener| listener.durable),
            bucket: (owns == USERS).then_some(svc_auth::user_keys::BUCKET),
        }
    }

    fn user(&self) -> User {
        let requests = self.requests();
        let allow = requests.iter().map(|request| request.subject.clone()).collect();
        let others = LISTENERS.iter().filter(|other| other.service != self.owns.source);
        let deny = others.map(|other| other.durable).flat_map(|durable| {
            self.projects.iter().flat_map(move |stream| taking_over(stream.name, durable))
        });
        let deny = deny.map(|request| request.subject).collect();
        let name = self.owns.source;
        let permissions = Permissions {
            publish: Rules { allow, deny },
            // Answers come here. The account is its own, so nobody else would hear them anyway.
            subscribe: Rules { allow: vec![format!("_INBOX.{name}.>")], deny: Vec::new() },
        };
        User { name, imports: Some(imports(requests)), permissions }
    }

    /// What it may ask, its events among it. What the API says is answered once.
    fn requests(&self) -> Vec<Request> {
        let name = self.owns.source;
        let once = |call: String| Request::answered_once(api(&call));
        let mut requests = vec![
            Request::answered_once(self.owns.subjects),
            once(format!("STREAM.CREATE.{}", self.owns.name)),
            once(format!("STREAM.CREATE.{DEAD_LETTERS}")),
        ];
        let readers = self.projects.iter().map(|stream| format!("{name}-{}", stream.name.to_lowercase()));
        let readers = readers.chain(self.durable.map(str::to_owned));
        requests.extend(
            readers.map(|reader| Request::answered_once(format!("{DEAD_LETTERS_PREFIX}.{reader}.>"))),
        );
        for stream in self.reads() {
            requests.push(once(format!("STREAM.INFO.{stream}")));
            requests.push(once(format!("STREAM.MSG.GET.{stream}")));
        }
        for stream in &self.projects {
            requests.extend(consuming(stream.name));
        }
        for (stream, durable) in self.reacts.iter().flat_map(|stream| Some((stream.name, self.durable?))) {
            requests.extend(taking_over(stream, durable));
            requests.push(once(format!("CONSUMER.INFO.{stream}.{durable}")));
            requests.push(Request::answered_once(format!("$JS.ACK.{stream}.{durable}.>")));
        }
        if let Some(bucket) = self.bucket {
            requests.push(Request::answered_once(format!("$KV.{bucket}.>")));
            // What the account may have is asked before a bucket is made.
            requests.push(once("INFO".to_owned()));
            for call in ["CREATE", "INFO", "MSG.GET"] {
                requests.push(once(format!("STREAM.{call}.KV_{bucket}")));
            }
        }
        requests.extend(snapshots(self.owns));
        requests
    }

    /// Each stream once.
    fn reads(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.projects.iter().chain(self.reacts).map(|stream| stream.name).collect();
        names.push(DEAD_LETTERS);
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What an account imports for these requests: each once, as two imports of a subject would ask twice.
fn imports(requests: Vec<Request>) -> Vec<Request> {
    // Whoever does not import this call is given an API by the server that refuses all the others, too, and whose
    // answer is there first.
    let mut wanted = requests;
    wanted.push(Request::answered_once(api("INFO")));
    wanted.sort();
    wanted.dedup();
    let is_covered = |one: &Request| wanted.iter().any(|other| other.covers(one));
    wanted.iter().filter(|one| !is_covered(one)).cloned().collect()
}

/// What reads a stream with consumers of one's own.
fn consuming(stream: &str) -> [Request; 3] {
    // Never without a name: the body would say which consumer it is.
    [
        Request::answered_once(api(&format!("CONSUMER.CREATE.{stream}.>"))),
        Request::answered_once(api(&format!("CONSUMER.INFO.{stream}.>"))),
        Request::answered_often(api(&format!("CONSUMER.MSG.NEXT.{stream}.>"))),
    ]
}

/// What keeping snapshots takes: a bucket of the object store, where one is purged when there is another.
fn snapshots(owned: Stream) -> Vec<Request> {
    let bucket = service::snapshot_bucket(owned);
    let stream = format!("OBJ_{bucket}");
    let calls = ["STREAM.CREATE", "STREAM.INFO", "STREAM.PURGE"].map(|call| format!("{call}.{stream}"));
    let calls = calls.into_iter().chain([format!("DIRECT.GET.{stream}.>")]);
    calls
        .map(|call| Request::answered_once(api(&call)))
        .chain(consuming(&stream))
        .chain([Request::answered_once(format!("$O.{bucket}.>"))])
        .collect()
}

/// What makes a durable consumer one's own, its messages and its place.
fn taking_over(stream: &str, durable: &str) -> [Request; 3] {
    [
        Request::answered_once(api(&format!("CONSUMER.CREATE.{stream}.{durable}"))),
        Request::answered_once(api(&format!("CONSUMER.CREATE.{stream}.{durable}.>"))),
        Request::answered_often(api(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}"))),
    ]
}

fn api(call: &str) -> String {
    format!("$JS.API.{call}")
}
