//! Results, as tables, JSON and a plot.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use domain::key::KeyType;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    client::Session,
    drive::{Outcome, Pace},
};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bare: Vec<BareRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips: Option<RoundTripRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunRow>,
    /// What was done for several jobs at a time: what, jobs, how often.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<(String, u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// The bare loop.
#[derive(Debug, Serialize)]
pub struct BareRow {
    pub key_type: KeyType,
    pub threads: usize,
    pub certificates: usize,
    pub seconds: f64,
    pub per_second: f64,
    pub cpu_us: f64,
}

/// Raw round trips through the broker: publish, confirm, deliver, acknowledge, reply.
#[derive(Debug, Serialize)]
pub struct RoundTripRow {
    pub window: usize,
    pub round_trips: usize,
    pub seconds: f64,
    pub per_second: f64,
    pub client_cpu_us: f64,
    pub broker_cpu_us: f64,
    /// Issued a second in the closed loop, as a share of these.
    pub share: Option<f64>,
}

/// A loop against a running Bulkhead.
#[derive(Debug, Serialize)]
pub struct RunRow {
    pub account: String,
    pub issuer: String,
    pub key_type: KeyType,
    pub pace: String,
    pub connections: usize,
    pub issued: usize,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU time of the server per certificate, all its processes together.
    pub server_cpu_us: Option<f64>,
    /// The same by process.
    pub cpu_us: Vec<(String, f64)>,
    /// CPU time of the generator per certificate.
    pub own_cpu_us: f64,
    pub errors: BTreeMap<String, usize>,
}

/// A closed loop against the bare loop.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Issued a second, as a share of what the bare loop makes.
    pub rate: f64,
    /// CPU time of the bare loop, as a share of what the server takes for a certificate.
    pub cpu: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "counts of certificates are far below 2^53")]
