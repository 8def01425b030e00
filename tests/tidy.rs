//! The rules of the house, as far as a program can check them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What a crate of ours may import of ours. A crate that is not here fails the test: say where it stands.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("pki", &["domain"]),
    ("wire", &["domain"]),
    ("broker", &["domain"]),
    ("store", &["domain"]),
    ("keys", &["domain"]),
    ("runtime", &["domain", "wire", "store"]),
    ("frontend", MIDDLE),
    ("signer", MIDDLE),
    ("registry", MIDDLE),
    (
        "bulkhead",
        &[
            "domain", "pki", "wire", "broker", "store", "keys", "runtime", "frontend", "signer", "registry",
        ],
    ),
    (
        "loadtest",
        &[
            "domain",
            "pki",
            "wire",
            "keys",
            "runtime",
            "tests",
            "engines",
            "hsm-faults",
        ],
    ),
    ("engines", &[]),
    ("hsm-faults", &[]),
    (
        "tests",
        &[
            "domain",
            "pki",
            "wire",
            "broker",
            "store",
            "keys",
            "runtime",
            "frontend",
            "signer",
            "registry",
            "engines",
            "hsm-faults",
        ],
    ),
];
const MIDDLE: &[&str] = &["domain", "pki", "wire", "broker", "store", "keys", "runtime"];

/// Crates that decide: no clock, no randomness, no I/O, no async runtime, whatever they are called.
const PURE: [&str; 2] = ["domain", "pki"];
const IMPURE: [&str; 12] = [
    "tokio",
    "async-std",
    "rand",
    "getrandom",
    "axum",
    "hyper",
    "reqwest",
    "rusqlite",
    "sqlx",
    "lapin",
    "tracing",
    "chrono",
];
/// What betrays a clock, randomness or I/O in the text of a pure crate.
const IMPURE_WORDS: [&str; 8] = [
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "std::process",
    "SystemRandom",
    "println!",
];

/// Longest Rust file, in lines.
const LONGEST_FILE: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
        .to_owned()
}

/// Every file that git would commit.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(output.status.success(), "git ls-files failed");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<PathBuf> = text
        .lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect();
    assert!(files.len() > 50, "git knows of {} files: not a checkout?", files.len());
    files
}

fn rust_files() -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("Rust files are UTF-8");
            (path.strip_prefix(root()).expect("below the root").to_owned(), text)
        })
        .collect()
}

fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The way of one import: `(importing crate, imported crate)`, both ours, tests' own included.
fn imports(metadata: &Value) -> Vec<(String, String)> {
    let ours: BTreeSet<&str> = list(&metadata["packages"])
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    list(&metadata["packages"])
        .iter()
        .flat_map(|package| {
            list(&package["dependencies"])
                .iter()
                .map(move |dependency| (package, dependency))
        })
        .filter(|(_, dependency)| ours.contains(text(&dependency["name"])) && dependency["kind"] != "dev")
        .map(|(package, dependency)| (text(&package["name"]).to_owned(), text(&dependency["name"]).to_owned()))
        .collect()
}

fn wrong_way(imports: &[(String, String)]) -> Vec<String> {
    let may: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    imports
        .iter()
        .filter(|(from, to)| {
            !may.get(from.as_str())
                .is_some_and(|allowed| allowed.contains(&to.as_str()))
        })
        .map(|(from, to)| format!("{from} imports {to}"))
        .collect()
}

#[test]
fn imports_run_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    for package in list(&metadata["packages"]) {
        assert!(
            known.contains(text(&package["name"])),
            "{} has no place in the table of imports",
            package["name"]
        );
    }
    report("imports that run the wrong way", &wrong_way(&imports(&metadata)));
}

#[test]
fn an_import_that_runs_the_wrong_way_is_found() {
    let import = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(wrong_way(&[import("domain", "store")]), ["domain imports store"]);
    assert_eq!(wrong_way(&[import("signer", "frontend")]), ["signer imports frontend"]);
    assert_eq!(wrong_way(&[import("store", "broker")]), ["store imports broker"]);
    assert_eq!(wrong_way(&[import("signer", "store")]), Vec::<String>::new());
}

#[test]
fn the_core_is_pure() {
    let metadata = metadata(&["--no-deps"]);
    let mut broken = Vec::new();
    for package in list(&metadata["packages"])
        .iter()
        .filter(|p| PURE.contains(&text(&p["name"])))
    {
        for dependency in list(&package["dependencies"]).iter().filter(|d| d["kind"].is_null()) {
            if IMPURE.contains(&text(&dependency["name"])) {
                broken.push(format!(
                    "{} depends on {}",
                    text(&package["name"]),
                    text(&dependency["name"])
                ));
            }
        }
    }
    for (path, text) in rust_files() {
        let pure = PURE.iter().any(|name| path.starts_with(format!("shared/{name}/src")));
        for word in IMPURE_WORDS.iter().filter(|word| pure && text.contains(**word)) {
            broken.push(format!("{} says {word}", path.display()));
        }
    }
    report("the core has a clock, randomness or I/O", &broken);
}

