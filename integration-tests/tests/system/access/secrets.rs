//! Every kind of secret is minted and used while all that can be logged is logged; then none of them is in a log, in a file
//! of the controller, or was ever on a command line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use horcrux_integration_tests::{Controller, Person, program, succeeded};
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{
    AnswerChallengeRequest, ConfirmTotpRequest, RefreshRequest, SignInRequest, SignInResponse,
    StartTotpRequest, WhoAmIRequest,
};
use horcrux_transport::clock;
use prost::Message as _;
use totp_rs::{Algorithm, Builder};

/// Secrets by what they are, in the forms in which they must not be seen.
#[derive(Default)]
struct Planted(Vec<(&'static str, Vec<u8>)>);

impl Planted {
    /// The whole, and both halves where each is long enough not to be met by chance.
    fn plant(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() >= 10, "{what} is too short to look for");
        self.0.push((what, secret.into()));
        if secret.len() >= 20 {
            let (first, second) = secret.split_at(secret.len() / 2);
            self.0.extend([(what, first.into()), (what, second.into())]);
        }
    }

    /// Of a token the part that isn't an id or a header.
    fn plant_part(&mut self, what: &'static str, token: &str, separator: char, part: usize) {
        self.0.push((what, token.into()));
        self.plant(what, token.split(separator).nth(part).unwrap());
    }

    /// What is found in `bytes`.
    fn seen_in(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        let is_in = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret.as_slice());
        self.0.iter().filter(|(_, secret)| is_in(secret)).map(|(what, _)| *what).collect()
    }
}

/// Notes the command lines of all processes for as long as it lives.
struct CommandLines {
    over: Sender<()>,
    noting: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl CommandLines {
    fn note() -> Self {
        let (over, is_over) = channel();
        let noting = thread::spawn(move || {
            let mut all = BTreeSet::new();
            loop {
                for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
                    // Not a process, or one that has ended.
                    all.extend(fs::read(process.path().join("cmdline")));
                }
                if is_over.recv_timeout(Duration::from_millis(5)) != Err(RecvTimeoutError::Timeout) {
                    return all;
                }
            }
        });
        Self { over, noting }
    }

    fn noted(self) -> BTreeSet<Vec<u8>> {
        drop(self.over);
        self.noting.join().unwrap()
    }
}

/// Base32 without padding (RFC 4648).
fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter).unwrap();
        bits = (bits << 5) | u32::try_from(value).unwrap();
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    bytes
}

fn password_of(person: &Person) -> String {
    fs::read_to_string(person.password_file()).unwrap().trim().to_owned()
}

