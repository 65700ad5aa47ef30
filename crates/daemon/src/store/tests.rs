//! Tests of the store.

use super::*;

async fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db"), Hooks::default()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn a_failed_job_changes_nothing_and_publishes_nothing_while_its_neighbours_commit() {
    let (_dir, store) = open().await;
    let mut follower = store.follow();
    let bad = store.run(|tx| {
        tx.event(EventKind::MachineAdded, About::default(), "never")?;
        Err::<(), _>(rusqlite::Error::InvalidQuery)
    });
    let good = store.run(|tx| tx.event(EventKind::MachineGone, About::default(), "kept"));
    let (bad, good) = tokio::join!(bad, good);
    assert_eq!(bad.unwrap_err().code(), Code::StoreFailed);
    good.unwrap();
    assert_eq!(follower.recv().await.unwrap().text, "kept");
    let (kept, gone) = store.run(|tx| tx.events(0, None, 10)).await.unwrap();
    assert_eq!((kept.len(), kept[0].text.as_str()), (1, "kept"));
    assert!(gone < kept[0].seq);
}

#[tokio::test]
async fn event_numbers_rise_across_restarts() {
    let (dir, store) = open().await;
    store.run(|tx| tx.event(EventKind::DaemonStarted, About::default(), "1")).await.unwrap();
    drop(store);
    let store = Store::open(&dir.path().join("db"), Hooks::default()).unwrap();
    store.run(|tx| tx.event(EventKind::DaemonStarted, About::default(), "2")).await.unwrap();
    let (events, _) = store.run(|tx| tx.events(0, None, 10)).await.unwrap();
    assert_eq!(events.iter().map(|e| (e.seq, e.text.as_str())).collect::<Vec<_>>(), [(1, "1"), (2, "2")]);
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    Sql::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(Store::open(&path, Hooks::default()).err().unwrap().code(), Code::StoreNewer);
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_changed() {
    let (_dir, store) = open().await;
    // SQLite reports SQLITE_FULL when the database may not grow, exactly as it does on a full disk.
    store.run(|tx| tx.sql.pragma_update(None, "max_page_count", 20)).await.unwrap();
    let mut outcome = Ok(());
    for _ in 0..2_000 {
        outcome = store.run(|tx| tx.event(EventKind::MachineChanged, About::default(), "x".repeat(500))).await;
        if outcome.is_err() {
            break;
        }
    }
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), Code::DiskFull, "{error}");
    let (before, _) = store.run(|tx| tx.events(0, None, 10_000)).await.unwrap();
    assert!(!before.is_empty());
    store.run(|tx| tx.sql.pragma_update(None, "max_page_count", 1_000_000)).await.unwrap();
    store.run(|tx| tx.event(EventKind::MachineChanged, About::default(), "room again")).await.unwrap();
}
