//! `deny.toml`, without cargo-deny: licences, sources and doubles of what is built here, as cargo itself tells them.
//!
//! What takes a look outside, advisories and yanked versions, is left to `cargo deny check`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    process::Command,
};

use serde::Deserialize;
use serde_json::Value;

#[test]
fn every_licence_is_one_that_is_allowed() {
    hold(unlicensed(&rules(), &tree().packages));
}

#[test]
fn everything_comes_from_the_registry_or_from_here() {
    let tree = tree();
    hold(strangers(&rules(), &tree.packages));
    // Of every platform: what is built elsewhere stands in the lock file, too.
    let lock: Lock = toml::from_str(&read("Cargo.lock")).expect("Cargo.lock is TOML");
    hold(strangers(&rules(), &lock.package));
    hold(
        lock.package
            .iter()
            .filter(|package| package.source.is_some() && package.checksum.is_none())
            .map(|package| format!("Cargo.lock: {} {} has no checksum", package.name, package.version)),
    );
}

#[test]
fn nothing_is_built_in_two_versions_unless_the_file_says_why() {
    hold(doubles(&rules(), &tree().built()));
}

#[test]
fn every_version_that_we_ask_for_is_one() {
    hold(tree().packages.iter().filter(|package| package.source.is_none()).flat_map(wildcards));
}

/// An exception that nothing needs any more hides the next one.
#[test]
fn every_exception_is_needed_and_has_a_reason() {
    let rules = rules();
    hold(needless(&rules, &tree()));
    let reasons = rules.bans.skip.iter().map(|skip| (&skip.package, &skip.reason));
    let reasons = reasons.chain(rules.advisories.ignore.iter().map(|ignore| (&ignore.id, &ignore.reason)));
    hold(
        reasons
            .filter(|(_, reason)| reason.len() < 10)
            .map(|(what, _)| format!("deny.toml: {what}: no reason")),
    );
    let strict = [
        ("bans.multiple-versions", &rules.bans.multiple_versions),
        ("bans.wildcards", &rules.bans.wildcards),
        ("sources.unknown-registry", &rules.sources.unknown_registry),
        ("sources.unknown-git", &rules.sources.unknown_git),
    ];
    hold(
        strict
            .into_iter()
            .filter(|(_, level)| *level != "deny")
            .map(|(what, _)| format!("deny.toml: {what}")),
    );
}

