//! `compose.yaml` and the files that it mounts hold together. That containers run is not tested here: there may be no engine for them.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Deployment, root};

fn yaml(file: &str) -> Result<Value> {
    let text = fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
    serde_saphyr::from_str(&text).with_context(|| file.to_owned())
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn every_process_is_started_with_a_configuration_that_is_its_own() -> Result<()> {
    let compose = yaml("compose.yaml")?;
    let services = compose["services"].as_object().context("no services")?;
    let declared: BTreeSet<&str> = compose["volumes"]
        .as_object()
        .context("no volumes")?
        .keys()
        .map(String::as_str)
        .collect();
    let mut processes = BTreeSet::new();
    for (name, service) in services {
        let volumes = texts(&service["volumes"]);
        for volume in &volumes {
            let (source, _) = volume.split_once(':').with_context(|| format!("{name}: {volume}"))?;
            let there = if source.starts_with("./") {
                root().join(source).is_file()
            } else {
                declared.contains(source)
            };
            ensure!(there, "{name} mounts {source}, which is not there");
        }
        for needed in service["depends_on"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(needed, _)| needed)
        {
            ensure!(
                services.contains_key(needed),
                "{name} waits for {needed}, which is not there"
            );
        }
        let image = service["image"]
            .as_str()
            .with_context(|| format!("{name} has no image"))?;
        ensure!(
            image.contains(':') && !image.ends_with(":latest"),
            "{name}: {image} may be anything"
        );
        if image != "bulkhead:local" {
            continue;
        }
        let command = texts(&service["command"]);
        let (role, _) = name.split_once('-').unwrap_or((name, ""));
        ensure!(command.first() == Some(&role), "{name} is started as {command:?}");
        let config = volumes
            .iter()
            .find_map(|volume| volume.strip_suffix(":/etc/bulkhead/bulkhead.toml:ro"))
            .with_context(|| format!("{name} has no configuration"))?;
        let output = Command::new(Deployment::program()?)
            .args(["config", "check", config, "--output", "json"])
            .current_dir(root())
            .output()?;
        ensure!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let checked: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(
            checked["config"]["node"]["role"] == role,
            "{name} is configured as {}",
            checked["config"]["node"]["role"]
        );
        let collector = checked["config"]["telemetry"]["otlp_endpoint"]
            .as_str()
            .unwrap_or_default();
        let collector = collector.trim_start_matches("http://").trim_end_matches(":4318");
        ensure!(services.contains_key(collector), "{name} sends spans to {collector:?}");
        processes.insert(name.as_str());
    }
    let expected = ["control", "frontend-1", "frontend-2", "signer-1", "signer-2"];
    ensure!(processes == BTreeSet::from(expected), "processes: {processes:?}");

    let scraped = yaml("deploy/prometheus.yaml")?;
    let targets = texts(&scraped["scrape_configs"][0]["static_configs"][0]["targets"]);
    let scraped: BTreeSet<&str> = targets
        .iter()
        .filter_map(|target| target.strip_suffix(":9464"))
        .collect();
    ensure!(scraped == processes, "scraped: {scraped:?}");
    yaml("deploy/grafana/datasource.yaml")?;
    let collector = yaml("deploy/otel-collector.yaml")?;
    let endpoint = &collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"];
    ensure!(endpoint == "0.0.0.0:4318", "the collector listens on {endpoint}");
    Ok(())
}
