//! What the kernel knows of a VM's process: CPU time, vCPU threads, memory, I/O. libvirt isn't asked, so these go on
//! while it is gone, and cost a thousandth of what QEMU's monitor would.

#[cfg(feature = "libvirt")]
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "libvirt")]
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Metric, Source};

use crate::collect;
use crate::host::cgroup::{VmGroup, VmGroups};
use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape, chain, numbers};
use crate::host::readings::Readings;
use crate::sample::Taken;

/// vCPUs are plugged rarely: their threads are listed this rarely, and when one is gone.
const THREADS_EVERY: u64 = 12;
/// What the kernel gives a thread's name at most, and more than it.
const LONGEST_NAME: usize = 64;

/// Processes of VMs, to find and to read.
#[derive(Debug)]
pub(in crate::host) struct Processes {
    #[cfg(feature = "libvirt")]
    root: PathBuf,
    groups: VmGroups,
    buffer: Buffer,
    ns_per_tick: u64,
    page_bytes: u64,
    /// How many files may stay open.
    file_budget: usize,
}

#[derive(Debug)]
pub(in crate::host) struct Process {
    dir: PathBuf,
    /// In ticks since boot: a number alone may come to mean another process.
    started: u64,
    /// The same by the wall clock as it was when the process was found: it stays what it was when the clock is set.
    started_unix_ms: i64,
    keep: Keep,
    stat: KeptFile,
    io: KeptFile,
    group: Option<VmGroup>,
    /// By the vCPU's number.
    vcpus: Vec<(Arc<str>, KeptFile)>,
    reads: u64,
    /// What isn't there, and why.
    pub(in crate::host) absences: Vec<(Metric, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Outcome {
    Read,
    Gone,
}

/// The fields of `/proc/PID/stat` that count here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    started: u64,
    resident_pages: u64,
}

impl Processes {
    pub(in crate::host) fn new(root: &Path) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            #[cfg(feature = "libvirt")]
            root: root.to_owned(),
            groups: VmGroups::find(root),
            buffer: Buffer::default(),
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            page_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            // The container lane has half.
            file_budget: limit.map_or(usize::MAX, |limit| usize::try_from(limit / 4).unwrap_or(usize::MAX)),
        }
    }

    #[cfg(feature = "libvirt")]
    /// Where /proc is found.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    #[cfg(feature = "libvirt")]
    /// Finds the processes of VMs by the `-uuid` that libvirt starts QEMU with. Anyone may give a process such an
    /// argument; only one in a group that libvirt made is believed when there are several.
    pub(in crate::host) fn find(
        &mut self,
        wanted: &[VmUuid],
        open: usize,
    ) -> HashMap<VmUuid, Result<Process, String>> {
        let mut candidates: HashMap<VmUuid, Vec<Process>> = HashMap::new();
        let keep = if open < self.file_budget { Keep::Open } else { Keep::Closed };
        let listed = match fs::read_dir(self.root.join("proc")) {
            Ok(listed) => listed,
            Err(error) => {
                return wanted.iter().map(|uuid| (*uuid, Err(format!("list /proc: {error}")))).collect();
            }
        };
        for entry in listed.flatten() {
            let is_process =
                entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let dir = entry.path();
            // A process that ended meanwhile has no command line.
            let Some(line) = is_process.then(|| fs::read(dir.join("cmdline")).ok()).flatten() else {
                continue;
            };
            let Some(uuid) = uuid_argument(&line).filter(|uuid| wanted.contains(uuid)) else { continue };
            if let Ok(process) = self.process(dir, keep) {
                candidates.entry(uuid).or_default().push(process);
            }
        }
        let mut chosen = |uuid: &VmUuid| {
            let mut found = candidates.remove(uuid).unwrap_or_default();
            if found.len() > 1 {
                found.retain(|process| process.group.is_some());
            }
            match (found.pop(), found.len()) {
                (Some(process), 0) => Ok(process),
                (None, _) => Err("no process with this VM's uuid is in /proc".to_owned()),
                (Some(_), _) => Err("several processes have this VM's uuid".to_owned()),
            }
        };
        wanted.iter().map(|uuid| (*uuid, chosen(uuid))).collect()
    }

    /// The process whose directory this is; so many files are open for others.
    pub(in crate::host) fn at(&mut self, dir: PathBuf, open: usize) -> Result<Process, ReadError> {
        let keep = if open < self.file_budget { Keep::Open } else { Keep::Closed };
        self.process(dir, keep)
    }

    fn process(&mut self, dir: PathBuf, keep: Keep) -> Result<Process, ReadError> {
        let mut file = KeptFile::new(dir.join("stat"), Shape::Whole, keep);
        let started = file.parse(&mut self.buffer, stat)?.started;
        let groups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
        Ok(Process {
            started,
            started_unix_ms: unix_ms(started.saturating_mul(self.ns_per_tick), collect::now()),
            keep,
            stat: file,
            io: KeptFile::new(dir.join("io"), Shape::Whole, keep),
            group: self.groups.of(&groups, keep),
            vcpus: Vec::new(),
            reads: 0,
            absences: Vec::new(),
            dir,
        })
    }
}

