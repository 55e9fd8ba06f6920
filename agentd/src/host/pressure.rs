//! Pressure stall information, of the machine or of one group: the two have one format
//! (Linux, Documentation/accounting/psi.rst).

use crate::host::read::Malformed;

/// One line: some task waited, or every task did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stall {
    /// Over 10, 60 and 300 s.
    pub(crate) averages_percent: [f64; 3],
    pub(crate) total_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pressure {
    pub(crate) some: Stall,
    /// Linux before 5.13 has none for the CPU.
    pub(crate) full: Option<Stall>,
}

pub(crate) fn pressure(text: &str) -> Result<Pressure, Malformed> {
    let mut some = None;
    let mut full = None;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            Some("some") => some = Some(stall(fields)?),
            Some("full") => full = Some(stall(fields)?),
            _ => {}
        }
    }
    Ok(Pressure { some: some.ok_or(Malformed("no line `some`"))?, full })
}

const AVERAGES: [&str; 3] = ["avg10", "avg60", "avg300"];

fn stall<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Stall, Malformed> {
    let mut averages = [None; AVERAGES.len()];
    let mut total_us: Option<u64> = None;
    for field in fields {
        let Some((key, value)) = field.split_once('=') else { continue };
        if let Some(at) = AVERAGES.iter().position(|average| *average == key) {
            averages[at] = value.parse().ok().filter(|value: &f64| value.is_finite());
        } else if key == "total" {
            total_us = value.parse().ok();
        }
    }
    match (averages, total_us) {
        ([Some(short), Some(middle), Some(long)], Some(total_us)) => {
            let total_ns = total_us.saturating_mul(1000);
            Ok(Stall { averages_percent: [short, middle, long], total_ns })
        }
        _ => Err(Malformed("a line lacks an average or total")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn microseconds_become_nanoseconds() {
        let memory = pressure(include_str!("../../testdata/proc/hybrid/pressure/cpu")).unwrap();
        assert!(memory.some.total_ns > 45_000_000_000, "{memory:?}");
        assert_eq!(memory.full.unwrap().total_ns, 0);
    }

    #[test]
    fn a_kernel_without_full_for_the_cpu_gives_some_alone() {
        let cpu = pressure("some avg10=1.25 avg60=0.10 avg300=0.00 total=7\n").unwrap();
        assert_eq!(
            cpu,
            Pressure { some: Stall { averages_percent: [1.25, 0.1, 0.0], total_ns: 7000 }, full: None }
        );
    }

    #[test]
    fn a_line_cut_short_is_refused() {
        assert!(pressure("some avg10=0.00 avg60=0.00\n").is_err());
        assert!(pressure("").is_err());
    }

    proptest! {
        #[test]
        fn pressure_never_panics(text in "(some|full|avg10=|avg60=|avg300=|total=|[0-9.]{1,25}| |\\n|.){0,40}") {
            let _pressure = pressure(&text);
        }
    }
}
