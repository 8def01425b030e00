//! Both systems, second by second, one above the other: how slow, how many failed, how much waits, how many signers back off.

use std::fmt::Write;

use super::judge::Second;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
/// Of a panel, and between two.
const HEIGHT: f64 = 130.0;
const GAP: f64 = 45.0;
const OURS: &str = "#1f6f8b";
const REFERENCE: &str = "#c8553d";

/// How values of a panel become heights.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// From 0 to the greatest, at least to this.
    Linear(f64),
    /// From 1 to the greatest, by powers of ten.
    Logarithmic,
}

/// What a panel shows: its title, its scale, and the value of a second.
type Panel = (&'static str, Scale, fn(&Second) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts of jobs are far below 2^53")]
const PANELS: [Panel; 4] = [
    ("p99 of healthy requests, ms", Scale::Logarithmic, |second| {
        second.p99_ms
    }),
    ("healthy requests that failed, %", Scale::Linear(100.0), |second| {
        second.failed * 100.0
    }),
    ("open jobs", Scale::Logarithmic, |second| second.depth as f64),
    ("signers that back off", Scale::Linear(3.0), |second| {
        second.backing_off as f64
    }),
];

impl Scale {
    /// The marks at its left, from the lowest to the highest.
    fn marks(self, greatest: f64) -> Vec<f64> {
        match self {
            Self::Linear(least) => {
                let top = greatest.max(least);
                vec![0.0, top / 2.0, top]
            }
            Self::Logarithmic => {
                let mut marks = vec![1.0, 10.0];
                while marks.last().is_some_and(|last| *last < greatest) {
                    marks.push(marks[marks.len() - 1] * 10.0);
                }
                marks
            }
        }
    }

    /// Where a value is, from 0 at the bottom to 1 at the top.
    fn place(self, value: f64, top: f64) -> f64 {
        match self {
            Self::Linear(_) => value / top,
            Self::Logarithmic => value.max(1.0).log10() / top.log10(),
        }
    }
}

/// The picture, an SVG. Faults begin at 0 and end after so many seconds.
pub fn draw(title: &str, ours: &[Second], reference: &[Second], fault_seconds: f64) -> String {
    let all = || ours.iter().chain(reference);
    let from = all().map(|second| second.at).fold(0.0, f64::min);
    let to = all().map(|second| second.at + 1.0).fold(1.0, f64::max);
    let x = |at: f64| LEFT + (at - from) / (to - from) * (WIDTH - LEFT - RIGHT);
    let height = TOP + (HEIGHT + GAP) * 4.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"44\" fill=\"{OURS}\">Bulkhead</text>\
         <text x=\"{}\" y=\"44\" fill=\"{REFERENCE}\">as it was done before</text>\
         <text x=\"{}\" y=\"44\" fill=\"#777\">shaded: faults; seconds since the first</text>\n",
        LEFT + 80.0,
        LEFT + 240.0
    );
    for (number, (name, scale, value)) in (0_u8..).zip(PANELS) {
        let top = TOP + f64::from(number) * (HEIGHT + GAP);
        let bottom = top + HEIGHT;
        let marks = scale.marks(all().map(value).fold(0.0, f64::max));
        let highest = marks[marks.len() - 1];
        let y = |value: f64| bottom - scale.place(value, highest).clamp(0.0, 1.0) * HEIGHT;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#f3ecec\"/>\
             <text x=\"{LEFT}\" y=\"{:.1}\">{name}</text>",
            x(0.0),
            x(fault_seconds) - x(0.0),
            top - 5.0
        );
        for mark in &marks {
            let y = y(*mark);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let mut second = (from / 10.0).ceil() * 10.0;
        while second <= to {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#777\">{second}</text>",
                x(second),
                bottom + 14.0
            );
            second += 10.0;
        }
        // Ours last, so that nothing hides it.
        for (seconds, colour) in [(reference, REFERENCE), (ours, OURS)] {
            let points: Vec<_> = seconds
                .iter()
                .map(|second| format!("{:.1},{:.1}", x(second.at + 0.5), y(value(second))))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: f64, p99_ms: f64, depth: u64) -> Second {
        Second {
            at,
            p99_ms,
            failed: 0.5,
            depth,
            backing_off: 1,
        }
    }

    #[test]
    fn there_are_four_panels_with_a_curve_for_each_system_within_the_frame() {
        let ours = [second(-10.0, 4.0, 0), second(-9.0, 5.0, 3)];
        let reference = [second(-10.0, 4.0, 1), second(30.0, 6_000.0, 123_456)];
        let svg = draw("atlas", &ours, &reference, 20.0);
        let curves: Vec<_> = svg
            .split("points=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(curves.len(), 8);
        let points: Vec<(f64, f64)> = curves
            .iter()
            .flat_map(|curve| curve.split(' '))
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        let bottom = TOP + (HEIGHT + GAP) * 4.0;
        assert!(
            points
                .iter()
                .all(|(x, y)| (LEFT..=WIDTH - RIGHT).contains(x) && (TOP..bottom).contains(y)),
            "{points:?}"
        );
        // What is slower or deeper is higher.
        assert!(points[1].1 < points[0].1 && points[9].1 < points[8].1, "{points:?}");
        assert!(svg.contains(">1000000</text>") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw("none", &[], &[], 1.0).contains("points=\"\""));
    }
}
