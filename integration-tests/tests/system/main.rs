//! Real daemons on this machine, one test at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod access;
mod alone;
mod asked;
mod bad_input;
mod browser;
mod cgroup2;
mod clients;
mod connections;
mod consoles;
mod containers;
mod contract;
mod dashboards;
mod dependencies;
mod enrollment;
mod full_host;
mod grid;
mod guests;
mod jobs;
mod lab;
mod live;
mod networks;
mod node;
mod outage;
mod packages;
mod privd;
mod realms;
mod recovery;
mod vms;
