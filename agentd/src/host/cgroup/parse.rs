//! What controllers write into their files.

use crate::host::read::Malformed;

/// A ceiling such as `memory.max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit<T> {
    Unlimited,
    At(T),
}

/// I/O of one group with one block device, or as one of v1's files has it, the half of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceIo {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// v1 has no word for "unlimited" but `LONG_MAX` rounded down to a page, and pages are of 4 to 64 KiB. No memory is as
/// large as half of that.
const V1_UNLIMITED: u64 = 1 << 62;

pub(super) fn number(text: &str) -> Result<u64, Malformed> {
    text.trim_end().parse().map_err(|_| Malformed("not a number"))
}

/// `memory.max`, `pids.max`.
pub(super) fn limit(text: &str) -> Result<Limit<u64>, Malformed> {
    if text.trim_end() == "max" { Ok(Limit::Unlimited) } else { number(text).map(Limit::At) }
}

/// `memory.limit_in_bytes`.
pub(super) fn v1_memory_limit(text: &str) -> Result<Limit<u64>, Malformed> {
    number(text).map(|bytes| if bytes >= V1_UNLIMITED { Limit::Unlimited } else { Limit::At(bytes) })
}

/// `cpu.max`: how much in what period. In cores.
pub(super) fn cpu_max(text: &str) -> Result<Limit<f64>, Malformed> {
    let (quota, period) = text.trim_end().split_once(' ').ok_or(Malformed("no period"))?;
    if quota == "max" { Ok(Limit::Unlimited) } else { cores(number(quota)?, number(period)?) }
}

/// `cpu.cfs_quota_us`, which is -1 without a limit.
pub(super) fn v1_quota(text: &str) -> Result<Limit<u64>, Malformed> {
    if text.trim_end() == "-1" { Ok(Limit::Unlimited) } else { number(text).map(Limit::At) }
}

pub(super) fn cores(quota: u64, period: u64) -> Result<Limit<f64>, Malformed> {
    if period == 0 { Err(Malformed("a period of 0")) } else { Ok(Limit::At(quota as f64 / period as f64)) }
}

/// Values of the wanted keys of a file of `key value` lines. A key may be missing; a value that is no number may not.
pub(super) fn keyed<const N: usize>(text: &str, wanted: [&str; N]) -> Result<[Option<u64>; N], Malformed> {
    let mut values = [None; N];
    for line in text.lines() {
        let (key, value) = line.split_once(' ').ok_or(Malformed("a line has no value"))?;
        if let Some(at) = wanted.iter().position(|wanted| *wanted == key) {
            values[at] = Some(number(value)?);
        }
    }
    Ok(values)
}

/// `io.stat`: bytes and operations of each device. A device may be listed without any.
pub(super) fn io_stat(text: &str) -> Result<Vec<(&str, DeviceIo, DeviceIo)>, Malformed> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().ok_or(Malformed("a line without a device"))?;
        let (mut bytes, mut operations, mut known) = (DeviceIo::default(), DeviceIo::default(), 0);
        for field in fields {
            let Some((key, value)) = field.split_once('=') else { continue };
            let slot = match key {
                "rbytes" => &mut bytes.read,
                "wbytes" => &mut bytes.written,
                "rios" => &mut operations.read,
                "wios" => &mut operations.written,
                _ => continue,
            };
            *slot = number(value)?;
            known += 1;
        }
        // All four or none: half of a line is a line cut short.
        match known {
            0 => {}
            4 => devices.push((device, bytes, operations)),
            _ => return Err(Malformed("a device lacks values")),
        }
    }
    Ok(devices)
}

/// `blkio.throttle.io_service_bytes` and `…io_serviced`: a line for each device and direction, then the total.
pub(super) fn v1_blkio(text: &str) -> Result<Vec<(&str, DeviceIo)>, Malformed> {
    let mut devices: Vec<(&str, DeviceIo)> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(device), Some(direction)) = (fields.next(), fields.next()) else {
            return Err(Malformed("a line without a direction"));
        };
        let Some(value) = fields.next() else {
            // `Total N` closes the list.
            if device == "Total" { continue } else { return Err(Malformed("a line without a value")) }
        };
        if devices.last().is_none_or(|(last, _)| *last != device) {
            devices.push((device, DeviceIo::default()));
        }
        let Some((_, io)) = devices.last_mut() else { continue };
        match direction {
            "Read" => io.read = number(value)?,
            "Write" => io.written = number(value)?,
            _ => {}
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn max_is_no_limit_and_never_a_number() {
        assert_eq!(limit("max\n"), Ok(Limit::Unlimited));
        assert_eq!(limit("4096\n"), Ok(Limit::At(4096)));
        assert_eq!(v1_memory_limit("9223372036854771712\n"), Ok(Limit::Unlimited));
        assert_eq!(v1_memory_limit("268435456\n"), Ok(Limit::At(268_435_456)));
        assert_eq!(cpu_max("max 100000\n"), Ok(Limit::Unlimited));
        assert_eq!(v1_quota("-1\n"), Ok(Limit::Unlimited));
        assert!(limit("").is_err());
    }

    #[test]
    fn a_cpu_limit_is_in_cores() {
        assert_eq!(cpu_max("150000 100000\n"), Ok(Limit::At(1.5)));
        assert!(cpu_max("150000 0\n").is_err());
        assert!(cpu_max("150000\n").is_err());
    }

    #[test]
    fn keys_of_a_real_memory_stat_are_found() {
        let text = include_str!("../../../testdata/cgroup/v1/memory.stat");
        let values = keyed(text, ["total_inactive_file", "total_cache", "missing"]).unwrap();
        assert_eq!(values, [Some(94208), Some(180_224), None]);
        assert!(keyed("anon 12\nfile\n", ["anon"]).is_err());
        assert!(keyed("anon x\n", ["anon"]).is_err());
    }

    #[test]
    fn io_stat_has_both_directions_of_each_device() {
        let text = include_str!("../../../testdata/cgroup/v2/io.stat");
        let devices = io_stat(text).unwrap();
        let bytes = DeviceIo { read: 90_430_464, written: 299_008_000 };
        assert_eq!(devices[0], ("8:16", bytes, DeviceIo { read: 8950, written: 1252 }));
        assert_eq!(devices.len(), 2);
        assert!(io_stat("8:16 rbytes=1 wbytes=\n").is_err());
        assert!(io_stat("8:16 rbytes=1\n").is_err());
    }

    #[test]
    fn blkio_discards_and_totals_are_left_out() {
        let text = include_str!("../../../testdata/cgroup/v1/blkio.throttle.io_service_bytes_recursive");
        let devices = v1_blkio(text).unwrap();
        assert_eq!(devices[0], ("254:0", DeviceIo { read: 20_971_520, written: 41_943_040 }));
        assert_eq!(devices.len(), 2);
        assert_eq!(v1_blkio("Total 0\n"), Ok(Vec::new()));
        assert!(v1_blkio("254:0 Read\n").is_err());
        assert!(v1_blkio("254:0\n").is_err());
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "(max|-1|[0-9]{1,22}|[0-9]+:[0-9]+| |Read|rbytes=|wios=|Total|\\n|.){0,40}") {
            let _limits = (limit(&text), v1_memory_limit(&text), cpu_max(&text), v1_quota(&text));
            let _lists = (keyed(&text, ["max"]), io_stat(&text), v1_blkio(&text));
        }
    }
}
