//! The table of files that are read of each group.

use horcrux_proto::v1::{Metric, Source};

use super::hierarchy::{Controller, Hierarchies};

/// One file of a group.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) place: Place,
    pub(super) name: &'static str,
    /// What it is called by older kernels.
    pub(super) else_name: Option<&'static str>,
    pub(super) what: What,
    /// What has no value without it.
    pub(super) metrics: &'static [Metric],
    /// Why there is none where its hierarchy isn't mounted.
    pub(super) not_mounted: &'static str,
    /// Why there is none where the group doesn't have the file.
    pub(super) missing: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    V1(Controller),
    Unified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    V1CpuTime,
    V1CpuModes,
    V1Throttling,
    V2CpuStat,
    V1Quota,
    /// After the quota, which it gives its unit.
    V1Period,
    V2CpuMax,
    Memory,
    /// After `Memory`, for the working set.
    V1MemoryStat,
    V2MemoryStat,
    V1MemoryLimit,
    V2MemoryMax,
    OomKills,
    V2Swap,
    V1IoBytes,
    V1IoOperations,
    V2Io,
    Pids,
    PidsLimit,
    /// Its metrics are `some`, then `full`.
    Pressure,
}

impl Spec {
    pub(super) fn source(&self) -> Source {
        match self.place {
            Place::V1(_) => Source::CgroupV1,
            Place::Unified => Source::CgroupV2,
        }
    }
}

/// What to read where these hierarchies are mounted. Beside v1, the unified hierarchy of a hybrid host has no
/// controllers that matter here, but it has pressure.
pub(super) fn specs(hierarchies: &Hierarchies) -> impl Iterator<Item = &'static Spec> {
    let base: &[Spec] = if hierarchies.has_v1_controllers() { V1 } else { V2 };
    base.iter().chain(PRESSURE)
}

const fn v1(
    controller: Controller,
    name: &'static str,
    what: What,
    metrics: &'static [Metric],
    not_mounted: &'static str,
    missing: &'static str,
) -> Spec {
    Spec { place: Place::V1(controller), name, else_name: None, what, metrics, not_mounted, missing }
}

const fn v2(name: &'static str, what: What, metrics: &'static [Metric], missing: &'static str) -> Spec {
    let not_mounted = "cgroup v1 has no pressure per group";
    Spec { place: Place::Unified, name, else_name: None, what, metrics, not_mounted, missing }
}

const NO_CPUACCT: &str = "the cpuacct controller is not mounted";
const NO_CPU: &str = "the cpu controller is not mounted";
const NO_MEMORY: &str = "the memory controller is not mounted";
const NO_BLKIO: &str = "the blkio controller is not mounted";
const NO_PIDS: &str = "the pids controller is not mounted";
const NOT_IN_CPUACCT: &str = "it has no group in the cpuacct hierarchy";
const NOT_IN_CPU: &str = "it has no group in the cpu hierarchy, or the kernel has no CPU limits";
const NOT_IN_MEMORY: &str = "it has no group in the memory hierarchy";
const NOT_IN_BLKIO: &str = "it has no group in the blkio hierarchy, or the kernel doesn't count its i/o";
const NOT_IN_PIDS: &str = "it has no group in the pids hierarchy";
const CPU_OFF: &str = "the cpu controller is not enabled for its group";
const MEMORY_OFF: &str = "the memory controller is not enabled for its group";
const NO_SWAP: &str = "the memory controller is not enabled for its group, or the kernel doesn't count swap";
const IO_OFF: &str = "the io controller is not enabled for its group";
const PIDS_OFF: &str = "the pids controller is not enabled for its group";
const NO_CPU_STAT: &str = "the kernel keeps no CPU time of its group";
const NO_PRESSURE: &str = "its group has no pressure in the unified hierarchy";

const IO_BYTES: &[Metric] = &[Metric::ContainerIoReadBytes, Metric::ContainerIoWrittenBytes];
const IO_OPERATIONS: &[Metric] = &[Metric::ContainerIoReads, Metric::ContainerIoWrites];
const THROTTLING: &[Metric] =
    &[Metric::ContainerCpuPeriods, Metric::ContainerCpuThrottledPeriods, Metric::ContainerCpuThrottledTime];

