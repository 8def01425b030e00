//! Every command that the README prints, run as a stranger would run it: in an empty directory, in the README's order.
//!
//! `cargo run --release --` is answered by the program that the test runner has built; `tests/run` is what runs this test, so of it
//! only presence and syntax are checked. Everything else runs as it is printed.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Context, Result, ensure};
use engines::{Postgres, rabbitmq::RabbitMq};
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

/// The same for the chapter about many processes: each is ready when it says so.
const PRELUDE_OF_MANY: &str = r#"
set -euo pipefail
program="$PWD/target/release/bulkhead"
running=()
trap 'kill -TERM "${running[@]}" 2>/dev/null; wait || true' EXIT
cargo() {
    [ "$1 $2 $3" = "run --release --" ] || { echo "unexpected: cargo $*" >&2; return 1; }
    shift 3
    case "$1" in
    control | frontend | signer) ;;
    *) "$program" "$@"; return ;;
    esac
    "$program" "$@" --ready-file "$1.ready" >"$1.log" 2>&1 &
    running+=($!)
    for _ in $(seq 1200); do
        [ -e "$1.ready" ] && return
        kill -0 $! || { cat "$1.log" >&2; return 1; }
        sleep 0.1
    done
    cat "$1.log" >&2
    return 1
}
"#;

/// The chapter about many processes, which needs servers that the rest does not.
const MANY: &str = "## Growing up";

/// The lines of the README's shell blocks, in order: of the chapter about many processes, or of all the others.
fn commands(readme: &str, many: bool) -> Vec<String> {
    let (mut inside, mut here) = (false, !many);
    let mut lines = Vec::new();
    for line in readme.lines() {
        if line.starts_with("## ") && !inside {
            here = (line == MANY) == many;
        }
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside && here => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

/// Runs the lines with bash in an empty directory; what they print, and what they complain of.
fn run(prelude: &str, lines: &[String], environment: &[(&str, &str)]) -> Result<(String, String)> {
    let directory = tempfile::tempdir()?;
    fs::create_dir_all(directory.path().join("target/release"))?;
    symlink(Deployment::program()?, directory.path().join("target/release/bulkhead"))?;
    let script = format!("{prelude}\nset -x\n{}\nset +x\n", lines.join("\n"));
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(directory.path())
        .envs(environment.iter().copied())
        .output()
        .context("bash runs")?;
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    ensure!(
        output.status.success(),
        "the README's commands end with {}:\n{out}\n{error}",
        output.status
    );
    println!("{} lines of the README were run", lines.len());
    Ok((out, error))
}

#[test]
fn every_command_of_the_readme_works() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let lines = commands(&readme, false);
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

    let lines: Vec<_> = lines.into_iter().filter(|line| *line != "./tests/run").collect();
    let (out, error) = run(PRELUDE, &lines, &[])?;
    ensure!(
        out.contains("www.example.com.pem: OK"),
        "openssl verify did not say OK:\n{out}\n{error}"
    );
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_chapter_about_many_processes_works() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let postgres = Postgres::start()?;
    postgres.create_database("bulkhead")?;
    let rabbitmq = RabbitMq::start().await?;
    let password = "of the test alone";
    rabbitmq.control(&["add_user", "bulkhead", password]).await?;
    rabbitmq
        .control(&["set_permissions", "bulkhead", ".*", ".*", ".*"])
        .await?;
    // As printed, but for the ports: this machine may have servers of its own.
    let mut ports = vec![
        ("5432".to_owned(), postgres.port()),
        ("5672".to_owned(), rabbitmq.address().port()),
    ];
    for printed in ["18443", "18444", "19464", "19465", "19466"] {
        ports.push((printed.to_owned(), free_port()?));
    }
    let mut lines = commands(&readme, true);
    for (printed, port) in ports {
        let text = lines.join("\n");
        ensure!(text.contains(&printed), "the README does not use port {printed}");
        lines = text
            .replace(&printed, &port.to_string())
            .lines()
            .map(str::to_owned)
            .collect();
    }
    lines.push("openssl x509 -in grown.pem -noout -subject".into());
    let environment = [
        ("POSTGRES_PASSWORD", engines::postgres::PASSWORD),
        ("AMQP_PASSWORD", password),
    ];
    let (out, error) = run(PRELUDE_OF_MANY, &lines, &environment)?;
    ensure!(
        out.contains("CN = grown.example.com"),
        "there is no certificate:\n{out}\n{error}"
    );
    for node in ["control-1", "frontend-1", "signer-1"] {
        ensure!(out.contains(node), "node list does not know {node}:\n{out}");
    }
    Ok(())
}
