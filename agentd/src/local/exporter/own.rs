//! What the agent says of itself.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::collect::Watched;
use crate::host::read::read_text;
use crate::link::Standing;
use crate::sample::Taken;

use super::text::{Number, Text, Type};

pub(super) fn write(text: &mut Text, lanes: &[Watched], link: Option<&Standing>, now: Taken) {
    let name = "horcrux_agent_build_info";
    text.family(name, Type::Gauge, "Which agent this is; always 1.");
    text.line(name).label("version", env!("CARGO_PKG_VERSION")).value(Number::Whole(1));
    of_lanes(text, lanes, now);
    if let Some(link) = link {
        of_link(text, link);
    }
    process(text);
}

/// Of an agent that has a controller.
fn of_link(text: &mut Text, link: &Standing) {
    let attached = Number::Whole(u64::from(link.is_attached()));
    let help = "1 while the controller takes what is read.";
    text.single("horcrux_agent_controller_connected", Type::Gauge, help, attached);
    let attaches = Number::Whole(link.attaches());
    let help = "Streams to the controller since the agent's start.";
    text.single("horcrux_agent_controller_streams_total", Type::Counter, help, attaches);
    let waiting = Number::Whole(link.records().saturating_sub(link.stored()));
    let help = "Batches and events since the last that the controller said it stored as it was taken.";
    text.single("horcrux_agent_controller_unstored_records", Type::Gauge, help, waiting);
    let on_disk = Number::Whole(u64::from(link.is_spool_on_disk()));
    let help =
        "0 while what the controller has not stored is kept in memory only, because the spool's disk fails.";
    text.single("horcrux_agent_spool_on_disk", Type::Gauge, help, on_disk);
    if let Some(ms) = link.certificate_expires_ms() {
        let help = "When the node's certificate ends, in seconds since 1970.";
        let name = "horcrux_agent_certificate_expiry_timestamp_seconds";
        let seconds = Number::Whole(u64::try_from(ms / 1000).unwrap_or(0));
        text.single(name, Type::Gauge, help, seconds);
    }
}

/// What is told of each lane.
type OfLane = fn(&Watched, Taken) -> Number;

fn of_lanes(text: &mut Text, lanes: &[Watched], now: Taken) {
    let families: [(&str, Type, &str, OfLane); 6] = [
        ("horcrux_agent_lane_interval_seconds", Type::Gauge, "How often the lane reads.", |lane, _| {
            nanoseconds(lane.progress.interval())
        }),
        ("horcrux_agent_lane_readings_total", Type::Counter, "Readings that came back.", |lane, _| {
            Number::Whole(lane.progress.readings())
        }),
        (
            "horcrux_agent_lane_skipped_total",
            Type::Counter,
            "Readings skipped because the one before still ran.",
            |lane, _| Number::Whole(lane.progress.skipped()),
        ),
        (
            "horcrux_agent_lane_dropped_total",
            Type::Counter,
            "Readings that could not be passed on.",
            |lane, _| Number::Whole(lane.progress.dropped()),
        ),
        (
            "horcrux_agent_lane_stuck",
            Type::Gauge,
            "1 when the reading under way has overrun its deadline.",
            |lane, now| Number::Whole(u64::from(lane.progress.stuck_for(now).is_some())),
        ),
        (
            "horcrux_agent_lane_reading_duration_seconds",
            Type::Gauge,
            "How long the last reading took.",
            |lane, _| nanoseconds(lane.progress.took()),
        ),
    ];
    for (name, of, help, value) in families {
        text.family(name, of, help);
        for lane in lanes {
            text.line(name).label("lane", lane.name).value(value(lane, now));
        }
    }
}

fn process(text: &mut Text) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let ns = i128::from(cpu.tv_sec) * 1_000_000_000 + i128::from(cpu.tv_nsec);
    let help = "CPU time that the agent used.";
    let cpu = Number::Nanoseconds(u64::try_from(ns).unwrap_or(0));
    text.single("horcrux_agent_process_cpu_seconds_total", Type::Counter, help, cpu);
    if let Some(pages) = resident_pages() {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(0);
        let help = "Memory of the agent that is resident.";
        let bytes = Number::Whole(pages.saturating_mul(page));
        text.single("horcrux_agent_process_resident_memory_bytes", Type::Gauge, help, bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let open = u64::try_from(open.count()).unwrap_or(u64::MAX);
        let help = "Files that the agent has open.";
        text.single("horcrux_agent_process_open_fds", Type::Gauge, help, Number::Whole(open));
    }
}

/// The second number of /proc/self/statm (Linux, Documentation/filesystems/proc.rst, table 1-3).
fn resident_pages() -> Option<u64> {
    let text = read_text(Path::new("/proc/self/statm")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn nanoseconds(duration: std::time::Duration) -> Number {
    Number::Nanoseconds(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
