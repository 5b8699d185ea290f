//! A table of left-aligned columns, as Go's `text/tabwriter` sets it with the
//! settings of runc: at least [`WIDTH_MIN`] wide, [`GAP`] spaces between, nothing
//! behind the last column. Pure.

/// Least width of a column, its gap included.
const WIDTH_MIN: usize = 12;
/// Spaces behind the widest cell of a column.
const GAP: usize = 3;

/// Rows of `N` cells.
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with a line of titles.
    pub fn new(titles: [&str; N]) -> Self {
        Self {
            rows: vec![titles.map(str::to_owned)],
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The table as text.
    pub fn render(&self) -> String {
        let mut widths = [WIDTH_MIN; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + GAP);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                text.push_str(cell);
                if column + 1 < N {
                    let gap = width.saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["ID", "PID", "OWNER"]);
        table.push(["a-long-name-é".into(), "7".into(), "root".into()]);
        assert_eq!(
            table.render(),
            "ID              PID         OWNER\na-long-name-é   7           root\n"
        );
    }
}
