//! The lane that finds and reads containers.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::name::ContainerId;
use horcrux_proto::v1::{CgroupMode, ContainerFacts, EventKind, Metric, Source, SourceState};

use crate::host::read::{Buffer, Keep};
use crate::host::readings::Readings;
use crate::host::runtimes::{Recalled, Runtimes};
use crate::sample::{
    Cycle, Found, Happened, Lane, Object, ObjectSample, Reading, SourceReport, Taken, Value,
};

use super::hierarchy::{Controller, Hierarchies};
use super::probes::{Devices, Group, Outcome, Shared};
use super::walk::{self, Tree};

/// Device numbers are looked up anew, and the list of containers is told again though it hasn't changed, in case a
/// cycle was lost on its way.
const SLOW_EVERY: u64 = 10;
/// A detail is read by people: the first failures tell as much as a thousand.
const SHOWN_FAILURES: usize = 3;

/// Reads containers by their cgroups.
#[derive(Debug)]
pub struct ContainerLane {
    root: PathBuf,
    hierarchies: Hierarchies,
    trees: Vec<Tree>,
    containers: BTreeMap<String, Container>,
    runtimes: Runtimes,
    shared: Shared,
    /// How many files may stay open.
    file_budget: usize,
    cycles: u64,
    whole: Arc<str>,
}

#[derive(Debug)]
struct Container {
    id: ContainerId,
    found: walk::Found,
    /// Its directory in the tree where it was found.
    dir: PathBuf,
    group: Group,
    recalled: Recalled,
    /// Processes of it that were killed so far because its memory was full.
    oom_kills: Option<u64>,
    /// How many readings it gave last.
    expected: usize,
}

impl ContainerLane {
    /// `root` is `/`, or a tree that looks like one.
    #[must_use]
    pub fn new(root: &Path, runtimes: Runtimes) -> Self {
        let hierarchies = Hierarchies::find(root);
        Self {
            root: root.to_path_buf(),
            trees: trees(&hierarchies),
            hierarchies,
            containers: BTreeMap::new(),
            runtimes,
            shared: Shared {
                buffer: Buffer::default(),
                devices: Devices::new(root),
                ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            },
            file_budget: file_budget(),
            cycles: 0,
            whole: Arc::from(""),
        }
    }

    /// Brings the containers up to date. Says whether they changed; fails when a hierarchy can't be read.
    fn discover(&mut self, slow: bool, problems: &mut Vec<String>) -> Result<bool, String> {
        let mut seen = HashSet::new();
        let mut changed = false;
        let mut open: usize = self.containers.values().map(|container| container.group.open_files()).sum();
        for tree in &mut self.trees {
            tree.refresh().map_err(|error| format!("walk {}: {error}", tree.root().display()))?;
            for found in tree.containers() {
                let Ok(id) = found.identity.id.parse::<ContainerId>() else {
                    problems.push(format!("{}: its name has characters that an id can't have", found.path));
                    continue;
                };
                let key = found.identity.id.clone();
                if !seen.insert(key.clone()) {
                    // The other tree has it too; another path of the same name is another container, and loses.
                    if self.containers.get(&key).is_some_and(|first| first.found.path != found.path) {
                        problems.push(format!("{}: another container has the same name", found.path));
                    }
                    continue;
                }
                let is_known = self.containers.get(&key).is_some_and(|known| known.found == found);
                if is_known && !slow {
                    continue;
                }
                let dir = tree.root().join(found.path.trim_start_matches('/'));
                // Some runtimes, and kernels that were in a hurry, leave a group behind whose processes have ended.
                if !walk::has_processes(&dir, 0) {
                    seen.remove(&key);
                    continue;
                }
                if is_known {
                    continue;
                }
                let most = Group::most_files(&self.hierarchies);
                let keep = if open + most <= self.file_budget { Keep::Open } else { Keep::Closed };
                open += if keep == Keep::Open { most } else { 0 };
                let group = Group::new(&self.hierarchies, &found.path, keep, self.containers.len() as u64);
                let recalled = Recalled::default();
                self.containers
                    .insert(key, Container { id, found, dir, group, recalled, oom_kills: None, expected: 0 });
                changed = true;
            }
        }
        let before = self.containers.len();
        self.containers.retain(|id, _| seen.contains(id));
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
                changed |= self.runtimes.recall(&identity.id, identity.runtime, path, recalled);
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
            object: Object::Container(self.id.clone()),
            detail,
        })
    }

    fn facts(&self) -> ContainerFacts {
        let identity = &self.found.identity;
        let facts = ContainerFacts {
            id: identity.id.clone(),
            runtime: identity.runtime.into(),
            cgroup_path: self.found.path.clone(),
            display_name: identity.name.clone(),
            absences: self.group.absences(),
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
        match self.hierarchies.mode() {
            CgroupMode::V1 | CgroupMode::Hybrid => Source::CgroupV1,
            CgroupMode::V2 | CgroupMode::None | CgroupMode::Unspecified => Source::CgroupV2,
        }
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let slow = self.cycles.is_multiple_of(SLOW_EVERY);
        if slow {
            self.shared.devices.forget();
            if self.trees.is_empty() {
                self.hierarchies = Hierarchies::find(&self.root);
                self.trees = trees(&self.hierarchies);
            }
        }
        let mut problems = Vec::new();
        let discovered = self.discover(slow, &mut problems);
        let mut changed = slow || matches!(discovered, Ok(true));
        let mut samples = Vec::with_capacity(self.containers.len());
        let (mut gone, mut events) = (Vec::new(), Vec::new());
        for (key, container) in &mut self.containers {
            let mut readings = Readings::new(&self.whole, container.expected);
            match container.group.read(self.cycles, &container.dir, &mut self.shared, &mut readings) {
                Outcome::Read => {}
                Outcome::AbsencesChanged => changed = true,
                Outcome::Gone => {
                    gone.push(key.clone());
                    continue;
                }
            }
            container.expected = container.expected.max(readings.len());
            let readings = readings.into_list();
            events.extend(container.killed(&readings));
            samples.push(ObjectSample { object: Object::Container(container.id.clone()), readings });
        }
        for key in &gone {
            self.containers.remove(key);
            changed = true;
        }
        changed |= self.recall(taken, slow);
        self.cycles += 1;
        let found = match discovered {
            Ok(_) if changed => Found::Containers(self.containers.values().map(Container::facts).collect()),
            Ok(_) => Found::Nothing,
            Err(problem) => {
                problems.push(problem);
                Found::Nothing
            }
        };
        Cycle { taken, found, samples, sources: self.reports(problems), events }
    }
}

/// The trees that have a directory for every container. systemd's own has those of nspawn machines for which no
/// controller was asked.
fn trees(hierarchies: &Hierarchies) -> Vec<Tree> {
    if !hierarchies.has_v1_controllers() {
        return hierarchies.unified.as_deref().map(Tree::new).into_iter().collect();
    }
    let accounting = [Controller::Cpuacct, Controller::Memory, Controller::Pids]
        .into_iter()
        .find_map(|controller| hierarchies.v1(controller));
    let roots = [accounting, hierarchies.v1(Controller::Systemd)];
    roots.into_iter().flatten().map(Tree::new).collect()
}

/// Half of what the process may have: the rest is for connections and libvirt.
fn file_budget() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX))
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
