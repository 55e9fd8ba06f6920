//! One cycle of the containers' lane, with real groups that hold a process each: as root, where cgroups are v1 or hybrid.
//! Reads of ordinary files cost nothing like it.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use horcrux_agentd::host::cgroup::{ContainerLane, mode};
use horcrux_agentd::host::runtimes::Runtimes;
use horcrux_agentd::sample::Lane as _;
use horcrux_proto::v1::CgroupMode;

use crate::TAKEN;
use crate::floor::Floor;
use crate::side_by_side::{compare, timed};

/// The lane reads some files in one cycle of three or ten only, the floor all of them always.
const PERIOD: u32 = 30;
const CONTROLLERS: [&str; 5] = ["cpuacct", "cpu", "memory", "blkio", "pids"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// Groups that look like Docker's, gone when this is dropped.
struct Groups {
    dirs: Vec<PathBuf>,
    processes: Vec<Child>,
}

impl Groups {
    fn make(count: usize) -> io::Result<Self> {
        let mut groups = Self { dirs: Vec::new(), processes: Vec::new() };
        for number in 0..count {
            let process = Command::new("sleep").arg("600").spawn()?;
            let pid = process.id().to_string();
            groups.processes.push(process);
            for controller in CONTROLLERS {
                let base = Path::new(CGROUPS).join(controller).join("hxbench");
                let dir = base.join("docker").join(format!("{number:064x}"));
                if number == 0 {
                    groups.dir(base.clone())?;
                    groups.dir(base.join("docker"))?;
                }
                groups.dir(dir.clone())?;
                fs::write(dir.join("cgroup.procs"), &pid)?;
            }
        }
        Ok(groups)
    }

    fn dir(&mut self, dir: PathBuf) -> io::Result<()> {
        fs::create_dir(&dir)?;
        self.dirs.push(dir);
        Ok(())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if let Err(error) = process.kill().and_then(|()| process.wait()) {
                eprintln!("end a process: {error}");
            }
        }
        for dir in self.dirs.iter().rev() {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("remove {}: {error}", dir.display());
            }
        }
    }
}

pub(crate) fn bench() {
    if !matches!(mode(Path::new("/")), CgroupMode::V1 | CgroupMode::Hybrid) {
        eprintln!("containers: SKIPPED, cgroups are not v1 here");
        return;
    }
    for count in [100, 1000] {
        match Groups::make(count) {
            Ok(groups) => cycle(count, groups),
            Err(error) => {
                eprintln!("containers: SKIPPED, no group can be made: {error}");
                return;
            }
        }
    }
}

fn cycle(count: usize, groups: Groups) {
    // Nobody listens there: names are asked for seldom, and aren't what is measured.
    let runtimes = Runtimes::new(Path::new("/nonexistent/privd.sock"));
    let mut lane = ContainerLane::new(Path::new("/"), runtimes);
    let mut changes = lane.changes();
    changes.read(TAKEN);
    let found = lane.read(TAKEN).samples.len();
    assert!(found >= count, "{found} containers are seen of {count}");
    let mut floor = match Floor::kept(&[CGROUPS], &[], &[]) {
        Ok(floor) => floor,
        Err(error) => {
            eprintln!("containers: SKIPPED, their floor can't be started: {error}");
            return;
        }
    };
    let cost = compare(
        PERIOD,
        |cycles| floor.read(cycles),
        |cycles| timed(cycles, || drop(black_box(lane.read(TAKEN)))),
    );
    let each = |cost: Duration| cost / u32::try_from(found).unwrap_or(u32::MAX);
    eprintln!(
        "container cycle, {found} cgroups, {} files: floor {:?} each, ours {:?} each: {:.2} times (target: 2)",
        floor.files,
        each(cost.floor),
        each(cost.ours),
        cost.ratio
    );
    let look = timed(PERIOD, || drop(changes.read(TAKEN))) / PERIOD;
    eprintln!("a look whether containers came or went: {look:?}");
    drop(groups);
    changes.read(TAKEN);
    assert!(lane.read(TAKEN).samples.len() + count <= found, "removed groups are still listed");
}
