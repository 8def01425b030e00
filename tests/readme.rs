//! Every command that the README prints, run as a stranger would run it: in an empty directory, in the README's order.
//!
//! `cargo run --release --` is answered by the program that the test runner has built; `tests/run` is what runs this test, so of it
//! only presence and syntax are checked. Everything else runs as it is printed.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Context, Result, ensure};
use tests::{Deployment, root};

/// What stands before the README's commands: the program in place of cargo, and `up` in the background, as in another terminal.
const PRELUDE: &str = r#"
set -euo pipefail
program="$PWD/target/release/bulkhead"
cargo() {
    [ "$1 $2 $3" = "run --release --" ] || { echo "unexpected: cargo $*" >&2; return 1; }
    shift 3
    if [ "$1" != up ]; then "$program" "$@"; return; fi
    "$program" "$@" >up.log 2>&1 &
    up=$!
    trap 'kill -TERM $up 2>/dev/null; wait $up || true' EXIT
    for _ in $(seq 600); do
        grep -q '^Bulkhead is ready' up.log && return
        kill -0 $up || { cat up.log >&2; return 1; }
        sleep 0.1
    done
    cat up.log >&2
    return 1
}
"#;

/// The lines of the README's shell blocks, in order.
fn commands(readme: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in readme.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[test]
fn every_command_of_the_readme_works() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let lines = commands(&readme);
    ensure!(
        lines.iter().any(|line| line.starts_with("cargo run --release -- up")),
        "the README does not start the program"
    );
    ensure!(
        lines.iter().any(|line| line == "./tests/run"),
        "the README does not name the test command"
    );
    let runner = root().join("tests/run");
    ensure!(
        Command::new("bash").arg("-n").arg(&runner).status()?.success(),
        "tests/run has a syntax error"
    );

    let directory = tempfile::tempdir()?;
    fs::create_dir_all(directory.path().join("target/release"))?;
    symlink(Deployment::program()?, directory.path().join("target/release/bulkhead"))?;
    let script: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| *line != "./tests/run")
        .collect();
    let script = format!("{PRELUDE}\nset -x\n{}\nset +x\n", script.join("\n"));
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(directory.path())
        .output()
        .context("bash runs")?;
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "the README's commands end with {}:\n{out}\n{error}",
        output.status
    );
    ensure!(
        out.contains("www.example.com.pem: OK"),
        "openssl verify did not say OK:\n{out}\n{error}"
    );
    println!(
        "{} lines of the README were run",
        script.lines().count() - PRELUDE.lines().count()
    );
    Ok(())
}
