//! What isn't for this node and this moment, and what its policy forbids.

use std::os::unix::fs::{PermissionsExt as _, chown};

use super::*;

/// That nothing is done, and why.
fn refused(host: &Host, signed: &SignedEnvelope, status: OrderStatus, why: &str) {
    let answer = settled(&host.socket(), signed).unwrap().answer;
    assert_eq!(answer.status(), status, "{answer:?}");
    assert!(answer.reason.contains(why) && !answer.repeated, "{answer:?}");
    let told = host.audit().pop().unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&status_word(status).into(), &answer.reason.into()));
}

fn status_word(status: OrderStatus) -> &'static str {
    if status == OrderStatus::Refused { "refused" } else { "forbidden" }
}

#[test]
fn an_order_is_of_a_key_that_counts_for_this_node_and_this_moment() {
    let mut orders = Orders::new();
    let host = Host::start(&orders, Mode::Manage);
    host.takes_orders(&mut orders);
    let good = orders_open(&mut orders);
    let sign = |envelope: &Envelope| orders.signer.sign(envelope);
    let now = clock::unix_ms();
    let other = Signer::new(&[8; 32]);
    let cases: [(SignedEnvelope, &str); 8] = [
        (SignedEnvelope { signature: Vec::new(), ..sign(&good) }, "signature"),
        (SignedEnvelope { key_id: Vec::new(), ..sign(&good) }, "not one of this node"),
        (
            SignedEnvelope {
                envelope: sign(&Envelope { sequence: 99, ..good.clone() }).envelope,
                ..sign(&good)
            },
            "signature",
        ),
        (other.sign(&good), "not one of this node"),
        (sign(&Envelope { node_id: "n2".to_owned(), ..good.clone() }), "for another node"),
        (sign(&Envelope { cluster: "c2".to_owned(), ..good.clone() }), "of another cluster"),
        (
            sign(&Envelope { issued_unix_ms: now - 90_000, expires_unix_ms: now - 31_000, ..good.clone() }),
            "expired 31 s ago, and was issued 90 s ago",
        ),
        (
            sign(&Envelope { issued_unix_ms: now + 99_000, expires_unix_ms: now + 120_000, ..good.clone() }),
            "clock and this node's differ",
        ),
    ];
    for (signed, why) in &cases {
        refused(&host, signed, OrderStatus::Refused, why);
    }
    // None of them was taken for the one that it pretended to be.
    assert_eq!(orders.answer(&host.socket(), &good).status(), OrderStatus::Failed);
    let told = host.audit().pop().unwrap();
    assert_eq!(
        (&told["actor"], &told["vm"], &told["operation"]),
        (&"ada@local".into(), &TEST_VM.into(), &"console-open".into())
    );
}

#[test]
fn an_order_is_carried_out_once_and_in_sequence_whatever_ends_in_between() {
    let mut orders = Orders::new();
    let mut host = Host::start(&orders, Mode::Manage);
    let early = orders_open(&mut orders);
    let order = orders_open(&mut orders);
    let first = orders.answer(&host.socket(), &order);
    for _ in 0..2 {
        let again = orders.answer(&host.socket(), &order);
        assert_eq!(again, OrderAnswer { repeated: true, ..first.clone() });
        // The same command in another envelope.
        let anew = Envelope { sequence: 100, ..order.clone() };
        assert!(orders.answer(&host.socket(), &anew).repeated);
        refused(&host, &orders.signer.sign(&early), OrderStatus::Refused, "sequence 1 is not beyond 2");
        let other = Envelope { command_id: "f".repeat(32), ..order.clone() };
        refused(&host, &orders.signer.sign(&other), OrderStatus::Refused, "sequence 2 is not beyond 2");
        host.restart();
    }
    let done = host
        .audit()
        .into_iter()
        .filter(|line| line["status"] == "failed" && line["reason"] != "it was repeated, and nothing done");
    assert_eq!(done.count(), 1);
    // A new controller begins anew, and the retired one's key counts no more.
    let mut next = Orders { signer: Signer::new(&[9; 32]), sequence: 0 };
    fs::write(host.file("controller.toml"), next.controller().to_file().unwrap()).unwrap();
    host.takes_orders(&mut next);
    let retired = orders_open(&mut orders);
    refused(&host, &orders.signer.sign(&retired), OrderStatus::Refused, "not one of this node");
}

