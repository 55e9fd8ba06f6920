//! The fleet as a watcher knows it: one reducer over the stream's messages. Pure.

use std::collections::BTreeMap;

use horcrux_proto::v1::{Entity, Event, Metric, MetricsFrame, WatchResponse, entity, watch_response};

/// Everything that the stream has told.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    rows: BTreeMap<u32, Row>,
    /// A snapshot is coming in: what is here is replaced by it.
    filling: bool,
    pub(crate) complete: bool,
}

/// One object with its newest values.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) object: entity::Object,
    pub(crate) values: BTreeMap<(i32, String), f64>,
    pub(crate) taken_unix_ms: Option<i64>,
}

/// What one message changed, for those who print changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Change {
    /// Slots with new facts or values.
    pub(crate) touched: Vec<u32>,
    pub(crate) events: Vec<Event>,
    /// Ticks and events that were missed.
    pub(crate) gap: Option<(u64, u64)>,
}

impl Fleet {
    pub(crate) fn row(&self, slot: u32) -> Option<&Row> {
        self.rows.get(&slot)
    }

    pub(crate) fn apply(&mut self, message: WatchResponse) -> Change {
        let mut change = Change::default();
        match message.message {
            None | Some(watch_response::Message::Hello(_) | watch_response::Message::Heartbeat(_)) => {}
            Some(watch_response::Message::Gap(gap)) => {
                change.gap = Some((gap.missed_ticks, gap.missed_events));
            }
            Some(watch_response::Message::Snapshot(snapshot)) => {
                if !self.filling {
                    self.rows.clear();
                    (self.filling, self.complete) = (true, false);
                }
                self.upsert(snapshot.entities, &mut change);
                self.values(&snapshot.frames, &mut change);
                if snapshot.complete {
                    (self.filling, self.complete) = (false, true);
                }
            }
            Some(watch_response::Message::Changes(changes)) => {
                for slot in changes.gone {
                    self.rows.remove(&slot);
                }
                self.upsert(changes.entities, &mut change);
                self.values(&changes.frames, &mut change);
                change.events = changes.events;
            }
        }
        change.touched.sort_unstable();
        change.touched.dedup();
        change
    }

    fn upsert(&mut self, entities: Vec<Entity>, change: &mut Change) {
        for entity in entities {
            let Some(object) = entity.object else { continue };
            change.touched.push(entity.slot);
            match self.rows.get_mut(&entity.slot) {
                Some(row) => row.object = object,
                None => {
                    let row = Row { object, values: BTreeMap::new(), taken_unix_ms: None };
                    self.rows.insert(entity.slot, row);
                }
            }
        }
    }

    fn values(&mut self, frames: &[MetricsFrame], change: &mut Change) {
        for frame in frames {
            for (at, slot) in frame.slots.iter().enumerate() {
                let Some(row) = self.rows.get_mut(slot) else { continue };
                change.touched.push(*slot);
                let age = frame.age_ms.get(at).copied().unwrap_or(0);
                row.taken_unix_ms = Some(frame.newest_unix_ms - i64::from(age));
                for column in &frame.columns {
                    let key = (column.metric, column.instance.clone());
                    let bytes = column.values.get(at * 4..at * 4 + 4).and_then(|b| b.try_into().ok());
                    match bytes.map(f32::from_le_bytes).filter(|value| !value.is_nan()) {
                        Some(value) => row.values.insert(key, f64::from(value)),
                        None => row.values.remove(&key),
                    };
                }
            }
        }
    }
}

impl Row {
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        self.values.get(&(metric.into(), String::new())).copied()
    }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::{Changes, Gap, MetricColumn, Node, Snapshot, watch_response::Message};

    use super::*;

    fn message(message: Message) -> WatchResponse {
        WatchResponse { message: Some(message) }
    }

    fn node(slot: u32, name: &str) -> Entity {
        let node = Node { name: name.into(), ..Node::default() };
        Entity { slot, object: Some(entity::Object::Node(node)) }
    }

    fn load(slots: &[u32], values: &[f32]) -> MetricsFrame {
        MetricsFrame {
            slots: slots.to_vec(),
            age_ms: vec![5; slots.len()],
            newest_unix_ms: 100,
            columns: vec![MetricColumn {
                metric: Metric::NodeLoad1m.into(),
                instance: String::new(),
                values: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
            }],
            ..MetricsFrame::default()
        }
    }

    #[test]
    fn a_snapshot_in_pieces_replaces_what_was_known() {
        let mut fleet = Fleet::default();
        let piece =
            |entities, complete| message(Message::Snapshot(Snapshot { entities, frames: vec![], complete }));
        fleet.apply(piece(vec![node(1, "nodes/a")], false));
        assert!(!fleet.complete);
        fleet.apply(piece(vec![node(2, "nodes/b")], true));
        assert!(fleet.complete && fleet.row(1).is_some() && fleet.row(2).is_some());
        fleet.apply(piece(vec![node(3, "nodes/c")], true));
        assert!(fleet.row(1).is_none() && fleet.row(3).is_some());
    }

    #[test]
    fn a_value_that_is_not_a_number_is_absent() {
        let mut fleet = Fleet::default();
        let frames = vec![load(&[1, 2], &[0.5, f32::NAN])];
        let entities = vec![node(1, "nodes/a"), node(2, "nodes/b")];
        fleet.apply(message(Message::Snapshot(Snapshot { entities, frames, complete: true })));
        assert_eq!(fleet.row(1).unwrap().value(Metric::NodeLoad1m), Some(0.5));
        assert_eq!(fleet.row(2).unwrap().value(Metric::NodeLoad1m), None);
        assert_eq!(fleet.row(1).unwrap().taken_unix_ms, Some(95));
        let frames = vec![load(&[1], &[f32::NAN])];
        fleet.apply(message(Message::Changes(Changes { frames, ..Changes::default() })));
        assert_eq!(fleet.row(1).unwrap().value(Metric::NodeLoad1m), None);
    }

    #[test]
    fn a_short_column_makes_nothing_up() {
        let mut fleet = Fleet::default();
        let frames = vec![load(&[1, 2], &[0.5])];
        let entities = vec![node(1, "nodes/a"), node(2, "nodes/b")];
        fleet.apply(message(Message::Snapshot(Snapshot { entities, frames, complete: true })));
        assert_eq!(fleet.row(2).unwrap().value(Metric::NodeLoad1m), None);
    }

    #[test]
    fn what_is_gone_is_gone_and_a_gap_is_told() {
        let mut fleet = Fleet::default();
        let entities = vec![node(1, "nodes/a")];
        fleet.apply(message(Message::Snapshot(Snapshot { entities, frames: vec![], complete: true })));
        fleet.apply(message(Message::Changes(Changes { gone: vec![1], ..Changes::default() })));
        assert!(fleet.row(1).is_none());
        let change = fleet.apply(message(Message::Gap(Gap { missed_ticks: 3, missed_events: 1 })));
        assert_eq!(change.gap, Some((3, 1)));
    }
}
