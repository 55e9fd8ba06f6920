//! Under which names Prometheus sees the catalogue: those of node_exporter, cAdvisor and libvirt's exporters where they
//! have one, so that dashboards made for them work; `horcrux_` and the catalogue's own for the rest. A metric that the
//! catalogue gets is exported without a line here.

use horcrux_proto::catalogue::{CATALOGUE, EntityKind, Kind, Metric, MetricInfo, Unit};

/// What others call a metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) metric: Metric,
    pub(super) name: &'static str,
    /// What tells the metrics of one family apart, as it is written; empty: it is a family alone.
    pub(super) label: &'static str,
    /// Of a family of several, or where it isn't what the catalogue says; empty: the catalogue's.
    pub(super) help: &'static str,
    pub(super) of: Of,
}

/// What a value is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Prometheus' base unit.
    Base,
    /// Bytes by so many.
    Bytes(u64),
    /// Bytes by the kernel's pages.
    Pages,
    /// Bits.
    Bits,
    /// Cores, of each of which there is so much.
    Cores(u64),
    /// What is the same wherever there is a value.
    Always(u64),
}

/// One metric under one of its names.
#[derive(Debug)]
pub(super) struct Exposed {
    pub(super) info: &'static MetricInfo,
    pub(super) name: String,
    pub(super) label: &'static str,
    pub(super) help: &'static str,
    pub(super) of: Of,
}

const fn known(metric: Metric, name: &'static str) -> Known {
    Known { metric, name, label: "", help: "", of: Of::Base }
}

const fn written(metric: Metric, name: &'static str, of: Of, help: &'static str) -> Known {
    Known { metric, name, label: "", help, of }
}

const fn mode(metric: Metric, label: &'static str) -> Known {
    let help = "Seconds the CPUs spent in each mode.";
    Known { metric, name: "node_cpu_seconds_total", label, help, of: Of::Base }
}

const fn guest(metric: Metric, label: &'static str) -> Known {
    let help = "Seconds the CPUs spent in guests (VMs) for each mode.";
    Known { metric, name: "node_cpu_guest_seconds_total", label, help, of: Of::Base }
}

/// In which the kernel counts what it reads from block devices and writes to them.
const KIB: Of = Of::Bytes(1024);
/// Of a container's limit only cores are known. They are written as most runtimes set them: microseconds of each 100 ms.
const PERIOD_US: u64 = 100_000;

