//! The dashboards of deploy/grafana, as Grafana would read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A dashboard.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) file: String,
    pub(super) json: Value,
}

/// What a panel asks for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Where it is found: file, panel, letter.
    pub(super) place: String,
    pub(super) expression: String,
    pub(super) legend: String,
}

/// A list to choose from that Prometheus fills.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) place: String,
    pub(super) selector: String,
    pub(super) label: String,
}

/// What Grafana would put for a variable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) job: &'a str,
    pub(super) instance: &'a str,
}

pub(super) fn deploy(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(below)
}

pub(super) fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

impl Board {
    pub(super) fn all() -> Vec<Self> {
        let files = fs::read_dir(deploy("grafana")).unwrap().map(|entry| entry.unwrap().path());
        let boards = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut boards: Vec<Self> = boards.map(|path| Self::read(&path)).collect();
        boards.sort_by(|a, b| a.file.cmp(&b.file));
        boards
    }

    fn read(path: &Path) -> Self {
        let json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        Self { file: path.file_name().unwrap().to_str().unwrap().to_owned(), json }
    }

    /// Panels that are laid out together: those of the board, then those of each row that is folded.
    pub(super) fn layers(&self) -> Vec<&[Value]> {
        let top = list(&self.json["panels"]);
        let folded = top.iter().map(|panel| list(&panel["panels"]));
        std::iter::once(top).chain(folded.filter(|panels| !panels.is_empty())).collect()
    }

    pub(super) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.layers().into_iter().flatten()
    }

    pub(super) fn targets(&self, chosen: Chosen<'_>) -> Vec<Target> {
        let of_panel = |panel: &Value| {
            let title = text(panel, "title").to_owned();
            let targets = list(&panel["targets"]).iter();
            targets
                .map(|target| Target {
                    place: format!("{}: {title}: {}", self.file, text(target, "refId")),
                    expression: self.filled(text(target, "expr"), chosen),
                    legend: text(target, "legendFormat").to_owned(),
                })
                .collect::<Vec<_>>()
        };
        self.panels().flat_map(of_panel).collect()
    }

    pub(super) fn variables(&self) -> &[Value] {
        list(&self.json["templating"]["list"])
    }

    pub(super) fn choices(&self, chosen: Chosen<'_>) -> Vec<Choice> {
        let queries = self.variables().iter().filter(|variable| variable["type"] == "query");
        queries
            .map(|variable| {
                let query = self.filled(text(&variable["query"], "query"), chosen);
                let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
                let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).unwrap();
                Choice {
                    place: format!("{}: ${}", self.file, text(variable, "name")),
                    selector: selector.to_owned(),
                    label: label.to_owned(),
                }
            })
            .collect()
    }

    /// With a value in place of each variable, as Grafana does it.
    fn filled(&self, expression: &str, chosen: Chosen<'_>) -> String {
        let mut filled = expression.to_owned();
        for (name, value) in [("__rate_interval", "10s"), ("__range", "30s")] {
            filled = filled.replace(&format!("${name}"), value);
        }
        for variable in self.variables() {
            let value = match (text(variable, "name"), variable["multi"].as_bool()) {
                ("job", _) => chosen.job,
                ("instance", _) => chosen.instance,
                // "All", of which Grafana makes the alternatives.
                (_, Some(true)) => variable["allValue"].as_str().unwrap_or(".+"),
                _ => text(&variable["current"], "value"),
            };
            filled = filled.replace(&format!("${}", text(variable, "name")), value);
        }
        assert!(!filled.contains('$'), "{}: a variable that there is not: {filled}", self.file);
        filled
    }
}

/// The labels that a legend shows.
pub(super) fn shown(legend: &str) -> BTreeSet<&str> {
    let parts = legend.split("{{").skip(1);
    parts.map(|part| part.split_once("}}").map_or(part, |(label, _)| label).trim()).collect()
}
