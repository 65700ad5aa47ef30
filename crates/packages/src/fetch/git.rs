//! Sources in repositories: one commit is fetched by the program `git` and kept as an archive, whose SHA-256 depends on the files alone.

use super::{Fetched, Fetcher, Location, locate, mismatch, offline};
use crate::{
    cache::{Seen, walk},
    digest,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{
    clock,
    run::{End, Run},
};

/// How long one call of `git` may take.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A tag, or a whole commit id.
    Tag(String),
    /// The newest commit of a branch.
    Branch(String),
    /// The newest commit.
    Head,
}

/// A source in a repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// `git+https://…` and the like.
    pub url: String,
    /// What of it.
    pub reference: Reference,
    /// The SHA-256 that its archive must have.
    pub sha256: Option<String>,
}

impl Repository {
    fn key(&self) -> String {
        match &self.reference {
            Reference::Tag(tag) => [&self.url, "#tag=", tag].concat(),
            Reference::Branch(branch) => [&self.url, "#branch=", branch].concat(),
            Reference::Head => [&self.url, "#head"].concat(),
        }
    }
}

impl Fetcher {
    /// Fetches a commit. The result is an archive of its files, without a folder around them, and the commit's id.
    ///
    /// # Errors
    /// [`Code::PackageServer`] with the words of `git`, [`Code::DoctorFailed`] if there is no `git`; else as [`Fetcher::fetch`].
    pub fn repository(&self, wanted: &Repository) -> Result<(Fetched, String)> {
        let Location::Git(url) = locate(&wanted.url)? else {
            return Err(Error::new(Code::Usage, format!("{} is no repository", escape(&wanted.url))));
        };
        let key = wanted.key();
        if let Some(sha256) = &wanted.sha256 {
            if let Some(blob) = self.cache.get(sha256)? {
                let commit = self.cache.seen(&key)?.and_then(|(seen, _)| seen.modified).unwrap_or_default();
                return Ok((Fetched { blob, cached: true }, commit));
            }
        } else if (matches!(wanted.reference, Reference::Tag(_)) || self.options.offline)
            && let Some((seen, blob)) = self.cache.seen(&key)?
        {
            return Ok((Fetched { blob, cached: true }, seen.modified.unwrap_or_default()));
        }
        if self.options.offline {
            return Err(offline(&key));
        }
        self.progress().note(&format!("git fetches {}", escape(&url)));
        let work = self.cache.work()?;
        let tree = work.path().join("tree");
        fs::create_dir(&tree).map_err(|error| Error::io("make a directory for a repository", error))?;
        let git = Git { fetcher: self, url: &url, tree: &tree, home: work.path() };
        let commit = git.checkout(&wanted.reference)?;
        let packed = work.path().join("source.tar");
        let (sha256, size) = pack(&tree, &packed, self.options.largest)?;
        if let Some(promised) = wanted.sha256.as_ref().filter(|promised| **promised != sha256) {
            return Err(mismatch(&key, promised, &sha256));
        }
        let blob = self.cache.adopt(&packed, &sha256, size)?;
        self.cache.note(&Seen { url: key, sha256, size, fetched_ms: clock::now_ms(), etag: None, modified: Some(commit.clone()) })?;
        Ok((Fetched { blob, cached: false }, commit))
    }
}

struct Git<'a> {
    fetcher: &'a Fetcher,
    url: &'a str,
    tree: &'a Path,
    home: &'a Path,
}