/// Families stand together, each in the order in which it is written. A metric may have several names.
pub(super) const KNOWN: &[Known] = &[
    // node_exporter 1.5
    mode(Metric::NodeCpuUserTime, "mode=\"user\""),
    mode(Metric::NodeCpuNiceTime, "mode=\"nice\""),
    mode(Metric::NodeCpuSystemTime, "mode=\"system\""),
    mode(Metric::NodeCpuIdleTime, "mode=\"idle\""),
    mode(Metric::NodeCpuIowaitTime, "mode=\"iowait\""),
    mode(Metric::NodeCpuIrqTime, "mode=\"irq\""),
    mode(Metric::NodeCpuSoftirqTime, "mode=\"softirq\""),
    mode(Metric::NodeCpuStealTime, "mode=\"steal\""),
    guest(Metric::NodeCpuGuestTime, "mode=\"user\""),
    guest(Metric::NodeCpuGuestNiceTime, "mode=\"nice\""),
    known(Metric::NodeLoad1m, "node_load1"),
    known(Metric::NodeLoad5m, "node_load5"),
    known(Metric::NodeLoad15m, "node_load15"),
    known(Metric::NodeProcessesRunning, "node_procs_running"),
    known(Metric::NodeProcessesBlocked, "node_procs_blocked"),
    known(Metric::NodeContextSwitches, "node_context_switches_total"),
    known(Metric::NodeInterrupts, "node_intr_total"),
    known(Metric::NodeForks, "node_forks_total"),
    known(Metric::NodeMemoryTotal, "node_memory_MemTotal_bytes"),
    known(Metric::NodeMemoryAvailable, "node_memory_MemAvailable_bytes"),
    known(Metric::NodeMemoryFree, "node_memory_MemFree_bytes"),
    known(Metric::NodeMemoryCached, "node_memory_Cached_bytes"),
    known(Metric::NodeMemoryBuffers, "node_memory_Buffers_bytes"),
    known(Metric::NodeMemorySlab, "node_memory_Slab_bytes"),
    known(Metric::NodeMemoryShared, "node_memory_Shmem_bytes"),
    known(Metric::NodeMemoryActive, "node_memory_Active_bytes"),
    known(Metric::NodeMemoryInactive, "node_memory_Inactive_bytes"),
    known(Metric::NodeMemoryDirty, "node_memory_Dirty_bytes"),
    known(Metric::NodeMemoryWriteback, "node_memory_Writeback_bytes"),
    known(Metric::NodeMemoryPageTables, "node_memory_PageTables_bytes"),
    known(Metric::NodeMemoryCommitted, "node_memory_Committed_AS_bytes"),
    known(Metric::NodeMemoryCommitLimit, "node_memory_CommitLimit_bytes"),
    known(Metric::NodeMemorySlabReclaimable, "node_memory_SReclaimable_bytes"),
    known(Metric::NodeMemorySlabUnreclaimable, "node_memory_SUnreclaim_bytes"),
    known(Metric::NodeMemoryAnonymous, "node_memory_AnonPages_bytes"),
    known(Metric::NodeMemoryMapped, "node_memory_Mapped_bytes"),
    known(Metric::NodeSwapCached, "node_memory_SwapCached_bytes"),
    known(Metric::NodeSwapTotal, "node_memory_SwapTotal_bytes"),
    known(Metric::NodeSwapFree, "node_memory_SwapFree_bytes"),
    known(Metric::NodePageFaults, "node_vmstat_pgfault"),
    known(Metric::NodeMajorPageFaults, "node_vmstat_pgmajfault"),
    written(Metric::NodePagedIn, "node_vmstat_pgpgin", KIB, "KiB read from block devices into memory."),
    written(Metric::NodePagedOut, "node_vmstat_pgpgout", KIB, "KiB written from memory to block devices."),
    written(Metric::NodeSwappedIn, "node_vmstat_pswpin", Of::Pages, "Pages read back from swap."),
    written(Metric::NodeSwappedOut, "node_vmstat_pswpout", Of::Pages, "Pages written to swap."),
    known(Metric::NodeOomKills, "node_vmstat_oom_kill"),
    known(Metric::NodeFilesOpen, "node_filefd_allocated"),
    known(Metric::NodeFilesMax, "node_filefd_maximum"),
    known(Metric::NodeSocketsUsed, "node_sockstat_sockets_used"),
    known(Metric::NodeTcpInUse, "node_sockstat_TCP_inuse"),
    known(Metric::NodeTcpOrphans, "node_sockstat_TCP_orphan"),
    known(Metric::NodeTcpTimeWait, "node_sockstat_TCP_tw"),
    known(Metric::NodeTcpAllocated, "node_sockstat_TCP_alloc"),
    written(Metric::NodeTcpMemory, "node_sockstat_TCP_mem", Of::Pages, "Pages of TCP's buffers."),
    known(Metric::NodeTcpMemory, "node_sockstat_TCP_mem_bytes"),
    known(Metric::NodeUdpInUse, "node_sockstat_UDP_inuse"),
    written(Metric::NodeUdpMemory, "node_sockstat_UDP_mem", Of::Pages, "Pages of UDP's buffers."),
    known(Metric::NodeUdpMemory, "node_sockstat_UDP_mem_bytes"),
    known(Metric::NodeTcpEstablished, "node_netstat_Tcp_CurrEstab"),
    known(Metric::NodeTcpActiveOpens, "node_netstat_Tcp_ActiveOpens"),
    known(Metric::NodeTcpPassiveOpens, "node_netstat_Tcp_PassiveOpens"),
    known(Metric::NodeTcpSegmentsReceived, "node_netstat_Tcp_InSegs"),
    known(Metric::NodeTcpSegmentsSent, "node_netstat_Tcp_OutSegs"),
    known(Metric::NodeTcpSegmentsRetransmitted, "node_netstat_Tcp_RetransSegs"),
    known(Metric::NodeTcpListenOverflows, "node_netstat_TcpExt_ListenOverflows"),
    known(Metric::NodeTcpListenDrops, "node_netstat_TcpExt_ListenDrops"),
    known(Metric::NodeUdpDatagramsReceived, "node_netstat_Udp_InDatagrams"),
    known(Metric::NodeUdpDatagramsSent, "node_netstat_Udp_OutDatagrams"),
    known(Metric::NodeUdpReceiveErrors, "node_netstat_Udp_InErrors"),
    known(Metric::NodeUdpNoPort, "node_netstat_Udp_NoPorts"),
    known(Metric::NodePressureCpuSomeTime, "node_pressure_cpu_waiting_seconds_total"),
    known(Metric::NodePressureMemorySomeTime, "node_pressure_memory_waiting_seconds_total"),
    known(Metric::NodePressureMemoryFullTime, "node_pressure_memory_stalled_seconds_total"),
    known(Metric::NodePressureIoSomeTime, "node_pressure_io_waiting_seconds_total"),
    known(Metric::NodePressureIoFullTime, "node_pressure_io_stalled_seconds_total"),
    known(Metric::NodeDiskReadBytes, "node_disk_read_bytes_total"),
    known(Metric::NodeDiskWrittenBytes, "node_disk_written_bytes_total"),
    known(Metric::NodeDiskReads, "node_disk_reads_completed_total"),
    known(Metric::NodeDiskWrites, "node_disk_writes_completed_total"),
    known(Metric::NodeDiskReadTime, "node_disk_read_time_seconds_total"),
    known(Metric::NodeDiskWriteTime, "node_disk_write_time_seconds_total"),
    known(Metric::NodeDiskBusyTime, "node_disk_io_time_seconds_total"),
    known(Metric::NodeDiskQueueTime, "node_disk_io_time_weighted_seconds_total"),
    known(Metric::NodeDiskInFlight, "node_disk_io_now"),
    known(Metric::NodeNetworkRxBytes, "node_network_receive_bytes_total"),
    known(Metric::NodeNetworkRxPackets, "node_network_receive_packets_total"),
    known(Metric::NodeNetworkRxErrors, "node_network_receive_errs_total"),
    known(Metric::NodeNetworkRxDrops, "node_network_receive_drop_total"),
    known(Metric::NodeNetworkTxBytes, "node_network_transmit_bytes_total"),
    known(Metric::NodeNetworkTxPackets, "node_network_transmit_packets_total"),
    known(Metric::NodeNetworkTxErrors, "node_network_transmit_errs_total"),
    known(Metric::NodeNetworkTxDrops, "node_network_transmit_drop_total"),
    known(Metric::NodeNetworkRxMulticast, "node_network_receive_multicast_total"),
    known(Metric::NodeNetworkCarrier, "node_network_carrier"),
    written(
        Metric::NodeNetworkSpeed,
        "node_network_speed_bytes",
        Of::Bits,
        "Bytes per second that the link has agreed on; of a bond, of its active members.",
    ),
    known(Metric::NodeFilesystemSize, "node_filesystem_size_bytes"),
    known(Metric::NodeFilesystemFree, "node_filesystem_free_bytes"),
    known(Metric::NodeFilesystemAvailable, "node_filesystem_avail_bytes"),
    known(Metric::NodeFilesystemInodes, "node_filesystem_files"),
    known(Metric::NodeFilesystemInodesFree, "node_filesystem_files_free"),
    known(Metric::NodeFilesystemReadOnly, "node_filesystem_readonly"),
    // libvirt's exporters
    known(Metric::VmCpuTime, "libvirt_domain_info_cpu_time_seconds_total"),
    known(Metric::VmVcpus, "libvirt_domain_info_virtual_cpus"),
    known(Metric::VmMemoryMax, "libvirt_domain_info_maximum_memory_bytes"),
    known(Metric::VmMemoryBalloon, "libvirt_domain_info_memory_usage_bytes"),
    known(Metric::VmVcpuTime, "libvirt_domain_vcpu_time_seconds_total"),
    known(Metric::VmVcpuDelay, "libvirt_domain_vcpu_delay_seconds_total"),
    known(Metric::VmMemoryBalloon, "libvirt_domain_memory_stats_actual_balloon_bytes"),
    known(Metric::VmMemoryResident, "libvirt_domain_memory_stats_rss_bytes"),
    known(Metric::VmMemoryAvailable, "libvirt_domain_memory_stats_available_bytes"),
    known(Metric::VmMemoryUsable, "libvirt_domain_memory_stats_usable_bytes"),
    known(Metric::VmMemoryUnused, "libvirt_domain_memory_stats_unused_bytes"),
    known(Metric::VmMemoryMajorFaults, "libvirt_domain_memory_stats_major_fault_total"),
    known(Metric::VmMemoryMinorFaults, "libvirt_domain_memory_stats_minor_fault_total"),
    known(Metric::VmDiskReadBytes, "libvirt_domain_block_stats_read_bytes_total"),
    known(Metric::VmDiskReads, "libvirt_domain_block_stats_read_requests_total"),
    known(Metric::VmDiskReadTime, "libvirt_domain_block_stats_read_time_seconds_total"),
    known(Metric::VmDiskWrittenBytes, "libvirt_domain_block_stats_write_bytes_total"),
    known(Metric::VmDiskWrites, "libvirt_domain_block_stats_write_requests_total"),
    known(Metric::VmDiskWriteTime, "libvirt_domain_block_stats_write_time_seconds_total"),
    known(Metric::VmDiskFlushes, "libvirt_domain_block_stats_flush_requests_total"),
    known(Metric::VmDiskFlushTime, "libvirt_domain_block_stats_flush_time_seconds_total"),
    known(Metric::VmDiskCapacity, "libvirt_domain_block_stats_capacity_bytes"),
    known(Metric::VmDiskAllocation, "libvirt_domain_block_stats_allocation"),
    known(Metric::VmNetworkRxBytes, "libvirt_domain_interface_stats_receive_bytes_total"),
    known(Metric::VmNetworkRxPackets, "libvirt_domain_interface_stats_receive_packets_total"),
    known(Metric::VmNetworkRxErrors, "libvirt_domain_interface_stats_receive_errors_total"),
    known(Metric::VmNetworkRxDrops, "libvirt_domain_interface_stats_receive_drops_total"),
    known(Metric::VmNetworkTxBytes, "libvirt_domain_interface_stats_transmit_bytes_total"),
    known(Metric::VmNetworkTxPackets, "libvirt_domain_interface_stats_transmit_packets_total"),
    known(Metric::VmNetworkTxErrors, "libvirt_domain_interface_stats_transmit_errors_total"),
    known(Metric::VmNetworkTxDrops, "libvirt_domain_interface_stats_transmit_drops_total"),
    // cAdvisor
    Known {
        metric: Metric::ContainerCpuTime,
        name: "container_cpu_usage_seconds_total",
        label: "cpu=\"total\"",
        help: "",
        of: Of::Base,
    },
    written(
        Metric::ContainerCpuLimit,
        "container_spec_cpu_quota",
        Of::Cores(PERIOD_US),
        "Microseconds of CPU time that the container may use in each container_spec_cpu_period.",
    ),
    written(
        Metric::ContainerCpuLimit,
        "container_spec_cpu_period",
        Of::Always(PERIOD_US),
        "Microseconds to which container_spec_cpu_quota is reckoned.",
    ),
    known(Metric::ContainerCpuLimit, "horcrux_container_cpu_limit"),
    known(Metric::ContainerCpuUserTime, "container_cpu_user_seconds_total"),
    known(Metric::ContainerCpuSystemTime, "container_cpu_system_seconds_total"),
    known(Metric::ContainerCpuPeriods, "container_cpu_cfs_periods_total"),
    known(Metric::ContainerCpuThrottledPeriods, "container_cpu_cfs_throttled_periods_total"),
    known(Metric::ContainerCpuThrottledTime, "container_cpu_cfs_throttled_seconds_total"),
    known(Metric::ContainerMemoryCurrent, "container_memory_usage_bytes"),
    known(Metric::ContainerMemoryWorkingSet, "container_memory_working_set_bytes"),
    known(Metric::ContainerMemoryLimit, "container_spec_memory_limit_bytes"),
    known(Metric::ContainerMemoryAnonymous, "container_memory_rss"),
    known(Metric::ContainerMemoryFile, "container_memory_cache"),
    known(Metric::ContainerMemorySwap, "container_memory_swap"),
    known(Metric::ContainerMemoryOomKills, "container_oom_events_total"),
    known(Metric::ContainerIoReadBytes, "container_fs_reads_bytes_total"),
    known(Metric::ContainerIoWrittenBytes, "container_fs_writes_bytes_total"),
    known(Metric::ContainerIoReads, "container_fs_reads_total"),
    known(Metric::ContainerIoWrites, "container_fs_writes_total"),
    known(Metric::ContainerNetworkRxBytes, "container_network_receive_bytes_total"),
    known(Metric::ContainerNetworkRxPackets, "container_network_receive_packets_total"),
    known(Metric::ContainerNetworkRxErrors, "container_network_receive_errors_total"),
    known(Metric::ContainerNetworkRxDrops, "container_network_receive_packets_dropped_total"),
    known(Metric::ContainerNetworkTxBytes, "container_network_transmit_bytes_total"),
    known(Metric::ContainerNetworkTxPackets, "container_network_transmit_packets_total"),
    known(Metric::ContainerNetworkTxErrors, "container_network_transmit_errors_total"),
    known(Metric::ContainerNetworkTxDrops, "container_network_transmit_packets_dropped_total"),
    known(Metric::ContainerPids, "container_threads"),
    known(Metric::ContainerPidsLimit, "container_threads_max"),
    known(Metric::ContainerPressureCpuSomeTime, "container_pressure_cpu_waiting_seconds_total"),
    known(Metric::ContainerPressureCpuFullTime, "container_pressure_cpu_stalled_seconds_total"),
    known(Metric::ContainerPressureMemorySomeTime, "container_pressure_memory_waiting_seconds_total"),
    known(Metric::ContainerPressureMemoryFullTime, "container_pressure_memory_stalled_seconds_total"),
    known(Metric::ContainerPressureIoSomeTime, "container_pressure_io_waiting_seconds_total"),
    known(Metric::ContainerPressureIoFullTime, "container_pressure_io_stalled_seconds_total"),
];

