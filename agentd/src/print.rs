//! What the lanes read, as JSON for people and bug reports. Names and units are the catalogue's.

use horcrux_proto::catalogue;
use horcrux_proto::v1::{Absence, Disk, HypervisorFeatures, Metric, NetworkDevice};
use serde_json::{Value as Json, json};

use crate::present::source_name;
use crate::sample::{Cycle, Found, Object, Value};

/// One lane's reading.
#[must_use]
pub fn cycle(lane: &str, cycle: &Cycle) -> Json {
    let found = match &cycle.found {
        Found::Node(facts) => json!({
            "hostname": facts.hostname, "os": facts.os, "kernel": facts.kernel,
            "architecture": facts.architecture, "cpu_model": facts.cpu_model, "cpus": facts.cpus,
            "memory_bytes": facts.memory_bytes, "cgroup_mode": word(facts.cgroup_mode().as_str_name(), "CGROUP_MODE_"),
            "boot_unix_ms": facts.boot_unix_ms,
            "network_devices": facts.network_devices.iter().map(network_device).collect::<Vec<_>>(),
            "disks": facts.disks.iter().map(disk).collect::<Vec<_>>(),
            "hypervisor": facts.hypervisor.as_ref().map(hypervisor),
            "absent": absences(&facts.absences),
        }),
        Found::Vms(vms) | Found::VmsSoFar(vms) => vms
            .iter()
            .map(|vm| {
                json!({
                    "uuid": vm.uuid, "name": vm.display_name, "state": word(vm.state().as_str_name(), "VM_STATE_"),
                    "vcpus": vm.vcpus, "memory_max_bytes": vm.memory_max_bytes, "persistent": vm.persistent,
                    "interfaces": vm.interfaces, "absent": absences(&vm.absences),
                })
            })
            .collect(),
        Found::Containers(containers) => containers
            .iter()
            .map(|container| {
                json!({
                    "id": container.id, "runtime": word(container.runtime().as_str_name(), "CONTAINER_RUNTIME_"),
                    "cgroup_path": container.cgroup_path, "name": container.display_name,
                    "name_unknown_reason": container.name_unknown_reason,
                    "image": container.image, "labels": container.labels,
                    "state": word(container.state().as_str_name(), "CONTAINER_STATE_"),
                    "health": word(container.health().as_str_name(), "CONTAINER_HEALTH_"),
                    "absent": absences(&container.absences),
                })
            })
            .collect(),
        Found::Nothing => Json::Null,
    };
    let samples: Vec<Json> = cycle
        .samples
        .iter()
        .map(|sample| {
            let object = match &sample.object {
                Object::Node => "node".to_owned(),
                Object::Vm(uuid) => format!("vms/{uuid}"),
                Object::Container(id) => format!("containers/{id}"),
            };
            let readings: Vec<Json> = sample
                .readings
                .iter()
                .map(|reading| {
                    let value = match reading.value {
                        Value::Counter(count) => json!(count),
                        Value::Gauge(value) => json!(value),
                    };
                    json!({
                        "metric": name(reading.metric), "instance": &*reading.instance, "value": value,
                        "unit": unit(reading.metric), "source": source_name(reading.source),
                    })
                })
                .collect();
            json!({ "object": object, "readings": readings })
        })
        .collect();
    let sources: Vec<Json> = cycle
        .sources
        .iter()
        .map(|s| json!({ "source": source_name(s.source), "state": word(s.state.as_str_name(), "SOURCE_STATE_"), "detail": s.detail }))
        .collect();
    json!({
        "lane": lane, "taken_unix_ms": cycle.taken.unix_ms, "found": found, "samples": samples,
        "sources": sources,
    })
}

fn network_device(device: &NetworkDevice) -> Json {
    json!({
        "name": device.name, "kind": word(device.kind().as_str_name(), "NETWORK_DEVICE_KIND_"),
        "state": word(device.state().as_str_name(), "LINK_STATE_"),
        "master": device.master, "parent": device.parent,
        "speed_bits_per_second": device.speed_bits_per_second, "mac": device.mac, "mtu_bytes": device.mtu_bytes,
    })
}

fn disk(disk: &Disk) -> Json {
    json!({
        "name": disk.name, "model": disk.model, "size_bytes": disk.size_bytes, "rotational": disk.rotational,
    })
}

fn hypervisor(features: &HypervisorFeatures) -> Json {
    json!({
        "cpu_virtualization": word(features.cpu_virtualization().as_str_name(), "CPU_VIRTUALIZATION_"),
        "nested": features.nested,
        "iommu": features.iommu, "is_guest": features.is_guest, "machine": features.machine,
    })
}

fn absences(absences: &[Absence]) -> Vec<Json> {
    absences
        .iter()
        .map(|a| json!({ "metric": name(a.metric()), "instance": a.instance, "reason": a.reason }))
        .collect()
}

fn name(metric: Metric) -> &'static str {
    catalogue::info(metric).map_or("unknown", |info| info.name)
}

fn unit(metric: Metric) -> String {
    catalogue::info(metric).map_or_else(String::new, |info| word(info.unit.as_str_name(), "UNIT_"))
}

/// As all else that shows it says it: `SOURCE_STATE_OK` is `ok`, and what isn't told is `unknown`.
fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    if word == "UNSPECIFIED" { "unknown".to_owned() } else { word.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use horcrux_proto::v1::{ContainerFacts, Source, SourceState};

    use super::*;
    use crate::sample::{SourceReport, Taken};

    #[test]
    fn states_are_words_as_everywhere_else() {
        let report = SourceReport {
            source: Source::CgroupV2,
            instance: Arc::default(),
            state: SourceState::Ok,
            detail: String::new(),
        };
        let read = Cycle {
            taken: Taken { unix_ms: 1, boottime_ns: 1 },
            found: Found::Containers(vec![ContainerFacts::default()]),
            events: Vec::new(),
            samples: Vec::new(),
            sources: vec![report],
        };
        let printed = cycle("containers", &read);
        assert_eq!(printed["sources"][0]["state"], "ok");
        assert_eq!(printed["found"][0]["state"], "unknown");
        assert!(!printed.to_string().contains("STATE_"), "{printed}");
    }
}
