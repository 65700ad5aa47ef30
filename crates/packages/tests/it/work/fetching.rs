//! Fetching from servers that behave and from those that do not.

use super::{
    server::{Reply, Server},
    shop::{Shop, Steps, say},
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use vmoon_core::Code;
use vmoon_packages::{
    cache::Cache,
    digest,
    fetch::{Fetcher, Fresh, Options, Quiet, Reference, Repository, Want},
};
use vmoon_sys::stop::Stop;

fn ok(body: &[u8]) -> Reply {
    Reply::Whole(200, vec![], body.to_vec())
}

#[test]
fn a_file_is_fetched_once_and_its_check_sum_is_held() {
    let shop = Shop::new();
    let server = Server::plain(|request| if request.path == "/a" { ok(b"hello") } else { Reply::Whole(404, vec![], vec![]) });
    let fetcher = shop.fetcher();
    let sum = digest::sha256(b"hello");
    let fetched = fetcher.fetch(&Want::exactly(server.url("/a"), &sum)).unwrap();
    assert_eq!((fetched.read().unwrap(), fetched.cached, fetched.blob.sha256), (b"hello".to_vec(), false, sum.clone()));
    assert!(fetcher.fetch(&Want::fixed(server.url("/a"))).unwrap().cached);
    assert_eq!(server.requests().len(), 1);
    // The same content from elsewhere is not fetched either.
    assert!(fetcher.fetch(&Want::exactly(server.url("/other"), &sum)).unwrap().cached);
    assert_eq!(fetcher.fetch(&Want::fixed(server.url("/none"))).unwrap_err().code(), Code::NotFound);
    let wrong = fetcher.fetch(&Want::exactly(server.url("/a"), digest::sha256(b"x"))).unwrap_err();
    assert_eq!(wrong.code(), Code::PackageChecksum);
    assert!(wrong.message().contains(&sum), "{wrong}");
    // Spoilt in the cache, it is fetched again.
    fs::write(fetched.blob.path, "hullo").unwrap();
    assert!(!fetcher.fetch(&Want::exactly(server.url("/a"), &sum)).unwrap().cached);
    let small = Want { largest: 3, ..Want::exactly(server.url("/a"), digest::sha256(b"y")) };
    assert!(fetcher.fetch(&small).unwrap_err().message().contains("larger than 3"));
}

#[test]
fn offline_takes_what_is_there_and_says_what_is_not() {
    let mut shop = Shop::new();
    let server = Server::plain(|_| ok(b"x"));
    let want = Want { fresh: Fresh::Within(Duration::ZERO), ..Want::fixed(server.url("/m")) };
    shop.fetcher().fetch(&want).unwrap();
    shop.options.offline = true;
    assert!(shop.fetcher().fetch(&want).unwrap().cached);
    assert_eq!(shop.fetcher().fetch(&Want::fixed(server.url("/n"))).unwrap_err().code(), Code::PackageOffline);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_manifest_is_asked_for_again_but_sent_only_if_it_has_changed() {
    let shop = Shop::new();
    let server = Server::plain(|request| match request.headers.get("if-none-match").map(String::as_str) {
        Some("\"one\"") => Reply::Whole(304, vec![], vec![]),
        _ => Reply::Whole(200, vec![("etag", "\"one\"".into())], b"manifest".to_vec()),
    });
    let want = |age| Want { fresh: Fresh::Within(age), ..Want::fixed(server.url("/manifest")) };
    let fetcher = shop.fetcher();
    assert!(!fetcher.fetch(&want(Duration::ZERO)).unwrap().cached);
    let age = Instant::now();
    while age.elapsed() < Duration::from_millis(5) {
        std::thread::yield_now();
    }
    assert!(fetcher.fetch(&want(Duration::ZERO)).unwrap().cached);
    assert_eq!(server.requests().len(), 2);
    assert!(fetcher.fetch(&want(Duration::from_secs(3600))).unwrap().cached);
    assert_eq!(server.requests().len(), 2);
}

/// Content that is not the same everywhere.
fn large() -> Vec<u8> {
    (0..1_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn a_download_goes_on_where_it_was_broken_off() {
    let shop = Shop::new();
    let body = large();
    let whole = body.clone();
    let server = Server::plain(move |request| {
        let tag = || vec![("etag", "\"v1\"".to_owned())];
        match request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
            None => Reply::Cut(tag(), body.clone(), 400_000),
            // It breaks off a second time, and then it does not.
            Some(from) if from < 600_000 => {
                let mut headers = tag();
                headers.push(("content-range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())));
                assert_eq!(request.headers["if-range"], "\"v1\"");
                match Reply::Whole(206, headers, body[from..].to_vec()) {
                    Reply::Whole(status, headers, rest) if from >= 400_000 => Reply::Whole(status, headers, rest),
                    other => other,
                }
            }
            Some(from) => panic!("asked for {from}"),
        }
    });
    let steps = Arc::new(Steps::default());
    let fetched = shop.fetcher_with(Arc::clone(&steps), Stop::new()).fetch(&Want::fixed(server.url("/big"))).unwrap();
    assert_eq!(fetched.read().unwrap(), whole);
    assert_eq!(server.requests().len(), 2, "it was not fetched from the beginning again");
    assert!(steps.notes.lock().unwrap()[0].contains("goes on after"));
    assert_eq!(steps.bytes.lock().unwrap().values().next(), Some(&(1_000_000, Some(1_000_000))));
    assert_eq!(fs::read_dir(shop.path("cache/partial")).unwrap().count(), 0);
}

#[test]
fn a_download_that_changed_meanwhile_begins_anew() {
    let shop = Shop::new();
    let (old, new) = (large(), vec![b'n'; 500_000]);
    let expected = new.clone();
    let count = AtomicUsize::new(0);
    let server = Server::plain(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Cut(vec![("etag", "\"old\"".into())], old.clone(), 300_000),
        // If-Range did not hold: the whole new one.
        _ => Reply::Whole(200, vec![("etag", "\"new\"".into())], new.clone()),
    });
    assert_eq!(shop.fetcher().fetch(&Want::fixed(server.url("/big"))).unwrap().read().unwrap(), expected);
    // A server that has nothing to prove its identity with: what is here is not trusted.
    let count = AtomicUsize::new(0);
    let server = Server::plain(move |request| {
        assert!(!request.headers.contains_key("range"));
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Cut(vec![], vec![b'a'; 100], 50),
            _ => ok(&[b'b'; 100]),
        }
    });
    assert_eq!(shop.fetcher().fetch(&Want::fixed(server.url("/plain"))).unwrap().read().unwrap(), [b'b'; 100]);
}

#[test]
fn a_beginning_that_was_of_something_else_is_not_kept() {
    let shop = Shop::new();
    let good = large();
    let (whole, sum) = (good.clone(), digest::sha256(&good));
    let count = AtomicUsize::new(0);
    // The first answer is broken off and of something else; the second goes on as if nothing were wrong.
    let server = Server::plain(move |request| match (count.fetch_add(1, Ordering::SeqCst), request.headers.get("range")) {
        (0, None) => Reply::Cut(vec![], vec![0; 1_000_000], 500_000),
        (1, Some(range)) => {
            let from: usize = range.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            let range = format!("bytes {from}-{}/{}", good.len() - 1, good.len());
            Reply::Whole(206, vec![("content-range", range)], good[from..].to_vec())
        }
        _ => ok(&good),
    });
    assert_eq!(shop.fetcher().fetch(&Want::exactly(server.url("/x"), sum)).unwrap().read().unwrap(), whole);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_server_that_is_silent_is_given_up_and_a_wish_to_stop_is_heard() {
    let mut shop = Shop::new();
    shop.options.idle = Duration::from_millis(300);
    let server = Server::plain(|request| if request.path == "/half" { Reply::Silent(vec![1; 10]) } else { Reply::Silent(vec![]) });
    for path in ["/half", "/none"] {
        let begun = Instant::now();
        let error = shop.fetcher().fetch(&Want::fixed(server.url(path))).unwrap_err();
        assert!(error.code() == Code::PackageServer && error.message().contains("silent"), "{}", error.chain());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    shop.options.idle = Duration::from_secs(1000);
    let stop = Stop::new();
    let other = stop.clone();
    let fetcher = shop.fetcher_with(Arc::default(), stop);
    let seen = server.requests().len();
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fetcher.fetch(&Want::fixed(server.url("/half"))));
        while server.requests().len() == seen {
            std::thread::yield_now();
        }
        other.stop();
        assert_eq!(fetching.join().unwrap().unwrap_err().code(), Code::Cancelled);
    });
}

#[test]
fn redirects_are_followed_within_bounds() {
    let shop = Shop::new();
    let to = |path: &str| Reply::Whole(302, vec![("location", path.to_owned())], vec![]);
    let server = Server::plain(move |request| match request.path.as_str() {
        "/a" => to("/b"),
        "/b" => to("c?x=1"),
        "/c?x=1" => ok(b"here"),
        "/loop" => to("/loop"),
        "/out" => to("http://example.org/x"),
        "/file" => to("file:///etc/passwd"),
        _ => to(""),
    });
    let fetch = |path: &str| shop.fetcher().fetch(&Want::fixed(server.url(path)));
    assert_eq!(fetch("/a").unwrap().read().unwrap(), b"here");
    for (path, why) in [("/loop", "more than 6 times"), ("/out", "not encrypted"), ("/file", "no address")] {
        let error = fetch(path).unwrap_err();
        assert!(error.code() == Code::PackageServer && error.message().contains(why), "{}", error.chain());
    }
}

#[test]
fn many_files_are_fetched_side_by_side_and_all_that_fail_are_known() {
    let shop = Shop::new();
    let server =
        Server::plain(|request| if request.path.ends_with('7') { Reply::Whole(500, vec![], vec![]) } else { ok(request.path.as_bytes()) });
    let wants: Vec<Want> = (0..30).map(|number| Want::fixed(server.url(&format!("/{number}")))).collect();
    let results = shop.fetcher().fetch_all(&wants);
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(fetched) => assert_eq!(fetched.read().unwrap(), format!("/{number}").as_bytes()),
            Err(error) => assert!(number % 10 == 7 && error.message().contains("status 500"), "{}", error.chain()),
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 3);
}

/// In a process of its own: where certificates are is told by the environment.
#[test]
fn https_with_the_certificates_of_this_computer() {
    const VARIABLES: [&str; 2] = ["VMOON_TEST_URL", "VMOON_TEST_CACHE"];
    if let [Ok(url), Ok(cache)] = VARIABLES.map(std::env::var) {
        let fetcher = Fetcher::new(Cache::open(Path::new(&cache)).unwrap(), Options::default(), Arc::new(Quiet), Stop::new());
        match fetcher.fetch(&Want::fixed(url)) {
            Ok(fetched) => say(format!("fetched {}", String::from_utf8(fetched.read().unwrap()).unwrap())),
            Err(error) => say(format!("failed {} {}", error.code(), error.chain())),
        }
        return;
    }
    let shop = Shop::new();
    let (server, pem) = Server::secure(|request| match request.path.as_str() {
        "/down" => Reply::Whole(302, vec![("location", "http://127.0.0.1:1/x".into())], vec![]),
        _ => ok(b"secret"),
    });
    let certificate = shop.path("ca.pem");
    fs::write(&certificate, pem).unwrap();
    let fetch = |path: &str, certificate: &Path| {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "work::fetching::https_with_the_certificates_of_this_computer", "--nocapture"])
            .env(VARIABLES[0], server.url(path))
            .env(VARIABLES[1], shop.path("cache-of-child"))
            .env("SSL_CERT_FILE", certificate)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let said = fetch("/x", &certificate);
    assert!(said.contains("fetched secret"), "{said}");
    let said = fetch("/down", &certificate);
    assert!(said.contains("failed package.server") && said.contains("from https to http"), "{said}");
    // Another authority does not vouch for this server.
    let (_other, pem) = Server::secure(|_| ok(b""));
    fs::write(&certificate, pem).unwrap();
    let said = fetch("/y", &certificate);
    assert!(said.contains("failed package.server") && said.contains("cannot prove who it is"), "{said}");
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = std::process::Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .output()
        .expect("git is there (Debian: apt-get install git)");
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_commit_of_a_repository_is_a_source_that_does_not_depend_on_when_it_was_fetched() {
    let shop = Shop::new();
    let repository = shop.path("repository");
    fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet", "-b", "main", "."]);
    fs::write(repository.join("x.lua"), "return 1\n").unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "--quiet", "-m", "one"]);
    git(&repository, &["tag", "v1"]);
    let first = git(&repository, &["rev-parse", "HEAD"]);
    fs::write(repository.join("x.lua"), "return 2\n").unwrap();
    git(&repository, &["commit", "--quiet", "-am", "two"]);
    // A hook of the repository that would run when it is checked out, and an attribute that would run a program.
    fs::write(repository.join(".git/hooks/post-checkout"), "#!/bin/sh\ntouch hooked\n").unwrap();
    let url = format!("git+file://{}", repository.display());
    let wanted = |reference: Reference| Repository { url: url.clone(), reference, sha256: None };
    let fetcher = shop.fetcher();
    let (tag, commit) = fetcher.repository(&wanted(Reference::Tag("v1".into()))).unwrap();
    assert_eq!(commit, first);
    let (branch, _) = fetcher.repository(&wanted(Reference::Branch("main".into()))).unwrap();
    let (head, _) = fetcher.repository(&wanted(Reference::Head)).unwrap();
    assert_ne!(tag.blob.sha256, branch.blob.sha256);
    assert_eq!(head.blob.sha256, branch.blob.sha256);
    assert!(fetcher.repository(&wanted(Reference::Tag("v1".into()))).unwrap().0.cached);
    // Elsewhere, by the commit's id: the same bytes.
    let other = Shop::new();
    let exactly = Repository { url: url.clone(), reference: Reference::Tag(first), sha256: Some(tag.blob.sha256.clone()) };
    assert_eq!(other.fetcher().repository(&exactly).unwrap().0.blob.sha256, tag.blob.sha256);
    let wrong = Repository { sha256: Some(digest::sha256(b"")), ..exactly };
    assert_eq!(other.fetcher().repository(&wrong).unwrap_err().code(), Code::PackageChecksum);
    for bad in ["--upload-pack=touch x", "a b", "../x", "none"] {
        let error = fetcher.repository(&wanted(Reference::Tag(bad.into()))).unwrap_err();
        assert!([Code::PackageInvalid, Code::PackageServer].contains(&error.code()), "{bad}: {}", error.chain());
    }
    assert_eq!(fs::read_dir(shop.path("cache/work")).unwrap().count(), 0);
}

#[test]
fn what_is_inside_vmoon_needs_no_server() {
    let mut shop = Shop::new();
    shop.options.offline = true;
    shop.options.builtin = |name| (name == "a.rock").then(|| b"rock".as_slice().into());
    assert_eq!(shop.fetcher().fetch(&Want::fixed("builtin:a.rock")).unwrap().read().unwrap(), b"rock");
    assert_eq!(shop.fetcher().fetch(&Want::fixed("builtin:b.rock")).unwrap_err().code(), Code::NotFound);
}