impl Process {
    /// Since when it runs, in ticks since boot.
    pub(in crate::host) fn started(&self) -> u64 {
        self.started
    }

    pub(in crate::host) fn started_unix_ms(&self) -> i64 {
        self.started_unix_ms
    }

    pub(in crate::host) fn is_in_libvirt_s_group(&self) -> bool {
        self.group.is_some()
    }

    /// Files that stay open for it.
    pub(in crate::host) fn open_files(&self) -> usize {
        match self.keep {
            Keep::Open => 4 + self.vcpus.len(),
            Keep::Closed => 0,
        }
    }

    pub(in crate::host) fn read(&mut self, shared: &mut Processes, readings: &mut Readings) -> Outcome {
        self.absences.clear();
        let buffer = &mut shared.buffer;
        let stat = match self.stat.parse(buffer, stat) {
            Ok(stat) if stat.started == self.started => stat,
            Ok(_) => return Outcome::Gone,
            Err(error) if error.is_gone() => return Outcome::Gone,
            Err(error) => {
                let why = chain(&error);
                self.absences.extend([Metric::VmCpuTime, Metric::VmMemoryResident].map(|m| (m, why.clone())));
                return Outcome::Read;
            }
        };
        let (source, cpu_ns) = self
            .group
            .as_mut()
            .and_then(|group| group.cpu_ns(buffer))
            .unwrap_or((Source::Proc, stat.cpu_ticks.saturating_mul(shared.ns_per_tick)));
        readings.whole_counter(source, Metric::VmCpuTime, cpu_ns);
        let resident = stat.resident_pages.saturating_mul(shared.page_bytes);
        readings.whole_gauge(Source::Proc, Metric::VmMemoryResident, resident as f64);
        self.read_io(buffer, readings);
        self.read_vcpus(buffer, readings);
        Outcome::Read
    }

    /// From the process, which only its owner and root may ask; else from its group, where v2 counts.
    fn read_io(&mut self, buffer: &mut Buffer, readings: &mut Readings) {
        let mut put = |source, (read, written)| {
            readings.whole_counter(source, Metric::VmIoReadBytes, read);
            readings.whole_counter(source, Metric::VmIoWrittenBytes, written);
        };
        let refused = match self.io.parse(buffer, io) {
            Ok(bytes) => return put(Source::Proc, bytes),
            Err(error) => error,
        };
        match self.group.as_mut().and_then(|group| group.io(buffer)) {
            Some(Ok(bytes)) => put(Source::CgroupV2, bytes),
            Some(Err(error)) => self.lacks_io(&error),
            None => self.lacks_io(&refused),
        }
    }

    fn lacks_io(&mut self, error: &ReadError) {
        let why = chain(error);
        self.absences.extend([Metric::VmIoReadBytes, Metric::VmIoWrittenBytes].map(|m| (m, why.clone())));
    }

    fn read_vcpus(&mut self, buffer: &mut Buffer, readings: &mut Readings) {
        if self.reads.is_multiple_of(THREADS_EVERY) {
            self.vcpus = vcpu_threads(&self.dir, self.keep);
        }
        self.reads += 1;
        let mut whole = true;
        for (instance, file) in &mut self.vcpus {
            match file.parse(buffer, schedstat) {
                Ok([ran, waited]) => {
                    readings.counter(Source::Proc, Metric::VmVcpuTime, instance, ran);
                    readings.counter(Source::Proc, Metric::VmVcpuDelay, instance, waited);
                }
                Err(error) => {
                    whole = false;
                    tracing::trace!(error = chain(&error), "a vCPU's thread was not read");
                }
            }
        }
        if self.vcpus.is_empty() || !whole {
            let why = "none of QEMU's threads is named after a vCPU";
            let why = if whole { why } else { "a vCPU's thread has gone" };
            self.absences.extend([Metric::VmVcpuTime, Metric::VmVcpuDelay].map(|m| (m, why.to_owned())));
            self.reads = 0;
        }
    }
}