/// Signs in as a browser would; gives the cookie and the value of `x-horcrux-csrf`.
fn in_a_browser(controller: &Controller, person: &Person) -> (String, String) {
    let request = SignInRequest {
        username: person.name.clone(),
        password: password_of(person),
        ..SignInRequest::default()
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let (body, answer, headers) =
        (controller.path("body"), controller.path("answer"), controller.path("headers"));
    fs::write(&body, [&[0][..], &length, &message].concat()).unwrap();
    let url = controller.url();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert", &controller.state("ca.pem")])
        .args(["--header", "content-type: application/grpc-web+proto", "--header", &format!("origin: {url}")])
        .args(["--data-binary", &format!("@{body}"), "--output", &answer, "--dump-header", &headers])
        .arg(format!("{url}/horcrux.v1.AuthService/SignIn"))
        .output()
        .unwrap();
    succeeded(&output).unwrap();
    let headers = fs::read_to_string(headers).unwrap();
    let cookie =
        headers.lines().find_map(|line| line.strip_prefix("set-cookie: __Host-hx=")).expect("a cookie");
    let value = cookie.split(';').next().unwrap().to_owned();
    let answer = fs::read(answer).unwrap();
    let length = usize::try_from(u32::from_be_bytes(answer[1..5].try_into().unwrap())).unwrap();
    let signed_in = SignInResponse::decode(&answer[5..5 + length]).unwrap();
    (value, signed_in.csrf_token.expect("a browser's"))
}

/// A code that makes an administrator, and one made with it.
fn setup_code(controller: &Controller, planted: &mut Planted) {
    let file = controller.path("code");
    let mut recover = Command::new(program("horcrux-controld").unwrap());
    recover.args(["recover-admin", "--code-file", &file, "--config", &controller.path("controld.toml")]);
    recover.env("HORCRUX_LOG", "trace");
    let output = recover.output().unwrap();
    succeeded(&output).unwrap();
    let code = fs::read_to_string(&file).unwrap();
    planted.plant("setup code", code.trim());
    assert!(planted.seen_in(&output.stderr).is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let admin = controller.administrator().unwrap();
    let (url, fingerprint) = (controller.url(), controller.fingerprint().unwrap());
    let setup =
        ["setup", &url, "--user", "second", "--code-file", &file, "--fingerprint", fingerprint.trim()];
    let password = ["--password-file", &admin.password_file()];
    admin.elsewhere("config-second").done(&[&setup[..], &password].concat()).unwrap();
}

fn passwords(controller: &Controller, bob: &Person, planted: &mut Planted) {
    planted.plant("password", &password_of(&controller.administrator().unwrap()));
    planted.plant("password", &password_of(bob));
    let wrong = controller.path("wrong");
    fs::write(&wrong, "a guess at the password of bob\n").unwrap();
    planted.plant("wrong password", "a guess at the password of bob");
    for user in ["bob", "nobody"] {
        let login = ["login", &controller.url(), "--user", user, "--password-file", &wrong];
        assert_eq!(bob.ctl(&login).unwrap().status.code(), Some(3));
    }
    let new = controller.path("bob.password-2");
    fs::write(&new, "another one that bob chose\n").unwrap();
    let change = ["password", "--old-password-file", &bob.password_file(), "--new-password-file", &new];
    bob.done(&change).unwrap();
    fs::copy(&new, bob.password_file()).unwrap();
    planted.plant("new password", "another one that bob chose");
}

fn sessions(controller: &Controller, bob: &Person, planted: &mut Planted) {
    bob.sign_in().unwrap();
    let tokens = bob.tokens().unwrap();
    let text = |key: &str| tokens[key].as_str().unwrap();
    planted.plant_part("access token", text("access_token"), '.', 2);
    planted.plant("refresh token", text("refresh_token"));
    let refresh = |token: String| {
        let ask = |wire| async {
            AuthServiceClient::new(wire).refresh(RefreshRequest { refresh_token: token }).await
        };
        bob.caller_with(None).call(ask).map(|answer| answer.tokens.unwrap())
    };
    let next = refresh(text("refresh_token").to_owned()).unwrap();
    planted.plant_part("access token", &next.access_token, '.', 2);
    planted.plant("refresh token", &next.refresh_token);
    // Used twice, it ends the session.
    refresh(text("refresh_token").to_owned()).unwrap_err();
    bob.sign_in().unwrap();
    let (cookie, csrf) = in_a_browser(controller, bob);
    planted.plant("cookie", &cookie);
    planted.plant("csrf token", &csrf);
}

fn tokens(controller: &Controller, bob: &Person, planted: &mut Planted) {
    let made = bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let secret = made["secret"].as_str().unwrap();
    planted.plant("API token", secret);
    // What follows the id may hold the separator itself.
    planted.plant("API token", secret.splitn(3, '_').nth(2).unwrap());
    let who = |token: &str| {
        let ask = |wire| async { AuthServiceClient::new(wire).who_am_i(WhoAmIRequest {}).await };
        bob.caller_with(Some(token)).call(ask)
    };
    who(secret).unwrap();
    who(&secret[..secret.len() - 1]).unwrap_err();
    let file = controller.path("by-rpc.token");
    controller.administrator().unwrap().done(&["node", "join-token", "web2", "--token-file", &file]).unwrap();
    planted.plant_part("join token", fs::read_to_string(&file).unwrap().trim(), '.', 1);
    let of_here = controller.join_token("here").unwrap();
    planted.plant_part("join token", fs::read_to_string(&of_here).unwrap().trim(), '.', 1);
    succeeded(&controller.enroll("here", &of_here).unwrap()).unwrap();
    // A second time it is refused, which is logged.
    assert!(!controller.enroll("web3", &of_here).unwrap().status.success());
}

fn second_factor(bob: &Person, planted: &mut Planted) {
    bob.sign_in().unwrap();
    let caller = bob.caller().unwrap();
    let password = password_of(bob);
    let start = |wire| async { AuthServiceClient::new(wire).start_totp(StartTotpRequest { password }).await };
    let totp = caller.call(start).unwrap().totp.unwrap();
    planted.plant("TOTP secret", &totp.secret);
    planted.plant("otpauth URI", &totp.uri);
    let raw = base32(&totp.secret);
    planted.0.push(("TOTP secret in bytes", raw.clone()));
    let generator = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_secret(raw)
        .with_account_name("bob")
        .with_issuer(Some("Horcrux"))
        .build()
        .unwrap();
    let code = generator.generate(u64::try_from(clock::unix_ms() / 1000).unwrap()).to_string();
    let confirm =
        |wire| async { AuthServiceClient::new(wire).confirm_totp(ConfirmTotpRequest { code }).await };
    let recovery_codes = caller.call(confirm).unwrap().recovery_codes;
    for code in &recovery_codes {
        planted.plant("recovery code", code);
    }
    let request =
        SignInRequest { username: "bob".to_owned(), password: password_of(bob), ..SignInRequest::default() };
    let sign_in = |wire| async { AuthServiceClient::new(wire).sign_in(request).await };
    let challenge =
        bob.caller_with(None).call(sign_in).unwrap().challenge.expect("a second factor is asked for");
    planted.plant("challenge", &challenge.id);
    let answer = |code: &str| {
        let request = AnswerChallengeRequest { challenge_id: challenge.id.clone(), code: code.to_owned() };
        let answer = |wire| async { AuthServiceClient::new(wire).answer_challenge(request).await };
        bob.caller_with(None).call(answer)
    };
    answer("000000").unwrap_err();
    let tokens = answer(&recovery_codes[0]).unwrap().tokens.unwrap();
    planted.plant_part("access token", &tokens.access_token, '.', 2);
    planted.plant("refresh token", &tokens.refresh_token);
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn no_secret_is_in_a_log_in_a_file_of_the_controller_or_on_a_command_line() {
    let command_lines = CommandLines::note();
    let controller = Controller::start_talkative().unwrap();
    let bob = controller.person("bob").unwrap();
    let mut planted = Planted::default();
    setup_code(&controller, &mut planted);
    passwords(&controller, &bob, &mut planted);
    sessions(&controller, &bob, &mut planted);
    tokens(&controller, &bob, &mut planted);
    let agent = controller.agent("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
    second_factor(&bob, &mut planted);
    let kinds: BTreeSet<&str> = planted.0.iter().map(|(what, _)| *what).collect();
    eprintln!("planted: {kinds:?}");

    let (of_controller, of_agent) = (controller.daemon.log(), agent.log());
    // They would tell it if anything did.
    assert!(of_controller.contains(" TRACE ") || of_controller.contains(" DEBUG "), "{of_controller}");
    assert!(of_agent.contains(" TRACE ") || of_agent.contains(" DEBUG "), "{of_agent}");
    for (log, text) in [("controller", &of_controller), ("agent", &of_agent)] {
        eprintln!("{log}: {} lines", text.lines().count());
        assert_eq!(planted.seen_in(text.as_bytes()), BTreeSet::new(), "in the log of the {log}");
    }

    // Nothing may hold one: what the keys seal and sign is not minted here.
    let state = controller.state("");
    let all = files(Path::new(&state));
    let names: Vec<String> = all.iter().map(|file| file.display().to_string().replace(&state, "")).collect();
    eprintln!("searched: {names:?}");
    assert!(names.iter().any(|name| name == "control.db") && names.iter().any(|name| name == "recent.db"));
    let stored: Vec<Vec<u8>> = all.iter().map(|file| fs::read(file).unwrap()).collect();
    let known = Planted(vec![("user", b"bob@local".to_vec())]);
    assert!(stored.iter().any(|bytes| !known.seen_in(bytes).is_empty()), "what is there is found");
    for (name, bytes) in names.iter().zip(&stored) {
        assert_eq!(planted.seen_in(bytes), BTreeSet::new(), "in {name}");
    }

    let lines = command_lines.noted();
    let known = Planted(vec![("option", b"--password-file".to_vec())]);
    assert!(lines.iter().any(|line| !known.seen_in(line).is_empty()), "a client was seen running");
    for line in &lines {
        assert_eq!(planted.seen_in(line), BTreeSet::new(), "{}", String::from_utf8_lossy(line));
    }
}
