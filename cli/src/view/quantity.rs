//! Numbers with their units, for people.

use horcrux_proto::v1::Unit;

const DECIMAL: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1.5 GiB`.
#[must_use]
pub fn bytes(value: f64) -> String {
    let mut value = value;
    let mut unit = 0;
    // 1023.95 would be rounded to 1024.0.
    while value.abs() >= 1023.95 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", BINARY[unit]) }
}

/// A whole number of bytes from the contract.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn whole_bytes(value: u64) -> String {
    bytes(value as f64)
}

/// `3d 4h`, `5m 6s`, `7.2s`, `8ms`, `80µs`: the two largest parts.
#[must_use]
pub fn seconds(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let value = value.abs();
    if value < 0.000_999_5 && value > 0.0 {
        return format!("{sign}{:.0}µs", value * 1e6);
    }
    if value < 1.0 {
        return format!("{sign}{:.0}ms", value * 1000.0);
    }
    if value < 59.95 {
        return format!("{sign}{value:.1}s");
    }
    let whole = value.round();
    let parts = |large: f64, small: f64, names: (&str, &str)| {
        let first = (whole / large).floor();
        let second = ((whole - first * large) / small).floor();
        format!("{sign}{first:.0}{} {second:.0}{}", names.0, names.1)
    };
    if whole < 3600.0 {
        parts(60.0, 1.0, ("m", "s"))
    } else if whole < 86400.0 {
        parts(3600.0, 60.0, ("h", "m"))
    } else {
        parts(86400.0, 3600.0, ("d", "h"))
    }
}

/// `2.5 Gbit/s`: of network links, where a thousand is a thousand.
#[must_use]
pub fn bits_per_second(value: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    while value.abs() >= 999.95 && unit + 1 < DECIMAL.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0).round() / 10.0;
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", DECIMAL[unit])
}

/// Milliseconds, as [`seconds`].
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn millis(value: i64) -> String {
    seconds(value as f64 / 1000.0)
}

/// A value of the catalogue.
#[must_use]
pub fn with_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => bytes(value),
        Unit::BytesPerSecond => format!("{}/s", bytes(value)),
        Unit::Nanoseconds => seconds(value / 1e9),
        Unit::Seconds => seconds(value),
        Unit::Percent => format!("{value:.1} %"),
        Unit::PerSecond => format!("{}/s", plain(value)),
        Unit::Celsius => format!("{value:.1} °C"),
        Unit::Rpm => format!("{value:.0} rpm"),
        Unit::BitsPerSecond => bits_per_second(value),
        Unit::Count | Unit::Unspecified => plain(value),
    }
}

/// What the unit adds to a metric's name where the value is raw.
#[must_use]
pub fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "_bytes",
        Unit::BytesPerSecond => "_bytes_per_second",
        Unit::Nanoseconds => "_ns",
        Unit::Seconds => "_seconds",
        Unit::Percent => "_percent",
        Unit::PerSecond => "_per_second",
        Unit::Celsius => "_celsius",
        Unit::Rpm => "_rpm",
        Unit::BitsPerSecond => "_bits_per_second",
        Unit::Count | Unit::Unspecified => "",
    }
}

fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_never_round_up_to_1024() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.0), "1023 B");
        assert_eq!(bytes(1024.0 * 1023.99), "1.0 MiB");
        assert_eq!(whole_bytes(16 << 30), "16.0 GiB");
        assert_eq!(whole_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn durations_show_their_two_largest_parts() {
        assert_eq!(seconds(0.008), "8ms");
        assert_eq!(seconds(7.24), "7.2s");
        assert_eq!(seconds(306.0), "5m 6s");
        assert_eq!(seconds(59.97), "1m 0s");
        assert_eq!(seconds(7_260.0), "2h 1m");
        assert_eq!(seconds(273_600.0), "3d 4h");
        assert_eq!(millis(-1500), "-1.5s");
    }

    #[test]
    fn values_come_with_their_unit() {
        assert_eq!(with_unit(1536.0, Unit::BytesPerSecond), "1.5 KiB/s");
        assert_eq!(with_unit(12.34, Unit::Percent), "12.3 %");
        assert_eq!(with_unit(3.0, Unit::Count), "3");
        assert_eq!(with_unit(0.5, Unit::PerSecond), "0.50/s");
        assert_eq!(with_unit(2e9, Unit::Nanoseconds), "2.0s");
        assert_eq!(with_unit(80_400.0, Unit::Nanoseconds), "80µs");
        assert_eq!(with_unit(0.0, Unit::Nanoseconds), "0ms");
        assert_eq!(with_unit(45.125, Unit::Celsius), "45.1 °C");
        assert_eq!(with_unit(1200.0, Unit::Rpm), "1200 rpm");
        assert_eq!(with_unit(1e10, Unit::BitsPerSecond), "10 Gbit/s");
        assert_eq!(with_unit(2.5e9, Unit::BitsPerSecond), "2.5 Gbit/s");
    }
}
