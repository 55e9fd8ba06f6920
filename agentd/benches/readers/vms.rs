//! One cycle of each lane of VMs, with the libvirt of the host that this runs on: integration-tests/bench-vms makes one.
//!
//! What a reading costs is spent by this process, by libvirtd and by the QEMUs, so the CPU time of all is added up.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use horcrux_agentd::config::LOCAL_LIBVIRT;
use horcrux_agentd::host::libvirt::{GuestAgents, Lanes, Place, lanes};
use horcrux_agentd::host::qemu::Known;
use horcrux_agentd::sample::{Found, Lane};
use horcrux_libvirt::virt::connect::Connect;
use horcrux_libvirt::virt::sys::{
    VIR_DOMAIN_STATS_BALLOON, VIR_DOMAIN_STATS_BLOCK, VIR_DOMAIN_STATS_INTERFACE, VIR_DOMAIN_STATS_STATE,
};
use rustix::time::{ClockId, clock_gettime};

use crate::TAKEN;
use crate::side_by_side::compare;

/// What the floor of the fast lane is given for each VM beside libvirt's call: its process read through files kept open.
const EACH_PROCESS: Duration = Duration::from_micros(6);
/// The fast lane asks what a domain is made of in one of so many cycles.
const PERIOD: u32 = 12;

pub(crate) fn bench() {
    let root = Path::new("/");
    let places = [Place::new(LOCAL_LIBVIRT, root)];
    let Some(Lanes { mut vms, monitors: Some(mut monitors), .. }) =
        lanes(root, &places, &Known::default(), GuestAgents::Leave).pop()
    else {
        return;
    };
    // libvirt is loaded by the lane: before that nothing of it can be called.
    let cycle = vms.read(TAKEN);
    let count = match cycle.found {
        Found::Vms(vms) => vms.len(),
        Found::VmsSoFar(_) | Found::Node(_) | Found::Containers(_) | Found::Nothing => 0,
    };
    let connect = Connect::open_read_only(Some(LOCAL_LIBVIRT));
    let (1.., Ok(connect)) = (count, connect) else {
        eprintln!("vms: SKIPPED, this host has no libvirt with a VM");
        return;
    };
    let bare = |groups| drop(black_box(connect.all_domain_stats(groups, 0)));
    let known = VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_INTERFACE;
    let processes = EACH_PROCESS * u32::try_from(count).unwrap_or(u32::MAX);
    let cost = compare(
        PERIOD,
        |cycles| spent(cycles, || bare(known)) + processes * cycles,
        |cycles| spent(cycles, || drop(black_box(vms.read(TAKEN)))),
    );
    eprintln!(
        "fast lane, {count} VMs: floor {:?}, ours {:?}: {:.2} times (target: 2)",
        cost.floor, cost.ours, cost.ratio
    );
    let asked = VIR_DOMAIN_STATS_BALLOON | VIR_DOMAIN_STATS_BLOCK;
    let cost = compare(
        1,
        |cycles| spent(cycles, || bare(asked)),
        |cycles| spent(cycles, || drop(black_box(monitors.read(TAKEN)))),
    );
    eprintln!(
        "slow lane, {count} VMs: bare call {:?}, ours {:?}: {:.2} times (target: 1.05)",
        cost.floor, cost.ours, cost.ratio
    );
}

fn spent(cycles: u32, mut what: impl FnMut()) -> Duration {
    let before = cpu();
    for _ in 0..cycles {
        what();
    }
    cpu().saturating_sub(before)
}

/// Of this process, libvirtd and all QEMUs.
fn cpu() -> Duration {
    let own = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = processes.filter(|process| {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        name.starts_with("qemu-system") || name.trim_end() == "libvirtd"
    });
    let threads = others.filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    let nanoseconds: u64 = threads
        .flat_map(|tasks| tasks.flatten())
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .sum();
    own + Duration::from_nanos(nanoseconds)
}
