//! What a scraper says that it takes.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::text::Format;

/// Prometheus' text, unless OpenMetrics is asked for and liked as much.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
    for (name, parameters, quality) in items(headers, &ACCEPT) {
        let version = |wanted: &str| {
            let mut versions = parameters.clone().filter_map(|p| p.strip_prefix("version="));
            versions.next().is_none_or(|version| version.trim_matches('"') == wanted)
        };
        if name.eq_ignore_ascii_case("application/openmetrics-text") && version("1.0.0") {
            open_metrics = open_metrics.max(quality);
        } else if name.eq_ignore_ascii_case("text/plain") && version("0.0.4") {
            text = text.max(quality);
        }
    }
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Prometheus }
}

pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let quality = |wanted: &str| {
        let mut found =
            items(headers, &ACCEPT_ENCODING).filter(|(name, ..)| name.eq_ignore_ascii_case(wanted));
        found.next().map(|(_, _, quality)| quality)
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality| quality > 0.0)
}

/// What a header lists: each thing, its parameters, and how much it is liked.
fn items<'a>(
    headers: &'a HeaderMap,
    header: &'a HeaderName,
) -> impl Iterator<Item = (&'a str, impl Iterator<Item = &'a str> + Clone, f32)> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let quality = parts.clone().find_map(|part| part.strip_prefix("q=")).map_or(1.0, quality);
        (name, parts, quality)
    })
}

fn quality(text: &str) -> f32 {
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(header: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn text_is_the_default_and_openmetrics_is_for_who_asks() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                          version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("*/*", Format::Prometheus),
            ("text/plain;version=0.0.4", Format::Prometheus),
            (
                "text/plain;version=0.0.4;q=0.8, application/openmetrics-text; version=1.0.0; q=0.1",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(format(&with(ACCEPT, accept)), expected, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Prometheus);
    }

    #[test]
    fn gzip_is_for_who_takes_it() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("br", false),
        ] {
            assert_eq!(takes_gzip(&with(ACCEPT_ENCODING, accept)), expected, "{accept}");
        }
    }
}
