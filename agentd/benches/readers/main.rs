//! What the readers cost beside their floor, the smallest program that has the kernel do the same work: `pread` of the same
//! files, kept open, into one buffer, and the numbers in it. `cargo bench -p horcrux-agentd --bench readers [-- WHAT]`.

mod containers;
mod exporter;
mod floor;
mod node;
mod side_by_side;
#[cfg(feature = "libvirt")]
mod vms;

use horcrux_agentd::sample::Taken;

/// No lane's cost depends on when it reads.
const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };

fn main() {
    if std::env::args().nth(1).is_some_and(|argument| argument == floor::ARGUMENT) {
        floor::run().expect("the floor's pipes work");
        return;
    }
    // cargo passes `--bench`.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let benches: &[(&str, fn())] = &[
        ("node", node::bench),
        ("containers", containers::bench),
        #[cfg(feature = "libvirt")]
        ("vms", vms::bench),
        ("exporter", exporter::bench),
    ];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