#[test]
fn no_rust_file_is_too_long() {
    let broken: Vec<String> = rust_files()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("{} has {lines} lines; the limit is {LONGEST_FILE}", path.display()))
        .collect();
    report("files that are too long", &broken);
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let broken: Vec<String> = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    report("files that do not begin with //!", &broken);
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    // Written in two parts, so that this file does not accuse itself.
    let words = [
        ("todo", "!("),
        ("unimplemented", "!("),
        ("#[ign", "ore"),
        ("FIX", "ME"),
        ("TO", "DO:"),
        ("#[al", "low("),
        ("#![al", "low("),
    ];
    let mut broken = Vec::new();
    for (path, text) in rust_files() {
        for (first, second) in words {
            if text.contains(&format!("{first}{second}")) {
                broken.push(format!("{} has {first}{second}", path.display()));
            }
        }
    }
    report("unfinished or switched off", &broken);
}

#[test]
fn the_project_speaks_of_the_project_alone() {
    let words = [
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/tm", "p/brief"),
        ("crates", ".io/api"),
        ("DEVELOPERS", ".md"),
        (".lib", "rary"),
    ];
    let mut broken = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (first, second) in words {
            if text.contains(&format!("{first}{second}")) {
                broken.push(format!("{} says {first}{second}", path.display()));
            }
        }
    }
    report("words that do not belong here", &broken);
}

/// A package of others that is built for the program or its tests on this platform.
struct Foreign {
    name: String,
    version: String,
    /// Where it comes from, when that is not the registry.
    elsewhere: bool,
    licence: String,
}

fn foreign_packages() -> Vec<Foreign> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--target",
            "x86_64-unknown-linux-gnu",
            "--edges",
            "normal,build,dev",
        ])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let packages: Vec<Foreign> = lines
        .iter()
        .filter_map(|line| {
            let (package, licence) = line.rsplit_once('|')?;
            let package = package.replace(" (proc-macro)", "");
            let mut words = package.split(' ');
            let (name, version) = (
                words.next()?.to_owned(),
                words.next()?.trim_start_matches('v').to_owned(),
            );
            let source = words.next();
            let ours = source.is_some_and(|source| Path::new(source.trim_matches(['(', ')'])).starts_with(root()));
            (!ours).then(|| Foreign {
                name,
                version,
                elsewhere: source.is_some(),
                licence: licence.to_owned(),
            })
        })
        .collect();
    assert!(
        packages.len() > 100,
        "cargo tree knows of {} packages only",
        packages.len()
    );
    packages
}

fn policy() -> toml::Table {
    fs::read_to_string(root().join("deny.toml"))
        .expect("deny.toml is there")
        .parse()
        .expect("deny.toml is TOML")
}

#[test]
fn only_allowed_licences_are_in_the_tree() {
    let policy = policy();
    let allowed: BTreeSet<&str> = policy["licenses"]["allow"]
        .as_array()
        .expect("a list of licences")
        .iter()
        .map(|licence| licence.as_str().expect("a licence is a text"))
        .collect();
    let broken: Vec<String> = foreign_packages()
        .into_iter()
        .filter(|package| !satisfied(&package.licence, &allowed))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.licence))
        .collect();
    report("licences that the policy does not allow", &broken);
}

/// Whether an SPDX expression can be met: one alternative of each OR, every part of each AND. Parentheses bind as they should.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    let met = either(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut met = licence(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= licence(words, allowed);
    }
    met
}

fn licence(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = either(words, allowed);
        return words.next_if_eq(&")").is_some() && met;
    }
    let Some(name) = words.next() else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        return words
            .next()
            .is_some_and(|exception| allowed.contains(format!("{name} WITH {exception}").as_str()));
    }
    allowed.contains(name)
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for (expression, met) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (MIT OR GPL-3.0)", true),
        ("(ISC OR MIT) AND GPL-3.0", false),
        ("GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn there_is_one_crypto_provider_and_nothing_that_is_banned() {
    let policy = policy();
    let banned: BTreeSet<&str> = policy["bans"]["deny"]
        .as_array()
        .expect("a list of bans")
        .iter()
        .map(|ban| ban["crate"].as_str().expect("a ban names a crate"))
        .collect();
    let packages = foreign_packages();
    assert!(
        packages.iter().any(|package| package.name == "aws-lc-rs"),
        "aws-lc-rs is not in the tree at all"
    );
    let broken: Vec<String> = packages
        .into_iter()
        .map(|package| package.name)
        .filter(|name| banned.contains(name.as_str()))
        .collect();
    report("banned crates", &broken);
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let broken: Vec<String> = foreign_packages()
        .into_iter()
        .filter(|package| package.elsewhere)
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    report("dependencies from elsewhere", &broken);
}
