//! A machine's side of a copy, over the API.

use super::{
    DEEPEST, Found, Item,
    local::{Part, Source},
    side,
};
use crate::ctx::Ctx;
use std::path::Path;
use vmoon_api::{
    Api as _,
    files::{FileEntry, FileKind, Part as Message, path_from_text, path_to_text},
    requests::{Direction, FileRef, MakeDirectory, TransferFile},
};
use vmoon_core::{Code, Error, Result, name::escape};

fn shown(path: &[u8]) -> String {
    escape(&String::from_utf8_lossy(path))
}

async fn look(ctx: &Ctx, machine: &str, path: &[u8]) -> Result<FileEntry> {
    let request = FileRef { machine: machine.to_owned(), path: path_to_text(path) };
    ctx.daemon.ask(async |client| client.stat_file(request.clone()).await).await
}

/// Where in the machine something shall be: in a directory that exists, else under the name given.
pub(super) async fn destination(ctx: &Ctx, machine: &str, to: &[u8], from: &Path) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = from.file_name().map(|name| name.as_bytes());
    let into = |path: &[u8]| name.map_or_else(|| path.to_vec(), |name| side::join(path, name));
    match look(ctx, machine, to).await {
        Ok(entry) if entry.kind == FileKind::Directory => Ok(into(to)),
        Ok(_) => Ok(to.to_vec()),
        Err(error) if error.code() == Code::FileNotFound && to.ends_with(b"/") => {
            Err(Error::new(Code::FileNotFound, format!("the machine has no directory \"{}\"", shown(to)))
                .hint("leave the slash, or make it first"))
        }
        Err(error) if error.code() == Code::FileNotFound => Ok(to.to_vec()),
        Err(error) => Err(error),
    }
}