#[cfg(feature = "libvirt")]
/// The argument after `-uuid` in a command line as `/proc` has it.
fn uuid_argument(line: &[u8]) -> Option<VmUuid> {
    let mut arguments = line.split(|&byte| byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    std::str::from_utf8(arguments.next()?).ok()?.parse().ok()
}

/// QEMU names its threads `CPU 0/KVM` and `CPU 0/TCG`, as libvirt asks it to.
fn vcpu_threads(dir: &Path, keep: Keep) -> Vec<(Arc<str>, KeptFile)> {
    let mut found: Vec<(u32, KeptFile)> = Vec::new();
    for entry in fs::read_dir(dir.join("task")).into_iter().flatten().flatten() {
        let thread = entry.path();
        let name = fs::read(thread.join("comm")).unwrap_or_default();
        if let Some(number) = vcpu_number(&name) {
            found.push((number, KeptFile::new(thread.join("schedstat"), Shape::Whole, keep)));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(number, file)| (Arc::from(number.to_string()), file)).collect()
}

fn vcpu_number(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name.get(..name.len().min(LONGEST_NAME))?).ok()?;
    name.strip_prefix("CPU ")?.split_once('/')?.0.parse().ok()
}

/// The name, in parentheses, may hold anything: the last one ends it.
fn stat(text: &str) -> Result<Stat, Malformed> {
    let rest = text.rfind(')').map(|end| &text[end + 1..]).ok_or(Malformed("no process name"))?;
    // The state follows, as the third field of the file.
    let mut fields = rest.split_ascii_whitespace().skip(1);
    // 4 to 13 are not needed; 14 and 15 are user and system time; 22 is the start, 24 the resident pages.
    let mut skipped = |count: usize| fields.nth(count).and_then(|field| field.parse::<u64>().ok());
    let short = Malformed("too few fields");
    let user = skipped(10).ok_or(short)?;
    let system = skipped(0).ok_or(short)?;
    let started = skipped(6).ok_or(short)?;
    let resident_pages = skipped(1).ok_or(short)?;
    Ok(Stat { cpu_ticks: user.saturating_add(system), started, resident_pages })
}

fn io(text: &str) -> Result<(u64, u64), Malformed> {
    let value = |key: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)).ok_or(Malformed("a key is missing"))?;
        line.trim().parse().map_err(|_| Malformed("not a number"))
    };
    Ok((value("read_bytes:")?, value("write_bytes:")?))
}

/// Time on a core and time waiting for one, in nanoseconds.
fn schedstat(text: &str) -> Result<[u64; 2], Malformed> {
    numbers(&mut text.split_ascii_whitespace(), "too few fields")
}

