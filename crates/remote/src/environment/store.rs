//! The packages on a host: what is there, what is sent, what is cleaned away.

use super::{
    Recipe,
    plan::{self, Item, Plan, Source},
    record,
};
use crate::{Connection, Files, guest::script};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use vmoon_core::{
    Code, Error, Result,
    ability::{FileFacts, FileKind, Follow},
    operation::Progress,
};
use vmoon_sys::random;

/// How many files are on their way at once.
const AT_ONCE: usize = 16;
/// How long compiling one module may take.
const COMPILE: Duration = Duration::from_secs(20 * 60);
/// The largest list of a tree's files that is read, bytes.
const MANIFEST: u64 = 16 << 20;
/// After how many bytes of a file it is told how far it is.
const PIECE: usize = 256 << 10;
/// Room that is left besides what is sent, bytes.
const SPARE: u64 = 1 << 20;
/// What is compiled in, and what is removed at its end: names that begin so are nobody's after a crash.
const PREFIXES: [&str; 3] = [".new-", ".build-", ".gone-"];

/// The packages of one account of a host.
pub(super) struct Store {
    files: Files,
    root: String,
    /// Where the sessions of all owners are.
    guests: String,
    owner: String,
}

/// What of a sending is done, told to who follows it.
struct Sent<'a> {
    files: usize,
    bytes: u64,
    done: AtomicUsize,
    gone: AtomicU64,
    follow: &'a dyn Follow,
}

impl<'a> Sent<'a> {
    fn new((files, bytes): (usize, u64), follow: &'a dyn Follow) -> Self {
        let sent = Self { files, bytes, done: AtomicUsize::new(0), gone: AtomicU64::new(0), follow };
        if files > 0 {
            sent.tell();
        }
        sent
    }

