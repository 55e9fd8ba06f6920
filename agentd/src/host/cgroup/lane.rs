//! The lane that finds and reads containers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use horcrux_proto::name::ContainerId;
use horcrux_proto::v1::{CgroupMode, ContainerFacts, EventKind, Metric, Source, SourceState};

use crate::collect::Bell;
use crate::host::read::{Buffer, Keep};
use crate::host::readings::Readings;
use crate::host::runtimes::{Recalled, Runtimes};
use crate::sample::{Cycle, Found, Happened, Lane, Object, Reading, SourceReport, Taken, Value};

use super::changes::ContainerChanges;
use super::hierarchy::{Controller, Hierarchies};
use super::network::{Looked, Network, Networks};
use super::ooms::{Ooms, Watch};
use super::probes::{Devices, Group, Outcome, Shared};
use super::vacant::Vacant;
use super::walk::{self, Tree};

/// Device numbers are looked up anew, and the list of containers is told again though it hasn't changed, in case a
/// cycle was lost on its way.
const SLOW_EVERY: u64 = 10;
/// Containers that are read. A controller takes twice as many of a node.
const MOST: usize = 10_000;
/// A detail is read by people: the first failures tell as much as a thousand.
const SHOWN_FAILURES: usize = 3;

/// Reads containers by their cgroups.
#[derive(Debug)]
pub struct ContainerLane {
    root: PathBuf,
    hierarchies: Hierarchies,
    trees: Vec<Tree>,
    /// Where another lane looks for containers: how many changes it has seen, and how many were taken up.
    looked_for: Option<(Arc<AtomicU64>, u64)>,
    containers: BTreeMap<ContainerId, Container>,
    /// What was wrong when containers were looked for last.
    problems: Vec<String>,
    vacant: Vacant,
    runtimes: Runtimes,
    bell: Bell,
    shared: Shared,
    networks: Networks,
    ooms: Ooms,
    /// How many files may stay open.
    file_budget: usize,
    cycles: u64,
    whole: Arc<str>,
}

#[derive(Debug)]
struct Container {
    found: walk::Found,
    /// Its directory in the tree where it was found.
    dir: PathBuf,
    group: Group,
    network: Network,
    recalled: Recalled,
    /// Processes of it that were killed so far because its memory was full.
    oom_kills: Option<u64>,
    _oom_watch: Option<Watch>,
    /// How many readings it gave last.
    expected: usize,
}

impl ContainerLane {
    /// `root` is `/`, or a tree that looks like one.
    #[must_use]
    pub fn new(root: &Path, runtimes: Runtimes) -> Self {
        let hierarchies = Hierarchies::find(root);
        let bell = Bell::default();
        Self {
            root: root.to_path_buf(),
            trees: trees(&hierarchies),
            hierarchies,
            looked_for: None,
            containers: BTreeMap::new(),
            problems: Vec::new(),
            vacant: Vacant::default(),
            runtimes,
            shared: Shared {
                buffer: Buffer::default(),
                devices: Devices::new(root),
                ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            },
            networks: Networks::new(root),
            ooms: Ooms::new(bell.clone()),
            bell,
            file_budget: file_budget(),
            cycles: 0,
            whole: Arc::from(""),
        }
    }

    /// The lane that has this one read when a container came or went. From here on this one looks for containers when that
    /// one has seen a change, and seldom beside it.
    #[must_use]
    pub fn changes(&mut self) -> ContainerChanges {
        let (seen, _) = self.looked_for.insert((Arc::default(), 0));
        ContainerChanges::new(&self.root, Arc::clone(seen), self.bell.clone())
    }

    /// Whether containers may have come or gone. A group that was found vacant may have been a container before: that it is
    /// one again the other lane can't tell.
    fn has_changes(&mut self) -> bool {
        let Some((seen, taken_up)) = &mut self.looked_for else { return true };
        let now = seen.load(Ordering::Relaxed);
        std::mem::replace(taken_up, now) != now || !self.vacant.is_empty()
    }

