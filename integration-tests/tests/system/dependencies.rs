//! Who may depend on whom.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
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
