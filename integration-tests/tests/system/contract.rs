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

/// One request to each of `paths` through one `curl`: `grpc-status` and `grpc-message` of each.
pub(crate) fn curl_all(
    controller: &Controller,
    version: &str,
    headers: &[&str],
    paths: &[String],
) -> Vec<(String, String)> {
    let mut command = Command::new("curl");
    command.args(["-sk", "--max-time", "30", version, "-X", "POST", "--data-binary", "@-"]);
    command.args(["-w", "%{urlnum}\t%header{grpc-status}\t%header{grpc-message}\n"]);
    for header in headers {
        command.args(["-H", header]);
    }
    for path in paths {
        command.args(["-o", "/dev/null", &format!("{}{path}", controller.url())]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[0, 0, 0, 0, 0]).unwrap();
    let mut told = String::new();
    child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    child.wait().unwrap();
    let answer = |line: &str| {
        let mut parts = line.split('\t').skip(1).map(ToOwned::to_owned);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    };
    told.lines().map(answer).collect()
}

/// What the gate says before any handler runs, as it is on the wire.
pub(crate) const GATE: [&str; 7] = [
    "the%20content%20type%20is%20not%20one%20of%20gRPC",
    "this%20Origin%20is%20not%20the%20controller's%20own",
    "this%20request%20comes%20from%20another%20site",
    "x-horcrux-csrf%20is%20missing%20or%20wrong",
    "sign%20in%20first",
    "no%20such%20method",
    "the%20guest%20link%20is%20wrong",
];

#[test]
fn no_rpc_is_run_for_a_page_of_another_origin_or_without_its_csrf_header() {
    let controller = Controller::start().unwrap();
    let own = format!("Origin: {}", controller.url());
    let all = horcrux_integration_tests::rpc::methods().into_iter().map(|(name, _)| name);
    // The agents' link is not on this port at all.
    let links = ["/horcrux.agent.v1.AgentLink/", "/horcrux.agent.v1.ConsoleLink/"];
    let paths: Vec<String> = all.filter(|name| !links.iter().any(|link| name.starts_with(link))).collect();
    let cookie = browser_cookie(&controller);
    let web = "Content-Type: application/grpc-web+proto";
    let refused: [&[&str]; 10] = [
        &["Content-Type: text/plain", &own, &cookie],
        &["Content-Type: application/x-www-form-urlencoded", &own, &cookie],
        &["Content-Type: multipart/form-data; boundary=x", &own, &cookie],
        &["Content-Type:", &own, &cookie],
        &["Content-Type: application/json", &own, &cookie],
        &[web, &cookie],
        &[web, "Origin: null", &cookie],
        &[web, "Origin: https://evil.example", &cookie],
        &[web, "Origin: https://127.0.0.1:1", &cookie],
        &[web, &own, "Sec-Fetch-Site: same-site", &cookie],
    ];
    for version in ["--http2", "--http1.1"] {
        for headers in refused {
            let answers = curl_all(&controller, version, headers, &paths);
            assert_eq!(answers.len(), paths.len(), "{version} {headers:?}");
            for (path, (status, message)) in paths.iter().zip(&answers) {
                let by_gate = GATE.iter().any(|told| message.starts_with(told));
                assert!(
                    by_gate && matches!(status.as_str(), "3" | "7"),
                    "{version} {headers:?} {path}: {status} {message}"
                );
            }
        }
        // With the cookie, from the right place, and without the header: what needs a session is refused. WhoAmI is how a
        // page that was reloaded learns the header.
        let answers = curl_all(&controller, version, &[web, &own, &cookie], &paths);
        for (path, (status, message)) in paths.iter().zip(&answers) {
            let requirement = horcrux_proto::authz::requirement(path).unwrap();
            if requirement.caller == horcrux_proto::authz::Caller::Anyone || path.ends_with("/WhoAmI") {
                continue;
            }
            let by_gate = GATE.iter().any(|told| message.starts_with(told));
            // A session isn't what a guest has.
            let code = if requirement.caller == horcrux_proto::authz::Caller::Guest { "16" } else { "7" };
            assert!(by_gate && status == code, "{version} {path}: {status} {message}");
        }
    }
    // The session outlived all of it, SignOut included.
    let still = curl(&controller, "--http2", &[web, &own, &cookie], "/horcrux.v1.AuthService/WhoAmI");
    assert!(matches!(still.1.as_str(), "" | "0"), "{still:?}");
}

/// A session as a browser carries it, as a header.
fn browser_cookie(controller: &Controller) -> String {
    use prost::Message as _;
    let request = horcrux_proto::v1::SignInRequest {
        username: "admin".to_owned(),
        password: std::fs::read_to_string(controller.path("password")).unwrap().trim().to_owned(),
        ..horcrux_proto::v1::SignInRequest::default()
    };
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let file = controller.path("sign-in.bin");
    std::fs::write(&file, body).unwrap();
    let output = Command::new("curl")
        .args(["-sk", "--max-time", "10", "-X", "POST", "-D", "-", "-o", "/dev/null", "--data-binary"])
        .arg(format!("@{file}"))
        .args([
            "-H",
            "Content-Type: application/grpc-web+proto",
            "-H",
            &format!("Origin: {}", controller.url()),
        ])
        .arg(format!("{}/horcrux.v1.AuthService/SignIn", controller.url()))
        .output()
        .unwrap();
    let head = String::from_utf8(output.stdout).unwrap();
    let cookie = head
        .lines()
        .find_map(|l| l.strip_prefix("set-cookie: "))
        .unwrap_or_else(|| panic!("no cookie in {head}"));
    assert!(
        cookie.contains("__Host-") && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    format!("Cookie: {}", cookie.split(';').next().unwrap())
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