/// The time that was so many nanoseconds after boot.
fn unix_ms(boottime_ns: u64, now: Taken) -> i64 {
    let ago_ms = now.boottime_ns.saturating_sub(boottime_ns) / 1_000_000;
    now.unix_ms.saturating_sub(i64::try_from(ago_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[cfg(feature = "libvirt")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::{Reading, Value};

    #[test]
    fn a_start_is_a_time_of_the_wall_clock() {
        let now = Taken { unix_ms: 1_000_000, boottime_ns: 90_000_000_000 };
        assert_eq!(unix_ms(47_110_000_000, now), 1_000_000 - 42_890);
        assert_eq!(unix_ms(91_000_000_000, now), 1_000_000, "of another machine's /proc");
    }

    const UUID: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const STAT: &str = "77 (qemu) system-x8)) S 1 77 77 0 -1 138412352 1 0 9 0 120 30 0 0 20 0 5 0 4711 734003200 \
        25600 18446744073709551615 1 1 0 0 0 0 0 4096 81923 0 0 0 17 1 0 0 0 0 0\n";

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn qemu(&self, pid: u32, group: &str) {
            let at = format!("proc/{pid}");
            self.write(&format!("{at}/cmdline"), &format!("qemu\0-name\0web\0-uuid\0{UUID}\0-m\096\0"));
            self.write(&format!("{at}/stat"), STAT);
            self.write(&format!("{at}/cgroup"), group);
            self.write(&format!("{at}/io"), "rchar: 5\nread_bytes: 4096\nwrite_bytes: 8192\n");
            self.write(&format!("{at}/task/{pid}/comm"), "qemu-system-x86\n");
            self.write(&format!("{at}/task/90/comm"), "CPU 0/KVM\n");
            self.write(&format!("{at}/task/90/schedstat"), "1000 50 7\n");
        }

        fn find(&self) -> (Processes, Result<Process, String>) {
            let uuid = UUID.parse().unwrap();
            let mut processes = Processes::new(self.0.path());
            let found = processes.find(&[uuid], 0).remove(&uuid).unwrap();
            (processes, found)
        }
    }

    fn value(readings: &[Reading], metric: Metric) -> Option<Value> {
        readings.iter().find(|reading| reading.metric == metric).map(|reading| reading.value)
    }

    #[test]
    fn a_process_gives_its_times_memory_and_io() {
        let host = Host::new();
        host.qemu(77, "0::/machine/qemu-1-web.libvirt-qemu/emulator\n");
        let (mut processes, found) = host.find();
        let mut process = found.unwrap();
        let mut readings = Readings::new(&Arc::from(""), 0);
        assert_eq!(process.read(&mut processes, &mut readings), Outcome::Read);
        let readings = readings.into_list();
        let ticks = 150 * processes.ns_per_tick;
        assert_eq!(value(&readings, Metric::VmCpuTime), Some(Value::Counter(ticks)));
        let bytes = (25600 * processes.page_bytes) as f64;
        assert_eq!(value(&readings, Metric::VmMemoryResident), Some(Value::Gauge(bytes)));
        assert_eq!(value(&readings, Metric::VmIoWrittenBytes), Some(Value::Counter(8192)));
        assert_eq!(value(&readings, Metric::VmVcpuTime), Some(Value::Counter(1000)));
        assert_eq!(process.absences, vec![]);
    }

    #[test]
    fn another_process_under_the_same_number_is_not_the_vm() {
        let host = Host::new();
        host.qemu(77, "");
        let (mut processes, found) = host.find();
        let mut process = found.unwrap();
        host.write("proc/77/stat", &STAT.replace(" 4711 ", " 4712 "));
        let mut readings = Readings::new(&Arc::from(""), 0);
        assert_eq!(process.read(&mut processes, &mut readings), Outcome::Gone);
        assert_eq!(readings.len(), 0);
    }

    #[test]
    fn of_several_processes_with_the_uuid_the_one_in_libvirt_s_group_is_the_vm() {
        let host = Host::new();
        host.qemu(77, "0::/machine/qemu-1-web.libvirt-qemu/emulator\n");
        host.qemu(78, "0::/user.slice\n");
        assert!(host.find().1.unwrap().dir.ends_with("77"));
        host.qemu(79, "0::/machine/qemu-9-fake.libvirt-qemu\n");
        assert_eq!(host.find().1.unwrap_err(), "several processes have this VM's uuid");
    }

    #[test]
    fn io_that_may_not_be_read_is_absent_with_the_reason() {
        let host = Host::new();
        host.qemu(77, "");
        host.write("proc/77/io", "nonsense\n");
        let (mut processes, found) = host.find();
        let mut process = found.unwrap();
        let mut readings = Readings::new(&Arc::from(""), 0);
        process.read(&mut processes, &mut readings);
        assert_eq!(value(&readings.into_list(), Metric::VmIoReadBytes), None);
        let reasons: Vec<_> =
            process.absences.iter().map(|(metric, why)| (*metric, why.contains("io"))).collect();
        assert_eq!(reasons, [(Metric::VmIoReadBytes, true), (Metric::VmIoWrittenBytes, true)]);
    }

    #[test]
    fn a_vm_without_a_process_is_told() {
        let host = Host::new();
        host.write("proc/self-is-no-number/cmdline", "");
        assert_eq!(host.find().1.unwrap_err(), "no process with this VM's uuid is in /proc");
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "([0-9]{1,22}|\\)|\\(| |S|read_bytes:|write_bytes:|\\n|.){0,60}") {
            prop_assert!(stat(&text).is_err() || text.contains(')'));
            prop_assert!(io(&text).is_err() || text.contains("write_bytes:"));
            prop_assert!(schedstat(&text).is_err() || text.bytes().any(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(uuid_argument(text.as_bytes()), None);
            prop_assert_eq!(vcpu_number(text.as_bytes()), None);
        }
    }
}