/// What there is to fetch below a path of a machine, and where each shall be.
pub(super) async fn find(ctx: &Ctx, machine: &str, from: &[u8], to: &Path, recursive: bool) -> Result<Found> {
    let top = look(ctx, machine, from).await?;
    let mut found = Found::default();
    if top.kind != FileKind::Directory {
        found.add(Item { named: true, ..item(from, to, &top)? })?;
        return Ok(found);
    }
    if !recursive {
        let path = if from.is_empty() { "the work directory".to_owned() } else { format!("\"{}\"", shown(from)) };
        return Err(Error::new(Code::FileRefused, format!("{path} is a directory")).hint("copy it with -r"));
    }
    let mut waiting = vec![(from.to_vec(), to.to_path_buf(), top.mode, 0)];
    while let Some((path, local, mode, depth)) = waiting.pop() {
        if depth > DEEPEST {
            found.refused.push(Error::new(Code::FileRefused, format!("\"{}\" is too deep", shown(&path))));
            continue;
        }
        let request = FileRef { machine: machine.to_owned(), path: path_to_text(&path) };
        let entries = match ctx.daemon.ask(async |client| client.list_files(request.clone()).await).await {
            Ok(view) => view.entries,
            // It became a link, or went away, while we looked.
            Err(error) if depth > 0 => {
                found.refused.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        found.add(Item { remote: path.clone(), local: local.clone(), size: None, mode, named: depth == 0 })?;
        for entry in entries {
            let bytes = path_from_text(&entry.name);
            let remote = side::join(&path, &bytes);
            let next = side::name(&bytes).map(|name| local.join(name));
            match (next, entry.kind) {
                (Ok(local), FileKind::Directory) => waiting.push((remote, local, entry.mode, depth + 1)),
                (Ok(local), _) => match item(&remote, &local, &entry) {
                    Ok(item) => found.add(item)?,
                    Err(error) => found.refused.push(error),
                },
                (Err(error), _) => found.refused.push(error),
            }
        }
    }
    Ok(found)
}

fn item(remote: &[u8], local: &Path, entry: &FileEntry) -> Result<Item> {
    let refused = |why: &str| Err(Error::new(Code::FileRefused, format!("\"{}\" {why}", shown(remote))));
    match entry.kind {
        FileKind::File => {
            Ok(Item { remote: remote.to_vec(), local: local.to_path_buf(), size: Some(entry.size), mode: entry.mode, named: false })
        }
        FileKind::Link => refused("is a symbolic link, and links are not followed"),
        FileKind::Directory => refused("is a directory"),
        FileKind::Other => refused("is a socket, FIFO or device, which are not copied"),
    }
}

/// Makes a directory in the machine.
pub(super) async fn directory(ctx: &Ctx, machine: &str, item: &Item) -> Result<()> {
    let request = MakeDirectory { machine: machine.to_owned(), path: path_to_text(&item.remote), mode: item.mode };
    ctx.daemon.ask(async |client| client.make_directory(request.clone()).await).await.map(drop)
}

/// Makes the directories in which something shall be, as far as they are missing.
///
/// # Errors
/// `file.refused` where one of them is something else.
pub(super) async fn parents(ctx: &Ctx, machine: &str, to: &[u8]) -> Result<()> {
    let (mut missing, mut rest) = (Vec::new(), to);
    while let Some(at) = rest.iter().rposition(|byte| *byte == b'/') {
        rest = &rest[..at];
        while let Some(shorter) = rest.strip_suffix(b"/") {
            rest = shorter;
        }
        if rest.is_empty() {
            break;
        }
        match look(ctx, machine, rest).await {
            // Through a link the machine itself goes, or refuses to.
            Ok(entry) if matches!(entry.kind, FileKind::Directory | FileKind::Link) => break,
            Ok(_) => {
                return Err(Error::new(Code::FileRefused, format!("\"{}\" is a file, and nothing can be in it", shown(rest)))
                    .hint("choose another name, or remove it in the machine first"));
            }
            Err(error) if error.code() == Code::FileNotFound => missing.push(rest),
            Err(error) => return Err(error),
        }
    }
    for path in missing.into_iter().rev() {
        let request = MakeDirectory { machine: machine.to_owned(), path: path_to_text(path), mode: 0o755 };
        ctx.daemon.ask(async |client| client.make_directory(request.clone()).await).await?;
    }
    Ok(())
}

/// Sends one file.
pub(super) async fn put(ctx: &Ctx, machine: &str, item: &Item, moved: &impl Fn(usize)) -> Result<()> {
    let mut source = Source::open(item)?;
    let request =
        TransferFile { machine: machine.to_owned(), path: path_to_text(&item.remote), direction: Direction::Put, mode: Some(item.mode) };
    let mut transfer = ctx.daemon.ask(async |client| client.transfer_file(request.clone()).await).await?;
    while let Some(chunk) = source.chunk()? {
        let bytes = chunk.len();
        transfer.send(chunk).await?;
        moved(bytes);
    }
    transfer.close().await?;
    match transfer.next().await? {
        Message::Entry(_) => Ok(()),
        _ => Err(Error::new(Code::WireMalformed, "the daemon did not say that the file was stored")),
    }
}

/// Fetches one file.
pub(super) async fn get(ctx: &Ctx, machine: &str, item: &Item, moved: &impl Fn(usize)) -> Result<()> {
    let request = TransferFile { machine: machine.to_owned(), path: path_to_text(&item.remote), direction: Direction::Get, mode: None };
    let mut transfer = ctx.daemon.ask(async |client| client.transfer_file(request.clone()).await).await?;
    let Message::Entry(entry) = transfer.next().await? else {
        return Err(Error::new(Code::WireMalformed, "the daemon did not say what the file is"));
    };
    let (mut part, mut rest) = (Part::begin(item, entry.mode)?, entry.size);
    loop {
        match transfer.next().await? {
            Message::Bytes(bytes) => {
                rest = rest
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(|| Error::new(Code::WireMalformed, "the file is longer than was said"))?;
                part.write(&bytes)?;
                moved(bytes.len());
            }
            Message::End if rest == 0 => return part.finish(),
            Message::End => return Err(Error::new(Code::FileChanged, format!("\"{}\" came without its end", shown(&item.remote)))),
            Message::Entry(_) => return Err(Error::new(Code::WireMalformed, "the daemon said twice what the file is")),
        }
    }
}
