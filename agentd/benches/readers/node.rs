//! One cycle of the node's lane. On the host that this runs on: with its cores, disks and interfaces.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use horcrux_agentd::host::proc::NodeLane;
use horcrux_agentd::sample::Lane as _;

use crate::TAKEN;
use crate::side_by_side::{Floor, compare};

/// What the lane reads in one of so many cycles only: how much is paged and how many processes are listed. What devices are
/// it looks up once in six times as many.
const RARE: u32 = 10;
const PERIOD: u32 = 60;

pub(crate) fn bench() {
    let mut lane = NodeLane::new(Path::new("/"));
    let values: usize = lane.read(TAKEN).samples.iter().map(|sample| sample.readings.len()).sum();
    let mut floor = Floor::kept(&["/proc", "/sys"], 1);
    let mut rare = floor.split(&["vmstat", "arcstats"]);
    let files = floor.len();
    let mut cycle = 0;
    let cost = compare(
        PERIOD,
        || {
            floor.read();
            if cycle % RARE == 0 {
                rare.read();
                black_box(fs::read_dir("/proc").map_or(0, Iterator::count));
            }
            cycle += 1;
        },
        || {
            black_box(lane.read(TAKEN));
        },
    );
    eprintln!(
        "node cycle, {files} files, {values} values: floor {:?}, ours {:?}: {:.2} times (target: 2)",
        cost.floor, cost.ours, cost.ratio
    );
}
