//! `/proc/diskstats`: whole disks, and their sum.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use horcrux_proto::v1::{Disk, Metric, Source};

use crate::host::read::{Malformed, numbers};
use crate::host::readings::Readings;

/// Fields of a line after the name (Linux, Documentation/admin-guide/iostats.rst).
const FIELDS: usize = 11;
/// The kernel counts in sectors of 512 bytes whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;
const NS_PER_MS: u64 = 1_000_000;

/// What a line of diskstats is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// A disk that something below this kernel provides, virtio included: it has a device in sysfs.
    Physical,
    /// Made by this kernel of others (dm, md) or of the network (nbd, rbd). Not in the sum, which would count twice.
    Virtual,
    /// A partition, a loop, memory, a path that is hidden behind another, a drive without a medium.
    Skipped,
}

/// The disks of the machine, and how each is to be counted.
#[derive(Debug)]
pub(super) struct Disks {
    /// `/sys/block`: what it lists is whole.
    block: PathBuf,
    known: HashMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    instance: Arc<str>,
    class: Class,
    /// Of one that isn't skipped.
    facts: Option<Disk>,
}

/// Disks that are told of; their values go on.
const MOST_TOLD: usize = 1024;

impl Disks {
    pub(super) fn new(block: PathBuf) -> Self {
        Self { block, known: HashMap::new() }
    }

    /// Has every disk looked up anew: names are used again, and media change.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// What there is, by name, as it was looked up last.
    pub(super) fn facts(&self) -> Vec<Disk> {
        let mut all: Vec<Disk> = self.known.values().filter_map(|known| known.facts.clone()).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all.truncate(MOST_TOLD);
        all
    }

    pub(super) fn read(&mut self, text: &str, readings: &mut Readings) -> Result<(), Malformed> {
        let lines = diskstats(text)?;
        let mut sum: Option<[u64; FIELDS]> = None;
        for (name, fields) in &lines {
            let (instance, class) = self.disk(name);
            match class {
                Class::Skipped => continue,
                Class::Virtual => {}
                Class::Physical => {
                    let sum = sum.get_or_insert([0; FIELDS]);
                    for (sum, field) in sum.iter_mut().zip(fields) {
                        *sum = sum.wrapping_add(*field);
                    }
                }
            }
            emit(readings, &instance, fields);
        }
        if self.known.len() > lines.len() {
            // Their names may be used again, by others.
            self.known.retain(|known, _| lines.iter().any(|(name, _)| name == known));
        }
        if let Some(sum) = sum {
            emit(readings, &Arc::from(""), &sum);
        }
        Ok(())
    }

    fn disk(&mut self, name: &str) -> (Arc<str>, Class) {
        if let Some(known) = self.known.get(name) {
            return (Arc::clone(&known.instance), known.class);
        }
        let (instance, class) = (Arc::from(name), self.class(name));
        let facts = (class != Class::Skipped).then(|| self.look(name));
        self.known.insert(name.to_owned(), Known { instance: Arc::clone(&instance), class, facts });
        (instance, class)
    }

    fn look(&self, name: &str) -> Disk {
        let dir = self.dir(name);
        let text = |file: &str| fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned());
        let sectors: Option<u64> = text("size").and_then(|sectors| sectors.parse().ok());
        let rotational = text("queue/rotational");
        Disk {
            name: name.to_owned(),
            model: text("device/model").filter(|model| !model.is_empty()),
            size_bytes: sectors.map(|sectors| sectors.saturating_mul(SECTOR_BYTES)),
            rotational: rotational.filter(|flag| !flag.is_empty()).map(|flag| flag == "1"),
        }
    }

    /// sysfs writes the `/` of a name such as `cciss/c0d0` as `!`.
    fn dir(&self, name: &str) -> PathBuf {
        self.block.join(name.replace('/', "!"))
    }

    fn class(&self, name: &str) -> Class {
        const MEMORY_OR_FILES: [&str; 3] = ["loop", "ram", "zram"];
        let dir = self.dir(name);
        let says =
            |file: &str, text: &str| fs::read_to_string(dir.join(file)).is_ok_and(|t| t.trim() == text);
        if MEMORY_OR_FILES.iter().any(|prefix| name.starts_with(prefix))
            || !dir.is_dir()
            || says("hidden", "1")
            || says("size", "0")
        {
            Class::Skipped
        } else if dir.join("device").exists() {
            Class::Physical
        } else {
            Class::Virtual
        }
    }
}

fn diskstats(text: &str) -> Result<Vec<(&str, [u64; FIELDS])>, Malformed> {
    const CUT: &str = "a disk lacks fields";
    let line = |line| {
        let mut fields = str::split_ascii_whitespace(line);
        let name = fields.nth(2).ok_or(Malformed(CUT))?;
        Ok((name, numbers(&mut fields, CUT)?))
    };
    text.lines().map(line).collect()
}

