//! Compares the server with recordings of a real xapi: `cargo xtask xapi-check FOLDER`. Every `*.jsonl` in the folder or below is a recording, every `xapi-db*.xml` a
//! database; the first one is what the server has while it is asked.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};
use vmoon_xapi_sim::replay::{self, Login, Report};

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<ExitCode> {
    let folder = std::env::args().nth(1).ok_or_else(|| io::Error::other("which folder?"))?;
    let mut found = Vec::new();
    files(Path::new(&folder), &mut found)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut out = io::stdout();
    let (mut failed, mut database) = (false, None);
    for path in found.iter().filter(|path| name(path).starts_with("xapi-db") && name(path).ends_with(".xml")) {
        let text = fs::read_to_string(path)?;
        let (read, same) = replay::database(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        writeln!(
            out,
            "{}: {} rows, {} fields, {} written otherwise than they were, {} columns the API does not show; read again it is {}",
            name(path),
            read.rows,
            read.columns,
            read.different.len(),
            read.hidden.len(),
            if same { "the same" } else { "ANOTHER" }
        )?;
        for [class, column, before, after] in read.different.iter().take(20) {
            writeln!(out, "  {class}.{column}: {before} → {after}")?;
        }
        failed |= !same || !read.different.is_empty();
        database.get_or_insert(text);
    }
    let recordings: Vec<&PathBuf> = found.iter().filter(|path| name(path).ends_with(".jsonl")).collect();
    let texts = recordings.iter().map(fs::read_to_string).collect::<io::Result<Vec<_>>>()?;
    let login =
        texts.iter().find_map(|text| Login::find(text)).ok_or_else(|| io::Error::other("no recording has a login that went well"))?;
    let mut whole = Report::default();
    for (path, text) in recordings.iter().zip(&texts) {
        let report = replay::run(text, database.as_deref(), &login).await?;
        writeln!(
            out,
            "{}: {} matched, {} differ, {} excused; {} answers with {} records and {} fields read and written",
            name(path),
            report.matched,
            report.differing.len(),
            report.excused.len(),
            report.decoded.answers,
            report.decoded.records,
            report.decoded.fields
        )?;
        for (title, all) in &report.differing {
            writeln!(out, "  {title}")?;
            for one in all.iter().take(8) {
                writeln!(out, "    {one}")?;
            }
        }
        whole.add(report);
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, why) in &whole.excused {
        *reasons.entry(why).or_default() += 1;
    }
    for (why, count) in reasons {
        writeln!(out, "excused {count}: {why}")?;
    }
    for wrong in whole.decoded.wrong.iter().chain(&whole.decoded.unknown).take(40) {
        writeln!(out, "not read: {wrong}")?;
    }
    writeln!(
        out,
        "all: {} matched, {} differ, {} excused; {} records, {} fields, {} not read",
        whole.matched,
        whole.differing.len(),
        whole.excused.len(),
        whole.decoded.records,
        whole.decoded.fields,
        whole.decoded.wrong.len() + whole.decoded.unknown.len()
    )?;
    failed |= !whole.differing.is_empty() || !whole.decoded.wrong.is_empty();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