impl Git<'_> {
    /// Makes the files of a commit appear in the work tree; gives back the commit's id.
    fn checkout(&self, reference: &Reference) -> Result<String> {
        self.run(&["init", "--quiet", "."])?;
        let names: Vec<String> = match reference {
            Reference::Tag(tag) if is_commit(tag) => vec![tag.clone()],
            Reference::Tag(tag) => vec![["refs/tags/", plain(tag)?].concat(), ["refs/heads/", plain(tag)?].concat()],
            Reference::Branch(branch) => vec![["refs/heads/", plain(branch)?].concat()],
            Reference::Head => vec!["HEAD".into()],
        };
        let mut first = None;
        for name in &names {
            match self.run(&["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", self.url, name]) {
                Ok(_) => return self.appear("FETCH_HEAD"),
                Err(error) if error.code() != Code::PackageServer => return Err(error),
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        if let Reference::Tag(commit) = reference
            && is_commit(commit)
        {
            // Some servers give single commits to nobody: then everything is fetched.
            let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
            self.run(&["fetch", "--quiet", "--no-recurse-submodules", "--", self.url, all[0], all[1]])?;
            return self.appear(commit);
        }
        Err(first.unwrap_or_else(|| Error::internal("no name of a commit was tried")))
    }

    fn appear(&self, name: &str) -> Result<String> {
        self.run(&["checkout", "--quiet", "--detach", name])?;
        if self.tree.join(".gitmodules").is_file() {
            self.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
        }
        Ok(self.run(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs `git` with nothing of the user's: no configuration, no hooks, no stored passwords, no questions.
    fn run(&self, args: &[&str]) -> Result<String> {
        let exe = program_in(&PROGRAMS, "git").ok_or_else(|| {
            Error::new(Code::DoctorFailed, "there is no program git, which fetches sources from repositories")
                .hint("install it (Debian: apt-get install git)")
        })?;
        let settings = [
            "core.hooksPath=/dev/null",
            "credential.helper=",
            "core.fsmonitor=false",
            "gc.auto=0",
            "advice.detachedHead=false",
            "init.defaultBranch=main",
        ];
        let mut all: Vec<&str> = settings.iter().flat_map(|setting| ["-c", setting]).collect();
        all.extend(args);
        // A repository that comes by HTTPS must not name parts of itself that are files of this computer.
        let scheme = self.url.split("://").next().unwrap_or_default();
        let home = self.home.as_os_str();
        let mut env: Vec<(OsString, OsString)> = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_HTTP_LOW_SPEED_LIMIT", "1"),
            ("LC_ALL", "C"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        env.push(("GIT_ALLOW_PROTOCOL".into(), if scheme == "https" { "https".into() } else { [scheme, ":https"].concat().into() }));
        env.push(("GIT_HTTP_LOW_SPEED_TIME".into(), self.fetcher.options.idle.as_secs().max(1).to_string().into()));
        env.push(("HOME".into(), home.to_owned()));
        env.extend(vmoon_sys::paths::inherited(&["SSL_CERT_FILE", "SSL_CERT_DIR", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"]));
        if let Some((_, file)) = env.iter().find(|(name, _)| name == "SSL_CERT_FILE").cloned() {
            env.push(("GIT_SSL_CAINFO".into(), file));
        }
        let run = Run {
            exe: &exe,
            args: all.iter().map(AsRef::as_ref).collect(),
            env: env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect(),
            dir: self.tree,
            input: b"",
            extra: Vec::new(),
            merged: true,
            keep: 16 << 10,
            limit: LIMIT,
            largest_file: Some(self.fetcher.options.largest),
        };
        let ran = run.run(self.fetcher.stop()).map_err(|error| Error::io("run git", error))?;
        let failed = |what: String| {
            let said: String = escape(ran.out.text().trim()).chars().take(600).collect();
            let reason = if said.is_empty() { what } else { [&what, ": ", &said].concat() };
            Error::new(Code::PackageServer, format!("{} could not be fetched: {reason}", escape(self.url)))
        };
        match ran.end {
            End::Code(0) => Ok(ran.out.text()),
            End::Stopped => Err(vmoon_sys::stop::Stop::error()),
            End::TooLong => Err(failed("git took too long".into())),
            End::Code(code) => Err(failed(format!("git ended with status {code}"))),
            End::Signal(signal) => Err(failed(format!("git was ended by signal {signal}; the repository may be too large"))),
        }
    }
}

fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name of a tag or branch as `git check-ref-format` allows it, and no option.
fn plain(name: &str) -> Result<&str> {
    let fits = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("@{")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"~^:?*[\\".contains(&byte));
    if fits { Ok(name) } else { Err(Error::new(Code::PackageInvalid, format!("\"{}\" cannot be a tag or branch", escape(name)))) }
}

/// Where programs are.
pub(crate) const PROGRAMS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// The path of a program in these directories.
pub(crate) fn program_in(dirs: &[impl AsRef<Path>], name: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.as_ref().join(name)).filter(|_| !name.contains('/')).find(runs)
}

/// Packs all files of a work tree, sorted, without times and owners; gives back SHA-256 and size.
fn pack(tree: &Path, into: &Path, largest: u64) -> Result<(String, u64)> {
    let mut files = Vec::new();
    let mut total = 0;
    walk(tree, &mut |path, meta| {
        let inside = path.strip_prefix(tree).unwrap_or(path).to_owned();
        if inside.components().all(|part| part.as_os_str() != ".git") {
            total += meta.len();
            files.push((inside, meta.is_symlink(), meta.permissions().mode() & 0o100 != 0));
        }
    })?;
    if total > largest {
        return Err(Error::new(Code::PackageServer, format!("the repository has {total} bytes of files, and {largest} are allowed")));
    }
    files.sort_by(|a, b| a.0.as_os_str().as_bytes().cmp(b.0.as_os_str().as_bytes()));
    let failed = |error| Error::io("pack a repository", error);
    let mut archive = tar::Builder::new(BufWriter::new(File::create_new(into).map_err(failed)?));
    for (path, link, executable) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        let at = tree.join(&path);
        if link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, &path, fs::read_link(&at).map_err(failed)?).map_err(failed)?;
        } else {
            let file = File::open(&at).map_err(failed)?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(file.metadata().map_err(failed)?.len());
            archive.append_data(&mut header, &path, file).map_err(failed)?;
        }
    }
    archive.into_inner().and_then(|mut file| file.flush()).map_err(failed)?;
    digest::sha256_of(File::open(into).map_err(failed)?).map_err(failed)
}
