//! What a person sees on the page, in a real browser, against what the machine's own tools say at the same time.

use std::fs;
use std::path::Path;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Browser, Controller, Place, wait_until};
use horcrux_transport::clock;
use serde_json::Value;

/// Both are means over the same ten seconds, begun and ended a fraction of a second apart.
const WINDOW_MS: i64 = 10_000;
const CPU_TOLERANCE_POINTS: f64 = 15.0;
/// Memory moves while the other reading is taken.
const MEMORY_TOLERANCE_POINTS: f64 = 5.0;
const BYTES_TOLERANCE: f64 = 0.1;
/// Writes come in bursts of 1 MiB each second; the lane that reads them does so every two.
const WRITE_TOLERANCE: f64 = 0.4;
const LOAD_TOLERANCE: f64 = 0.05;
/// What the lab's container may have.
const CONTAINER_CORES: f64 = 0.5;

fn shown(row: &Value, metric: &str) -> Option<f64> {
    row["values"][metric].as_f64()
}

fn close(what: &str, shown: f64, told: f64, tolerance: f64) {
    assert!(
        (shown - told).abs() <= tolerance,
        "{what}: the page has {shown}, the other {told} ± {tolerance}"
    );
}

/// Busy and all time of all cores, in ticks.
fn proc_stat() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let line = text.lines().next().unwrap();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap()).collect();
    let all: f64 = ticks.iter().sum();
    (all - ticks[3] - ticks[4], all)
}

fn meminfo(key: &str) -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// One value of `virsh domstats`.
fn domstats(lab: &Lab, key: &str) -> f64 {
    let text = lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "domstats", "web1"]).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).parse().unwrap()
}

/// What dockerd says of the lab's container, in one reading: the numbers `docker stats` is made of.
fn docker_stats(lab: &Lab) -> Value {
    let asked = "http://docker/containers/worker/stats?stream=false&one-shot=true";
    let curl = ["curl", "--silent", "--fail", "--unix-socket", "/run/docker.sock", asked];
    serde_json::from_str(&lab.exec(1, &curl).unwrap()).unwrap()
}

/// CPU time of the lab's container, in nanoseconds.
fn docker_cpu_ns(lab: &Lab) -> f64 {
    docker_stats(lab)["cpu_stats"]["cpu_usage"]["total_usage"].as_f64().unwrap()
}

