//! The processes of an installation of many, from outside: what they refuse before they do anything.

use std::{
    fs,
    process::{Command, Output},
};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bulkhead");
const ROLES: [&str; 3] = ["frontend", "signer", "control"];

fn run(place: &TempDir, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .current_dir(place.path())
        .output()
        .unwrap()
}

fn fails(place: &TempDir, arguments: &[&str], code: i32, said: &[&str]) {
    let output = run(place, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for said in said {
        assert!(error.contains(said), "{arguments:?}: {said:?} is not in {error}");
    }
}

/// The sample of a process, with its data directory in the place of the test.
fn sample(place: &TempDir, role: &str) -> String {
    let output = run(place, &["config", "sample", "--role", role]);
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .replace("/var/lib/bulkhead", &place.path().join(role).display().to_string())
        .replace("127.0.0.1:9464", "127.0.0.1:0")
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("0.0.0.0:8444", "127.0.0.1:0")
}

#[test]
fn every_sample_is_a_configuration_of_its_process_and_of_no_other() {
    let place = tempfile::tempdir().unwrap();
    for role in ROLES {
        let file = format!("{role}.toml");
        fs::write(place.path().join(&file), sample(&place, role)).unwrap();
        assert!(run(&place, &["config", "check", &file]).status.success(), "{role}");
        for other in ROLES.iter().filter(|other| **other != role) {
            fails(&place, &[other, "--config", &file], 2, &[&file, "node.role", role]);
        }
        fails(&place, &["up", "--config", &file], 2, &[&file, "node.role", role]);
    }
}

#[test]
fn a_contradiction_names_file_key_and_remedy_before_anything_is_done() {
    let place = tempfile::tempdir().unwrap();
    for (role, from, to, said) in [
        (
            "frontend",
            "engine = \"postgres\"",
            "engine = \"sqlite\"",
            "store.engine: sqlite is for one process",
        ),
        (
            "frontend",
            "engine = \"amqp\"",
            "engine = \"embedded\"",
            "broker.engine: embedded stays",
        ),
        ("signer", "[[token]]", "[registry]", "registry.directory: unknown key"),
        ("signer", "id = \"signer-1\"", "", "node.id"),
        ("control", "engine = \"postgres\"", "engine = \"mysql\"", "store.engine"),
    ] {
        let file = format!("{role}.toml");
        let text = sample(&place, role);
        assert!(text.contains(from), "{role}: {from}");
        fs::write(place.path().join(&file), text.replace(from, to)).unwrap();
        fails(&place, &[role, "--config", &file], 2, &[&file, said]);
        fails(&place, &["config", "check", &file], 2, &[&file, said]);
        assert!(!place.path().join(role).exists(), "{role} has begun");
    }
}

#[test]
fn a_node_that_is_not_enrolled_says_how_it_is_done() {
    let place = tempfile::tempdir().unwrap();
    for role in ["frontend", "signer"] {
        let file = format!("{role}.toml");
        fs::write(place.path().join(&file), sample(&place, role)).unwrap();
        fails(
            &place,
            &[role, "--config", &file],
            1,
            &["is not enrolled", "bulkhead node invite", "bulkhead node enrol"],
        );
    }
    fs::write(place.path().join("control.toml"), sample(&place, "control")).unwrap();
    fails(
        &place,
        &["node", "enrol", "--config", "control.toml"],
        2,
        &["node.role", "is not enrolled by others"],
    );
    fs::write(place.path().join("code"), "nonsense").unwrap();
    let enrol = ["node", "enrol", "--config", "frontend.toml", "--code-file", "code"];
    fails(
        &place,
        &enrol,
        2,
        &["code: not an enrolment code", "bulkhead node invite"],
    );
}