    /// Brings the containers up to date. Says whether they changed; fails when a hierarchy can't be read.
    fn discover(&mut self, slow: bool, problems: &mut Vec<String>) -> Result<bool, String> {
        // By id, with the path.
        let mut seen: HashMap<ContainerId, String> = HashMap::new();
        let mut beyond = 0_u64;
        let mut changed = false;
        let mut open: usize = self.containers.values().map(Container::open_files).sum();
        for tree in &mut self.trees {
            tree.refresh().map_err(|error| format!("walk {}: {error}", tree.root().display()))?;
            for mut found in tree.containers() {
                match seen.get(&found.identity.id) {
                    // The other tree has it too.
                    Some(path) if *path == found.path => continue,
                    // Another of the same name: told apart by where it is.
                    Some(_) => {
                        let (id, path) = (&found.identity.id, &found.path);
                        found.identity.id = ContainerId::near(&format!("{} {path}", id.as_str()));
                    }
                    None => {}
                }
                let key = found.identity.id.clone();
                if seen.len() == MOST {
                    beyond += 1;
                    continue;
                }
                seen.insert(key.clone(), found.path.clone());
                let is_known = self.containers.get(&key).is_some_and(|known| known.found.is_same(&found));
                if is_known && !slow {
                    continue;
                }
                let dir = tree.root().join(found.path.trim_start_matches('/'));
                // Some runtimes, and kernels that were in a hurry, leave a group behind whose processes have ended.
                if self.vacant.is_vacant(&found, &dir, &mut self.shared.buffer) {
                    seen.remove(&key);
                    continue;
                }
                if is_known {
                    continue;
                }
                let most = Group::most_files(&self.hierarchies) + Network::FILES;
                let keep = if open + most <= self.file_budget { Keep::Open } else { Keep::Closed };
                open += if keep == Keep::Open { most } else { 0 };
                let group = Group::new(&self.hierarchies, &found.path, keep, self.containers.len() as u64);
                let (network, recalled) = (Network::new(keep), Recalled::default());
                let oom_watch = self.ooms.watch(&dir);
                let container = Container {
                    found,
                    dir,
                    group,
                    network,
                    recalled,
                    oom_kills: None,
                    _oom_watch: oom_watch,
                    expected: 0,
                };
                self.containers.insert(key, container);
                changed = true;
            }
        }
        self.vacant.settle();
        let before = self.containers.len();
        self.containers.retain(|id, _| seen.contains_key(id));
        if beyond > 0 {
            problems.push(format!("{beyond} containers beyond {MOST} are not read"));
        }
        Ok(changed || self.containers.len() != before)
    }

    /// Brings what the runtimes call the containers up to date. Says whether that changed.
    fn recall(&mut self, taken: Taken, slow: bool) -> bool {
        // Where there are none only how who is asked is doing is of interest.
        if self.containers.is_empty() && !slow {
            return false;
        }
        let is_new = self.containers.values().any(|container| container.recalled.is_new());
        let look = self.runtimes.look(taken, is_new);
        let mut changed = false;
        for Container { found, recalled, .. } in self.containers.values_mut() {
            if look.news || recalled.is_new() {
                let walk::Found { identity, path, .. } = found;
                changed |= self.runtimes.recall(identity.id.as_str(), identity.runtime, path, recalled);
            }
            if look.asked {
                recalled.sought();
            }
        }
        changed
    }

    fn reports(&self, problems: Vec<String>) -> Vec<SourceReport> {
        let mode = self.hierarchies.mode();
        let (v1, v2) = match mode {
            CgroupMode::V1 => (true, false),
            CgroupMode::V2 => (false, true),
            CgroupMode::Hybrid => (true, true),
            CgroupMode::None | CgroupMode::Unspecified => (false, false),
        };
        let mut lists = [(Source::CgroupV1, v1, Vec::new()), (Source::CgroupV2, v2, Vec::new())];
        let walked = usize::from(mode == CgroupMode::V2);
        lists[walked].2.extend(problems);
        for (source, reason) in self.containers.values().flat_map(|container| container.group.failures()) {
            for (of, _, failures) in &mut lists {
                if *of == source {
                    failures.push(reason.to_owned());
                }
            }
        }
        let hierarchies = lists.map(|(source, mounted, failures)| report(source, mounted, &failures));
        hierarchies.into_iter().chain(self.runtimes.report()).collect()
    }
}

impl Container {
    fn open_files(&self) -> usize {
        self.group.open_files() + self.network.open_files()
    }

    /// What its counter says that happened since it was read last.
    fn killed(&mut self, readings: &[Reading]) -> Option<Happened> {
        let reading = readings.iter().find(|reading| reading.metric == Metric::ContainerMemoryOomKills)?;
        let Value::Counter(now) = reading.value else { return None };
        let before = self.oom_kills.replace(now)?;
        let kills = now.checked_sub(before).filter(|kills| *kills > 0)?;
        let name = self.facts().display_name.map(|name| format!("{name}: ")).unwrap_or_default();
        let detail = format!("{name}{kills} killed, its memory was full");
        Some(Happened {
            kind: EventKind::ContainerOomKilled,
            object: Object::Container(self.found.identity.id.clone()),
            detail,
        })
    }

