//! One VM of a libvirt: as that tells of it, and as its process is seen.

use std::collections::HashMap;
use std::sync::Arc;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Absence, Metric, Source, VmFacts, VmState};

use crate::host::qemu::{Outcome, Process, Processes, Started};
use crate::host::readings::Readings;

use super::Others;
use super::fast::Told;
use super::monitor::nothing_read;
use super::params::INTERFACE_METRICS;
use super::raw::Details;
use super::session::Place;

#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) state: VmState,
    pub(super) details: Option<Details>,
    /// vCPUs and bytes of memory, where its process was seen before libvirt told of it.
    started: (Option<u32>, Option<u64>),
    pub(super) process: Result<Process, String>,
    /// It has no process here, and libvirt told its CPU time.
    cpu_time_told: bool,
    /// Names of interfaces, kept and shared.
    interfaces: HashMap<String, Arc<str>>,
    /// Those that it has now, as libvirt last told them.
    pub(super) attached: Vec<String>,
    /// How many readings it gave last.
    pub(super) expected: usize,
}

impl Default for Domain {
    /// One of which nothing is known, and whose process was never looked for.
    fn default() -> Self {
        Self {
            name: String::new(),
            state: VmState::Unspecified,
            details: None,
            started: (None, None),
            process: Err(String::new()),
            cpu_time_told: false,
            interfaces: HashMap::new(),
            attached: Vec::new(),
            expected: 0,
        }
    }
}

impl Domain {
    /// One of which only the process is seen.
    pub(super) fn seen(Started { told, process }: Started) -> Self {
        Self {
            name: told.name.clone().unwrap_or_else(|| told.program.clone()),
            started: (told.vcpus, told.memory_bytes),
            process: Ok(process),
            ..Self::default()
        }
    }

    pub(super) fn has_process(&self) -> bool {
        match self.state {
            VmState::Running
            | VmState::Blocked
            | VmState::Paused
            | VmState::ShuttingDown
            | VmState::PmSuspended => true,
            VmState::ShutOff | VmState::Crashed => false,
            VmState::Unspecified => self.process.is_ok(),
        }
    }

    pub(super) fn read(
        &mut self,
        place: &Place,
        processes: &mut Processes,
        told: Option<&Told>,
        readings: &mut Readings,
    ) {
        if !self.has_process() {
            self.process = Err(String::new());
            return;
        }
        let source = place.source();
        if let Ok(process) = &mut self.process
            && process.read(processes, readings) == Outcome::Gone
        {
            self.process = Err("its process has gone, and libvirt has not said so yet".to_owned());
        }
        let cpu_time = told.and_then(|told| told.cpu_time).filter(|_| self.process.is_err());
        self.cpu_time_told = cpu_time.is_some();
        if let Some(cpu_time) = cpu_time {
            readings.whole_counter(source, Metric::VmCpuTime, cpu_time);
        }
        let mut sums = [None; INTERFACE_METRICS.len()];
        for device in told.map(|told| told.interfaces.as_slice()).unwrap_or_default() {
            let instance =
                self.interfaces.entry(device.name.clone()).or_insert_with(|| Arc::from(device.name.as_str()));
            for ((metric, value), sum) in INTERFACE_METRICS.into_iter().zip(device.values).zip(&mut sums) {
                if let Some(value) = value {
                    readings.counter(source, metric, instance, value);
                    *sum = Some(sum.unwrap_or(0_u64).wrapping_add(value));
                }
            }
        }
        for (metric, sum) in INTERFACE_METRICS.into_iter().zip(sums) {
            if let Some(sum) = sum {
                readings.whole_counter(source, metric, sum);
            }
        }
    }

