//! While no controller listens, nothing is lost that isn't known to be: what was sent is what is stored and what is in gaps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use horcrux_integration_tests::{Controller, succeeded, wait_until};
use serde_json::Value;

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

/// A filesystem of its own at the place of a spool, which hangs while it is frozen.
struct Disk {
    place: PathBuf,
    image: PathBuf,
}

impl Disk {
    fn at(place: PathBuf) -> Self {
        let image = place.with_extension("image");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir_all(&place).unwrap();
        let disk = Self { place, image };
        disk.run("mkfs.ext4", &["-q"], &disk.image);
        let mounted =
            Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(&disk.place).output().unwrap();
        succeeded(&mounted).unwrap();
        disk.run("chmod", &["700"], &disk.place);
        disk
    }

    fn run(&self, program: &str, arguments: &[&str], path: &Path) {
        succeeded(&Command::new(program).args(arguments).arg(path).output().unwrap()).unwrap();
    }

    fn freeze(&self) {
        self.run("fsfreeze", &["--freeze"], &self.place);
    }

    fn thaw(&self) {
        self.run("fsfreeze", &["--unfreeze"], &self.place);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever waits for it can't even be killed before it is thawed; it may be already.
        drop(Command::new("fsfreeze").arg("--unfreeze").arg(&self.place).output());
        self.run("umount", &["-l"], &self.place);
    }
}

#[test]
fn a_disk_that_hangs_holds_up_nothing_and_has_all_of_it_later() {
    let controller = Controller::start().unwrap();
    succeeded(&controller.enroll("here", &controller.join_token("here").unwrap()).unwrap()).unwrap();
    let disk = Disk::at(controller.path("agent-here/spool").into());
    let agent = controller.agent("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
    let epoch = *given(&controller).keys().next().unwrap();
    taken_since(&controller, epoch, 0);

    let look = |what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_until(what, || {
            let node = controller.json(&["node", "get", "here"])?;
            anyhow::ensure!(look(&node), "{node}");
            Ok(node)
        })
        .unwrap()
    };
    let is = |node: &Value, state: &str| {
        let sources = node["sources"].as_array().cloned().unwrap_or_default();
        sources.iter().any(|source| source["source"] == "spool" && source["state"] == state)
    };
    let taken = |node: &Value| node["last_sample_unix_ms"].as_i64().unwrap();
    disk.freeze();
    let hung = look("the spool to be told as stuck", &|node| is(node, "stuck"));
    look("readings all the same", &|node| is(node, "stuck") && taken(node) > taken(&hung) + 3000);
    disk.thaw();
    look("the spool to be well", &|node| is(node, "ok"));
    let all = given(&controller)[&epoch];
    wait_until("all of it", || {
        let (stored, lost) = kept(&controller, epoch, all);
        anyhow::ensure!((stored, lost) == (all, 0), "{stored} stored, {lost} in gaps, of {all}");
        Ok(())
    })
    .unwrap();
    drop(agent);
}
