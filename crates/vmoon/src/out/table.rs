//! Lists: which rows and columns, in which order, as a table or as CSV. Knows nothing of what the rows are.

use super::color::{Paint, Style, of_state};
use std::{cmp::Ordering, fmt::Write as _};
use vmoon_core::{Code, Error, Result, name::escape};

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Text, possibly foreign.
    Text(String),
    /// A number, and how it is shown to people.
    Number(u64, Option<String>),
    /// Nothing.
    Empty,
}

impl Cell {
    /// Text.
    pub(crate) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// For people.
    fn shown(&self) -> String {
        match self {
            Cell::Text(text) => escape(text),
            Cell::Number(_, Some(text)) => text.clone(),
            Cell::Number(n, None) => n.to_string(),
            Cell::Empty => "-".to_owned(),
        }
    }

    /// For programs.
    fn raw(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(n, _) => n.to_string(),
            Cell::Empty => String::new(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Cell::Number(a, _), Cell::Number(b, _)) => a.cmp(b),
            (a, b) => natural(&a.raw(), &b.raw()),
        }
    }
}

/// Compares as people count: web2 before web10.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
    loop {
        let (na, nb) = (digits(a), digits(b));
        if na > 0 && nb > 0 {
            let strip = |s: &[u8]| s.iter().skip_while(|c| **c == b'0').copied().collect::<Vec<_>>();
            let (x, y) = (strip(&a[..na]), strip(&b[..nb]));
            match x.len().cmp(&y.len()).then_with(|| x.cmp(&y)).then_with(|| na.cmp(&nb)) {
                Ordering::Equal => (a, b) = (&a[na..], &b[nb..]),
                other => return other,
            }
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (Some((x, ra)), Some((y, rb))) if x == y => (a, b) = (ra, rb),
            _ => return a.cmp(b),
        }
    }
}

/// One column of a list of `T`. The first column of a list is the name.
pub(crate) struct Column<T> {
    /// Its name, for the header, `--columns`, `--sort` and `--filter`.
    pub(crate) name: &'static str,
    /// Whether it is shown only with `-o wide`.
    pub(crate) wide: bool,
    /// The value of a row.
    pub(crate) get: fn(&T) -> Cell,
}

/// Which rows and columns, and in which order.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct View {
    /// Only these columns, in this order
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// Sort by these columns; -NAME reverses
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// Only rows where these columns have these values; globs are allowed
    #[arg(long, value_name = "COLUMN=VALUE", value_delimiter = ',')]
    filter: Vec<String>,
    /// Print no header
    #[arg(long)]
    no_header: bool,
}

fn unknown<T>(name: &str, columns: &[Column<T>]) -> Error {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    Error::new(Code::Usage, format!("there is no column \"{}\"", escape(name))).hint(format!("the columns are {}", names.join(", ")))
}

fn find<'a, T>(name: &str, columns: &'a [Column<T>]) -> Result<&'a Column<T>> {
    columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)).ok_or_else(|| unknown(name, columns))
}

impl View {
    /// Whether a header is wanted.
    pub(crate) fn header(&self) -> bool {
        !self.no_header
    }

    /// Filters that are not about a column, such as `label.x=y`, for the caller; the rest stays.
    pub(crate) fn take_filters(&mut self, prefix: &str) -> Result<Vec<(String, String)>> {
        let (theirs, ours): (Vec<String>, Vec<String>) = std::mem::take(&mut self.filter).into_iter().partition(|f| f.starts_with(prefix));
        self.filter = ours;
        theirs.iter().map(|f| split(f).map(|(k, v)| (k[prefix.len()..].to_owned(), v.to_owned()))).collect()
    }

    /// The rows that are wanted, in order.
    pub(crate) fn select<T>(&self, items: Vec<T>, columns: &[Column<T>]) -> Result<Vec<T>> {
        let mut items = items;
        for filter in &self.filter {
            let (name, value) = split(filter)?;
            let column = find(name, columns)?;
            items.retain(|item| vmoon_core::target::glob(value, &(column.get)(item).raw()));
        }
        for key in self.sort.iter().rev() {
            let (name, reverse) = key.strip_prefix('-').map_or((key.as_str(), false), |name| (name, true));
            let column = find(name, columns)?;
            items.sort_by(|a, b| {
                let order = (column.get)(a).compare(&(column.get)(b));
                if reverse { order.reverse() } else { order }
            });
        }
        Ok(items)
    }

    /// The columns that are wanted, in order.
    pub(crate) fn columns<'a, T>(&self, columns: &'a [Column<T>], wide: bool) -> Result<Vec<&'a Column<T>>> {
        if self.columns.is_empty() {
            return Ok(columns.iter().filter(|column| wide || !column.wide).collect());
        }
        self.columns.iter().map(|name| find(name, columns)).collect()
    }
}

fn split(filter: &str) -> Result<(&str, &str)> {
    filter.split_once('=').ok_or_else(|| {
        Error::new(Code::Usage, format!("\"{}\" is no filter", escape(filter))).hint("write COLUMN=VALUE, for example state=running")
    })
}