    fn facts(&self) -> ContainerFacts {
        let identity = &self.found.identity;
        let mut absences = self.group.absences();
        absences.extend(self.network.absences());
        let facts = ContainerFacts {
            id: identity.id.as_str().to_owned(),
            runtime: identity.runtime.into(),
            cgroup_path: self.found.path.clone(),
            display_name: identity.name.clone(),
            absences,
            ..ContainerFacts::default()
        };
        self.recalled.add_to(facts)
    }
}

impl Lane for ContainerLane {
    fn name(&self) -> &'static str {
        "containers"
    }

    fn source(&self) -> Source {
        source(&self.hierarchies)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.bell)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let slow = self.cycles.is_multiple_of(SLOW_EVERY);
        if slow {
            self.shared.devices.forget();
            self.networks.look_again();
            if self.trees.is_empty() {
                self.hierarchies = Hierarchies::find(&self.root);
                self.trees = trees(&self.hierarchies);
            }
        }
        let mut discovered = Ok(false);
        if self.has_changes() || slow {
            let mut problems = Vec::new();
            discovered = self.discover(slow, &mut problems);
            problems.extend(discovered.as_ref().err().cloned());
            self.problems = problems;
        }
        let mut changed = slow || matches!(discovered, Ok(true));
        let mut samples = Vec::with_capacity(self.containers.len());
        let (mut gone, mut events) = (Vec::new(), Vec::new());
        for (key, container) in &mut self.containers {
            let mut readings = Readings::new(&self.whole, container.expected);
            if slow {
                container.network.check();
            }
            let (networks, buffer) = (&self.networks, &mut self.shared.buffer);
            let Looked { absences_changed, lost } =
                container.network.read(&container.dir, networks, buffer, &mut readings);
            changed |= absences_changed;
            if lost {
                // All of it begins anew with what is read now, which therefore is everything.
                container.group.read_all_next();
            }
            match container.group.read(self.cycles, &container.dir, &mut self.shared, &mut readings) {
                Outcome::Read => {}
                Outcome::AbsencesChanged => changed = true,
                Outcome::Gone => {
                    gone.push(key.clone());
                    continue;
                }
            }
            container.expected = container.expected.max(readings.len());
            let of_one = readings.into_samples(Object::Container(key.clone()), lost);
            events.extend(of_one.last().and_then(|sample| container.killed(&sample.readings)));
            samples.extend(of_one);
        }
        for key in &gone {
            self.containers.remove(key);
            changed = true;
        }
        changed |= self.recall(taken, slow);
        self.cycles += 1;
        let found = if discovered.is_ok() && changed {
            Found::Containers(self.containers.values().map(Container::facts).collect())
        } else {
            Found::Nothing
        };
        let sources = self.reports(self.problems.clone());
        Cycle { taken, found, samples, sources, events }
    }
}

/// What containers are read from.
pub(super) fn source(hierarchies: &Hierarchies) -> Source {
    match hierarchies.mode() {
        CgroupMode::V1 | CgroupMode::Hybrid => Source::CgroupV1,
        CgroupMode::V2 | CgroupMode::None | CgroupMode::Unspecified => Source::CgroupV2,
    }
}

/// The trees that have a directory for every container. systemd's own has those of nspawn machines for which no
/// controller was asked.
pub(super) fn trees(hierarchies: &Hierarchies) -> Vec<Tree> {
    if !hierarchies.has_v1_controllers() {
        return hierarchies.unified.as_deref().map(Tree::new).into_iter().collect();
    }
    let accounting = [Controller::Cpuacct, Controller::Memory, Controller::Pids]
        .into_iter()
        .find_map(|controller| hierarchies.v1(controller));
    let roots = [accounting, hierarchies.v1(Controller::Systemd)];
    roots.into_iter().flatten().map(Tree::new).collect()
}

/// For connections, libvirt and all other lanes.
const OTHER_FILES: u64 = 4096;

/// What the process may have without what is for others: half of it at most.
fn file_budget() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let left = |limit: u64| limit.saturating_sub(OTHER_FILES.min(limit / 2));
    limit.map_or(usize::MAX, |limit| usize::try_from(left(limit)).unwrap_or(usize::MAX))
}

fn report(source: Source, mounted: bool, failures: &[String]) -> SourceReport {
    let (state, detail) = match (mounted, failures) {
        (false, []) => (SourceState::Absent, "not mounted".to_owned()),
        (true, []) => (SourceState::Ok, String::new()),
        (_, failures) => {
            let mut shown: Vec<&str> = failures.iter().take(SHOWN_FAILURES).map(String::as_str).collect();
            let more = format!("and {} more", failures.len() - shown.len());
            if failures.len() > SHOWN_FAILURES {
                shown.push(&more);
            }
            (SourceState::Failing, shown.join("; "))
        }
    };
    SourceReport { source, instance: Arc::default(), state, detail }
}

#[cfg(test)]
mod tests;
