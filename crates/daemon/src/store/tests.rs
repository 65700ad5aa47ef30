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

#[tokio::test]
async fn of_jobs_that_share_a_transaction_each_fails_alone() {
    let (_dir, store) = open().await;
    for bad in 0..5 {
        // The first one waits until all are there, so that they share a transaction.
        let (go, wait) = mpsc::channel::<()>();
        let mut wait = Some(wait);
        let jobs = (0..5).map(|index| {
            let wait = wait.take();
            store.run(move |tx| {
                if let Some(wait) = wait {
                    let _ = wait.recv();
                }
                tx.event(EventKind::MachineAdded, About::default(), format!("{bad}/{index}"))?;
                if index == bad { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) }
            })
        });
        let (outcomes, ()) = tokio::join!(futures_util::future::join_all(jobs.collect::<Vec<_>>()), async move { drop(go) });
        assert!(outcomes.iter().enumerate().all(|(index, outcome)| outcome.is_err() == (index == bad)), "{bad}: {outcomes:?}");
    }
    let (events, _) = store.run(|tx| tx.events(0, None, 100)).await.unwrap();
    let texts: Vec<_> = events.iter().map(|event| event.text.clone()).collect();
    let wanted: Vec<_> =
        (0..5).flat_map(|bad| (0..5).filter(move |index| *index != bad).map(move |index| format!("{bad}/{index}"))).collect();
    assert_eq!(texts, wanted);
}

#[tokio::test]
async fn a_store_of_the_first_release_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let id = |n: u8| uuid::Uuid::from_bytes([n; 16]).to_string();
    {
        let mut sql = Sql::open(&path).unwrap();
        schema::migrate_to(&mut sql, 2).unwrap();
        sql.pragma_update(None, "foreign_keys", true).unwrap();
        let words = format!(
            "INSERT INTO connections VALUES ('{c}', 'lua', '{{}}');
             INSERT INTO machines VALUES ('{m}', '{c}', 'a', 1, '\"running\"', 'h', 'the machine');
             INSERT INTO operations VALUES ('{o}', '{m}', 5, NULL, 'the operation');
             INSERT INTO undos VALUES ('{o}', 0, 'first'), ('{o}', 1, 'second');
             INSERT INTO sessions VALUES ('{s}', '{m}', 7, 'the session');
             INSERT INTO events (seq, at_ms, machine, body) VALUES (41, 9, '{m}', 'the event');
             INSERT INTO settings VALUES ('k', 'v');",
            c = id(1),
            m = id(2),
            o = id(3),
            s = id(4)
        );
        sql.execute_batch(&words).unwrap();
    }
    let store = Store::open(&path, Hooks::default()).unwrap();
    let (c, m, o, s) = (id(1), id(2), id(3), id(4));
    let all = store
        .run(|tx| {
            let words = "SELECT id || connection || name || ours || status || handle || body FROM machines
                 UNION ALL SELECT id || machine || started_ms || coalesce(ended_ms, '-') || body FROM operations
                 UNION ALL SELECT operation || position || body FROM undos
                 UNION ALL SELECT id || machine || opened_ms || body FROM sessions
                 UNION ALL SELECT seq || body FROM events UNION ALL SELECT key || value FROM settings";
            let mut found: Vec<String> = tx.sql.prepare(words)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            found.sort();
            Ok(found)
        })
        .await
        .unwrap();
    let mut wanted = vec![
        format!("{m}{c}a1\"running\"hthe machine"),
        format!("{o}{m}5-the operation"),
        format!("{o}0first"),
        format!("{o}1second"),
        format!("{s}{m}7the session"),
        "41the event".to_owned(),
        "kv".to_owned(),
    ];
    wanted.sort();
    assert_eq!(all, wanted);
    // The undo values still go with their operation, and numbers go on.
    store.run(|tx| tx.sql.execute("DELETE FROM operations", [])).await.unwrap();
    assert_eq!(store.run(|tx| tx.sql.query_row("SELECT count(*) FROM undos", [], |row| row.get::<_, i64>(0))).await.unwrap(), 0);
    store.run(|tx| tx.event(EventKind::DaemonStarted, About::default(), "next")).await.unwrap();
    let newest = store.run(|tx| tx.sql.query_row("SELECT max(seq) FROM events", [], |row| row.get::<_, i64>(0))).await.unwrap();
    assert_eq!(newest, 42);
}

#[tokio::test]
async fn of_operations_that_have_ended_the_newest_are_kept() {
    let (_dir, store) = open().await;
    let machine = vmoon_core::MachineId::from_uuid(vmoon_sys::random::uuid());
    let op = move |ended| {
        let id = vmoon_core::OperationId::from_uuid(vmoon_sys::random::uuid());
        let now = vmoon_sys::clock::now_ms();
        let begun =
            vmoon_core::operation::OpRecord::new(id, vmoon_core::machine::Verb::Start, machine, now, std::time::Duration::from_secs(1));
        vmoon_core::operation::OpRecord { ended_ms: ended, ..begun }
    };
    let runs = op(None);
    let running = runs.id;
    store.run(move |tx| tx.put_operation(&runs)).await.unwrap();
    let newest = store
        .run(move |tx| {
            let mut newest = running;
            for _ in 0..2_560 {
                let done = op(Some(1));
                newest = done.id;
                tx.put_operation(&done)?;
            }
            Ok(newest)
        })
        .await
        .unwrap();
    let left = store.run(move |tx| Ok((tx.operations(false, 10_000)?, tx.operation(newest)?))).await.unwrap();
    assert!((2_000..2_200).contains(&left.0.len()), "{}", left.0.len());
    assert!(left.1.is_some() && left.0.iter().any(|op| op.id == running), "the newest and those that run stay");
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
