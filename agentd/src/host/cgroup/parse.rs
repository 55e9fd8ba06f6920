//! cgroup files as values. Pure.

/// A ceiling such as `memory.max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Unlimited,
    At(u64),
}

/// Traffic of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    /// `MAJOR:MINOR`.
    pub(super) device: String,
    pub(super) read_bytes: Option<u64>,
    pub(super) written_bytes: Option<u64>,
    pub(super) reads: Option<u64>,
    pub(super) writes: Option<u64>,
}

/// v1 has no word for "unlimited": it shows the largest page-aligned number, which differs between kernels. No machine
/// has this much memory.
const V1_UNLIMITED: u64 = 1 << 60;

pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value behind `key` in lines of `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

pub(super) fn limit(text: &str) -> Option<Limit> {
    match text.trim() {
        "max" | "-1" => Some(Limit::Unlimited),
        number => {
            number.parse().ok().map(|n| if n >= V1_UNLIMITED { Limit::Unlimited } else { Limit::At(n) })
        }
    }
}

/// `cpu.max`: quota and period in microseconds, as cores. `None` inside when there is no limit.
pub(super) fn cpu_max(text: &str) -> Option<Option<f64>> {
    let (quota, period) = text.trim().split_once(' ')?;
    match limit(quota)? {
        Limit::Unlimited => Some(None),
        Limit::At(quota) => cores(quota, period.parse().ok()?).map(Some),
    }
}

/// Microseconds of quota in a period, as cores.
pub(super) fn cores(quota: u64, period: u64) -> Option<f64> {
    let float = horcrux_proto::rates::float;
    (period > 0).then(|| float(quota) / float(period))
}

/// The total of one line of a pressure file, in microseconds.
pub(super) fn pressure_total(text: &str, line: &str) -> Option<u64> {
    let fields = text.lines().find_map(|l| l.strip_prefix(line))?;
    fields.split_ascii_whitespace().find_map(|f| f.strip_prefix("total="))?.parse().ok()
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
pub(super) fn io_stat(text: &str) -> Vec<Io> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let mut io = Io { device: words.next()?.to_owned(), ..Io::default() };
            for word in words {
                let Some((key, value)) = word.split_once('=') else { continue };
                let value = value.parse().ok();
                match key {
                    "rbytes" => io.read_bytes = value,
                    "wbytes" => io.written_bytes = value,
                    "rios" => io.reads = value,
                    "wios" => io.writes = value,
                    _ => {}
                }
            }
            // A device that the group never used has a bare line.
            io.read_bytes.is_some().then_some(io)
        })
        .collect()
}

/// v1's `blkio.throttle.io_service_bytes` and `io_serviced`: lines of `8:0 Read 1`.
pub(super) fn blkio(bytes: &str, operations: &str) -> Vec<Io> {
    let mut all: Vec<Io> = Vec::new();
    let lines = |text| str::lines(text).map(|line: &str| line.split_ascii_whitespace().collect::<Vec<_>>());
    for (is_bytes, words) in lines(bytes).map(|w| (true, w)).chain(lines(operations).map(|w| (false, w))) {
        let [device, what, value] = words.as_slice() else { continue };
        let Ok(value) = value.parse() else { continue };
        let at = all.iter().position(|io| io.device == *device).unwrap_or_else(|| {
            all.push(Io { device: (*device).to_owned(), ..Io::default() });
            all.len() - 1
        });
        match (*what, is_bytes) {
            ("Read", true) => all[at].read_bytes = Some(value),
            ("Write", true) => all[at].written_bytes = Some(value),
            ("Read", false) => all[at].reads = Some(value),
            ("Write", false) => all[at].writes = Some(value),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unlimited_ceiling_is_not_a_number() {
        assert_eq!(limit("max\n"), Some(Limit::Unlimited));
        assert_eq!(limit("9223372036854771712\n"), Some(Limit::Unlimited), "v1 on x86-64");
        assert_eq!(limit("67108864\n"), Some(Limit::At(67_108_864)));
        assert_eq!(limit("-1"), Some(Limit::Unlimited), "v1 cpu.cfs_quota_us");
        assert_eq!(limit("x"), None);
        assert_eq!(cpu_max("max 100000\n"), Some(None));
        assert_eq!(cpu_max("50000 100000\n"), Some(Some(0.5)));
        assert_eq!(cpu_max("50000 0\n"), None);
    }

    #[test]
    fn a_key_is_the_whole_word() {
        let text = "oom 1\noom_kill 3\noom_group_kill 5\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "kill"), None);
    }

    #[test]
    fn traffic_is_by_device() {
        let v2 = io_stat("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n");
        assert_eq!(v2.len(), 1);
        assert_eq!((v2[0].read_bytes, v2[0].writes), (Some(4096), Some(2)));
        let v1 = blkio("254:0 Read 5\n254:0 Write 6\n254:0 Total 11\nTotal 11\n", "254:0 Read 1\n");
        let expected = Io {
            device: "254:0".into(),
            read_bytes: Some(5),
            written_bytes: Some(6),
            reads: Some(1),
            writes: None,
        };
        assert_eq!(v1, [expected]);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[a-zA-Z0-9 :=.\n-]{0,200}") {
            limit(&text);
            cpu_max(&text);
            keyed(&text, "oom");
            pressure_total(&text, "some");
            io_stat(&text);
            blkio(&text, &text);
        }
    }
}
