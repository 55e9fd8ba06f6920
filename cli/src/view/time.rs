//! Moments, for people: always UTC.

use super::quantity::millis;

/// `2026-08-04T12:00:00Z`.
#[must_use]
pub fn utc(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000);
    let (year, month, day) = civil(seconds.div_euclid(86400));
    format!("{year:04}-{month:02}-{day:02}T{}Z", clock(seconds))
}

/// `12:00:00Z`.
#[must_use]
pub fn utc_clock(unix_ms: i64) -> String {
    format!("{}Z", clock(unix_ms.div_euclid(1000)))
}

/// `5m 6s ago`; `in 5m 6s`.
#[must_use]
pub fn ago(unix_ms: i64, now_ms: i64) -> String {
    let age = now_ms.saturating_sub(unix_ms);
    if age < 0 { format!("in {}", millis(age.saturating_neg())) } else { format!("{} ago", millis(age)) }
}

fn clock(seconds: i64) -> String {
    let of_day = seconds.rem_euclid(86400);
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The date that is `days` after 1970-01-01 in the Gregorian calendar. Counted from 0000-03-01, so that the leap day is
/// the last of its year; 146097 days are 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
        assert_eq!(utc(4_102_444_800_000), "2100-01-01T00:00:00Z");
        assert_eq!(utc_clock(951_827_696_000), "12:34:56Z");
    }

    #[test]
    fn ages_know_the_future() {
        assert_eq!(ago(0, 306_000), "5m 6s ago");
        assert_eq!(ago(306_000, 0), "in 5m 6s");
    }
}
