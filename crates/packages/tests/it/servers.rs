//! Servers that answer, and servers that do not: over `file://`, HTTP and HTTPS.

use crate::{
    mirror::{
        Mirror, Rock,
        serve::{Fault, Server as Web},
    },
    sandbox::{Installed, Never},
};
use std::{sync::Arc, time::Duration};
use vmoon_core::Code;
use vmoon_packages::{
    LuaVersion, Server,
    cache::Cache,
    fetch::{Fetcher, Options, Quiet, Want},
    files::ServerFiles,
    gather::gather,
    search,
};
use vmoon_sys::stop::Stop;

/// A fetcher with a cache of its own; servers may be silent for a second.
pub(crate) struct Fetching {
    pub(crate) fetcher: Fetcher,
    _cache: tempfile::TempDir,
}

impl Fetching {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fetcher = Self::in_cache(dir.path(), options);
        Self { fetcher, _cache: dir }
    }

    fn in_cache(dir: &std::path::Path, options: Options) -> Fetcher {
        let options =
            Options { idle: Duration::from_secs(1), total: Duration::from_secs(20), builtin: vmoon_packages::builtin::file, ..options };
        Fetcher::new(Cache::open(dir).unwrap(), options, Arc::new(Quiet), Stop::new())
    }

    pub(crate) fn files(&self) -> ServerFiles<'_> {
        ServerFiles::new(&self.fetcher, Duration::ZERO)
    }
}

pub(crate) fn server(name: &str, url: &str) -> Server {
    Server::new(name, url, false).unwrap()
}

/// A mirror that is served, and its server.
pub(crate) fn served(tls: bool) -> (tempfile::TempDir, Mirror, Web) {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start(dir.path(), tls);
    let mirror = Mirror::at(dir.path(), web.url()).with_standard();
    mirror.publish();
    (dir, mirror, web)
}

#[test]
fn a_directory_is_a_server() {
    let mirror = Mirror::local().with_standard();
    mirror.publish();
    let fetching = Fetching::new();
    let index = gather(&[server("s", mirror.url())], LuaVersion::V54, &fetching.files(), &Installed::default());
    assert!(index.failures.is_empty(), "{:?}", index.failures);
    assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3);
    assert_eq!(search::nearest(&index, "bxalfa", 1)[0].as_str(), "bxalpha");
    // The second time the manifest's compact form is in the cache: nothing is evaluated.
    let again = gather(&[server("s", mirror.url())], LuaVersion::V54, &fetching.files(), &Never);
    assert_eq!(again.names().len(), index.names().len());
}

#[test]
fn each_form_of_a_manifest_is_read() {
    for form in ["zip", "json", "general"] {
        let (_dir, mirror, web) = served(false);
        match form {
            "zip" => mirror.publish_zip("5.3"),
            "json" => mirror.publish_json("5.3"),
            _ => std::fs::remove_file(mirror.dir().join("manifest-5.3")).unwrap(),
        }
        let fetching = Fetching::new();
        let index = gather(&[server("s", web.url())], LuaVersion::V53, &fetching.files(), &Installed::default());
        assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3, "{form}: {:?}", index.failures);
    }
}

#[test]
fn a_page_where_a_form_is_missing_does_not_hide_the_one_that_is_there() {
    let (_dir, _mirror, web) = served(false);
    for form in ["manifest-5.4.zip", "manifest-5.4.json"] {
        web.fault(form, Fault::Html);
    }
    let fetching = Fetching::new();
    let index = gather(&[server("s", web.url())], LuaVersion::V54, &fetching.files(), &Installed::default());
    assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3, "{:?}", index.failures);
}

#[test]
fn a_server_that_fails_is_named_and_the_others_count() {
    let (_dir, mirror, web) = served(false);
    let good = Mirror::local().with_standard();
    good.publish();
    let fetching = Fetching::new();
    std::fs::remove_file(mirror.dir().join("manifest")).unwrap();
    for (fault, code, said) in [
        (Fault::Hang, Code::PackageServer, "bad"),
        (Fault::Status(500), Code::PackageServer, "500"),
        (Fault::Html, Code::PackageInvalid, "HTML"),
        (Fault::Cut(100), Code::PackageServer, "bad"),
        (Fault::Bytes(b"repository = {".to_vec()), Code::PackageInvalid, "not Lua"),
        (Fault::Bytes(b"while true do end".to_vec()), Code::PackageInvalid, "does not end"),
        (Fault::Bytes(b"PK\x03\x04nonsense".to_vec()), Code::PackageInvalid, "zip"),
        (Fault::Bytes(b"{\"repository\":7}".to_vec()), Code::PackageInvalid, "JSON"),
        (Fault::Redirect("/manifest-5.4".to_owned()), Code::PackageServer, "bad"),
    ] {
        web.heal();
        web.fault("manifest-5.4", fault.clone());
        let servers = [server("bad", web.url()), server("good", good.url())];
        let index = gather(&servers, LuaVersion::V54, &fetching.files(), &Installed::default());
        assert_eq!(index.failures.len(), 1, "{fault:?}");
        let failure = &index.failures[0];
        assert_eq!((failure.server.as_str(), failure.error.code), ("bad", code), "{fault:?}: {failure:?}");
        assert!(failure.error.message.contains(said) && failure.error.message.contains("of the server bad: "), "{fault:?}: {failure:?}");
        assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3, "{fault:?}");
    }
}

