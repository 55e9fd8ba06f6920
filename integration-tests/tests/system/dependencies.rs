//! Who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    metadata_with(&["--no-deps"])
}

fn metadata_with(more: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let command = ["metadata", "--format-version=1", "--offline"];
    let output = Command::new(cargo).args(command).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of all that is built into `package`, itself included.
fn tree(package: &str) -> BTreeSet<String> {
    let metadata = metadata_with(&["--filter-platform=x86_64-unknown-linux-gnu"]);
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = |id: &str| nodes.iter().find(|node| node["id"] == id).unwrap();
    let start = name_of.iter().find(|(_, name)| **name == package).unwrap().0;
    let mut seen = BTreeSet::from([*start]);
    let mut next = vec![*start];
    while let Some(id) = next.pop() {
        for dependency in node(id)["deps"].as_array().unwrap() {
            // What only builds or tests it isn't in it.
            let is_in_it =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str().unwrap();
            if is_in_it && seen.insert(id) {
                next.push(id);
            }
        }
    }
    seen.into_iter().map(|id| name_of[id].to_owned()).collect()
}

fn dependencies(metadata: &Value, package: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let found =
        packages.iter().find(|p| p["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
    found["dependencies"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_sides_of_the_wire_do_not_know_each_other() {
    let metadata = metadata();
    let sides = ["horcrux-agentd", "horcrux-controld", "horcruxctl"];
    for side in sides {
        let of = dependencies(&metadata, side);
        assert!(of.contains("horcrux-proto") && of.contains("horcrux-transport"), "{side}: {of:?}");
        for other in sides.iter().filter(|other| **other != side) {
            assert!(!of.contains(*other), "{side} depends on {other}");
        }
    }
    // What both sides compute alike is below them, and knows neither.
    for below in ["horcrux-proto", "horcrux-transport", "horcrux-live"] {
        let of = dependencies(&metadata, below);
        assert!(sides.iter().all(|side| !of.contains(*side)), "{below}: {of:?}");
    }
    assert!(!dependencies(&metadata, "horcrux-proto").contains("horcrux-transport"));
    assert!(!dependencies(&metadata, "horcrux-transport").contains("horcrux-proto"));
}

#[test]
fn rustls_is_named_by_the_transport_alone() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let of = dependencies(&metadata, name);
        let tls =
            of.iter().any(|d| d.contains("rustls") || d.contains("openssl") || d.contains("native-tls"));
        assert_eq!(tls, name == "horcrux-transport", "{name}: {of:?}");
    }
}

#[test]
fn programs_with_a_privilege_have_no_tls_no_grpc_and_no_runtime_in_them() {
    // Of HTTP a parser at most.
    let refused = [
        "tokio",
        "mio",
        "async-io",
        "async-std",
        "smol",
        "futures-executor",
        "hyper",
        "h2",
        "http",
        "axum",
        "tower",
        "tonic",
        "rustls",
        "ring",
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
        "reqwest",
        "ureq",
    ];
    // Who signs and who opens what was signed have the same, and no more.
    for program in ["horcrux-privd", "horcrux-pamd", "horcrux-envelope"] {
        let tree = tree(program);
        assert!(tree.contains("thiserror"), "{program}: {tree:?}");
        let found: Vec<_> = refused.into_iter().filter(|name| tree.contains(*name)).collect();
        assert_eq!(found, [""; 0], "{program}");
    }
    assert!(tree("horcrux-agentd").contains("tokio"), "a tree that has it shows it");
    let privd = tree("horcrux-privd");
    assert!(privd.contains("horcrux-local") && privd.contains("horcrux-envelope") && privd.contains("virt"));
    assert!(!tree("horcrux-envelope").contains("virt"));
}

/// The lines of code of a file, without its tests, comments and what is empty.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    own.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// Rust files below a directory, but those of tests.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_acts_on_a_host_is_small_and_has_nothing_unsafe() {
    let privd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agentd/privd/src");
    let texts: Vec<String> = sources(&privd).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let lines: usize = texts.iter().map(|text| code(text).count()).sum();
    assert!((1000..=2500).contains(&lines), "{lines} lines of code");
    for head in ["main.rs", "lib.rs"] {
        let text = fs::read_to_string(privd.join(head)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{head}");
    }
}
