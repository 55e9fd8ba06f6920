//! The metric catalogue as a table, made by the build from `horcrux/v1/metrics.proto`.

pub use crate::v1::{EntityKind, Kind, Metric, Unit};

/// What one metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricInfo {
    pub metric: Metric,
    /// Unique, without its unit, in snake case.
    pub name: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    pub entity: EntityKind,
    pub help: &'static str,
    /// What tells its instances apart, for instance `device`; empty when it has none.
    pub instance: &'static str,
    /// The counter whose rate this gauge is.
    pub rate_of: Option<Metric>,
    /// The controller computes it in a way of its own.
    pub derived: bool,
}

/// Every metric, in the order of the enum.
pub const CATALOGUE: &[MetricInfo] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

impl MetricInfo {
    /// An agent measures it; otherwise the controller computes it.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.rate_of.is_none() && !self.derived
    }
}

/// What `metric` is; `None` for `Metric::Unspecified`.
#[must_use]
pub fn info(metric: Metric) -> Option<&'static MetricInfo> {
    CATALOGUE.binary_search_by_key(&(metric as i32), |i| i.metric as i32).ok().map(|at| &CATALOGUE[at])
}

/// The metric called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static MetricInfo> {
    CATALOGUE.iter().find(|i| i.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(CATALOGUE.is_sorted_by_key(|i| i.metric as i32));
        for entry in CATALOGUE {
            assert_eq!(info(entry.metric), Some(entry));
        }
        assert_eq!(info(Metric::Unspecified), None);
    }

    #[test]
    fn names_are_unique_and_start_with_their_entity() {
        let names: HashSet<_> = CATALOGUE.iter().map(|i| i.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for entry in CATALOGUE {
            let entity = entry.entity.as_str_name().trim_start_matches("ENTITY_KIND_").to_lowercase();
            assert!(entry.name.starts_with(&entity), "{} is of a {entity}", entry.name);
        }
    }

    #[test]
    fn a_rate_is_of_a_counter_of_the_same_entity() {
        for (rate, counter) in CATALOGUE.iter().filter_map(|i| i.rate_of.and_then(info).map(|c| (i, c))) {
            assert_eq!(counter.kind, Kind::Counter, "{}", rate.name);
            assert_eq!(counter.entity, rate.entity, "{}", rate.name);
            assert_eq!(counter.instance, rate.instance, "{}", rate.name);
        }
    }
}
