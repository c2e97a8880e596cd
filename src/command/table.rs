//! Tables for people: columns as wide as what is in them.

use crate::text;

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

pub(super) fn table(columns: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    // A backend named jobs and kinds.
    let shown = |row: &Vec<String>| row.iter().map(|cell| text::shown(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let lines: Vec<&Vec<String>> = [&head].into_iter().chain(&rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded =
            cells.iter().zip(columns).zip(&widths).map(|((cell, (_, side)), width)| match side {
                Side::Left => format!("{cell:width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    lines.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |name: &str, count: &str| vec![name.to_owned(), count.to_owned()];
        let columns = [("NAME", Side::Left), ("N", Side::Right)];
        let told =
            "NAME    N\né       1\nlonger  12\n".replace("N\n", " N\n").replace(" 1\n", "  1\n");
        assert_eq!(table(&columns, &[row("é", "1"), row("longer", "12")]), told);
        let hidden = table(&columns, &[row("a\u{200b}\u{1b}[2J\u{2028}", "1")]);
        assert!(hidden.ends_with("\na\\u{200b}[2J\\u{2028}  1\n"), "{hidden}");
    }
}
