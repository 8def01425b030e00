//! Printing results: tables for people, one JSON document for programs. Results go to stdout, everything else to stderr.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use domain::time::Timestamp;
use serde::Serialize;

use crate::{
    cli::Output,
    failure::{Failure, Outcome},
};

impl Output {
    /// Prints a result: `text` for people, the document itself for programs.
    pub fn print<T: Serialize + ?Sized>(self, document: &T, text: impl FnOnce() -> String) -> Outcome {
        let mut printed = match self {
            Self::Table => text(),
            Self::Json => serde_json::to_string_pretty(document).map_err(Failure::failed)?,
        };
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
        match io::stdout().write_all(printed.as_bytes()) {
            // Whoever read the output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure::failed(format_args!("cannot write to stdout: {error}"))),
        }
    }
}

/// A table without lines. A header that begins with `#` is one of numbers, which stand to the right.
pub fn table<const N: usize>(headers: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.map(|header| header.trim_start_matches('#')));
    let mut empty = true;
    for row in rows {
        table.add_row(row);
        empty = false;
    }
    if empty {
        return "none\n".into();
    }
    for (index, header) in headers.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if header.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    lines(&table.to_string())
}

/// Names and values, one a line. Values that are empty are left out; the lines of a longer value stand below each other.
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        for (number, line) in value.lines().enumerate() {
            let name = if number == 0 { name } else { "" };
            text.extend([&format!("{name:width$}"), "  ", line, "\n"]);
        }
    }
    text
}

/// The text without spaces at the ends of its lines.
fn lines(text: &str) -> String {
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// A time as `2026-01-31T12:00:00Z`.
pub fn time(at: Timestamp) -> String {
    seconds(at.as_secs())
}

/// UNIX seconds as `2026-01-31T12:00:00Z`.
pub fn seconds(seconds: i64) -> String {
    let since_epoch = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_epoch).to_string()
}

/// `yes`, or nothing.
pub fn flag(flag: bool) -> String {
    if flag { "yes".into() } else { String::new() }
}

/// A list in one line.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_numbers_to_the_right_and_no_spaces_at_line_ends() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["longer".to_owned(), "100".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "#COUNT"], rows),
            "NAME    COUNT\na           1\nlonger    100\n"
        );
        assert_eq!(table::<1>(["NAME"], []), "none\n");
    }

    #[test]
    fn fields_line_up_and_empty_ones_are_left_out() {
        let text = fields([
            ("a", "1".to_owned()),
            ("none", String::new()),
            ("names", "x\ny".to_owned()),
        ]);
        assert_eq!(text, "a      1\nnames  x\n       y\n");
    }
}