/// The whole catalogue: what has a known name under that, the rest after it under ours.
pub(super) fn exposed() -> Vec<Exposed> {
    let known = KNOWN.iter().filter_map(|known| {
        let info = horcrux_proto::catalogue::info(known.metric)?;
        let help = if known.help.is_empty() { info.help } else { known.help };
        Some(Exposed { info, name: known.name.to_owned(), label: known.label, help, of: known.of })
    });
    let unknown = CATALOGUE.iter().filter(|info| KNOWN.iter().all(|known| known.metric != info.metric));
    let ours = unknown.map(|info| Exposed {
        info,
        name: systematic(info),
        label: "",
        help: info.help,
        of: Of::Base,
    });
    known.chain(ours).collect()
}

/// Every name under which a metric of the catalogue is written where it can be read, and by which label its instances are
/// told apart; what a controller derives is not written.
pub fn families() -> impl Iterator<Item = (String, &'static str)> {
    let read = |exposed: &Exposed| exposed.info.rate_of.is_none() && !exposed.info.derived;
    exposed().into_iter().filter(read).map(|exposed| (exposed.name, instance_label(exposed.info)))
}

/// `horcrux_NAME[_UNIT][_total]`, in Prometheus' base units.
fn systematic(info: &MetricInfo) -> String {
    let unit = match info.unit {
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "bytes_per_second",
        Unit::Nanoseconds | Unit::Seconds => "seconds",
        Unit::Percent => "ratio",
        Unit::PerSecond => "per_second",
        Unit::BitsPerSecond => "bits_per_second",
        Unit::Celsius => "celsius",
        Unit::Rpm => "rpm",
        Unit::Count | Unit::Unspecified => "",
    };
    let mut name = format!("horcrux_{}", info.name);
    if !unit.is_empty() && !name.ends_with(&format!("_{unit}")) {
        name = format!("{name}_{unit}");
    }
    match info.kind {
        Kind::Counter => name + "_total",
        // It would be taken for a counter.
        Kind::Gauge | Kind::Unspecified => name.strip_suffix("_total").unwrap_or(&name).to_owned(),
    }
}