#[test]
fn a_second_one_on_the_same_state_does_not_run() {
    let orders = Orders::new();
    let host = Host::start(&orders, Mode::Manage);
    // It would go on for ever where it did run.
    let output = Command::new("timeout")
        .arg("20")
        .arg(program("horcrux-privd").unwrap())
        .arg("--socket")
        .arg(host.root.path().join("other"))
        .arg("--root")
        .arg(host.root.path())
        .args(["--allow-uid", "0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another horcrux-privd has"), "{output:?}");
    answers(&host.socket());
}

#[test]
fn the_policy_has_the_last_word_and_is_root_s_alone() {
    let mut orders = Orders::new();
    let host = Host::start(&orders, Mode::Observe);
    let forbidden = |orders: &mut Orders, why: &str| {
        let order = orders_open(orders);
        refused(&host, &orders.signer.sign(&order), OrderStatus::Forbidden, why);
        order
    };
    let policy = || horcrux_privd::policy(&host.socket(), LONG).unwrap();
    let first = forbidden(&mut orders, "needs mode console, this node's is observe");
    let set = |text: &str| {
        let text = text.to_owned()
            + "
libvirt_uri = \"test:///default\"";
        fs::write(host.file("policy.toml"), text).unwrap();
    };
    set("mode = \"console\"\nallow_vms = [\"web-*\"]");
    assert_eq!((policy().mode(), policy().reason.as_str()), (horcrux_privd::v1::Mode::Console, ""));
    forbidden(&mut orders, "allow_vms doesn't have VM \"test\"");
    set("mode = \"console\"\nallow_vms = [\"te?t\"]\ndeny_ops = [\"console-open\"]");
    forbidden(&mut orders, "deny_ops");
    set("mode = \"console\"\nallow_vms = [\"te?t\"]");
    host.takes_orders(&mut orders);
    // What was forbidden stays so: the first answer holds.
    let again = orders.answer(&host.socket(), &first);
    assert!(again.repeated && again.status() == OrderStatus::Forbidden, "{again:?}");

    let hold = host.root.path().join("run/horcrux/hold");
    fs::write(&hold, "").unwrap();
    forbidden(&mut orders, "a hold is in force");
    assert!(policy().held && policy().mode() == horcrux_privd::v1::Mode::Observe, "{:?}", policy());
    fs::remove_file(&hold).unwrap();
    host.takes_orders(&mut orders);

    set("mode = \"everything\"");
    forbidden(&mut orders, "not understood");
    // Who checks the agent's settings is told of it too.
    let settings = host.root.path().join("agentd.toml");
    fs::write(&settings, format!("privd_socket = {:?}\n", host.socket())).unwrap();
    let mut check = Command::new(program("horcrux-agentd").unwrap());
    let checked = check.args(["check-config", "--config"]).arg(&settings).output().unwrap();
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && told.contains("in mode observe: policy.toml is not understood"),
        "{told}"
    );
    set("mode = \"console\"\nallow_vms = [\"*\"]");
    host.takes_orders(&mut orders);
    chown(host.file("policy.toml"), Some(65534), None).unwrap();
    forbidden(&mut orders, "policy.toml is not root's");
    chown(host.file("policy.toml"), Some(0), None).unwrap();
    fs::set_permissions(host.file("policy.toml"), fs::Permissions::from_mode(0o646)).unwrap();
    forbidden(&mut orders, "others than root may write to policy.toml");
    fs::remove_file(host.file("policy.toml")).unwrap();
    forbidden(&mut orders, "there is no policy.toml");
    assert!(policy().reason.contains("there is no policy.toml"));

    chown(host.file("controller.toml"), Some(65534), None).unwrap();
    let order = orders_open(&mut orders);
    refused(&host, &orders.signer.sign(&order), OrderStatus::Refused, "controller.toml is not root's");
}
