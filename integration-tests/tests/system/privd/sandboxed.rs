//! As the package installs it: within its unit, on a host that systemd runs.

use horcrux_integration_tests::machine::Machine;

use super::*;

#[test]
fn within_its_sandbox_it_reaches_libvirt_and_keeps_what_was_ordered() {
    let machine = Machine::boot_with_libvirt().unwrap();
    machine.install("horcrux-agent").unwrap();
    let mut orders = Orders::new();
    let write = |path: &str, text: &str| {
        let file = machine.file(path).unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    // The agent's user, and this test.
    let who = "[Service]\nExecStart=\nExecStart=/usr/bin/horcrux-privd --allow-user horcrux-agent --allow-uid 0 --idle 5m\n";
    write("/etc/systemd/system/horcrux-privd.service.d/test.conf", who);
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "stop", "horcrux-privd.service"]).unwrap();
    write("/etc/horcrux/privd/controller.toml", &orders.controller().to_file().unwrap());
    let socket = machine.file("/run/horcrux/privd.sock").unwrap();
    for (uri, why) in [("qemu:///system", "find the VM"), ("test:///default", "no display for vnc")] {
        let policy = format!("{}libvirt_uri = {uri:?}\n", starting_policy(Mode::Console));
        write("/etc/horcrux/privd/policy.toml", &policy);
        let order = orders_open(&mut orders);
        let answer = orders.answer(&socket, &order);
        assert!(answer.status() == OrderStatus::Failed && answer.reason.contains(why), "{answer:?}");
        machine.run(&["systemctl", "stop", "horcrux-privd.service"]).unwrap();
        let again = orders.answer(&socket, &order);
        assert_eq!(again, OrderAnswer { repeated: true, ..answer });
    }
    let state = machine
        .run(&["stat", "-c", "%U %a", "/var/lib/horcrux-privd", "/var/lib/horcrux-privd/audit"])
        .unwrap();
    assert_eq!(state, "root 700\nroot 600\n");
    machine.run(&["apt-get", "purge", "-y", "horcrux-agent"]).unwrap();
    let left = ["test", "!", "-e", "/etc/horcrux", "-a", "!", "-e", "/var/lib/horcrux-privd"];
    machine.run(&left).unwrap();
}
