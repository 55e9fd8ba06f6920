//! What node_exporter says of a mount besides its point: the device and the type of file system.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::host::mounts::mounts;
use crate::host::read::{chain, read_text};
use crate::sample::Taken;

use super::text::label;

/// Read again when file systems were.
#[derive(Debug)]
pub(super) struct MountLabels {
    mountinfo: PathBuf,
    of: Option<Taken>,
    /// By mount point, as they are written.
    labels: HashMap<String, String>,
}

impl MountLabels {
    pub(super) fn new(mountinfo: PathBuf) -> Self {
        Self { mountinfo, of: None, labels: HashMap::new() }
    }

    /// `taken`: when file systems were read last.
    pub(super) fn refresh(&mut self, taken: Option<Taken>) {
        if taken.is_none() || taken == self.of {
            return;
        }
        match read_text(&self.mountinfo) {
            Ok(text) => {
                self.of = taken;
                // A line that can't be read is the file system lane's to report.
                let mounts = mounts(&text).unwrap_or_default();
                self.labels.clear();
                // Of two at one point the later hides the earlier.
                for mount in mounts {
                    let mut labels = String::new();
                    label(&mut labels, "device", &mount.source);
                    labels.push(',');
                    label(&mut labels, "fstype", mount.filesystem);
                    self.labels.insert(mount.point, labels);
                }
            }
            Err(error) => tracing::debug!(error = chain(&error), "mounts are exported without their device"),
        }
    }

    /// Empty when nothing is known of it.
    pub(super) fn of(&self, point: &str) -> &str {
        self.labels.get(point).map_or("", String::as_str)
    }
}
