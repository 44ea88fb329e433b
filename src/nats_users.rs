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
//! Not closed: whoever asks says where the answer goes, and the server does not hold that against what they may
//! publish. Into a stream, an answer is no event: it has no `ce-subject`, or another than its subject, and what reads it
//! buries it. Into the API, an empty one (nothing to pull, nothing to get) is a request like any other, and
//! `STREAM.DELETE` wants no more. So these rules are against mistakes; a key in bad hands can still do harm. An account
//! of its own for the streams, with services imported from it, would close this.
//!
//! People are two users, so that looking cannot go wrong: [`operator`] and [`admin`].

use contract::stream::{
    DEAD_LETTERS, DEAD_LETTERS_PREFIX, EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS, durable,
};
use serde::Serialize;

/// One who connects to NATS.
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) permissions: Permissions,
}

/// What somebody may send and hear, as the server's configuration has it.
#[derive(Serialize)]
pub(crate) struct Permissions {
    publish: Rules,
    subscribe: Rules,
}

#[derive(Serialize)]
struct Rules {
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

/// What a service does at NATS.
struct Work {
    owns: Stream,
    /// Whose rows it keeps.
    projects: &'static [Stream],
    /// What it listens to, by this durable.
    reacts: &'static [Stream],
    durable: Option<&'static str>,
    /// The stream of a key-value bucket of its own.
    bucket: Option<&'static str>,
}

const WORK: [Work; 5] = [
    Work {
        owns: USERS,
        projects: &[USERS],
        reacts: &[],
        durable: None,
        bucket: Some(svc_auth::user_keys::BUCKET),
    },
    Work {
        owns: TICKETS,
        projects: &[TICKETS],
        reacts: &[ORDERS],
        durable: Some(durable::TICKETS),
        bucket: None,
    },
    Work {
        owns: ORDERS,
        projects: &[ORDERS, TICKETS],
        reacts: &[PAYMENTS, EXPIRATIONS],
        durable: Some(durable::ORDERS),
        bucket: None,
    },
    Work {
        owns: PAYMENTS,
        projects: &[PAYMENTS, ORDERS, TICKETS],
        reacts: &[ORDERS, PAYMENTS],
        durable: Some(durable::PAYMENTS),
        bucket: None,
    },
    Work {
        owns: EXPIRATIONS,
        projects: &[EXPIRATIONS, ORDERS],
        reacts: &[ORDERS],
        durable: Some(durable::EXPIRATION),
        bucket: None,
    },
];

/// Everybody in the account of the marketplace.
pub(crate) fn users() -> Vec<User> {
    let services = WORK.iter().map(|work| User { name: work.owns.source, permissions: work.permissions() });
    let people = [("operator", operator()), ("admin", admin())];
    services.chain(people.map(|(name, permissions)| User { name, permissions })).collect()
}

/// Looks at everything and may ask for no change, with the nats CLI. To look, it makes consumers that nobody else knows,
/// by a name in the subject. Backups are a way of looking.
fn operator() -> Permissions {
    let everybodys = WORK.iter().flat_map(|work| work.durable);
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
        publish: Rules { allow, deny: everybodys.flat_map(|durable| taking_over("*", durable)).collect() },
        subscribe: Rules { allow: vec!["_INBOX.>".to_owned(), "ticketing.>".to_owned()], deny: Vec::new() },
    }
}

/// Whatever JetStream can be asked for, deleting and restoring included. Events come of services alone: it publishes
/// none, and takes or acknowledges none in a service's place.
fn admin() -> Permissions {
    let allow = ["$JS.API.>", "$JS.FC.>", "$JS.SNAPSHOT.ACK.>", "$JS.SNAPSHOT.RESTORE.>"].map(str::to_owned);
    let everybodys = WORK.iter().flat_map(|work| work.durable);
    let deny = everybodys.map(|durable| api(&format!("CONSUMER.MSG.NEXT.*.{durable}")));
    Permissions {
        publish: Rules { allow: allow.into(), deny: deny.collect() },
        subscribe: Rules { allow: vec!["_INBOX.>".to_owned(), "ticketing.>".to_owned()], deny: Vec::new() },
    }
}

