//! Columns for people.

/// Rows below a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

/// `name: value` lines with the values below each other.
#[derive(Debug, Default)]
pub struct Facts(Vec<(&'static str, String)>);

const GAP: &str = "  ";

impl Table {
    /// A heading that starts with `>` is of a column of numbers.
    #[must_use]
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            right: headings.iter().map(|h| h.starts_with('>')).collect(),
            headings: headings.iter().map(|h| h.trim_start_matches('>')).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: Vec<String> = self.headings.iter().map(|h| (*h).to_owned()).collect();
        let lines = std::iter::once(&headings).chain(&self.rows).map(|row| {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|((cell, &width), &right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
        });
        lines.collect()
    }
}

impl Facts {
    pub fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    #[must_use]
    pub fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default() + 1;
        let line = |(name, value): &(&str, String)| {
            format!("{:<width$} {value}", format!("{name}:")).trim_end().to_owned() + "\n"
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_on_the_right_and_nothing_trails() {
        let mut table = Table::new(&["NAME", ">CPUS", "OS"]);
        table.row(vec!["web1".into(), "16".into(), String::new()]);
        table.row(vec!["a-longer-name".into(), "4".into(), "Debian".into()]);
        assert_eq!(
            table.text(),
            "NAME           CPUS  OS\nweb1             16\na-longer-name     4  Debian\n"
        );
    }
}
