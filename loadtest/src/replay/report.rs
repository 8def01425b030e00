//! What a replay found: as JSON, as a page, and as marks that were met or missed.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    Engine,
    judge::{ALLOWED_RATIO, Figures, Second},
    plot,
};

/// `report.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub incident: &'static str,
    pub engine: Engine,
    pub ours: Figures,
    pub reference: Figures,
    /// Certificates a second that Bulkhead issued when asked for as many as it can.
    pub capacity_per_second: f64,
    /// Healthy requests a second.
    pub healthy_per_second: f64,
    /// What the generator took of the machine while it asked Bulkhead, as a share of all processors.
    pub generator_share: f64,
    /// From the first fault until the last one ended.
    pub fault_seconds: f64,
    pub marks: Vec<Mark>,
    /// Whether every mark was met.
    pub passed: bool,
    /// Second by second, since the first fault.
    pub ours_by_second: Vec<Second>,
    pub reference_by_second: Vec<Second>,
}

/// What must be.
#[derive(Debug, Serialize)]
pub struct Mark {
    pub what: &'static str,
    pub wanted: String,
    pub found: String,
    pub met: bool,
}

fn mark(what: &'static str, wanted: impl Into<String>, found: String, met: bool) -> Mark {
    Mark {
        what,
        wanted: wanted.into(),
        found,
        met,
    }
}

/// The marks, where `wanted` is how many healthy requests there must be before and during.
pub fn marks(ours: &Figures, reference: &Figures, wanted: usize) -> Vec<Mark> {
    let none = |what, found: usize| mark(what, "0", found.to_string(), found == 0);
    let (before, during) = (ours.healthy_requests_before, ours.healthy_requests);
    let failed = share(reference);
    vec![
        mark(
            "healthy requests before and during",
            format!("at least {wanted} each"),
            format!("{before} and {during}"),
            before >= wanted && during >= wanted,
        ),
        none("failed healthy requests before", ours.healthy_failed_before),
        none("failed healthy requests during", ours.healthy_failed),
        mark(
            "healthy p99 during, as a multiple of before",
            format!("at most {ALLOWED_RATIO}"),
            format!("{:.2}", ours.healthy_p99_ratio),
            ours.healthy_p99_ratio <= ALLOWED_RATIO,
        ),
        mark(
            "seconds from the last fault to normal",
            "less than 2",
            if ours.recovered {
                format!("{:.2}", ours.recovery_seconds)
            } else {
                format!("more than {:.0}", ours.recovery_seconds)
            },
            ours.recovered && ours.recovery_seconds < 2.0,
        ),
        none("jobs lost", ours.lost),
        none("jobs issued twice", ours.issued_twice),
        mark(
            "healthy requests of the reference that fail",
            "more than 20 %",
            format!("{:.0} %", failed * 100.0),
            failed > 0.2,
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
fn share(figures: &Figures) -> f64 {
    figures.healthy_failed as f64 / figures.healthy_requests.max(1) as f64
}

impl Report {
    /// Writes everything into the directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("report.json", serde_json::to_string_pretty(self)? + "\n")?;
        write("report.md", self.page())?;
        let title = format!("{}: {}", self.incident, self.engine.describe());
        let picture = plot::draw(
            &title,
            &self.ours_by_second,
            &self.reference_by_second,
            self.fault_seconds,
        );
        write("report.svg", picture)
    }

    /// One page of Markdown.
    pub fn page(&self) -> String {
        let mut page = format!("# Replay: {}, {}\n\n", self.incident, self.engine.describe());
        let _ = writeln!(
            page,
            "Capacity {:.0} certificates/s, healthy load {:.0} requests/s; the generator took {:.0} % of the machine.\n",
            self.capacity_per_second,
            self.healthy_per_second,
            self.generator_share * 100.0
        );
        page.push_str("| | Bulkhead | reference |\n| --- | ---: | ---: |\n");
        let (ours, reference) = (&self.ours, &self.reference);
        let row = |page: &mut String, what: &str, of: &dyn Fn(&Figures) -> String| {
            let _ = writeln!(page, "| {what} | {} | {} |", of(ours), of(reference));
        };
        row(&mut page, "healthy requests during the incident", &|f| {
            f.healthy_requests.to_string()
        });
        row(&mut page, "of them failed", &|f| {
            format!("{} ({:.1} %)", f.healthy_failed, share(f) * 100.0)
        });
        row(&mut page, "p99 before, ms", &|f| {
            format!("{:.1}", f.healthy_p99_ms_before)
        });
        row(&mut page, "p99 of three quiet windows, ms", &|f| {
            let windows: Vec<_> = f.quiet_p99_ms.iter().map(|p99| format!("{p99:.1}")).collect();
            windows.join(", ")
        });
        row(&mut page, "p99 during, ms", &|f| {
            format!("{:.1}", f.healthy_p99_ms_during)
        });
        row(&mut page, "during, as a multiple of before", &|f| {
            format!("{:.2}", f.healthy_p99_ratio)
        });
        row(&mut page, "seconds from the last fault to normal", &|f| {
            if f.recovered {
                format!("{:.2}", f.recovery_seconds)
            } else {
                format!("not within {:.0}", f.recovery_seconds)
            }
        });
        row(&mut page, "jobs lost", &|f| f.lost.to_string());
        row(&mut page, "jobs issued twice", &|f| f.issued_twice.to_string());
        row(&mut page, "signers that backed off, at most", &|f| {
            f.signers_backed_off_max.to_string()
        });
        page.push_str("\n| mark | wanted | found | |\n| --- | --- | --- | --- |\n");
        for Mark {
            what,
            wanted,
            found,
            met,
        } in &self.marks
        {
            let met = if *met { "met" } else { "**missed**" };
            let _ = writeln!(page, "| {what} | {wanted} | {found} | {met} |");
        }
        page
    }
}