impl Work {
    fn permissions(&self) -> Permissions {
        let name = self.owns.source;
        let mut allow = vec![
            self.owns.subjects.to_owned(),
            api(&format!("STREAM.CREATE.{}", self.owns.name)),
            api(&format!("STREAM.CREATE.{DEAD_LETTERS}")),
        ];
        let readers = self.projects.iter().map(|stream| format!("{name}-{}", stream.name.to_lowercase()));
        let readers = readers.chain(self.durable.map(str::to_owned));
        allow.extend(readers.map(|reader| format!("{DEAD_LETTERS_PREFIX}.{reader}.>")));
        for stream in self.reads() {
            allow.push(api(&format!("STREAM.INFO.{stream}")));
            allow.push(api(&format!("STREAM.MSG.GET.{stream}")));
        }
        for stream in self.projects {
            // Never without a name: the body would say which consumer it is.
            for call in ["CREATE", "INFO", "MSG.NEXT"] {
                allow.push(api(&format!("CONSUMER.{call}.{}.>", stream.name)));
            }
        }
        for (stream, durable) in self.reacts.iter().flat_map(|stream| Some((stream.name, self.durable?))) {
            allow.extend(taking_over(stream, durable));
            allow.push(api(&format!("CONSUMER.INFO.{stream}.{durable}")));
            allow.push(format!("$JS.ACK.{stream}.{durable}.>"));
        }
        if let Some(bucket) = self.bucket {
            allow.push(format!("$KV.{bucket}.>"));
            // What the account may have is asked before a bucket is made.
            allow.push(api("INFO"));
            for call in ["CREATE", "INFO", "MSG.GET"] {
                allow.push(api(&format!("STREAM.{call}.KV_{bucket}")));
            }
        }
        allow.extend(snapshots(self.owns));
        allow.dedup();
        let others = WORK.iter().filter(|other| other.owns != self.owns).flat_map(|other| other.durable);
        let deny = others.flat_map(|durable| {
            self.projects.iter().flat_map(move |stream| taking_over(stream.name, durable))
        });
        Permissions {
            publish: Rules { allow, deny: deny.collect() },
            // Answers come here, and what consumers deliver: nobody hears another's.
            subscribe: Rules { allow: vec![format!("_INBOX.{name}.>")], deny: Vec::new() },
        }
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

/// What keeping snapshots takes: an object store of one's own, where the one before is purged when there is another.
fn snapshots(owned: Stream) -> impl Iterator<Item = String> {
    let bucket = service::snapshot_bucket(owned);
    let calls = [
        "STREAM.CREATE.OBJ_",
        "STREAM.INFO.OBJ_",
        "STREAM.PURGE.OBJ_",
        "DIRECT.GET.OBJ_",
        "CONSUMER.CREATE.OBJ_",
        "CONSUMER.INFO.OBJ_",
        "CONSUMER.MSG.NEXT.OBJ_",
    ];
    let (of_the_stream, within) = calls.split_at(3);
    let of_the_stream = of_the_stream.iter().map(|call| api(&format!("{call}{bucket}")));
    let within = within.iter().map(|call| api(&format!("{call}{bucket}.>")));
    let calls: Vec<_> = of_the_stream.chain(within).collect();
    calls.into_iter().chain([format!("$O.{bucket}.>")])
}

/// What makes a durable consumer one's own, its messages and its place.
fn taking_over(stream: &str, durable: &str) -> [String; 3] {
    [
        api(&format!("CONSUMER.CREATE.{stream}.{durable}")),
        api(&format!("CONSUMER.CREATE.{stream}.{durable}.>")),
        api(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}")),
    ]
}

fn api(call: &str) -> String {
    format!("$JS.API.{call}")
}