fn each(total: f64, count: usize) -> f64 {
    total / count.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of certificates are far below 2^53")]
fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

impl BareRow {
    pub fn of(key_type: KeyType, threads: usize, certificates: usize, elapsed: Duration, cpu: Duration) -> Self {
        Self {
            key_type,
            threads,
            certificates,
            seconds: elapsed.as_secs_f64(),
            per_second: per_second(certificates, elapsed),
            cpu_us: each(cpu.as_secs_f64() * 1e6, certificates),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^53 microseconds")]
fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1000.0
}

impl RunRow {
    pub fn of(session: &Session, connections: usize, pace: Pace, outcome: &Outcome) -> Self {
        let cpu = |time: Duration| each(time.as_secs_f64() * 1e6, outcome.issued);
        Self {
            account: session.account.clone(),
            issuer: session.issuer.clone(),
            key_type: session.key_type,
            pace: match pace {
                Pace::Closed => "closed".to_owned(),
                Pace::Open { per_second } => format!("open, {per_second}/s"),
            },
            connections,
            issued: outcome.issued,
            seconds: outcome.elapsed.as_secs_f64(),
            per_second: per_second(outcome.issued, outcome.elapsed),
            p50_ms: millis(&outcome.latency, 0.5),
            p90_ms: millis(&outcome.latency, 0.9),
            p99_ms: millis(&outcome.latency, 0.99),
            max_ms: millis(&outcome.latency, 1.0),
            server_cpu_us: (!outcome.server_cpu.is_empty())
                .then(|| outcome.server_cpu.iter().map(|(_, time)| cpu(*time)).sum()),
            cpu_us: outcome
                .server_cpu
                .iter()
                .map(|(name, time)| (name.clone(), cpu(*time)))
                .collect(),
            own_cpu_us: cpu(outcome.own_cpu),
            errors: outcome.errors.clone(),
        }
    }
}

impl RoundTripRow {
    pub fn of(window: usize, round_trips: usize, elapsed: Duration, client: Duration, broker: Duration) -> Self {
        Self {
            window,
            round_trips,
            seconds: elapsed.as_secs_f64(),
            per_second: per_second(round_trips, elapsed),
            client_cpu_us: each(client.as_secs_f64() * 1e6, round_trips),
            broker_cpu_us: each(broker.as_secs_f64() * 1e6, round_trips),
            share: None,
        }
    }
}

impl Comparison {
    pub fn of(bare: &BareRow, run: &RunRow) -> Self {
        Self {
            rate: run.per_second / bare.per_second,
            cpu: run.server_cpu_us.map(|server| bare.cpu_us / server),
        }
    }
}

fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

impl Report {
    /// How many requests brought no certificate.
    pub fn errors(&self) -> usize {
        self.runs.iter().flat_map(|run| run.errors.values()).sum()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.bare.is_empty() {
            let header = ["bare loop", "threads", "certificates", "per second", "CPU us each"];
            let mut table = table(&header, 1);
            for row in &self.bare {
                table.add_row([
                    row.key_type.to_string(),
                    row.threads.to_string(),
                    row.certificates.to_string(),
                    format!("{:.0}", row.per_second),
                    format!("{:.1}", row.cpu_us),
                ]);
            }
            let _ = writeln!(text, "{table}");
        }
        if let Some(row) = &self.round_trips {
            let header = [
                "raw round trips",
                "under way",
                "made",
                "per second",
                "client CPU us each",
                "broker CPU us each",
            ];
            let mut table = table(&header, 1);
            table.add_row([
                "publish, confirm, deliver, ack, reply".to_owned(),
                row.window.to_string(),
                row.round_trips.to_string(),
                format!("{:.0}", row.per_second),
                format!("{:.1}", row.client_cpu_us),
                format!("{:.1}", row.broker_cpu_us),
            ]);
            let _ = writeln!(text, "{table}");
        }
        if !self.runs.is_empty() {
            let header = [
                "issuer",
                "key",
                "loop",
                "connections",
                "issued",
                "per second",
                "p50 ms",
                "p90 ms",
                "p99 ms",
                "max ms",
                "server CPU us each",
                "generator CPU us each",
            ];
            let mut table = table(&header, 3);
            for row in &self.runs {
                table.add_row([
                    row.issuer.clone(),
                    row.key_type.to_string(),
                    row.pace.clone(),
                    row.connections.to_string(),
                    row.issued.to_string(),
                    format!("{:.0}", row.per_second),
                    format!("{:.1}", row.p50_ms),
                    format!("{:.1}", row.p90_ms),
                    format!("{:.1}", row.p99_ms),
                    format!("{:.1}", row.max_ms),
                    optional(row.server_cpu_us, 1),
                    format!("{:.1}", row.own_cpu_us),
                ]);
            }
            let _ = writeln!(text, "{table}");
        }
        if let Some(row) = self.runs.iter().find(|row| row.cpu_us.len() > 1) {
            let names = row.cpu_us.iter().map(|(name, _)| name.as_str());
            let header: Vec<&str> = ["CPU us each", "loop"]
                .into_iter()
                .chain(names)
                .chain(["generator", "all"])
                .collect();
            let mut table = table(&header, 2);
            for row in &self.runs {
                let all = row.server_cpu_us.unwrap_or_default() + row.own_cpu_us;
                let each = row.cpu_us.iter().map(|(_, us)| *us).chain([row.own_cpu_us, all]);
                let each = each.map(|us| format!("{us:.0}"));
                table.add_row([row.issuer.clone(), row.pace.clone()].into_iter().chain(each));
            }
            let _ = writeln!(text, "{table}");
        }
        if !self.batches.is_empty() {
            let mut table = table(&["jobs", "at a time", "times"], 1);
            for (name, jobs, count) in &self.batches {
                #[expect(clippy::cast_precision_loss, reason = "counts of jobs are far below 2^53")]
                let mean = *jobs as f64 / (*count).max(1) as f64;
                table.add_row([name.clone(), format!("{mean:.1}"), count.to_string()]);
            }
            let _ = writeln!(text, "{table}");
        }
        if self.errors() > 0 {
            let mut table = table(&["loop", "no certificate because", "requests"], 2);
            for row in &self.runs {
                for (id, count) in &row.errors {
                    table.add_row([row.pace.clone(), id.clone(), count.to_string()]);
                }
            }
            let _ = writeln!(text, "{table}");
        }
        if let Some(comparison) = &self.comparison {
            let _ = writeln!(
                text,
                "of the bare loop: {:.2} by rate, {} by CPU time",
                comparison.rate,
                optional(comparison.cpu, 2)
            );
        }
        if let Some(share) = self.round_trips.as_ref().and_then(|row| row.share) {
            let _ = writeln!(text, "of the raw round trips: {share:.2} by rate");
        }
        text
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = ["#1f6f8b", "#c8553d", "#588157", "#6d597a", "#bc6c25", "#333333"];

/// An SVG of latencies by percentile; both axes are logarithmic, so that the last of the percentiles are seen as well.
pub fn plot(title: &str, curves: &[(String, Histogram<u64>)]) -> String {
    let nines = [0.0, 1.0, 2.0, 3.0, 4.0];
    let decades = decades(curves);
    let x = |nines: f64| MARGIN + nines / 4.0 * (WIDTH - 2.0 * MARGIN);
    let (low, high) = (decades[0], decades[decades.len() - 1]);
    let y = |millis: f64| HEIGHT - MARGIN - (millis.log10() - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">Accepted to issued, ms, by percentile: {}</text>\n",
        escape(title)
    );
    for (nines, label) in nines.into_iter().zip(["0", "90", "99", "99.9", "99.99"]) {
        let (x, bottom) = (x(nines), HEIGHT - MARGIN);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {MARGIN}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label} %</text>",
            bottom + 18.0
        );
    }
    for decade in &decades {
        let millis = 10_f64.powf(*decade);
        let y = y(millis);
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {y:.1}H{}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{millis}</text>",
            WIDTH - MARGIN,
            MARGIN - 6.0,
            y + 4.0
        );
    }
    for (number, (name, latency)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<_> = (0..=80_u32)
            .map(|step| f64::from(step) / 20.0)
            .map(|nines| (nines, millis(latency, 1.0 - 10_f64.powf(-nines)).max(0.001)))
            .map(|(nines, millis)| format!("{:.1},{:.1}", x(nines), y(millis)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>\n",
            points.join(" "),
            MARGIN + 10.0,
            MARGIN + 16.0 * (f64::from(u32::try_from(number).unwrap_or(u32::MAX)) + 1.0),
            escape(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The powers of ten, in milliseconds, between which all latencies lie: at least two.
fn decades(curves: &[(String, Histogram<u64>)]) -> Vec<f64> {
    let least = curves
        .iter()
        .map(|(_, latency)| millis(latency, 0.0))
        .fold(f64::INFINITY, f64::min);
    let most = curves
        .iter()
        .map(|(_, latency)| millis(latency, 1.0))
        .fold(0.0, f64::max);
    let low = least.clamp(0.001, 1e6).log10().floor();
    let high = most.clamp(0.001, 1e7).log10().ceil().max(low + 1.0);
    let mut decades = vec![low];
    while decades[decades.len() - 1] < high {
        decades.push(decades[decades.len() - 1] + 1.0);
    }
    decades
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(from: u64, to: u64) -> Histogram<u64> {
        let mut latency = Histogram::new(3).unwrap();
        (from..=to).for_each(|micros| latency.record(micros).unwrap());
        latency
    }

    #[test]
    fn a_plot_has_a_curve_for_each_loop_that_rises_within_the_frame() {
        let svg = plot(
            "a & b",
            &[
                ("closed".into(), latencies(900, 20_000)),
                ("open".into(), latencies(100, 500)),
            ],
        );
        assert!(svg.contains("a &amp; b") && svg.ends_with("</svg>\n"));
        let curves: Vec<_> = svg
            .split("points=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(curves.len(), 2);
        for curve in curves {
            let heights: Vec<f64> = curve
                .split(' ')
                .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
                .collect();
            assert!(
                heights.windows(2).all(|pair| pair[1] <= pair[0]),
                "latency falls with the percentile"
            );
            assert!(
                heights.iter().all(|height| (MARGIN..=HEIGHT - MARGIN).contains(height)),
                "{heights:?}"
            );
        }
        assert_eq!(plot("empty", &[]).matches("polyline").count(), 0);
    }

    #[test]
    fn a_comparison_is_a_share_of_the_bare_loop() {
        let bare = BareRow::of(
            KeyType::P256,
            2,
            20_000,
            Duration::from_secs(1),
            Duration::from_millis(1_900),
        );
        assert!((bare.cpu_us - 95.0).abs() < 0.01);
        let run = RunRow {
            account: "a".into(),
            issuer: "i".into(),
            key_type: KeyType::P256,
            pace: "closed".into(),
            connections: 1,
            issued: 10_000,
            seconds: 1.0,
            per_second: 10_000.0,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 1.0,
            max_ms: 1.0,
            server_cpu_us: Some(190.0),
            cpu_us: vec![("frontend".into(), 90.0), ("signer".into(), 100.0)],
            own_cpu_us: 10.0,
            errors: BTreeMap::from([("overloaded".into(), 2)]),
        };
        let comparison = Comparison::of(&bare, &run);
        assert!((comparison.rate - 0.5).abs() < 1e-9);
        assert!(comparison.cpu.is_some_and(|cpu| (cpu - 0.5).abs() < 1e-9));
        let report = Report {
            bare: vec![bare],
            round_trips: Some(RoundTripRow {
                share: Some(0.5),
                ..RoundTripRow::of(64, 1_000, Duration::from_secs(1), Duration::ZERO, Duration::ZERO)
            }),
            runs: vec![run],
            batches: vec![("accepted".into(), 100, 8)],
            comparison: Some(comparison),
        };
        let table = report.table();
        assert!(
            table.contains("overloaded")
                && table.contains("signer")
                && table.contains("trips: 0.50")
                && table.contains("0.50 by rate, 0.50 by CPU time"),
            "{table}"
        );
        assert_eq!(report.errors(), 2);
    }
}
