//! A server that proves itself and then talks nonsense.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Authority, Part, free_port, node_js};

#[derive(Debug)]
pub struct Parrot {
    pub port: u16,
    authority: Authority,
    _part: Part,
    _dir: TempDir,
}

impl Parrot {
    /// Says `bytes` whatever it is told. They go on a command line: 64 KiB at most.
    pub fn start(bytes: &[u8]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::make(dir.path())?;
        let script = dir.path().join("parrot.mjs");
        fs::write(&script, include_str!("parrot.mjs"))?;
        let port = free_port()?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let arguments =
            [&script.display().to_string(), &port.to_string(), &dir.path().display().to_string(), &hex];
        let part = Part::start(&node_js(), &arguments.map(String::as_str), &[port])?;
        Ok(Self { port, authority, _part: part, _dir: dir })
    }

    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.authority.ca()
    }
}