static V1: &[Spec] = {
    use Controller::{Blkio, Cpu, Cpuacct, Memory, Pids};
    use Metric as M;
    &[
        v1(Cpuacct, "cpuacct.usage", What::V1CpuTime, &[M::ContainerCpuTime], NO_CPUACCT, NOT_IN_CPUACCT),
        v1(
            Cpuacct,
            "cpuacct.stat",
            What::V1CpuModes,
            &[M::ContainerCpuUserTime, M::ContainerCpuSystemTime],
            NO_CPUACCT,
            NOT_IN_CPUACCT,
        ),
        v1(Cpu, "cpu.stat", What::V1Throttling, THROTTLING, NO_CPU, NOT_IN_CPU),
        v1(Cpu, "cpu.cfs_quota_us", What::V1Quota, &[M::ContainerCpuLimit], NO_CPU, NOT_IN_CPU),
        v1(Cpu, "cpu.cfs_period_us", What::V1Period, &[], NO_CPU, NOT_IN_CPU),
        v1(
            Memory,
            "memory.usage_in_bytes",
            What::Memory,
            &[M::ContainerMemoryCurrent],
            NO_MEMORY,
            NOT_IN_MEMORY,
        ),
        v1(
            Memory,
            "memory.stat",
            What::V1MemoryStat,
            &[
                M::ContainerMemoryWorkingSet,
                M::ContainerMemoryAnonymous,
                M::ContainerMemoryFile,
                M::ContainerMemorySwap,
            ],
            NO_MEMORY,
            NOT_IN_MEMORY,
        ),
        v1(
            Memory,
            "memory.limit_in_bytes",
            What::V1MemoryLimit,
            &[M::ContainerMemoryLimit],
            NO_MEMORY,
            NOT_IN_MEMORY,
        ),
        v1(
            Memory,
            "memory.oom_control",
            What::OomKills,
            &[M::ContainerMemoryOomKills],
            NO_MEMORY,
            NOT_IN_MEMORY,
        ),
        Spec {
            else_name: Some("blkio.throttle.io_service_bytes"),
            ..v1(
                Blkio,
                "blkio.throttle.io_service_bytes_recursive",
                What::V1IoBytes,
                IO_BYTES,
                NO_BLKIO,
                NOT_IN_BLKIO,
            )
        },
        Spec {
            else_name: Some("blkio.throttle.io_serviced"),
            ..v1(
                Blkio,
                "blkio.throttle.io_serviced_recursive",
                What::V1IoOperations,
                IO_OPERATIONS,
                NO_BLKIO,
                NOT_IN_BLKIO,
            )
        },
        v1(Pids, "pids.current", What::Pids, &[M::ContainerPids], NO_PIDS, NOT_IN_PIDS),
        v1(Pids, "pids.max", What::PidsLimit, &[M::ContainerPidsLimit], NO_PIDS, NOT_IN_PIDS),
    ]
};

static V2: &[Spec] = {
    use Metric as M;
    &[
        v2(
            "cpu.stat",
            What::V2CpuStat,
            &[M::ContainerCpuTime, M::ContainerCpuUserTime, M::ContainerCpuSystemTime],
            NO_CPU_STAT,
        ),
        // The throttling lines of `cpu.stat` come and go with this file.
        v2(
            "cpu.max",
            What::V2CpuMax,
            &[
                M::ContainerCpuLimit,
                M::ContainerCpuPeriods,
                M::ContainerCpuThrottledPeriods,
                M::ContainerCpuThrottledTime,
            ],
            CPU_OFF,
        ),
        v2("memory.current", What::Memory, &[M::ContainerMemoryCurrent], MEMORY_OFF),
        v2(
            "memory.stat",
            What::V2MemoryStat,
            &[M::ContainerMemoryWorkingSet, M::ContainerMemoryAnonymous, M::ContainerMemoryFile],
            MEMORY_OFF,
        ),
        v2("memory.max", What::V2MemoryMax, &[M::ContainerMemoryLimit], MEMORY_OFF),
        v2("memory.events", What::OomKills, &[M::ContainerMemoryOomKills], MEMORY_OFF),
        v2("memory.swap.current", What::V2Swap, &[M::ContainerMemorySwap], NO_SWAP),
        v2(
            "io.stat",
            What::V2Io,
            &[M::ContainerIoReadBytes, M::ContainerIoWrittenBytes, M::ContainerIoReads, M::ContainerIoWrites],
            IO_OFF,
        ),
        v2("pids.current", What::Pids, &[M::ContainerPids], PIDS_OFF),
        v2("pids.max", What::PidsLimit, &[M::ContainerPidsLimit], PIDS_OFF),
    ]
};

static PRESSURE: &[Spec] = {
    use Metric as M;
    &[
        v2(
            "cpu.pressure",
            What::Pressure,
            &[M::ContainerPressureCpuSomeTime, M::ContainerPressureCpuFullTime],
            NO_PRESSURE,
        ),
        v2(
            "memory.pressure",
            What::Pressure,
            &[M::ContainerPressureMemorySomeTime, M::ContainerPressureMemoryFullTime],
            NO_PRESSURE,
        ),
        v2(
            "io.pressure",
            What::Pressure,
            &[M::ContainerPressureIoSomeTime, M::ContainerPressureIoFullTime],
            NO_PRESSURE,
        ),
    ]
};
