use horcrux_transport::clock;
use horcrux_transport::tasks::Stop;

use super::*;
use crate::store::audit::Head;

struct Fixture {
    audit: Audit,
    store: Store,
    _dir: tempfile::TempDir,
}

async fn with_rows(count: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (audit, _scribe) = Audit::open(store.clone(), dir.path(), None).await.unwrap();
    for number in 0..count {
        let entry = Entry { detail: format!("row {number}"), ..Entry::default() };
        audit.event(&entry, "ok").await.unwrap();
    }
    Fixture { audit, store, _dir: dir }
}

async fn broken_by(sql: &'static str) -> Option<(i64, String)> {
    let Fixture { audit, store, _dir } = with_rows(5).await;
    assert_eq!(audit.verify(Vec::new()).await.unwrap().broken, None);
    sqlx::raw_sql(sql).execute(&store.writer).await.unwrap();
    audit.verify(Vec::new()).await.unwrap().broken
}

#[tokio::test]
async fn an_edited_removed_reordered_or_truncated_row_is_found() {
    let at = async |sql| broken_by(sql).await.map(|(row, _)| row);
    assert_eq!(at("UPDATE audit SET detail = 'x' WHERE sequence = 3").await, Some(3));
    assert_eq!(at("UPDATE audit SET actor = 'row 2', detail = '' WHERE sequence = 3").await, Some(3));
    assert_eq!(at("DELETE FROM audit WHERE sequence = 2").await, Some(3));
    assert_eq!(at("DELETE FROM audit WHERE sequence = 1").await, Some(2));
    let swap = "UPDATE audit SET sequence = -1 WHERE sequence = 2;
                UPDATE audit SET sequence = 2 WHERE sequence = 3;
                UPDATE audit SET sequence = 3 WHERE sequence = -1";
    assert_eq!(at(swap).await, Some(2));
    assert_eq!(at("DELETE FROM audit WHERE sequence > 3").await, Some(4));
    assert_eq!(at("DELETE FROM audit").await, Some(1));
}

#[tokio::test]
async fn a_log_that_was_cut_while_the_controller_was_away_is_found_by_a_noted_head() {
    let Fixture { audit, store, _dir } = with_rows(5).await;
    let noted = audit.head().await.unwrap();
    assert_eq!(Head::parse(&noted.to_string()), Some(noted.clone()));
    sqlx::raw_sql("DELETE FROM audit WHERE sequence > 3").execute(&store.writer).await.unwrap();
    let (again, _scribe) = Audit::open(store, _dir.path(), None).await.unwrap();
    assert_eq!(again.verify(Vec::new()).await.unwrap().broken, None, "the chain alone can't know");
    let verdict = again.verify(vec![noted]).await.unwrap();
    assert_eq!(verdict.broken.map(|(row, _)| row), Some(4));
}

#[tokio::test]
async fn retention_moves_what_the_chain_begins_after() {
    let Fixture { audit, store, _dir } = with_rows(5).await;
    sqlx::raw_sql("UPDATE audit SET at_ms = at_ms + 1000000 WHERE sequence > 3")
        .execute(&store.writer)
        .await
        .unwrap();
    audit.purge(clock::unix_ms() + 500_000).await.unwrap();
    // Rows 4 and 5 were edited above, and that shows; what was dropped doesn't.
    assert_eq!(audit.verify(Vec::new()).await.unwrap().broken.map(|(row, _)| row), Some(4));
    assert_eq!(audit.store.audit_anchor().await.unwrap().sequence, 3);
}

#[tokio::test]
async fn where_the_log_begins_must_be_vouched_for_by_the_log() {
    let Fixture { audit, store, _dir } = with_rows(5).await;
    let noted = audit.head().await.unwrap();
    audit.purge(i64::MAX).await.unwrap();
    assert_eq!(audit.store.audit_anchor().await.unwrap().sequence, 0, "the last row stays, and with it all");
    let cut =
        "INSERT INTO audit_anchor SELECT 1, sequence, hash FROM audit WHERE sequence = 5; DELETE FROM audit";
    sqlx::raw_sql(cut).execute(&store.writer).await.unwrap();
    assert!(
        audit.verify(vec![noted.clone()]).await.unwrap().broken.is_some(),
        "a noted head is where it begins"
    );
    audit.event(&Entry::default(), "ok").await.unwrap();
    assert!(audit.verify(Vec::new()).await.unwrap().broken.is_some(), "nothing vouches for it");
    sqlx::raw_sql("UPDATE audit_anchor SET sequence = 1000").execute(&store.writer).await.unwrap();
    assert!(audit.verify(Vec::new()).await.unwrap().broken.is_some(), "beyond what was ever written");
}

#[tokio::test]
async fn what_retention_dropped_is_vouched_for() {
    let Fixture { audit, _dir, .. } = with_rows(3).await;
    let last = audit.before(&AuditFilter::default(), 0, 1).await.unwrap()[0].at_ms;
    while clock::unix_ms() <= last {
        tokio::task::yield_now().await;
    }
    let kept_from = clock::unix_ms();
    audit.event(&Entry::default(), "ok").await.unwrap();
    audit.purge(kept_from).await.unwrap();
    let verdict = audit.verify(Vec::new()).await.unwrap();
    assert_eq!((verdict.broken, verdict.rows), (None, 2), "the kept row, and the one that vouches");
    let noted = audit.head().await.unwrap();
    assert_eq!(audit.verify(vec![noted]).await.unwrap().broken, None);
}

#[tokio::test]
async fn an_intent_without_an_outcome_is_resolved_once() {
    let Fixture { audit, _dir, .. } = with_rows(0).await;
    let intent = audit.intent(&Entry::default()).await.unwrap();
    assert_eq!(audit.resolve().await.unwrap(), 1);
    assert_eq!(audit.resolve().await.unwrap(), 0);
    let rows = audit.before(&AuditFilter::default(), 0, 10).await.unwrap();
    assert_eq!((rows[0].kind.as_str(), rows[0].intent), ("outcome", intent));
    assert!(rows[0].outcome.starts_with("unknown"));
}

#[tokio::test]
async fn one_who_is_denied_in_a_loop_fills_nobody_elses_places() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (audit, scribe) = Audit::open(store, dir.path(), None).await.unwrap();
    let denied = |actor: &str| Entry { actor: actor.to_owned(), ..Entry::default() };
    for _ in 0..5000 {
        audit.denial(&denied("mallory@local"));
    }
    audit.denial(&denied("alice@local"));
    let stop = Stop::new();
    stop.cancel();
    scribe.run(stop).await.unwrap();

    let rows = audit.after(&AuditFilter::default(), 0, 10_000).await.unwrap();
    assert!(rows.iter().any(|row| row.actor == "alice@local"));
    let (told, written): (Vec<_>, Vec<_>) =
        rows.into_iter().filter(|row| row.actor == "mallory@local").partition(|row| !row.detail.is_empty());
    let Some(shed) = told.first().and_then(|row| row.detail.split(' ').next()?.parse::<usize>().ok()) else {
        panic!("{told:?}");
    };
    assert!((200..300).contains(&written.len()), "{}", written.len());
    assert_eq!((written.len() + shed, told.len()), (5000, 1));
}
