//! While no controller listens, nothing is lost that isn't known to be: what was sent is what is stored and what is in gaps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use horcrux_integration_tests::{Controller, wait_until};

/// The files of a node's spool of one kind, oldest first.
fn files(controller: &Controller, ending: &str) -> Vec<PathBuf> {
    let dir = fs::read_dir(controller.path("agent-here/spool"));
    let all = dir.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    files
}

fn epoch(path: &Path) -> i64 {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name.split('-').next().unwrap().parse().unwrap()
}

/// How many sequences each epoch has given, as the agent noted.
fn given(controller: &Controller) -> BTreeMap<i64, i64> {
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).ok()?;
        Some((epoch(path), i64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)))
    };
    files(controller, "head").iter().filter_map(read).collect()
}

/// How many of an epoch, up to `last`, are stored, and how many in gaps; each counted as often as it is there.
fn kept(controller: &Controller, epoch: i64, last: i64) -> (i64, i64) {
    let count = |query: String| controller.recent(&query).unwrap();
    let rows = |table: &str| {
        count(format!("SELECT count(*) FROM {table} WHERE epoch = {epoch} AND sequence <= {last}"))
    };
    let lost = count(format!(
        "SELECT coalesce(sum(min(last_sequence, {last}) - first_sequence + 1), 0) FROM gaps
         WHERE epoch = {epoch} AND first_sequence <= {last}"
    ));
    (rows("batches") + rows("events"), lost)
}

fn taken_since(controller: &Controller, epoch: i64, before: i64) {
    wait_until("readings", || {
        let now = given(controller).get(&epoch).copied().unwrap_or_default();
        anyhow::ensure!(now >= before + 10, "{now} after {before}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_was_taken_in_an_outage_is_stored_after_it_and_a_crash_in_it_adds_up() {
    let mut controller = Controller::start().unwrap();
    let mut agent = controller.joined("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
    let first = *given(&controller).keys().next().unwrap();
    taken_since(&controller, first, 0);

    controller.daemon.kill().unwrap();
    let at_the_end = given(&controller)[&first];
    taken_since(&controller, first, at_the_end);
    agent.kill().unwrap();
    let of_first = given(&controller)[&first];
    // The newest of what it wrote is torn.
    let newest = files(&controller, "records").pop().unwrap();
    let length = fs::metadata(&newest).unwrap().len();
    fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(length - 3).unwrap();
    let _agent = controller.agent("here").unwrap();
    let second = wait_until("another epoch", || {
        let newest = given(&controller).into_keys().next_back().unwrap_or_default();
        anyhow::ensure!(newest > first, "{newest}");
        Ok(newest)
    })
    .unwrap();
    taken_since(&controller, second, 0);
    let of_second = given(&controller)[&second];

    controller.restart().unwrap();
    controller.wait_for_state("here", "connected").unwrap();
    for (epoch, given, torn) in [(first, of_first, 1), (second, of_second, 0)] {
        let (stored, lost) = wait_until("all of it", || {
            let (stored, lost) = kept(&controller, epoch, given);
            anyhow::ensure!(stored + lost >= given, "{stored} stored, {lost} in gaps, of {given}");
            Ok((stored, lost))
        })
        .unwrap();
        println!("epoch {epoch}: {given} given, {stored} stored, {lost} in gaps");
        assert_eq!((stored, lost), (given - torn, torn));
    }
    // What is stored isn't kept twice.
    wait_until("an empty spool", || {
        let epochs: Vec<i64> = given(&controller).into_keys().collect();
        anyhow::ensure!(epochs == [second], "{epochs:?}");
        Ok(())
    })
    .unwrap();
}
