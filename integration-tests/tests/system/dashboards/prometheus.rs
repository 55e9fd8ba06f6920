//! A real Prometheus in a node of a lab, and what it answers.

use std::fs;

use anyhow::Context as _;
use horcrux_integration_tests::Daemon;
use horcrux_integration_tests::lab::Lab;
use serde_json::Value;
use tempfile::TempDir;

use super::board::{Choice, deploy};
use crate::alone::tool;

/// Nothing else listens on a lab node's loopback.
const ADDRESS: &str = "127.0.0.1:9090";

#[derive(Debug)]
pub(super) struct Prometheus {
    _daemon: Daemon,
    dir: TempDir,
}

impl Prometheus {
    /// Scrapes each job's address every second.
    pub(super) fn start(lab: &Lab, jobs: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let rules = deploy("prometheus/horcrux.rules.yml").canonicalize().unwrap();
        let mut config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{rules:?}]\nscrape_configs:\n"
        );
        for (job, address) in jobs {
            let target = format!("  - job_name: {job}\n    static_configs: [{{targets: [{address:?}]}}]\n");
            config.push_str(&target);
        }
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut command = lab.command(1, &tool("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .arg("--log.level=warn");
        let daemon = Daemon::start(command, &dir.path().join("log"))
            .context("prometheus: integration-tests/install unpacks it")
            .unwrap();
        Self { _daemon: daemon, dir }
    }

    /// What each query selects.
    pub(super) fn query<'a>(
        &self,
        lab: &Lab,
        queries: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<Vec<Value>> {
        let queries = queries.map(|query| request("query", &[("query", query)]));
        let answers = self.ask(lab, &queries.collect::<Vec<_>>())?;
        answers.into_iter().map(|mut answer| Ok(answer["data"]["result"].take())).collect()
    }

    /// What there is to choose from.
    pub(super) fn choices<'a>(
        &self,
        lab: &Lab,
        choices: impl Iterator<Item = &'a Choice>,
    ) -> anyhow::Result<Vec<Value>> {
        let of = |choice: &Choice| {
            let path = format!("label/{}/values", choice.label);
            request(&path, &[("match[]", &choice.selector)])
        };
        let answers = self.ask(lab, &choices.map(of).collect::<Vec<_>>())?;
        Ok(answers.into_iter().map(|mut answer| answer["data"].take()).collect())
    }

    /// What the API has at a path.
    pub(super) fn get(&self, lab: &Lab, path: &str) -> anyhow::Result<Value> {
        let mut answers = self.ask(lab, &[request(path, &[])])?;
        Ok(answers.remove(0)["data"].take())
    }

    /// All in one run of curl: two hundred would take a minute.
    fn ask(&self, lab: &Lab, requests: &[String]) -> anyhow::Result<Vec<Value>> {
        let file = self.dir.path().join("requests");
        fs::write(&file, requests.join("next\n"))?;
        let said = lab.exec(1, &["curl", "--config", file.to_str().context("a path of text")?])?;
        let answers: Vec<Value> =
            serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>()?;
        anyhow::ensure!(answers.len() == requests.len(), "{said}");
        for (answer, request) in answers.iter().zip(requests) {
            anyhow::ensure!(answer["status"] == "success", "{request}: {answer}");
        }
        Ok(answers)
    }
}

/// A request as curl's configuration has it.
fn request(path: &str, parameters: &[(&str, &str)]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut request = format!("silent\nshow-error\nget\nurl = \"http://{ADDRESS}/api/v1/{path}\"\n");
    for (name, value) in parameters {
        request.push_str(&format!("data-urlencode = \"{name}={}\"\n", quoted(value)));
    }
    request
}
