//! A thousand certificates of every kind, judged by another linter: pkilint, run by `tests/pkilint/lint.py`.

mod common;

use std::{collections::HashMap, fs, path::Path, process::Command};

use common::{Authority, KINDS, key, public_key, serial};
use domain::key::KeyType;
use pki::{
    certificate::{check_sealed, prepare, seal},
    lint::LintContext,
};

const COUNT: usize = 1000;

#[test]
fn another_linter_finds_nothing_in_a_thousand_certificates_that_has_no_waiver() {
    let directory = tempfile::tempdir().unwrap();
    let authorities: HashMap<KeyType, Authority> = KeyType::ALL
        .into_iter()
        .map(|key_type| {
            (
                key_type,
                Authority::new(&format!("ca-{}", key_type.as_str().to_lowercase()), key_type),
            )
        })
        .collect();
    let keys: HashMap<KeyType, Vec<u8>> = KeyType::ALL
        .into_iter()
        .map(|key_type| (key_type, public_key(&key(key_type))))
        .collect();
    for authority in authorities.values() {
        let own = directory.path().join(authority.issuer.id.as_str());
        fs::create_dir(&own).unwrap();
        fs::write(own.join("issuer.der"), &*authority.issuer.chain[0]).unwrap();
    }
    for number in 0..COUNT {
        let kind = &KINDS[number % KINDS.len()];
        let turn = number / KINDS.len();
        let key_type = kind.keys[turn % kind.keys.len()];
        let authority = &authorities[&kind.issuers[turn / kind.keys.len() % kind.issuers.len()]];
        let profile = kind.profile(key_type);
        let content = authority.admit(&profile, &kind.request(number), key_type, &keys[&key_type]);
        let tbs = prepare(&content, &authority.issuer, serial(number)).unwrap();
        let context = LintContext::new(&authority.issuer);
        assert_eq!(context.lint_tbs(&tbs, &profile), [], "{} {key_type}", kind.name);
        let certificate = seal(&tbs, authority.issuer.signature_algorithm, &authority.sign(&tbs));
        assert_eq!(
            context.lint_certificate(&certificate, &profile),
            [],
            "{} {key_type}",
            kind.name
        );
        check_sealed(&certificate, &tbs, &content, &authority.issuer).unwrap();
        let place = directory.path().join(authority.issuer.id.as_str()).join(kind.name);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(format!("{number:04}.der")), certificate).unwrap();
    }
    let (status, report) = judge(directory.path(), None);
    assert_eq!(status, Some(0), "{report}");
    assert!(report.contains(&format!("{COUNT} certificates")), "{report}");
}

/// Runs pkilint over a directory: exit status, and what it says.
fn judge(directory: &Path, waivers: Option<&Path>) -> (Option<i32>, String) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let python = tests.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: tests/run makes it", python.display());
    let mut command = Command::new(python);
    command.arg(tests.join("pkilint/lint.py")).arg(directory);
    if let Some(waivers) = waivers {
        command.arg("--waivers").arg(waivers);
    }
    let output = command.output().unwrap();
    let report = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&report).into_owned())
}

#[test]
fn findings_without_waiver_and_waivers_without_finding_are_failures() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("issuer");
    fs::create_dir_all(own.join("service")).unwrap();
    let authority = Authority::new("test", KeyType::P256);
    fs::write(own.join("issuer.der"), &*authority.issuer.chain[0]).unwrap();
    let kind = KINDS.iter().find(|kind| kind.name == "tsa").unwrap();
    let key = public_key(&key(KeyType::P256));
    let content = authority.admit(&kind.profile(KeyType::P256), &kind.request(0), KeyType::P256, &key);
    let tbs = prepare(&content, &authority.issuer, serial(0)).unwrap();
    let signed = seal(&tbs, authority.issuer.signature_algorithm, &authority.sign(&tbs));
    let falsely_signed = seal(
        &tbs,
        authority.issuer.signature_algorithm,
        &authority.sign(b"other bytes"),
    );
    let waivers = tempfile::NamedTempFile::new().unwrap();
    let judged = |certificate: &[u8], codes: &[&str]| {
        let waiver = |code: &&str| format!("[[waiver]]\ncode = \"{code}\"\nprofile = \"service\"\nreason = \"test\"\n");
        fs::write(own.join("service/0.der"), certificate).unwrap();
        fs::write(waivers.path(), codes.iter().map(waiver).collect::<String>()).unwrap();
        judge(directory.path(), Some(waivers.path()))
    };
    let usual = [
        "pkix.certificate_has_no_certificate_policies_extension",
        "pkix.subject_key_identifier_rfc7093_method_1_identified",
    ];
    for (certificate, waivers, status) in [
        (&signed, &usual[..], 0),
        (&signed, &usual[..1], 1),
        (&signed, &[usual[0], usual[1], "pkix.never_found"], 2),
        (&falsely_signed, &usual, 1),
        (&vec![0x30, 0x00], &usual, 1),
    ] {
        let (found, report) = judged(certificate, waivers);
        assert_eq!(found, Some(status), "{report}");
    }
}
