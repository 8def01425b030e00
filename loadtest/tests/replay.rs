//! The replay of an incident in its shortest form, as its users run it: it says nothing about speed, and that it still does what it says.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_incident_is_replayed_nothing_is_lost_and_the_old_way_collapses() {
    let directory = tempfile::tempdir().unwrap();
    let replayed = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "replay",
            "atlas",
            "--engine",
            "embedded",
            "--requests",
            "100",
            "--report",
        ])
        .arg(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replayed.stderr);
    // Marks that are about speed may be missed where nothing is optimised and much else runs.
    assert!(matches!(replayed.status.code(), Some(0 | 1)), "{said}");
    let read = |name: &str| {
        std::fs::read_to_string(directory.path().join(name)).unwrap_or_else(|_| panic!("no {name}: {said}"))
    };
    let report: Value = serde_json::from_str(&read("report.json")).unwrap();
    for system in ["ours", "reference"] {
        for field in [
            "healthy_requests",
            "healthy_failed",
            "healthy_p99_ms_before",
            "healthy_p99_ms_during",
            "healthy_p99_ratio",
            "recovery_seconds",
            "lost",
            "issued_twice",
            "signers_backed_off_max",
        ] {
            assert!(report[system][field].is_number(), "{system}.{field}: {report}");
        }
    }
    let number = |system: &str, field: &str| report[system][field].as_u64().unwrap();
    for field in ["lost", "issued_twice", "signers_backed_off_max"] {
        assert_eq!(number("ours", field), 0, "{field}: {report}");
    }
    assert!(number("ours", "healthy_requests") >= 100, "{report}");
    assert!(
        number("reference", "healthy_failed") * 5 > number("reference", "healthy_requests"),
        "{report}"
    );
    assert!(number("reference", "signers_backed_off_max") > 0, "{report}");
    assert!(read("report.svg").ends_with("</svg>\n"));
    let page = read("report.md");
    assert!(
        page.contains("| jobs lost | 0 |") && String::from_utf8_lossy(&replayed.stdout).contains(&page),
        "{page}"
    );
}