#[test]
fn a_server_without_a_manifest_and_one_that_is_not_there() {
    let empty = tempfile::tempdir().unwrap();
    let web = Web::start(empty.path(), false);
    let fetching = Fetching::new();
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let servers = [server("empty", web.url()), server("gone", &gone), server("none", "file:///nowhere/at/all")];
    let index = gather(&servers, LuaVersion::V54, &fetching.files(), &Never);
    let said: Vec<_> = index.failures.iter().map(|failure| (failure.server.as_str(), failure.error.code)).collect();
    assert_eq!(said, [("empty", Code::PackageServer), ("gone", Code::PackageServer), ("none", Code::PackageServer)]);
    assert!(index.failures[0].error.message.contains("has no manifest for Lua 5.4"), "{:?}", index.failures[0]);
    assert_eq!(web.asked(), ["manifest-5.4.zip", "manifest-5.4.json", "manifest-5.4", "manifest.zip", "manifest"]);
}

#[test]
fn offline_the_cache_is_enough() {
    let (_dir, _mirror, web) = served(false);
    let cache = tempfile::tempdir().unwrap();
    let lua = LuaVersion::V54;
    let servers = [server("s", web.url())];
    let online = Fetching::in_cache(cache.path(), Options::default());
    let index = gather(&servers, lua, &ServerFiles::new(&online, Duration::ZERO), &Installed::default());
    assert!(index.failures.is_empty());
    drop(web);
    let offline = Fetching::in_cache(cache.path(), Options { offline: true, ..Options::default() });
    let index = gather(&servers, lua, &ServerFiles::new(&offline, Duration::ZERO), &Never);
    assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3, "{:?}", index.failures);
    let other = gather(&servers, LuaVersion::V51, &ServerFiles::new(&offline, Duration::ZERO), &Never);
    assert_eq!(other.failures[0].error.code, Code::PackageOffline);
}

/// The certificates that are trusted are named by the environment, which a test must not change: so the test runs itself with another one.
#[test]
fn over_https_with_a_certificate_that_is_trusted_and_without() {
    const URL: &str = "VMOON_TEST_HTTPS_URL";
    if let Ok(url) = std::env::var(URL) {
        let fetching = Fetching::new();
        let index = gather(&[server("s", &url)], LuaVersion::V54, &fetching.files(), &Installed::default());
        if std::env::var_os("SSL_CERT_FILE").is_some_and(|file| file != "/etc/ssl/certs/ca-certificates.crt") {
            assert!(index.failures.is_empty(), "{:?}", index.failures);
            assert_eq!(index.candidates(&"bxalpha".parse().unwrap()).len(), 3);
        } else {
            assert_eq!(index.failures[0].error.code, Code::PackageServer, "{:?}", index.failures);
        }
        return;
    }
    let (_dir, mut mirror, web) = served(true);
    mirror.add(&Rock::pure("bxmore", "1.0-1", &[]));
    let certificate = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(certificate.path(), &web.certificate).unwrap();
    for file in [certificate.path(), "/etc/ssl/certs/ca-certificates.crt".as_ref()] {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers::over_https_with_a_certificate_that_is_trusted_and_without"])
            .env(URL, web.url())
            .env("SSL_CERT_FILE", file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && said.contains("1 passed"), "{}: {said}", file.display());
    }
    assert!(web.asked().contains(&"manifest-5.4".to_owned()));
}

#[test]
fn a_file_that_is_not_what_was_promised_is_refused() {
    let (_dir, mirror, web) = served(false);
    let file = "bxalpha-1.0-1.src.rock";
    let url = format!("{}/{file}", web.url());
    let promised = vmoon_packages::digest::sha256(&std::fs::read(mirror.dir().join(file)).unwrap());
    web.fault(file, Fault::Spoil);
    let fetching = Fetching::new();
    let error = fetching.fetcher.fetch(&Want::exactly(&url, &promised)).unwrap_err();
    assert_eq!(error.code(), Code::PackageChecksum, "{error}");
    web.heal();
    assert_eq!(fetching.fetcher.fetch(&Want::exactly(&url, &promised)).unwrap().blob.sha256, promised);
}