    /// So many bytes more.
    fn more(&self, bytes: u64) {
        self.gone.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// One file more.
    fn whole(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let (done, gone) = (self.done.load(Ordering::Relaxed), self.gone.load(Ordering::Relaxed).min(self.bytes));
        let phase = format!("{done} of {} files, {} of {} KiB are there", self.files, gone >> 10, self.bytes.div_ceil(1 << 10));
        let percent = (gone * 100).checked_div(self.bytes).and_then(|percent| u8::try_from(percent).ok());
        self.follow.progress(Progress { phase, percent });
    }
}

/// Does all of it, some at once, and stops at the first that fails.
async fn together<F: Future<Output = Result<()>>>(all: Vec<F>) -> Result<()> {
    stream::iter(all).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

fn name(entry: &FileFacts) -> String {
    String::from_utf8_lossy(&entry.name).into_owned()
}

impl Store {
    /// Opens it. `base` is the directory of a session: `…/vmoon/guest/OWNER/NAME`.
    pub(super) async fn open(connection: &Connection, base: &str) -> Result<Self> {
        let mut up = base.rsplitn(4, '/');
        let (Some(_), Some(owner), Some("guest"), Some(state)) = (up.next(), up.next(), up.next(), up.next()) else {
            return Err(Error::new(Code::WireMalformed, format!("the host keeps its sessions in {}", base.escape_debug())));
        };
        let (root, guests) = (format!("{state}/packages"), format!("{state}/guest"));
        Ok(Self { files: connection.files().await?, root, guests, owner: owner.to_owned() })
    }

    /// Its directory there.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// The beginning of a file of the host.
    pub(super) async fn head(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let mut file = match self.files.read(path).await {
            Ok(file) => file,
            Err(error) if error.code() == Code::DriverUnreachable => return Err(error),
            Err(_) => return Ok(None),
        };
        let mut head = Vec::new();
        while (head.len() as u64) < most {
            match file.next().await? {
                Some(piece) => head.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(Some(head))
    }

    /// The entries of a directory of the store; none if there is no such directory.
    async fn entries(&self, dir: &str) -> Result<Vec<FileFacts>> {
        match self.files.list(dir).await {
            Err(error) if error.code() == Code::FileNotFound => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Which files of a plan are not there, by their numbers.
    pub(super) async fn missing(&self, plan: &Plan) -> Result<BTreeSet<usize>> {
        if self.has_tree(&plan.key).await? {
            return Ok(BTreeSet::new());
        }
        let there: BTreeMap<String, u64> =
            self.entries(&format!("{}/files", self.root)).await?.iter().map(|entry| (name(entry), entry.size)).collect();
        let is_missing = |item: &Item| match (there.get(&item.key), &item.source) {
            // One of another size was not written by us.
            (Some(size), Source::Here(_, wanted)) => size != wanted,
            (Some(_), Source::Compiled(..)) => false,
            (None, _) => true,
        };
        Ok(plan.items.iter().enumerate().filter(|(_, item)| is_missing(item)).map(|(at, _)| at).collect())
    }

    pub(super) async fn has_tree(&self, key: &str) -> Result<bool> {
        match self.files.look(&format!("{}/trees/{key}", self.root)).await {
            Ok(found) => Ok(found.kind == FileKind::Directory),
            Err(error) if error.code() == Code::FileNotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the record of a session's environments.
    pub(super) async fn note(&self, base: &str, file: &str, text: &str) -> Result<()> {
        self.files.make_directories(base).await?;
        let mut out = self.files.write(file, 0o600).await?;
        out.write(text.as_bytes()).await?;
        out.finish().await.map(drop)
    }

    /// Makes the store's directories and looks whether there is room.
    ///
    /// # Errors
    /// [`Code::DiskFull`], before anything is sent.
    pub(super) async fn room(&self, plan: &Plan, missing: &BTreeSet<usize>) -> Result<()> {
        for dir in ["files", "trees"] {
            self.files.make_directories(&format!("{}/{dir}", self.root)).await?;
        }
        let (_, bytes) = plan.weight(missing);
        match self.files.space(&self.root).await? {
            Some(left) if left < bytes + SPARE => Err(Error::new(
                Code::DiskFull,
                format!("{} has {left} bytes left for {}, and {} are needed", self.files.host(), self.root, bytes + SPARE),
            )
            .hint("make room there; nothing was changed")),
            _ => Ok(()),
        }
    }

    /// Sends what is missing, several files at once.
    pub(super) async fn send(&self, plan: &Plan, missing: &BTreeSet<usize>, follow: &dyn Follow) -> Result<()> {
        let mut seen = BTreeSet::new();
        let sent = Sent::new(plan.weight(missing), follow);
        let items: Vec<&Item> = missing.iter().filter_map(|at| plan.items.get(*at)).filter(|item| seen.insert(&item.key)).collect();
        together(items.into_iter().map(|item| self.send_one(item, format!("{}/files/{}", self.root, item.key), Some(&sent))).collect())
            .await
    }

    async fn send_one(&self, item: &Item, to: String, sent: Option<&Sent<'_>>) -> Result<()> {
        let Source::Here(path, size) = &item.source else { return Ok(()) };
        let (path, size, key) = (path.clone(), *size, item.key.clone());
        let read = tokio::task::spawn_blocking(move || plan::content(&path, size, &key)).await;
        let bytes = read.map_err(|error| Error::internal("reading a file failed").source(error))??;
        let mut out = self.files.write(&to, 0o444).await?;
        for piece in bytes.chunks(PIECE) {
            out.write(piece).await?;
            if let Some(sent) = sent {
                sent.more(piece.len() as u64);
            }
        }
        out.finish().await?;
        if let Some(sent) = sent {
            sent.whole();
        }
        Ok(())
    }

    fn fresh(&self, dir: &str, prefix: &str) -> String {
        format!("{}/{dir}{prefix}{}-{:016x}", self.root, self.owner, random::number())
    }

    /// Compiles a module and keeps it among the files.
    pub(super) async fn compile(&self, connection: &Connection, compiler: &str, recipe: &Recipe, module: usize, key: &str) -> Result<()> {
        let dir = self.fresh("", PREFIXES[1]);
        let made = self.compile_in(&dir, connection, compiler, recipe, module).await;
        let kept = match made {
            Ok(object) => self.files.replace(&object, &format!("{}/files/{key}", self.root)).await,
            Err(error) => Err(error),
        };
        let _ = self.files.remove_tree(&dir).await;
        kept
    }

    async fn compile_in(&self, dir: &str, connection: &Connection, compiler: &str, recipe: &Recipe, module: usize) -> Result<String> {
        let module = &recipe.modules[module];
        let mut dirs: BTreeSet<String> = BTreeSet::from([dir.to_owned()]);
        for (path, _) in &recipe.files {
            if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(Error::new(Code::PackageBuild, format!("the source has a file \"{}\"", path.escape_debug())));
            }
            dirs.extend(path.match_indices('/').map(|(at, _)| format!("{dir}/{}", &path[..at])));
        }
        for one in &dirs {
            self.files.make_directory(one, 0o700).await?;
        }
        let send = |(path, bytes): &(String, Vec<u8>)| {
            let (to, bytes) = (format!("{dir}/{path}"), bytes.clone());
            async move {
                let mut out = self.files.write(&to, 0o600).await?;
                out.write(&bytes).await?;
                out.finish().await.map(drop)
            }
        };
        together(recipe.files.iter().map(send).collect()).await?;
        let object = format!("{dir}/.vmoon-module.so");
        let mut argv = vec!["cd \"$1\" || exit 71; shift; exec \"$@\"", dir, compiler, "-o", ".vmoon-module.so"];
        argv.extend(module.arguments.iter().map(String::as_str));
        let ended = connection.run(&script(argv[0], &argv[1..]), b"", COMPILE).await?;
        if ended.code == Some(0) {
            return Ok(object);
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let first = said.lines().find(|line| line.contains("error")).or_else(|| said.lines().last()).unwrap_or_default();
        let first: String = first.chars().take(300).collect();
        let what = format!("{} could not be compiled on {}: {}", module.path, connection.name(), first.escape_debug());
        Err(Error::new(Code::PackageBuild, what)
            .hint("install what is named there (a C compiler, headers, libraries); nothing was changed"))
    }

    /// Puts the tree together under a name of its own; gives its path.
    pub(super) async fn stage(&self, plan: &Plan) -> Result<String> {
        let staged = self.fresh("trees/", PREFIXES[0]);
        self.files.make_directory(&staged, 0o700).await?;
        for dir in plan.directories() {
            self.files.make_directory(&format!("{staged}/{dir}"), 0o700).await?;
        }
        together(plan.items.iter().map(|item| self.place(item, format!("{staged}/{}", item.path))).collect()).await?;
        let mut list = self.files.write(&format!("{staged}/manifest"), 0o444).await?;
        list.write(plan.manifest().as_bytes()).await?;
        list.finish().await?;
        Ok(staged)
    }

    /// Puts a file that is there into a tree.
    async fn place(&self, item: &Item, to: String) -> Result<()> {
        let from = format!("{}/files/{}", self.root, item.key);
        match (self.files.link(&from, &to).await, &item.source) {
            (Ok(true), _) => Ok(()),
            // A file system without links has the file twice; what was compiled there goes over.
            (Ok(false), Source::Here(..)) => self.send_one(item, to, None).await,
            (Ok(false), Source::Compiled(..)) => self.files.replace(&from, &to).await,
            // Somebody has cleaned it away just now.
            (Err(error), Source::Here(..)) if error.code() == Code::FileNotFound => self.send_one(item, to, None).await,
            (Err(error), _) => Err(error),
        }
    }

    /// Gives a tree its name. If somebody was quicker, theirs is as good.
    pub(super) async fn publish(&self, staged: &str, key: &str) -> Result<()> {
        if self.files.rename(staged, &format!("{}/trees/{key}", self.root)).await? {
            return Ok(());
        }
        self.files.remove_tree(staged).await
    }

    /// The keys of all trees that any session of this account uses, or is about to.
    async fn wanted(&self) -> Result<BTreeSet<String>> {
        let mut keys = BTreeSet::new();
        for owner in self.entries(&self.guests).await?.iter().filter(|entry| entry.kind == FileKind::Directory).map(name) {
            for session in self.entries(&format!("{}/{owner}", self.guests)).await?.iter().filter(|entry| entry.kind == FileKind::Directory)
            {
                let file = format!("{}/{owner}/{}/{}", self.guests, name(session), record::RECORD);
                let text = self.files.slurp(&file, record::MOST).await?.unwrap_or_default();
                keys.extend(String::from_utf8_lossy(&text).lines().filter_map(record::line).map(|(_, used)| used.key));
            }
        }
        Ok(keys)
    }

    /// Removes what nobody uses: trees, files that are in no tree, and what this owner has left half done.
    pub(super) async fn clean(&self) -> Result<()> {
        let trees = format!("{}/trees", self.root);
        // As `fresh` makes them; another owner may be called `OWNER-x`.
        let ours = |entry: &str| {
            let rest = PREFIXES.iter().find_map(|prefix| entry.strip_prefix(prefix));
            rest.and_then(|rest| rest.strip_prefix(&self.owner)).is_some_and(|rest| rest.len() == 17)
        };
        for (dir, entries) in [(self.root.clone(), self.entries(&self.root).await?), (trees.clone(), self.entries(&trees).await?)] {
            for entry in entries.iter().map(name).filter(|entry| ours(entry)) {
                self.files.remove_tree(&format!("{dir}/{entry}")).await?;
            }
        }
        let wanted = self.wanted().await?;
        let mut kept = Vec::new();
        for key in self.entries(&trees).await?.iter().map(name).filter(|entry| record::is_key(entry)) {
            if wanted.contains(&key) {
                kept.push(key);
                continue;
            }
            let (tree, gone) = (format!("{trees}/{key}"), self.fresh("trees/", PREFIXES[2]));
            self.files.rename(&tree, &gone).await?;
            // Somebody may have begun to want it just now.
            if self.wanted().await?.contains(&key) && self.files.rename(&gone, &tree).await? {
                kept.push(key);
                continue;
            }
            self.files.remove_tree(&gone).await?;
        }
        let mut used = BTreeSet::new();
        for key in kept {
            let text = self.files.slurp(&format!("{trees}/{key}/manifest"), MANIFEST).await?.unwrap_or_default();
            used.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| line.split_once(' ')).map(|(key, _)| key.to_owned()));
        }
        // Whoever wants a tree that is not there yet is sending files that are in none.
        let there: BTreeSet<String> = self.entries(&trees).await?.iter().map(name).collect();
        if wanted.iter().any(|key| !there.contains(key)) {
            return Ok(());
        }
        let files = format!("{}/files", self.root);
        let dropped: Vec<String> = self.entries(&files).await?.iter().map(name).filter(|entry| !used.contains(entry)).collect();
        let remove = |entry: String| {
            let path = format!("{files}/{entry}");
            async move { self.files.remove_file(&path).await }
        };
        together(dropped.into_iter().map(remove).collect()).await
    }
}
