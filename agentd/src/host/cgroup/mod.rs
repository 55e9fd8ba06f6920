//! Containers, from their cgroups: found by walking the hierarchies, whichever version, driver or depth.
//!
//! The files are read here and not through cgroups-rs: it takes a hybrid hierarchy for v1, reads v2's `io.stat` as zeros
//! and a missing group as zero usage, opens 64 files where seven are needed (30 times the CPU), and brings a D-Bus stack.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::name::ContainerId;
use horcrux_proto::v1::{CgroupMode, ContainerFacts, Source, SourceState};
use horcrux_transport::error::Chain;

use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

mod group;
mod hierarchy;
mod identify;
mod parse;

use group::{DeviceNames, Group};
use hierarchy::Hierarchy;
use identify::{Identified, identify};

/// How deep containers are looked for: pods in containers in user slices reach nine.
const MAX_DEPTH: usize = 16;
/// Open files per container, at most.
const FILES: u64 = 16;

/// Which cgroup version this machine uses.
#[must_use]
pub fn mode(root: &Path) -> CgroupMode {
    Hierarchy::find(root).mode()
}

/// Reads containers.
#[derive(Debug)]
pub struct ContainerLane {
    root: PathBuf,
    groups: HashMap<String, Container>,
    devices: Devices,
    whole: Arc<str>,
    ns_per_tick: u64,
}

#[derive(Debug)]
struct Container {
    id: ContainerId,
    facts: ContainerFacts,
    group: Group,
}

#[derive(Debug)]
struct Devices {
    sys: PathBuf,
    names: HashMap<String, Arc<str>>,
}

impl DeviceNames for Devices {
    fn name(&mut self, device: &str) -> Arc<str> {
        if let Some(name) = self.names.get(device) {
            return Arc::clone(name);
        }
        let target = fs::read_link(self.sys.join("dev/block").join(device)).ok();
        let name = target
            .as_deref()
            .and_then(Path::file_name)
            .map_or_else(|| Arc::from(device), |name| Arc::from(name.to_string_lossy().as_ref()));
        self.names.insert(device.to_owned(), Arc::clone(&name));
        name
    }
}

impl ContainerLane {
    /// Reads below `root`, which is `/` but in tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            groups: HashMap::new(),
            devices: Devices { sys: root.join("sys"), names: HashMap::new() },
            whole: Arc::from(""),
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
        }
    }

    fn find(&mut self, hierarchy: &Hierarchy) -> io::Result<()> {
        let mut found: HashMap<String, Identified> = HashMap::new();
        // nspawn may put its containers into the named hierarchy only.
        let v1 = ["cpuacct", "memory", "pids", "blkio"].iter().find_map(|c| hierarchy.controller(c));
        let walked = [v1.or(hierarchy.v2.as_deref()), hierarchy.controller("name=systemd")];
        for base in walked.into_iter().flatten() {
            walk(base, &mut String::new(), 0, &mut found)?;
        }
        self.groups.retain(|path, _| found.contains_key(path));
        for (path, identified) in found {
            if self.groups.contains_key(&path) {
                continue;
            }
            // Text that can't be an id can't be addressed either.
            let Ok(id) = identified.id.parse::<ContainerId>() else { continue };
            let group = Group::open(hierarchy, &path);
            let reason = if identified.name.is_some() {
                String::new()
            } else {
                "the container's runtime was not asked: only its cgroup is read".to_owned()
            };
            let facts = ContainerFacts {
                id: identified.id,
                runtime: identified.runtime.into(),
                cgroup_path: format!("/{path}"),
                display_name: identified.name,
                name_unknown_reason: reason,
                absences: group.absences.clone(),
            };
            self.groups.insert(path, Container { id, facts, group });
        }
        Ok(())
    }
}

impl Lane for ContainerLane {
    fn name(&self) -> &'static str {
        "containers"
    }

    fn source(&self) -> Source {
        match mode(&self.root) {
            CgroupMode::V2 => Source::CgroupV2,
            CgroupMode::V1 | CgroupMode::Hybrid | CgroupMode::None | CgroupMode::Unspecified => {
                Source::CgroupV1
            }
        }
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let hierarchy = Hierarchy::find(&self.root);
        let mode = hierarchy.mode();
        let source = if mode == CgroupMode::V2 { Source::CgroupV2 } else { Source::CgroupV1 };
        let report = |state, detail: &str| vec![SourceReport { source, state, detail: detail.to_owned() }];
        if mode == CgroupMode::None {
            let sources = report(SourceState::Absent, "no cgroup hierarchy is mounted");
            return Cycle { taken, found: Found::Containers(Vec::new()), samples: Vec::new(), sources };
        }
        if let Err(error) = self.find(&hierarchy) {
            let sources = report(SourceState::Failing, &format!("walk the cgroup hierarchy: {error}"));
            return Cycle { taken, found: Found::Nothing, samples: Vec::new(), sources };
        }
        let crowded = self.groups.len() as u64 * FILES > descriptors() / 2;
        let (mut samples, mut gone, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for (path, container) in &mut self.groups {
            let mut readings = Vec::with_capacity(32);
            let read = container.group.read(&self.whole, self.ns_per_tick, &mut self.devices, &mut readings);
            if crowded {
                container.group.release();
            }
            match read {
                Ok(()) => {}
                // It ended between the walk and the reading.
                Err(error) if error.is_gone() => {
                    gone.push(path.clone());
                    continue;
                }
                Err(error) => problems.push(Chain(&error).to_string()),
            }
            samples.push(ObjectSample { object: Object::Container(container.id.clone()), readings });
        }
        for path in gone {
            self.groups.remove(&path);
        }
        let mut facts: Vec<_> = self.groups.values().map(|c| c.facts.clone()).collect();
        facts.sort_by(|a, b| a.id.cmp(&b.id));
        let sources = match problems.first() {
            None => report(SourceState::Ok, ""),
            Some(first) => report(SourceState::Failing, &format!("{first} ({} in all)", problems.len())),
        };
        Cycle { taken, found: Found::Containers(facts), samples, sources }
    }
}

/// Descriptors that this process may hold.
fn descriptors() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn walk(
    base: &Path,
    path: &mut String,
    depth: usize,
    found: &mut HashMap<String, Identified>,
) -> io::Result<()> {
    let entries = match fs::read_dir(base.join(path.as_str())) {
        Ok(entries) => entries,
        // Groups come and go while we walk.
        Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let before = path.len();
        if before > 0 {
            path.push('/');
        }
        path.push_str(name);
        if let Some(identified) = identify(path) {
            found.entry(path.clone()).or_insert(identified);
        }
        if depth < MAX_DEPTH {
            walk(base, path, depth + 1, found)?;
        }
        path.truncate(before);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