fn emit(readings: &mut Readings, instance: &Arc<str>, fields: &[u64; FIELDS]) {
    let [reads, _, read_sectors, read_ms, writes, _, written_sectors, write_ms, in_flight, busy_ms, queue_ms] =
        *fields;
    let counters = [
        (Metric::NodeDiskReadBytes, read_sectors.saturating_mul(SECTOR_BYTES)),
        (Metric::NodeDiskWrittenBytes, written_sectors.saturating_mul(SECTOR_BYTES)),
        (Metric::NodeDiskReads, reads),
        (Metric::NodeDiskWrites, writes),
        (Metric::NodeDiskReadTime, read_ms.saturating_mul(NS_PER_MS)),
        (Metric::NodeDiskWriteTime, write_ms.saturating_mul(NS_PER_MS)),
        (Metric::NodeDiskBusyTime, busy_ms.saturating_mul(NS_PER_MS)),
        (Metric::NodeDiskQueueTime, queue_ms.saturating_mul(NS_PER_MS)),
    ];
    for (metric, value) in counters {
        readings.counter(Source::Proc, metric, instance, value);
    }
    readings.gauge(Source::Proc, Metric::NodeDiskInFlight, instance, in_flight as f64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::{Reading, Value};

    const TEXT: &str = include_str!("../../../testdata/proc/hybrid/diskstats");

    fn read(text: &str, disks: &[(&str, &[(&str, &str)])]) -> Vec<Reading> {
        let dir = tempfile::tempdir().unwrap();
        for (name, files) in disks {
            let disk = dir.path().join(name);
            fs::create_dir(&disk).unwrap();
            for (file, text) in *files {
                fs::write(disk.join(file), text).unwrap();
            }
        }
        let mut readings = Readings::new(&Arc::from(""), 0);
        Disks::new(dir.path().to_path_buf()).read(text, &mut readings).unwrap();
        readings.into_list()
    }

    fn read_bytes(readings: &[Reading]) -> Vec<(&str, Value)> {
        let of = |reading: &&Reading| reading.metric == Metric::NodeDiskReadBytes;
        readings.iter().filter(of).map(|reading| (&*reading.instance, reading.value)).collect()
    }

    #[test]
    fn loops_and_memory_are_no_disks() {
        let readings = read(TEXT, &[("vda", &[("device", "")]), ("loop0", &[]), ("zram0", &[])]);
        let line = TEXT.lines().find(|line| line.contains("vda")).unwrap();
        let sectors: u64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
        let bytes = Value::Counter(sectors * 512);
        assert_eq!(read_bytes(&readings), [("vda", bytes), ("", bytes)]);
    }

    #[test]
    fn the_sum_counts_what_a_partition_and_a_mapping_pass_on_once() {
        let text = "   8 0 sda 1 0 10 1 1 0 20 1 0 1 1\n   8 1 sda1 1 0 10 1 1 0 20 1 0 1 1\n \
                    253 0 dm-0 1 0 10 1 1 0 20 1 0 1 1\n   8 16 sdb 1 0 5 1 1 0 20 1 3 1 1 0 0 0 0 0 0\n";
        let readings = read(text, &[("sda", &[("device", "")]), ("dm-0", &[]), ("sdb", &[("device", "")])]);
        let expected = [("sda", 10), ("dm-0", 10), ("sdb", 5), ("", 15)];
        let expected = expected.map(|(name, sectors)| (name, Value::Counter(sectors * 512)));
        assert_eq!(read_bytes(&readings), expected);
    }

    #[test]
    fn a_hidden_path_and_an_empty_drive_are_skipped() {
        let text = " 259 1 nvme0c0n1 1 0 10 1 1 0 20 1 0 1 1\n  11 0 sr0 0 0 0 0 0 0 0 0 0 0 0\n";
        let hidden: &[(&str, &str)] = &[("device", ""), ("hidden", "1\n")];
        let empty: &[(&str, &str)] = &[("device", ""), ("size", "0\n")];
        assert_eq!(read(text, &[("nvme0c0n1", hidden), ("sr0", empty)]), []);
    }

    #[test]
    fn a_disk_is_told_with_its_model_and_size() {
        let dir = tempfile::tempdir().unwrap();
        for inner in ["sda/device", "sda/queue", "dm-0", "loop0"] {
            fs::create_dir_all(dir.path().join(inner)).unwrap();
        }
        for (file, text) in
            [("sda/size", "2048\n"), ("sda/queue/rotational", "1\n"), ("sda/device/model", "WDC WD40  \n")]
        {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let mut disks = Disks::new(dir.path().to_path_buf());
        let text = "   8 0 sda 1 0 10 1 1 0 20 1 0 1 1\n 253 0 dm-0 1 0 10 1 1 0 20 1 0 1 1\n\
                    7 0 loop0 1 0 10 1 1 0 20 1 0 1 1\n";
        disks.read(text, &mut Readings::new(&Arc::from(""), 0)).unwrap();
        let sda = Disk {
            name: "sda".into(),
            model: Some("WDC WD40".into()),
            size_bytes: Some(1 << 20),
            rotational: Some(true),
        };
        assert_eq!(disks.facts(), [Disk { name: "dm-0".into(), ..Disk::default() }, sda]);
    }

    #[test]
    fn without_a_physical_disk_there_is_no_sum() {
        let readings = read(" 253 0 dm-0 1 0 10 1 1 0 20 1 0 1 1\n", &[("dm-0", &[])]);
        assert_eq!(read_bytes(&readings).len(), 1);
    }

    #[test]
    fn a_line_cut_short_refuses_the_file() {
        assert!(diskstats(" 254 0 vda 1 2 3\n").is_err());
        assert!(diskstats("\n").is_err());
    }

    proptest! {
        #[test]
        fn diskstats_never_panics(text in "([0-9]{1,22} |[a-z/.]{1,5} |\\n|.){0,60}") {
            let _lines = diskstats(&text);
        }
    }
}
