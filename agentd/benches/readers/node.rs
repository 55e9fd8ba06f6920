//! One cycle of the node's lane. On the host that this runs on: with its cores, disks and interfaces.

use std::hint::black_box;
use std::path::Path;

use horcrux_agentd::host::proc::NodeLane;
use horcrux_agentd::sample::Lane as _;

use crate::TAKEN;
use crate::floor::Floor;
use crate::side_by_side::{compare, timed};

/// What the lane reads in one of so many cycles only: how much is paged and how many processes are listed. What devices are
/// it looks up once in six times as many.
const RARE: u32 = 10;
const PERIOD: u32 = 60;

pub(crate) fn bench() {
    let mut lane = NodeLane::new(Path::new("/"));
    let values: usize = lane.read(TAKEN).samples.iter().map(|sample| sample.readings.len()).sum();
    let names = ["vmstat", "arcstats", "file-nr", "sockstat", "netstat", "snmp", "/proc"];
    let rare = names.map(|name| (name, RARE));
    let mut floor = match Floor::kept(&["/proc", "/sys"], &["/proc"], &rare) {
        Ok(floor) => floor,
        Err(error) => {
            eprintln!("node: SKIPPED, its floor can't be started: {error}");
            return;
        }
    };
    let cost = compare(
        PERIOD,
        |cycles| floor.read(cycles),
        |cycles| timed(cycles, || drop(black_box(lane.read(TAKEN)))),
    );
    eprintln!(
        "node cycle, {} files, {values} values: floor {:?}, ours {:?}: {:.2} times (target: 2)",
        floor.files, cost.floor, cost.ours, cost.ratio
    );
}
