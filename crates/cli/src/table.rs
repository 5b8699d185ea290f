//! Plain tables and the shapes of numbers in them.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints rows in columns that are as wide as their widest cell. A closed pipe ends it quietly.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    let _ = std::io::stdout().write_all(text(header, rows).as_bytes());
}

/// Prints rows in columns without a heading.
pub fn print_rows(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let text = text(&vec![""; columns], rows);
    let text = text.split_once('\n').map_or("", |(_, rows)| rows);
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Words of an image reach the terminal here: what would steer it, or end the line, is shown as `?`.
fn plain(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

fn letters(cell: &str) -> usize {
    match cell.is_ascii() {
        true => cell.len(),
        false => cell.chars().count(),
    }
}

fn text(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| letters(c));
        cells
            .chain(header.get(column).map(|h| h.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        for (cell, width) in row.iter().zip(&widths) {
            // Nearly every cell goes as it is, at once.
            match cell.bytes().all(|b| matches!(b, b' '..=b'~')) {
                true => text.push_str(cell),
                false => text.extend(cell.chars().map(plain)),
            }
            let gap = width.saturating_sub(letters(cell)) + 3;
            text.extend(std::iter::repeat_n(' ', gap));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Bytes with a decimal unit, three digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// How long ago a time was, in one unit.
pub fn ago(seconds_since_epoch: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let seconds = now.saturating_sub(seconds_since_epoch);
    let (n, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_steers_the_terminal_or_breaks_the_table() {
        let rows = [vec![
            "sh -c \x1b]0;x\x07\n\u{9b}2J".to_owned(),
            "é".to_owned(),
        ]];
        let printed = text(&["COMMAND", "NAME"], &rows);
        assert_eq!(printed, "COMMAND            NAME\nsh -c ?]0;x???2J   é\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (4_440_000_000, "4.44 GB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }
}
