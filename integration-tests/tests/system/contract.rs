//! What the edge refuses before any handler runs.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use horcrux_integration_tests::{Controller, succeeded};

/// One request through `curl`, a client that is not ours: status code, and `grpc-status` where there is one.
fn curl(controller: &Controller, version: &str, headers: &[&str], path: &str) -> (String, String) {
    let mut command = Command::new("curl");
    command.args([
        "-sk",
        "--max-time",
        "10",
        version,
        "-X",
        "POST",
        "--data-binary",
        "@-",
        "-D",
        "-",
        "-o",
        "/dev/null",
    ]);
    for header in headers {
        command.args(["-H", header]);
    }
    command.arg(format!("{}{path}", controller.url())).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[0, 0, 0, 0, 0]).unwrap();
    let mut head = String::new();
    child.stdout.take().unwrap().read_to_string(&mut head).unwrap();
    child.wait().unwrap();
    let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let grpc = head.lines().find_map(|l| l.strip_prefix("grpc-status: ")).unwrap_or_default();
    (status, grpc.trim().to_owned())
}

const VERSION: &str = "/horcrux.v1.SystemService/GetVersion";
const LIST: &str = "/horcrux.v1.NodeService/List";

#[test]
fn a_page_of_another_origin_reaches_no_handler() {
    let controller = Controller::start().unwrap();
    let origin = format!("Origin: {}", controller.url());
    let web = "Content-Type: application/grpc-web+proto";
    for version in ["--http2", "--http1.1"] {
        let ok = curl(&controller, version, &[web, &origin], VERSION);
        assert_eq!(ok.0, "200", "{version}: our own origin");
        assert!(matches!(ok.1.as_str(), "" | "0"), "{version}: {ok:?}");
        let refused: [&[&str]; 7] = [
            &["Content-Type: text/plain", &origin],
            &["Content-Type: application/x-www-form-urlencoded", &origin],
            &["Content-Type:", &origin],
            &[web],
            &[web, "Origin: null"],
            &[web, "Origin: https://127.0.0.1:1"],
            &[web, &origin, "Sec-Fetch-Site: cross-site"],
        ];
        for headers in refused {
            let (_, grpc) = curl(&controller, version, headers, VERSION);
            assert!(matches!(grpc.as_str(), "3" | "7"), "{version} {headers:?}: {grpc:?}");
        }
    }
}

#[test]
fn without_a_session_nothing_is_told() {
    let controller = Controller::start().unwrap();
    let native = "Content-Type: application/grpc";
    assert_eq!(curl(&controller, "--http2", &[native], LIST).1, "16");
    let forged = "Authorization: Bearer hxa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(curl(&controller, "--http2", &[native, forged], LIST).1, "16");
    // A cookie is nothing to native gRPC, and a method that the contract doesn't have is nobody's.
    assert_eq!(curl(&controller, "--http2", &[native, "Cookie: __Host-hx=x"], LIST).1, "16");
    assert_eq!(curl(&controller, "--http2", &[native], "/horcrux.v1.NodeService/Nonsense").1, "12");
    assert_eq!(curl(&controller, "--http2", &[native], "/horcrux.agent.v1.AgentLink/Attach").1, "12");
}

#[test]
fn signing_out_ends_the_session_for_good() {
    let controller = Controller::start().unwrap();
    let kept = std::fs::read_dir(controller.path("config/horcrux/tokens")).unwrap().flatten();
    let file = kept.map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    let kept = file.with_extension("kept");
    std::fs::copy(&file, &kept).unwrap();
    succeeded(&controller.ctl(&["logout"]).unwrap()).unwrap();
    assert!(!file.exists(), "tokens stay behind");
    std::fs::rename(&kept, &file).unwrap();
    assert_eq!(controller.ctl(&["whoami"]).unwrap().status.code(), Some(3));
}
