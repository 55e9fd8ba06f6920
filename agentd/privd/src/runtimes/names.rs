//! Runtimes that keep a file or a directory for each container, by its name: LXC, and what registers with systemd-machined.

use std::path::Path;

use horcrux_privd::v1::{Container, State};

use super::{Silence, content, entries};

/// A directory for each container. No daemon knows their states: the kernel does, below `groups`.
pub(super) fn lxc(dir: &Path, groups: &Path) -> Result<Vec<Container>, Silence> {
    let has_config = |name: &String| dir.join(name).join("config").exists();
    let told = |name: String| Container { state: frozen_or_not(groups, &name).into(), ..named(name) };
    Ok(entries(dir)?.into_iter().filter(has_config).map(told).collect())
}

/// By the freezer of v1, or of v2. Unspecified where there is no group that LXC would make: it doesn't run, or its
/// settings name another.
fn frozen_or_not(groups: &Path, name: &str) -> State {
    let v1 = (format!("freezer/lxc.payload.{name}/freezer.state"), "FROZEN");
    let v2 = (format!("lxc.payload.{name}/cgroup.freeze"), "1");
    for (file, frozen) in [v1, v2] {
        // A group that goes while it is read is of a container that ended.
        if let Ok(Some(text)) = content(&groups.join(file)) {
            return if text.trim_ascii() == frozen.as_bytes() { State::Paused } else { State::Running };
        }
    }
    State::Unspecified
}

/// systemd-machined's own record of each machine, of systemd-nspawn or others.
pub(super) fn machines(dir: &Path) -> Result<Vec<Container>, Silence> {
    let mut machines = Vec::new();
    // `unit:…` are links from units to machines.
    for name in entries(dir)?.into_iter().filter(|name| !name.starts_with("unit:")) {
        let Some(text) = content(&dir.join(&name))? else { continue };
        let text = String::from_utf8_lossy(&text);
        if value(&text, "CLASS") == "vm" {
            continue;
        }
        // It is there while the machine is.
        let state = State::Running.into();
        machines.push(Container { image: value(&text, "ROOT"), state, ..named(name) });
    }
    Ok(machines)
}

fn named(name: String) -> Container {
    Container { id: name.clone(), name, ..Container::default() }
}

/// Of a line `KEY=VALUE`. systemd escapes what a shell would take for more than text by a backslash, and may quote it.
fn value(text: &str, key: &str) -> String {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_default();
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut plain = String::with_capacity(bare.len());
    let mut characters = bare.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_be_quoted_and_escaped() {
        let text = "# comment\nNAME=deb\nROOTS=no\nROOT=\"/var/lib/machines/a \\\"b\\\"\"\n";
        assert_eq!(value(text, "ROOT"), "/var/lib/machines/a \"b\"");
        assert_eq!(value(text, "NAME"), "deb");
        assert_eq!(value(text, "CLASS"), "");
    }
}