/// The rows as columns of text.
pub(crate) fn render<T>(items: &[T], columns: &[&Column<T>], header: bool, paint: &Paint) -> String {
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(items.len() + 1);
    if header {
        rows.push(columns.iter().map(|column| column.name.to_uppercase()).collect());
    }
    for item in items {
        rows.push(columns.iter().map(|column| (column.get)(item).shown()).collect());
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let mut line = String::new();
        let mut pending = 0;
        for (at, text) in row.iter().enumerate() {
            line.extend(std::iter::repeat_n(' ', pending));
            let painted = if header && n == 0 {
                paint.paint(Style::Bold, text)
            } else if matches!(columns[at].name, "state" | "result") {
                paint.paint(of_state(text), text)
            } else {
                text.clone()
            };
            line.push_str(&painted);
            pending = widths[at] - text.chars().count() + 2;
        }
        let _ = writeln!(out, "{line}");
    }
    out
}

/// The rows as CSV.
pub(crate) fn csv<T>(items: &[T], columns: &[&Column<T>], header: bool) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    if header {
        records.push(columns.iter().map(|column| column.name.to_owned()).collect());
    }
    records.extend(items.iter().map(|item| columns.iter().map(|column| (column.get)(item).raw()).collect::<Vec<String>>()));
    write_csv(&records)
}

/// Names and values as CSV.
pub(crate) fn csv_rows(rows: &[(String, String)]) -> Result<Vec<u8>> {
    let records: Vec<Vec<String>> = rows.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    write_csv(&records)
}

/// Objects as CSV. The columns are the simple fields of all of them: each stands behind the field that it follows where it first comes.
pub(crate) fn csv_values(items: &[serde_json::Value]) -> Result<Vec<u8>> {
    let simple = |value: &serde_json::Value| !value.is_object() && !value.is_array();
    let mut names: Vec<String> = Vec::new();
    for object in items.iter().filter_map(|item| item.as_object()) {
        let mut behind = 0;
        for (name, _) in object.iter().filter(|(_, value)| simple(value)) {
            behind = 1 + names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.insert(behind, name.clone());
                behind
            });
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let text = |value: Option<&serde_json::Value>| match value {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let rows = items.iter().map(|item| names.iter().map(|name| text(item.get(name))).collect());
    let records: Vec<Vec<String>> = std::iter::once(names.clone()).chain(rows).collect();
    write_csv(&records)
}

fn write_csv(records: &[Vec<String>]) -> Result<Vec<u8>> {
    let broken = |error: csv::Error| Error::internal("a list does not become CSV").source(error);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).map_err(broken)?;
    }
    writer.into_inner().map_err(|error| Error::internal(format!("a list does not become CSV: {error}")))
}

/// The names only.
pub(crate) fn names<T>(items: &[T], columns: &[Column<T>]) -> String {
    let mut out = String::new();
    if let Some(name) = columns.first() {
        for item in items {
            let _ = writeln!(out, "{}", escape(&(name.get)(item).raw()));
        }
    }
    out
}

/// Names and values of one thing.
pub(crate) fn pairs(rows: &[(String, String)], paint: &Paint) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        let gap = " ".repeat(width - name.chars().count() + 2);
        let value = escape(value);
        let value = if matches!(name.as_str(), "state" | "result") { paint.paint(of_state(&value), &value) } else { value };
        let _ = writeln!(out, "{}{gap}{value}", paint.paint(Style::Dim, name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Row = (&'static str, u64);
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "name", wide: false, get: |row| Cell::text(row.0) },
        Column { name: "size", wide: true, get: |row| Cell::Number(row.1, None) },
    ];

    fn view(sort: &[&str], filter: &[&str]) -> View {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        View { columns: vec![], sort: own(sort), filter: own(filter), no_header: false }
    }

    #[test]
    fn rows_are_filtered_and_sorted_as_people_count() {
        let rows = vec![("web10", 1), ("web2", 3), ("db", 2)];
        let names = |v: View| v.select(rows.clone(), COLUMNS).unwrap().iter().map(|r| r.0).collect::<Vec<_>>();
        assert_eq!(names(view(&["name"], &[])), ["db", "web2", "web10"]);
        assert_eq!(names(view(&["-size"], &["name=web*"])), ["web2", "web10"]);
        assert_eq!(names(view(&[], &["size=2"])), ["db"]);
        for bad in [view(&["x"], &[]), view(&[], &["x=1"]), view(&[], &["name"])] {
            assert_eq!(bad.select(rows.clone(), COLUMNS).unwrap_err().code(), Code::Usage);
        }
    }

    #[test]
    fn tables_line_up_and_foreign_text_is_escaped() {
        let rows = [("a\u{1b}[31m", 1), ("bc", 22)];
        let all: Vec<&Column<Row>> = COLUMNS.iter().collect();
        assert_eq!(render(&rows, &all, true, &Paint::off()), "NAME         SIZE\na\\u{1b}[31m  1\nbc           22\n");
        assert_eq!(render::<Row>(&[], &all, false, &Paint::off()), "");
        assert_eq!(names(&rows, COLUMNS), "a\\u{1b}[31m\nbc\n");
    }

    #[test]
    fn csv_of_objects_has_the_columns_of_all_rows() {
        let items =
            [json!({"name": "a", "at": 1}), json!({"name": "b", "parent": "a", "at": 2, "list": []}), json!({"name": "c", "note": "n"})];
        let expect = "name,note,parent,at\na,,,1\nb,,a,2\nc,n,,\n";
        assert_eq!(String::from_utf8(csv_values(&items).unwrap()).unwrap(), expect);
        assert_eq!(csv_values(&[]).unwrap(), b"");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let all: Vec<&Column<Row>> = COLUMNS.iter().collect();
        assert_eq!(csv(&[("a,\"b\"", 7)], &all, true).unwrap(), b"name,size\n\"a,\"\"b\"\"\",7\n");
    }
}