/// Waits until the page and another reading of what is at this moment are the same: each is renewed at its own pace.
fn agree(what: &str, mut page: impl FnMut() -> Option<f64>, told: impl Fn() -> f64, tolerance: f64) {
    wait_until(what, || {
        let (shown, told) = (page(), told());
        anyhow::ensure!(
            shown.is_some_and(|shown| (shown - told).abs() <= tolerance),
            "the page has {shown:?}, the other {told} ± {tolerance}"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_page_agrees_with_proc_virsh_domstats_and_docker_stats() {
    let lab = Lab::up(1).unwrap();
    lab.start_libvirtd(1).unwrap();
    lab.start_dockerd(1).unwrap();
    let vm = format!("vms/{}", lab.vm(1, "web1", 1, Work::Busy).unwrap());
    let container = format!("containers/node1/{}", lab.container(1, "worker", Work::Busy).unwrap());
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let _agent = lab.join(&controller, 1).unwrap();
    let mut browser = Browser::open(&controller).unwrap();
    wait_until("all values on the page", || {
        let node = browser.row("nodes/node1")?;
        let (vm, container) = (browser.row(&vm)?, browser.row(&container)?);
        anyhow::ensure!(shown(&node, "node_cpu_usage").is_some(), "{node}");
        anyhow::ensure!(shown(&vm, "vm_memory_usage").is_some(), "{vm}");
        anyhow::ensure!(shown(&vm, "vm_disk_write_rate").is_some_and(|rate| rate > 0.0), "{vm}");
        anyhow::ensure!(shown(&container, "container_cpu_usage").is_some(), "{container}");
        Ok(())
    })
    .unwrap();

    let began = clock::unix_ms();
    let (busy, all) = proc_stat();
    let (vm_cpu_ns, vm_written) = (domstats(&lab, "cpu.time"), domstats(&lab, "block.0.wr.bytes"));
    let worker_cpu_ns = docker_cpu_ns(&lab);
    let mut seen: Vec<[f64; 4]> = Vec::new();
    wait_until("the window's end", || {
        let (node, guest) = (browser.row("nodes/node1")?, browser.row(&vm)?);
        let worker = browser.row(&container)?;
        let values = [
            shown(&node, "node_cpu_usage"),
            shown(&guest, "vm_cpu_usage"),
            shown(&guest, "vm_disk_write_rate"),
            shown(&worker, "container_cpu_usage"),
        ];
        seen.push(values.map(|value| value.unwrap_or(f64::NAN)));
        anyhow::ensure!(clock::unix_ms() - began >= WINDOW_MS, "not yet");
        Ok(())
    })
    .unwrap();
    let (busy_after, all_after) = proc_stat();
    let vm_cpu_ns = domstats(&lab, "cpu.time") - vm_cpu_ns;
    let vm_written = domstats(&lab, "block.0.wr.bytes") - vm_written;
    let worker_cpu_ns = docker_cpu_ns(&lab) - worker_cpu_ns;
    let window_ms = (clock::unix_ms() - began) as f64;
    let mean = |at: usize| seen.iter().map(|values| values[at]).sum::<f64>() / seen.len() as f64;
    let percent = |cpu_ns: f64| cpu_ns / window_ms / 10_000.0;

    close("CPU of the node", mean(0), 100.0 * (busy_after - busy) / (all_after - all), CPU_TOLERANCE_POINTS);
    close("CPU of the VM", mean(1), percent(vm_cpu_ns), CPU_TOLERANCE_POINTS);
    let rate = vm_written / window_ms * 1000.0;
    close("what the VM writes", mean(2), rate, rate * WRITE_TOLERANCE);
    let of_its_limit = percent(worker_cpu_ns) / CONTAINER_CORES;
    close("CPU of the container, of its limit", mean(3), of_its_limit, CPU_TOLERANCE_POINTS);

    let mut on_page = |id: &str, metric: &str| shown(&browser.row(id).unwrap(), metric);
    let used = || 100.0 * (1.0 - meminfo("MemAvailable") / meminfo("MemTotal"));
    agree(
        "memory of the node",
        || on_page("nodes/node1", "node_memory_usage"),
        used,
        MEMORY_TOLERANCE_POINTS,
    );
    for (at, metric) in ["node_load_1m", "node_load_5m", "node_load_15m"].into_iter().enumerate() {
        let load = || {
            let loads = fs::read_to_string("/proc/loadavg").unwrap();
            loads.split(' ').nth(at).unwrap().parse().unwrap()
        };
        agree(metric, || on_page("nodes/node1", metric), load, LOAD_TOLERANCE);
    }
    let used = || 100.0 * (1.0 - domstats(&lab, "balloon.usable") / domstats(&lab, "balloon.available"));
    agree("memory of the VM", || on_page(&vm, "vm_memory_usage"), used, MEMORY_TOLERANCE_POINTS);
    let resident = domstats(&lab, "balloon.rss") * 1024.0;
    agree(
        "the VM on its host",
        || on_page(&vm, "vm_memory_resident"),
        || domstats(&lab, "balloon.rss") * 1024.0,
        resident * BYTES_TOLERANCE,
    );
    // As `docker stats` has it: without what the kernel may take back.
    let set = || {
        let memory = docker_stats(&lab)["memory_stats"].take();
        let cache = &memory["stats"];
        let cache =
            cache["total_inactive_file"].as_f64().or_else(|| cache["inactive_file"].as_f64()).unwrap();
        memory["usage"].as_f64().unwrap() - cache
    };
    let bytes = set();
    agree(
        "memory of the container",
        || on_page(&container, "container_memory_working_set"),
        set,
        bytes * BYTES_TOLERANCE,
    );
    let processes = || docker_stats(&lab)["pids_stats"]["current"].as_f64().unwrap();
    agree("its processes", || on_page(&container, "container_pids"), processes, 0.0);
    let worker = browser.row(&container).unwrap();
    assert!(
        worker["text"].as_str().unwrap().contains(&container[17..29]),
        "unnamed, it goes by its id: {worker}"
    );
    assert_eq!(browser.ask("read").unwrap()["problems"], serde_json::json!([]));
}

#[test]
fn the_page_says_what_is_lost_and_recovers_by_itself() {
    let mut controller = Controller::start().unwrap();
    let mut agent = controller.joined("here").unwrap();
    let mut browser = Browser::open(&controller).unwrap();
    let mut row_is = |what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_until(what, || {
            let row = browser.row("nodes/here")?;
            anyhow::ensure!(look(&row), "{row}");
            Ok(())
        })
        .unwrap();
    };
    row_is("values", &|row| shown(row, "node_cpu_usage").is_some() && row["stale"] == false);
    agent.kill().unwrap();
    row_is("a node that is late", &|row| row["state"] == "late" && row["stale"] == true);
    row_is("a node that is down", &|row| row["state"] == "down" && row["stale"] == true);
    // Long enough for a gap in the course.
    wait_until("a silence of 15 s", || {
        let node = controller.json(&["node", "get", "here"])?;
        let silent = clock::unix_ms() - node["last_sample_unix_ms"].as_i64().unwrap_or(i64::MAX);
        anyhow::ensure!(silent > 15_000, "{silent} ms");
        Ok(())
    })
    .unwrap();
    let agent = controller.agent("here").unwrap();
    row_is("a node that is back", &|row| row["state"] == "connected" && row["stale"] == false);
    row_is("a gap in its course", &|row| {
        row["course"].as_str().is_some_and(|path| path.matches('M').count() >= 2)
    });

    controller.daemon.kill().unwrap();
    let mut connection_is = |state: &str| {
        wait_until(&format!("the page to be {state}"), || {
            let page = browser.ask("read")?;
            anyhow::ensure!(page["connection"] == state, "{}", page["connection"]);
            Ok(())
        })
        .unwrap();
    };
    connection_is("reconnecting");
    controller.restart().unwrap();
    connection_is("live");
    browser.ask("reload").unwrap();
    let row = browser.row("nodes/here").unwrap();
    assert!(shown(&row, "node_memory_usage").is_some(), "a restart isn't blank: {row}");
    wait_until("the past on a page that was loaded anew", || {
        let course = browser.row("nodes/here")?["course"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(course.matches('M').count() >= 2, "{course}");
        Ok(())
    })
    .unwrap();
    drop(agent);
}

#[test]
fn the_page_can_be_used_without_a_mouse_by_those_who_see_little_and_on_a_phone() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let mut browser = Browser::open(&controller).unwrap();
    wait_until("values", || {
        let row = browser.row("nodes/here")?;
        anyhow::ensure!(shown(&row, "node_cpu_usage").is_some(), "{row}");
        Ok(())
    })
    .unwrap();
    browser.ask("choose here").unwrap();
    let page = browser.ask("read").unwrap();
    assert_eq!(page["sources"]["proc"], "ok", "{page}");
    assert_eq!(browser.ask("audit").unwrap()["violations"], serde_json::json!([]));
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/screenshots");
    fs::create_dir_all(&pictures).unwrap();
    for (name, width, height, scheme) in [
        ("wide", 1440, 900, "light"),
        ("dark", 1440, 900, "dark"),
        ("phone", 360, 800, "light"),
        ("wall", 2560, 1440, "dark"),
    ] {
        let file = pictures.join(format!("{name}.png"));
        let taken = browser.ask(&format!("screenshot {} {width} {height} {scheme}", file.display())).unwrap();
        assert!(taken["overflow"].as_i64() <= Some(0), "the page is wider than {width}: {taken}");
        if width >= 1440 {
            assert_eq!(taken["cut"], serde_json::json!([]), "columns are out of sight at {width}");
        }
    }
    assert_eq!(browser.ask("audit").unwrap()["violations"], serde_json::json!([]), "in the dark");
}
