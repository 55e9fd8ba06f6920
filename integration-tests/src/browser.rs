//! A real browser on the controller's page, driven by `clients/browser/page.mjs`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{Controller, PATIENCE, node_js};

/// Ended when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Browser {
    /// Opens the page, signs in as the controller's administrator and waits for live data.
    pub fn open(controller: &Controller) -> anyhow::Result<Self> {
        Self::start(controller, &["admin", &controller.path("password")])
    }

    /// Opens the page where one signs in.
    pub fn at_the_door(controller: &Controller) -> anyhow::Result<Self> {
        Self::start(controller, &[])
    }

    fn start(controller: &Controller, who: &[&str]) -> anyhow::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/browser");
        if !here.join("node_modules").exists() {
            bail!("{} is not installed: integration-tests/all does it", here.display());
        }
        let mut command = controller.command(&node_js());
        command.arg(here.join("page.mjs")).arg(controller.url()).args(who);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("run node")?;
        let questions = child.stdin.take().context("the script listens")?;
        let lines = BufReader::new(child.stdout.take().context("the script answers")?).lines();
        // One question is asked at a time.
        let (put, answers) = sync_channel(1);
        thread::Builder::new().name("browser".to_owned()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                if put.send(line).is_err() {
                    return;
                }
            }
        })?;
        let browser = Self { child, questions, answers };
        // It starts on a busy machine, and waits for the page itself.
        let ready = browser.answers.recv_timeout(PATIENCE * 2).context("the page is not there")?;
        if ready.contains("\"ready\":true") { Ok(browser) } else { bail!("the page is not there: {ready}") }
    }

    pub fn ask(&mut self, question: &str) -> anyhow::Result<Value> {
        writeln!(self.questions, "{question}")?;
        let answer =
            self.answers.recv_timeout(PATIENCE * 2).with_context(|| format!("no answer to {question}"))?;
        let answer: Value = serde_json::from_str(&answer)?;
        match answer.get("failed") {
            Some(why) => bail!("{question}: {why}"),
            None => Ok(answer),
        }
    }

    /// What the page shows of one thing.
    pub fn row(&mut self, resource: &str) -> anyhow::Result<Value> {
        let mut page = self.ask("read")?;
        let rows = page["rows"].as_array_mut().context("rows")?;
        let at = rows.iter().position(|row| row["resource"] == resource);
        let at = at.with_context(|| format!("{resource} is not shown"))?;
        Ok(rows.swap_remove(at))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("the browser did not end");
        }
    }
}
