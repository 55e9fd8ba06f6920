//! One chip's directory in sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::read::{ReadError, read_text};

/// What a directory tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chip {
    /// With the device that it is on, so that it stays the same whatever else is found: `nvme0`, `k10temp 0000:00:18.3`.
    pub(super) name: String,
    pub(super) sensors: Vec<Sensor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Temperature,
    Fan,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sensor {
    pub(super) kind: Kind,
    /// Unique in its chip.
    pub(super) label: String,
    pub(super) max: Option<f64>,
    pub(super) critical: Option<f64>,
    input: PathBuf,
    /// Says 1 while the sensor is broken or not connected.
    fault: Option<PathBuf>,
}

/// Colder and hotter than any machine: a sensor that isn't connected often reads -273 or 16 bits of ones.
const PLAUSIBLE_MILLIDEGREES: std::ops::RangeInclusive<i64> = -100_000..=300_000;
/// No fan turns faster.
const PLAUSIBLE_RPM: std::ops::RangeInclusive<i64> = 0..=100_000;

/// What the chip is called; None where it isn't there. This reads nothing from the chip itself.
pub(super) fn chip_name(dir: &Path) -> Option<String> {
    let name = read_text(&dir.join("name")).ok()?.trim().to_owned();
    let device = fs::read_link(dir.join("device")).ok();
    let device =
        device.as_deref().and_then(Path::file_name).map(|device| device.to_string_lossy().into_owned());
    Some(match device {
        Some(device) if device.starts_with(&name) => device,
        Some(device) => format!("{name} {device}"),
        None => name,
    })
}

/// Sensors and their limits. Limits may be read from the chip, so this can take long.
pub(super) fn chip(dir: &Path) -> Result<Chip, ReadError> {
    let io = |source| ReadError::Io { path: dir.to_path_buf(), source };
    let name = chip_name(dir).ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
    let mut inputs: Vec<(Kind, u32)> = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)?.flatten() {
        inputs.extend(entry.file_name().to_str().and_then(input_number));
    }
    inputs.sort_unstable();
    let mut sensors: Vec<Sensor> = Vec::with_capacity(inputs.len());
    for (kind, number) in inputs {
        let stem = format!("{}{number}", kind.word());
        let file = |what: &str| dir.join(format!("{stem}_{what}"));
        let label = read_text(&file("label")).ok().map(|text| text.trim().to_owned());
        let label = match label.filter(|label| !label.is_empty()) {
            Some(label) if sensors.iter().any(|other| other.label == label) => format!("{label} ({stem})"),
            Some(label) => label,
            None => stem.clone(),
        };
        let limit = |what: &str| {
            let text = (kind == Kind::Temperature).then(|| read_text(&file(what)).ok()).flatten()?;
            value(kind, &text).ok()
        };
        sensors.push(Sensor {
            kind,
            label,
            max: limit("max"),
            critical: limit("crit"),
            input: file("input"),
            fault: Some(file("fault")).filter(|path| path.exists()),
        });
    }
    Ok(Chip { name, sensors })
}

/// `temp12_input`.
fn input_number(file: &str) -> Option<(Kind, u32)> {
    let stem = file.strip_suffix("_input")?;
    [Kind::Temperature, Kind::Fan]
        .into_iter()
        .find_map(|kind| Some((kind, stem.strip_prefix(kind.word())?.parse().ok()?)))
}

/// What a sensor says now.
pub(super) fn input(sensor: &Sensor) -> Result<f64, String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| error.to_string());
    if let Some(fault) = &sensor.fault
        && read(fault)?.trim() == "1"
    {
        return Err("its chip says that it is broken or not connected".to_owned());
    }
    value(sensor.kind, &read(&sensor.input)?)
}

/// Degrees or revolutions per minute.
fn value(kind: Kind, text: &str) -> Result<f64, String> {
    let (plausible, per_unit) = match kind {
        Kind::Temperature => (PLAUSIBLE_MILLIDEGREES, 1000.0),
        Kind::Fan => (PLAUSIBLE_RPM, 1.0),
    };
    let number: i32 = text.trim().parse().map_err(|_| "not a number".to_owned())?;
    if plausible.contains(&i64::from(number)) {
        Ok(f64::from(number) / per_unit)
    } else {
        Err(format!("it says {number}, which can't be"))
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Temperature => "temp",
            Self::Fan => "fan",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_in_degrees_and_revolutions() {
        assert_eq!(value(Kind::Temperature, "45125\n"), Ok(45.125));
        assert_eq!(value(Kind::Temperature, "-5000\n"), Ok(-5.0));
        assert_eq!(value(Kind::Fan, "1200\n"), Ok(1200.0));
    }

    #[test]
    fn what_cannot_be_is_not_taken_for_a_value() {
        assert!(value(Kind::Temperature, "-273150\n").is_err());
        assert!(value(Kind::Fan, "-1\n").is_err());
        assert!(value(Kind::Fan, "").is_err());
    }

    #[test]
    fn only_inputs_of_temperatures_and_fans_are_sensors() {
        assert_eq!(input_number("temp12_input"), Some((Kind::Temperature, 12)));
        assert_eq!(input_number("fan1_input"), Some((Kind::Fan, 1)));
        for other in ["in0_input", "temp1_max", "temp_input", "tempx_input", "fan1_input_x", ""] {
            assert_eq!(input_number(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(temp|fan|_input|[0-9]{1,22}|-|\\n|.){0,20}") {
            let _kind = input_number(&text);
            if let Ok(value) = value(Kind::Temperature, &text) {
                prop_assert!(value.is_finite());
            }
        }
    }
}