/// Fails with all that is wrong at once.
fn hold(breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

// --- What the file says -------------------------------------------------------------------------------------------

/// `deny.toml`, as far as it is judged here.
#[derive(Deserialize)]
struct Rules {
    advisories: Advisories,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Advisories {
    ignore: Vec<Ignore>,
}

#[derive(Deserialize)]
struct Ignore {
    id: String,
    reason: String,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    wildcards: String,
    skip: Vec<Skip>,
}

/// A version that may be there beside another.
#[derive(Deserialize)]
struct Skip {
    /// `name:0.1`
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

impl Skip {
    fn covers(&self, name: &str, version: &str) -> bool {
        let (skipped, of) = self.package.split_once(':').unwrap_or((&self.package, ""));
        skipped == name && (format!("{version}.")).starts_with(&format!("{of}."))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    /// Without one, it is the one that Cargo asks by itself.
    #[serde(default)]
    allow_registry: Vec<String>,
}

fn rules() -> Rules {
    toml::from_str(&read("deny.toml")).expect("deny.toml says what is judged here")
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

// --- What there is ------------------------------------------------------------------------------------------------

/// What `cargo metadata` tells of this machine's platform: everything that a build or a test here takes, and no more.
#[derive(Deserialize)]
struct Tree {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

/// As `cargo metadata` and `Cargo.lock` have it.
#[derive(Clone, Deserialize)]
struct Package {
    #[serde(default)]
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None`: a path.
    source: Option<String>,
    #[serde(default)]
    manifest_path: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<Value>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

fn tree() -> Tree {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    };
    let version = run(env!("CARGO"), &["--version", "--verbose"]);
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo says where it runs");
    let metadata = ["metadata", "--format-version", "1", "--locked", "--filter-platform", host];
    serde_json::from_str(&run(env!("CARGO"), &metadata)).expect("metadata is JSON")
}

impl Tree {
    /// What ends up in a program of ours, or builds it. What only tests take is left out, as cargo-deny does.
    fn built(&self) -> Vec<Package> {
        let needs: HashMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
        let mut found = BTreeSet::new();
        let mut next: Vec<&str> = self.workspace_members.iter().map(|id| &**id).collect();
        while let Some(id) = next.pop() {
            if found.insert(id) {
                let deps = needs.get(id).into_iter().flat_map(|node| &node.deps);
                let built =
                    deps.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev")));
                next.extend(built.map(|dep| &*dep.pkg));
            }
        }
        self.packages.iter().filter(|package| found.contains(&*package.id)).cloned().collect()
    }
}

// --- Licences -----------------------------------------------------------------------------------------------------

fn unlicensed(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let allows = |licence: &str| rules.licenses.allow.iter().any(|allowed| allowed == licence);
    let wrong = packages.iter().filter(|package| {
        package.license.as_deref().is_none_or(|licence| Expression::of(licence).holds(&allows) != Some(true))
    });
    wrong
        .map(|Package { name, version, license, .. }| format!("{name} {version}: {license:?} is not allowed"))
        .collect()
}

/// The licences that an expression names, exceptions with them.
fn licences(expression: &str) -> BTreeSet<String> {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    let names = plain.split(" OR ").flat_map(|part| part.split(" AND "));
    names.map(|name| name.trim().to_owned()).collect()
}

/// An SPDX expression, word by word (SPDX specification 2.3, annex D). `/` is how `OR` was written before.
struct Expression(Vec<String>);

impl Expression {
    fn of(text: &str) -> Self {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        Self(spaced.split_whitespace().rev().map(str::to_owned).collect())
    }

    /// Whether it is met by what is allowed; `None` when it is no expression.
    fn holds(mut self, allows: &dyn Fn(&str) -> bool) -> Option<bool> {
        self.any(allows).filter(|_| self.0.is_empty())
    }

    /// One of several, each binding more closely.
    fn any(&mut self, allows: &dyn Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.all(allows)?;
        while self.0.pop_if(|word| word == "OR").is_some() {
            holds |= self.all(allows)?;
        }
        Some(holds)
    }

    fn all(&mut self, allows: &dyn Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.one(allows)?;
        while self.0.pop_if(|word| word == "AND").is_some() {
            holds &= self.one(allows)?;
        }
        Some(holds)
    }

    fn one(&mut self, allows: &dyn Fn(&str) -> bool) -> Option<bool> {
        let word = self.0.pop()?;
        if word == "(" {
            let holds = self.any(allows);
            return self.0.pop_if(|word| word == ")").and(holds);
        }
        if ["OR", "AND", "WITH", ")"].contains(&&*word) {
            return None;
        }
        match self.0.pop_if(|word| word == "WITH") {
            Some(_) => Some(allows(&format!("{word} WITH {}", self.0.pop()?))),
            None => Some(allows(&word)),
        }
    }
}

#[test]
fn a_licence_that_is_not_allowed_is_caught() {
    let allows = |licence: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&licence);
    for (text, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("GPL-3.0/MIT", Some(true)),
        ("GPL-3.0 AND MIT", Some(false)),
        ("MIT AND ISC", Some(true)),
        ("GPL-3.0 OR MIT AND GPL-3.0", Some(false)),
        ("MIT OR GPL-3.0 AND GPL-3.0", Some(true)),
        ("(MIT OR GPL-3.0) AND ISC", Some(true)),
        ("(MIT OR GPL-3.0) AND (GPL-3.0)", Some(false)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("Apache-2.0", Some(false)),
        ("MIT WITH LLVM-exception", Some(false)),
        ("", None),
        ("MIT OR", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("MIT)", None),
        ("MIT WITH", None),
    ] {
        assert_eq!(Expression::of(text).holds(&allows), expected, "{text}");
    }
    let named: Vec<_> = licences("(A/B) AND C WITH D").into_iter().collect();
    assert_eq!(named, ["A", "B", "C WITH D"]);
    let mut nothing = package("x", "1.0.0");
    nothing.license = None;
    assert_eq!(unlicensed(&sample(), &[package("x", "1.0.0")]), [""; 0]);
    assert_eq!(unlicensed(&sample(), &[nothing]).len(), 1);
}

// --- Sources ------------------------------------------------------------------------------------------------------

/// Where what everybody takes comes from.
fn usual_registry() -> Option<String> {
    let lock: Lock = toml::from_str(&read("Cargo.lock")).expect("Cargo.lock is TOML");
    let serde = lock.package.into_iter().find(|package| package.name == "serde")?;
    serde.source.filter(|source| source.starts_with("registry+"))
}

fn strangers(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let registries = rules.sources.allow_registry.iter().map(|registry| format!("registry+{registry}"));
    let registries: Vec<_> = match rules.sources.allow_registry.is_empty() {
        true => usual_registry().into_iter().collect(),
        false => registries.collect(),
    };
    let is_ours = |package: &Package| {
        // A lock file does not say where.
        package.manifest_path.is_empty() || package.manifest_path.starts_with(env!("CARGO_MANIFEST_DIR"))
    };
    let wrong = packages.iter().filter(|package| match &package.source {
        Some(source) => !registries.contains(source),
        None => !is_ours(package),
    });
    wrong.map(|Package { name, version, source, .. }| format!("{name} {version}: from {source:?}")).collect()
}

#[test]
fn a_package_from_elsewhere_is_caught() {
    let caught = |source: Option<&str>, path: &str| {
        let of = Package {
            source: source.map(str::to_owned),
            manifest_path: path.into(),
            ..package("x", "1.0.0")
        };
        strangers(&sample(), &[of]).len()
    };
    assert_eq!(caught(Some("registry+https://registry.example/index"), "/elsewhere/x"), 0);
    assert_eq!(caught(Some("registry+https://another.example/index"), ""), 1);
    assert_eq!(caught(Some("git+https://registry.example/index#0123"), ""), 1);
    assert_eq!(caught(None, concat!(env!("CARGO_MANIFEST_DIR"), "/libs/x/Cargo.toml")), 0);
    assert_eq!(caught(None, "/elsewhere/x/Cargo.toml"), 1);
}

// --- Doubles ------------------------------------------------------------------------------------------------------

fn versions(packages: &[Package]) -> BTreeMap<&str, Vec<&str>> {
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions
}

fn doubles(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let left = versions(packages).into_iter().map(|(name, versions)| {
        let skipped = |version: &&str| rules.bans.skip.iter().any(|skip| skip.covers(name, version));
        (name, versions.into_iter().filter(|version| !skipped(version)).collect::<Vec<_>>())
    });
    let wrong = left.filter(|(_, versions)| versions.len() > 1);
    wrong.map(|(name, versions)| format!("{name} is there as {}", versions.join(" and "))).collect()
}

#[test]
fn a_double_is_caught() {
    let caught = |versions: &[&str]| {
        let packages: Vec<_> = versions.iter().map(|version| package("old", version)).collect();
        doubles(&sample(), &packages).len()
    };
    assert_eq!(caught(&["0.10.3"]), 0);
    assert_eq!(caught(&["0.1.3", "0.10.3"]), 0, "one of them is skipped");
    assert_eq!(caught(&["0.2.0", "0.10.3"]), 1);
    assert_eq!(caught(&["0.1.3", "0.2.0", "0.10.3"]), 1);
}

// --- Versions and exceptions --------------------------------------------------------------------------------------

fn wildcards(package: &Package) -> Vec<String> {
    let wild = package.dependencies.iter().filter(|needed| needed["path"].is_null() && needed["req"] == "*");
    wild.map(|needed| format!("{}: {} in any version", package.name, needed["name"])).collect()
}

fn needless(rules: &Rules, tree: &Tree) -> Vec<String> {
    let licences = tree.packages.iter().filter_map(|package| package.license.as_deref());
    let named: BTreeSet<_> = licences.flat_map(self::licences).collect();
    let unused = rules.licenses.allow.iter().filter(|licence| !named.contains(*licence));
    let unused = unused.map(|licence| format!("deny.toml: nothing is licensed under {licence}"));
    let built = tree.built();
    let versions = versions(&built);
    let double = |skip: &Skip| {
        versions.iter().any(|(name, versions)| {
            versions.len() > 1 && versions.iter().any(|version| skip.covers(name, version))
        })
    };
    let idle = rules.bans.skip.iter().filter(|skip| !double(skip));
    unused.chain(idle.map(|skip| format!("deny.toml: {} is no double", skip.package))).collect()
}

#[test]
fn a_wildcard_or_a_needless_exception_is_caught() {
    let mut asking = package("x", "1.0.0");
    asking.dependencies = vec![
        serde_json::json!({ "name": "a", "req": "*", "path": null }),
        serde_json::json!({ "name": "b", "req": "^1", "path": null }),
        serde_json::json!({ "name": "c", "req": "*", "path": "libs/c" }),
    ];
    assert_eq!(wildcards(&asking).len(), 1);

    let of = |packages: Vec<Package>| Tree {
        workspace_members: packages.iter().map(|package| package.id.clone()).collect(),
        packages,
        resolve: Resolve { nodes: Vec::new() },
    };
    let both = of(vec![package("old", "0.1.3"), package("old", "0.2.0")]);
    assert_eq!(needless(&sample(), &both), [""; 0]);
    let mut one = of(vec![package("old", "0.1.3")]);
    one.packages[0].license = Some("Zlib".into());
    assert_eq!(needless(&sample(), &one).len(), 2);
}

#[test]
fn what_only_tests_take_is_not_built() {
    let dep = |pkg: &str, kind: Option<&str>| Dep {
        pkg: pkg.into(),
        dep_kinds: vec![Kind { kind: kind.map(str::to_owned) }],
    };
    let tree = Tree {
        packages: ["ours", "used", "builds", "tests", "below"].map(|name| package(name, "1.0.0")).into(),
        workspace_members: vec!["ours 1.0.0".into()],
        resolve: Resolve {
            nodes: vec![
                Node {
                    id: "ours 1.0.0".into(),
                    deps: vec![
                        dep("used 1.0.0", None),
                        dep("builds 1.0.0", Some("build")),
                        dep("tests 1.0.0", Some("dev")),
                    ],
                },
                Node { id: "tests 1.0.0".into(), deps: vec![dep("below 1.0.0", None)] },
            ],
        },
    };
    let built: Vec<_> = tree.built().into_iter().map(|package| package.name).collect();
    assert_eq!(built, ["ours", "used", "builds"]);
}

fn package(name: &str, version: &str) -> Package {
    Package {
        id: format!("{name} {version}"),
        name: name.into(),
        version: version.into(),
        license: Some("MIT".into()),
        source: None,
        manifest_path: String::new(),
        checksum: None,
        dependencies: Vec::new(),
    }
}

fn sample() -> Rules {
    let file = r#"
        [advisories]
        ignore = []
        [licenses]
        allow = ["MIT"]
        [bans]
        multiple-versions = "deny"
        wildcards = "deny"
        skip = [{ crate = "old:0.1", reason = "somebody needs it" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://registry.example/index"]
    "#;
    toml::from_str(file).expect("it is as deny.toml is")
}
