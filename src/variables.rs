//! Every environment variable that the all-in-one or one of its services reads, for `--help`.

/// Name, default, meaning.
const VARIABLES: [(&str, &str, &str); 39] = [
    ("PORT", "3000", "where the API is; 0 is a free port"),
    ("DATA_DIR", "./data", "projections, and what is kept for the stand-ins: log, sandbox, keys"),
    ("NATS_URL", "unset", "where NATS is; unset: a nats-server of its own, its log in DATA_DIR/nats"),
    ("NATS_USER", "unset", "who the services are to NATS"),
    ("NATS_PASSWORD", "unset", "that user's password"),
    ("NATS_CREDS", "unset", "a NATS credentials file, in place of user and password"),
    ("NATS_NKEY", "unset", "a file with the seed of an nkey, in place of these"),
    (
        "NATS_CA",
        "unset",
        "a PEM file with the authority of NATS' certificates; set: TLS, and no other is believed",
    ),
    ("NATS_REPLICAS", "1", "how many NATS servers keep a copy of each stream: 1, or 3 on a cluster"),
    (
        "SNAPSHOT_EVERY_EVENTS",
        "100000",
        "after so many events the projections are kept for replicas to come; 0: never",
    ),
    ("PROJECTION_CACHE_MB", "16", "how much of its projections each service keeps in memory"),
    ("JWT_KEY", "made once", "signs sessions; unset: kept in DATA_DIR/jwt.key"),
    ("JWT_KEY_PREVIOUS", "unset", "the key before; sessions that it signed are still good"),
    ("JWT_PRIVATE_KEY", "unset", "signs sessions in place of JWT_KEY: Ed25519, for svc-auth alone"),
    ("JWT_PUBLIC_KEYS", "that one's", "what sessions are checked with where that signs, separated by commas"),
    (
        "MASTER_KEY",
        "made once",
        "seals people's data, 64 hexadecimal digits; unset: kept in DATA_DIR/master.key",
    ),
    (
        "MASTER_KEY_PREVIOUS",
        "unset",
        "another version of it, which opens what it sealed while the key is changed",
    ),
    ("SECURE_COOKIES", "false", "whether sessions need https; a service run on its own: true"),
    ("TRUSTED_PROXIES", "this machine", "whose x-forwarded-for counts: 10.0.0.0/8, 192.0.2.7"),
    ("SCRYPT_LOG_N", "17", "what a password's hash costs: N = 2^this, 14 to 20"),
    ("SIGNUPS_PER_MINUTE", "60", "of each client address; 0 is no limit"),
    (
        "SIGNIN_FAILURES_PER_MINUTE",
        "10",
        "of each client address, ten times as many of each account; 0 is no limit",
    ),
    ("USER_REQUESTS_PER_MINUTE", "600", "of each user, at each service; 0 is no limit"),
    ("MAX_OPEN_ORDERS", "10", "how many tickets each user may hold at once; 0 is no limit"),
    ("EXPIRATION_WINDOW_SECONDS", "900", "how long a reservation lasts without a payment"),
    ("STRIPE_KEY", "unset", "Stripe's secret key; unset: a sandbox, and no card is ever charged"),
    ("STRIPE_API_BASE", "Stripe's own", "another server that answers as Stripe does; needs STRIPE_KEY"),
    ("STRIPE_TIMEOUT_SECONDS", "8", "how long Stripe may take for an answer before it is asked again"),
    (
        "STRIPE_WEBHOOK_SECRET",
        "made once",
        "what Stripe signs its webhook with, whsec_…; made, and kept in DATA_DIR, for the sandbox alone",
    ),
    ("STRIPE_WEBHOOK_SECRET_PREVIOUS", "unset", "the secret before; what it signed is still believed"),
    ("STRIPE_PUBLISHABLE_KEY", "unset", "Stripe's key for its form in the browser, pk_…; unset: test cards"),
    ("STRIPE_SANDBOX_URL", "its address", "where the visitor's browser reaches the sandbox"),
    ("RECONCILE_SECONDS", "300", "how often the log and Stripe are laid side by side"),
    ("CURRENCY", "usd", "what is charged in"),
    ("API_URL", "itself", "where the pages find the API: http://host:port"),
    ("JAEGER_COLLECTOR_URL", "unset", "where spans go: grpc://host:4317 or http://host:4318"),
    ("TRACE_SAMPLE_RATIO", "1.0", "which part of the traces that begin here is exported"),
    ("LOG_FORMAT", "pretty", "how the log on stderr looks: pretty or json"),
    ("RUST_LOG", "info", "what is logged: info, or warn,svc_orders=debug"),
];

/// The table that `--help` ends with.
pub(crate) fn help() -> String {
    let row =
        |(name, default, meaning): &(&str, &str, &str)| format!("  {name:30}  {default:13}  {meaning}\n");
    let rows: String = VARIABLES.iter().map(row).collect();
    format!("Environment (name, default, meaning; empty counts as unset):\n{rows}")
}