    /// As libvirt tells it; before it has told anything, as the process was started.
    pub(super) fn read_size(&self, source: Source, libvirt_lost: Option<&str>, readings: &mut Readings) {
        if !self.has_process() {
            return;
        }
        let (source, vcpus, bytes) = match (self.details, libvirt_lost) {
            (Some(details), None) => (source, Some(details.vcpus), Some(details.memory_max_bytes)),
            (Some(_), Some(_)) => return,
            (None, _) => (Source::QemuProcess, self.started.0, self.started.1),
        };
        if let Some(vcpus) = vcpus {
            readings.whole_gauge(source, Metric::VmVcpus, f64::from(vcpus));
        }
        if let Some(bytes) = bytes {
            readings.whole_gauge(source, Metric::VmMemoryMax, bytes as f64);
        }
    }

    /// While libvirt says nothing, only that it ran, and that its process has gone, is known.
    fn state_now(&self, libvirt_lost: Option<&str>) -> VmState {
        let gone = self.has_process() && self.process.is_err();
        if libvirt_lost.is_some() && gone { VmState::Unspecified } else { self.state }
    }

    pub(super) fn facts(
        &self,
        uuid: VmUuid,
        place: &Place,
        libvirt_lost: Option<&str>,
        others: &Others,
    ) -> VmFacts {
        let absent = |metric: Metric, reason: &str| Absence {
            metric: metric.into(),
            instance: String::new(),
            reason: reason.to_owned(),
        };
        let mut absences = Vec::new();
        if self.has_process() {
            match &self.process {
                Ok(process) => {
                    absences.extend(process.absences.iter().map(|(metric, why)| absent(*metric, why)));
                }
                Err(why) => absences.extend(
                    [
                        Metric::VmCpuTime,
                        Metric::VmVcpuTime,
                        Metric::VmMemoryResident,
                        Metric::VmIoReadBytes,
                        Metric::VmIoWrittenBytes,
                    ]
                    .into_iter()
                    .filter(|metric| !(self.cpu_time_told && *metric == Metric::VmCpuTime))
                    .map(|metric| absent(metric, why)),
                ),
            }
            if !place.has_monitors() && !place.is_simulated() {
                absences.extend(nothing_read("it has no QEMU monitor"));
            }
            if let Some(why) = libvirt_lost {
                absences.extend(INTERFACE_METRICS.map(|metric| absent(metric, why)));
            }
            if let Some(why) =
                libvirt_lost.filter(|_| self.state == VmState::Unspecified && place.has_monitors())
            {
                absences.extend(nothing_read(why));
            }
            match others.missing.of(&uuid) {
                Some(missing) => absences.extend(missing),
                None if place.has_monitors() && libvirt_lost.is_none() => {
                    absences.extend(nothing_read(
                        "QEMU's monitor was not asked since the VM began: wait for half a minute",
                    ));
                }
                None => {}
            }
            absences.extend(others.jobs.absences(&uuid));
        }
        let state = self.state_now(libvirt_lost);
        let state_unknown_reason = match state {
            VmState::Unspecified => libvirt_lost.unwrap_or("libvirt doesn't tell it").to_owned(),
            VmState::Running
            | VmState::Blocked
            | VmState::Paused
            | VmState::ShuttingDown
            | VmState::ShutOff
            | VmState::Crashed
            | VmState::PmSuspended => String::new(),
        };
        VmFacts {
            uuid: uuid.to_string(),
            display_name: self.name.clone(),
            state: state.into(),
            vcpus: self.details.map(|details| details.vcpus).or(self.started.0),
            memory_max_bytes: self.details.map(|details| details.memory_max_bytes).or(self.started.1),
            persistent: self.details.map(|details| details.persistent),
            absences,
            interfaces: self.attached.clone(),
            unmanaged: false,
            simulated: place.is_simulated(),
            connection: place.uri.to_string(),
            job: others.jobs.of(&uuid).into(),
            guest: None,
            guest_unknown_reason: String::new(),
            state_unknown_reason,
            started_unix_ms: self.process.as_ref().ok().map(Process::started_unix_ms),
        }
    }
}
