//! Resource pools and tags.

use horcrux_proto::v1::{Pool, Tagged};
use serde::Serialize;

use super::table::{Facts, Table};
use super::{View, bare, list_or_dash, shown, text_or_dash};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolView {
    pub name: String,
    pub comment: String,
    pub members: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PoolListView(pub Vec<PoolView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaggedView {
    pub name: String,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TaggedListView(pub Vec<TaggedView>);

impl From<&Pool> for PoolView {
    fn from(wire: &Pool) -> Self {
        Self { name: wire.name.clone(), comment: wire.comment.clone(), members: wire.members.clone() }
    }
}

impl From<&Tagged> for TaggedView {
    fn from(wire: &Tagged) -> Self {
        Self { name: wire.name.clone(), tags: wire.tags.clone() }
    }
}

impl View for PoolListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no pools that you may see\n".to_owned();
        }
        let mut table = Table::new(&["NAME", "COMMENT", "MEMBERS"]);
        for pool in &self.0 {
            table.row(vec![
                shown(bare(&pool.name)),
                text_or_dash(&pool.comment),
                list_or_dash(&pool.members),
            ]);
        }
        table.text()
    }
}

impl View for PoolView {
    fn table(&self, _now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("name", shown(bare(&self.name)));
        facts.fact("comment", text_or_dash(&self.comment));
        facts.fact("members", list_or_dash(&self.members));
        facts.text()
    }
}

impl View for TaggedListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "nothing has tags\n".to_owned();
        }
        let mut table = Table::new(&["RESOURCE", "TAGS"]);
        for object in &self.0 {
            table.row(vec![shown(&object.name), list_or_dash(&object.tags)]);
        }
        table.text()
    }
}

impl View for TaggedView {
    fn table(&self, _now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("resource", shown(&self.name));
        facts.fact("tags", list_or_dash(&self.tags));
        facts.text()
    }
}