/// What `info`'s instances are told apart by.
pub(super) fn instance_label(info: &MetricInfo) -> &'static str {
    match (info.entity, info.instance) {
        (EntityKind::Node, "core") => "cpu",
        (EntityKind::Vm, "device") => "target_device",
        (_, instance) => instance,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn counts(kind: Kind) -> bool {
        match kind {
            Kind::Counter => true,
            Kind::Gauge | Kind::Unspecified => false,
        }
    }

    #[test]
    fn every_metric_of_the_catalogue_has_a_name() {
        let exposed = exposed();
        for info in CATALOGUE {
            assert!(exposed.iter().any(|e| e.info.metric == info.metric), "{} is left out", info.name);
        }
    }

    #[test]
    fn names_are_what_prometheus_takes_and_say_their_kind() {
        for exposed in exposed() {
            let name = &exposed.name;
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && name.starts_with(|c: char| c.is_ascii_lowercase()),
                "{name}"
            );
            // node_exporter writes these as of no type, because their names don't say it.
            let is_untyped = name.starts_with("node_vmstat_") || name.starts_with("node_netstat_");
            assert_eq!(counts(exposed.info.kind) && !is_untyped, name.ends_with("_total"), "{name}");
            assert!(!exposed.help.is_empty() && !name.contains("_time_time"), "{name}");
        }
    }

    #[test]
    fn a_family_stands_together_is_of_one_kind_and_tells_its_metrics_apart() {
        let exposed = exposed();
        let mut families: HashMap<&str, &Exposed> = HashMap::new();
        for (at, one) in exposed.iter().enumerate() {
            match families.insert(one.name.as_str(), one) {
                None => {}
                Some(_) if exposed[at - 1].name != one.name => panic!("{} is in two places", one.name),
                Some(before) => assert!(
                    before.info.kind == one.info.kind
                        && before.info.unit == one.info.unit
                        && before.help == one.help
                        && before.label != one.label
                        && !before.label.is_empty(),
                    "{}",
                    one.name
                ),
            }
        }
        // OpenMetrics names a counter's family without its `_total`.
        let bare: HashSet<&str> =
            families.keys().map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
        assert_eq!(bare.len(), families.len());
    }

    #[test]
    fn our_own_names_are_systematic() {
        let name = |metric| {
            let exposed = exposed();
            exposed.iter().find(|e| e.info.metric == metric).map(|e| e.name.clone()).unwrap()
        };
        assert_eq!(name(Metric::VmIoReadBytes), "horcrux_vm_io_read_bytes_total");
        assert_eq!(
            name(Metric::NodePressureCpuFullTime),
            "horcrux_node_pressure_cpu_full_time_seconds_total"
        );
        assert_eq!(name(Metric::NodePressureCpuSomeAvg10), "horcrux_node_pressure_cpu_some_avg10_ratio");
        assert_eq!(name(Metric::NodeUptime), "horcrux_node_uptime_seconds");
        assert_eq!(name(Metric::NodeThreads), "horcrux_node_threads");
    }
}
