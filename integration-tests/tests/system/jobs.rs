//! What is done with a VM at length is followed while it lasts.

use std::path::Path;
use std::process::{Child, Stdio};

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Place, value, wait_until};
use serde_json::Value;

/// The guest has 96 MiB; QEMU counts its video memory too.
const GUEST_BYTES: f64 = 96.0 * 1024.0 * 1024.0;

/// A program that runs beside the test, until it is dropped at the latest.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

fn taken(vm: &Value, metric: &str) -> i64 {
    let values = vm["values"].as_array().unwrap();
    values.iter().find(|v| v["metric"] == metric).map_or(0, |v| v["taken_unix_ms"].as_i64().unwrap())
}

#[test]
fn a_migration_is_followed_each_second_also_by_an_agent_that_comes_later() {
    let lab = Lab::up(2).unwrap();
    for node in [1, 2] {
        lab.start_libvirtd(node).unwrap();
    }
    lab.disk(2, "web1").unwrap();
    lab.vm(1, "web1", 1, Work::Idle).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let agent = lab.join(&controller, 1).unwrap();
    let look = |what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_until(what, || {
            let vm = controller.json(&["vm", "get", "web1"])?;
            anyhow::ensure!(look(&vm), "{vm}");
            Ok(vm)
        })
        .unwrap()
    };
    // So that there is memory to move.
    look("that its guest has booted", &|vm| value(vm, "vm_memory_usable").is_some());
    let before = look("that it runs", &|vm| vm["state"] == "running");
    assert!(before["job"].is_null() && value(&before, "vm_job_elapsed").is_none(), "{before}");

    // 1 MiB/s: it would take a minute.
    let mut migrate = lab.command(1, Path::new("virsh"));
    migrate.args([
        "-q",
        "-c",
        "qemu:///system",
        "migrate",
        "--live",
        "--p2p",
        "--unsafe",
        "--bandwidth",
        "1",
        "web1",
    ]);
    migrate.arg("qemu+tcp://10.77.0.2/system").stdin(Stdio::null());
    let migration = Beside(migrate.spawn().unwrap());
    let first =
        look("the migration", &|vm| vm["job"] == "migration_out" && value(vm, "vm_job_progress").is_some());
    let total = value(&first, "vm_job_memory_total").unwrap();
    assert!((GUEST_BYTES..2.0 * GUEST_BYTES).contains(&total), "{total}");
    // The monitor lane reads every 2 s here: three looks of 1 s each are not its.
    let begun = taken(&first, "vm_job_elapsed");
    let (mut looks, mut last) = (0, begun);
    while looks < 3 {
        let before = last;
        last = taken(&look("another look", &|vm| taken(vm, "vm_job_elapsed") > before), "vm_job_elapsed");
        looks += 1;
    }
    assert!(last - begun < 5000, "three looks took {} ms", last - begun);
    let progress = value(&first, "vm_job_progress").unwrap();
    let later = look("its progress", &|vm| value(vm, "vm_job_progress").is_some_and(|now| now > progress));
    assert!(value(&later, "vm_job_memory_remaining").unwrap() < total);
    assert!(value(&later, "vm_job_memory_processed").unwrap() > 0.0);
    assert!((0.0..=100.0).contains(&value(&later, "vm_job_progress").unwrap()));

    // One that comes when the job runs already knows of no beginning.
    drop(agent);
    let _agent = lab.agent(&controller, 1).unwrap();
    let again = taken(&later, "vm_job_elapsed");
    look("the job again", &|vm| vm["job"] == "migration_out" && taken(vm, "vm_job_elapsed") > again);
    lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "domjobabort", "web1"]).unwrap();
    let after = look("its end", &|vm| vm["job"].is_null() && value(vm, "vm_job_elapsed").is_none());
    assert_eq!(after["state"], "running");
    assert!(value(&after, "vm_job_progress").is_none(), "{after}");
    drop(migration);
}
