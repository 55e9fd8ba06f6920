//! Sign-in with a real OpenLDAP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use horcrux_realms::ldap::{GroupMember, Ldap, Service, Settings};
use horcrux_realms::{Person, RealmError, Refusal};
use horcrux_test_parts::{Authority, Parrot, Slapd, Tls, free_port};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn settings(slapd: &Slapd) -> Settings {
    Settings {
        urls: vec![slapd.ldaps()],
        start_tls: false,
        authorities: Some(slapd.authorities()),
        service: Some(Service { dn: "cn=service,dc=test".to_owned(), password: secret("service-pw") }),
        user_base: "ou=people,dc=test".to_owned(),
        user_attribute: "uid".to_owned(),
        user_filter: Some("(objectClass=inetOrgPerson)".to_owned()),
        group_base: Some("ou=groups,dc=test".to_owned()),
        group_attribute: "cn".to_owned(),
        group_member: GroupMember::Dn("member".to_owned()),
        timeout: Duration::from_secs(10),
    }
}

async fn sign_in(settings: Settings, user: &str, password: &str) -> Result<Person, RealmError> {
    movable(Ldap::new(settings).unwrap().authenticate(user, &secret(password))).await
}

/// As a server needs it: work that may go on on another thread.
fn movable<T: Send>(work: T) -> T {
    work
}

#[track_caller]
fn refused(outcome: Result<Person, RealmError>) -> Refusal {
    match outcome {
        Err(RealmError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn unavailable(outcome: Result<Person, RealmError>) -> String {
    match outcome {
        Err(error @ RealmError::Unavailable(_)) => Chain(&error).to_string(),
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn the_right_password_gives_the_person_with_their_groups() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let alice = sign_in(settings(&slapd), "alice", "alice-pw").await.unwrap();
    assert_eq!((alice.name.as_str(), alice.display_name.as_str()), ("alice", "Alice of the tests"));
    assert_eq!(alice.groups, ["admins", "staff"]);
    assert_eq!(alice.subject.len(), 36, "an entryUUID: {}", alice.subject);
    assert_eq!(sign_in(settings(&slapd), "ALICE", "alice-pw").await.unwrap(), alice, "in whatever case");

    let by_name = GroupMember::Name("memberUid".to_owned());
    let posix = Some("ou=posix,dc=test".to_owned());
    let by_name = Settings { group_member: by_name, group_base: posix, ..settings(&slapd) };
    assert_eq!(sign_in(by_name.clone(), "alice", "alice-pw").await.unwrap().groups, ["posix-admins"]);
    let too_many = sign_in(by_name, "many", "many-pw").await;
    assert!(matches!(too_many, Err(RealmError::Misconfigured(_))), "{too_many:?}");

    let of_user = Settings { group_member: GroupMember::MemberOf, ..settings(&slapd) };
    assert_eq!(sign_in(of_user.clone(), "alice", "alice-pw").await.unwrap().groups, ["admins"]);
    let anywhere = Settings { group_base: None, ..of_user };
    assert_eq!(sign_in(anywhere, "alice", "alice-pw").await.unwrap().groups, ["admins", "elsewhere"]);

    let odd = sign_in(settings(&slapd), r"o'brien, (ops)* #\", "o'brien-pw").await.unwrap();
    assert_eq!((odd.name.as_str(), odd.groups), (r"o'brien, (ops)* #\", vec!["admins".to_owned()]));
}

#[tokio::test]
async fn start_tls_and_tls_1_2_serve_as_well() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let start_tls = Settings { urls: vec![slapd.ldap()], start_tls: true, ..settings(&slapd) };
    assert_eq!(sign_in(start_tls.clone(), "bob", "bob-pw").await.unwrap().groups, ["staff"]);
    refused(sign_in(start_tls, "bob", "alice-pw").await);
    let older = Slapd::start(Tls::V12Only).unwrap();
    assert_eq!(sign_in(settings(&older), "bob", "bob-pw").await.unwrap().name, "bob");
}

#[tokio::test]
async fn whoever_is_not_that_person_is_refused_in_one_way() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let ldap = Ldap::new(settings(&slapd)).unwrap();
    ldap.check().await.unwrap();
    let long = "a".repeat(257);
    for (user, password) in [
        ("alice", "bob-pw"),
        ("alice", ""),
        ("nobody", "alice-pw"),
        ("twin", "twin-pw"),
        ("locked", "locked-pw"),
        ("disabled", "disabled-pw"),
        ("service", "service-pw"),
        ("", "alice-pw"),
        (long.as_str(), "alice-pw"),
        ("alice\0", "alice-pw"),
        ("*", "alice-pw"),
        ("ali*", "alice-pw"),
        ("*)(uid=alice", "alice-pw"),
        ("alice)(|(uid=*", "alice-pw"),
        ("alice)(objectClass=*", "alice-pw"),
        ("\\61lice", "alice-pw"),
        ("uid=alice,ou=people,dc=test", "alice-pw"),
    ] {
        let error = ldap.authenticate(user, &secret(password)).await.unwrap_err();
        assert!(matches!(error, RealmError::Refused(_)), "{user:?}: {error:?}");
        assert_eq!(error.to_string(), "sign-in is refused");
    }
    let why = async |user: &str| refused(ldap.authenticate(user, &secret(&format!("{user}-pw"))).await);
    assert!(matches!(why("twin").await, Refusal::Ambiguous));
    assert!(matches!(why("locked").await, Refusal::Disabled));
    assert!(matches!(why("disabled").await, Refusal::Disabled));
    assert!(matches!(why("nobody").await, Refusal::UnknownUser));
}

#[tokio::test]
async fn an_empty_password_or_an_impossible_name_sends_nothing() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldaps://{}", listener.local_addr().unwrap());
    let ldap = Ldap::new(Settings { urls: vec![url], ..settings(&slapd) }).unwrap();
    for (user, password) in [("alice", ""), ("", "pw"), ("a\0", "pw"), (&*"a".repeat(257), "pw")] {
        refused(ldap.authenticate(user, &secret(password)).await);
    }
    let connected = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(connected.is_err(), "a connection was made: {connected:?}");
}

#[tokio::test]
async fn no_password_goes_to_a_server_that_does_not_prove_itself() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let other = tempfile::tempdir().unwrap();
    let authorities = Some(Authority::make(other.path()).unwrap().ca());
    for (url, start_tls) in [(slapd.ldaps(), false), (slapd.ldap(), true)] {
        let wrong =
            Settings { urls: vec![url], start_tls, authorities: authorities.clone(), ..settings(&slapd) };
        let why = unavailable(sign_in(wrong, "alice", "alice-pw").await);
        assert!(why.contains("invalid peer certificate"), "{why}");
    }
    // Nor to one that has another name.
    let name = slapd.ldaps().replace("127.0.0.1", "127.0.0.2");
    unavailable(sign_in(Settings { urls: vec![name], ..settings(&slapd) }, "alice", "alice-pw").await);
}

#[tokio::test]
async fn a_server_that_will_not_do_start_tls_gets_nothing_more() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldap://{}", listener.local_addr().unwrap());
    let ldap = Ldap::new(Settings { urls: vec![url], start_tls: true, ..settings(&slapd) }).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = vec![0; 31];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got.ends_with(b"1.3.6.1.4.1.1466.20037"));
        // protocolError
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
        )
        .await
        .unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await.unwrap();
        more
    };
    let password = secret("alice-pw");
    let (outcome, more) = tokio::join!(ldap.authenticate("alice", &password), serve);
    assert!(unavailable(outcome).contains("refuses StartTLS"));
    assert_eq!(more, b"");
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_gone_or_silent() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("ldaps://127.0.0.1:{}", free_port().unwrap());
    let urls = vec![gone, format!("ldaps://{}", silent.local_addr().unwrap()), slapd.ldaps()];
    let timeout = Duration::from_secs(2);
    let ldap = Ldap::new(Settings { urls, timeout, ..settings(&slapd) }).unwrap();
    let start = clock::monotonic();
    assert_eq!(ldap.authenticate("alice", &secret("alice-pw")).await.unwrap().name, "alice");
    assert!(start.elapsed() >= timeout, "the silent one was asked");
    let start = clock::monotonic();
    refused(ldap.authenticate("alice", &secret("wrong")).await);
    assert!(start.elapsed() < timeout, "the good one is remembered");

    let all_gone =
        Settings { urls: vec![format!("ldaps://{}", silent.local_addr().unwrap())], ..settings(&slapd) };
    let why = unavailable(sign_in(Settings { timeout, ..all_gone }, "alice", "alice-pw").await);
    assert!(why.contains("does not answer within 2s"), "{why}");
}

/// Message 1, which holds itself again and again.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![0x04, 0], |inner, _| {
        let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
        [&[0x30, 0x84], &length[..], &inner].concat()
    })
}

#[tokio::test]
async fn a_directory_that_talks_nonsense_brings_nothing_down() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    for nonsense in [
        nested(9_000).as_slice(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01",
        b"\x30\x00",
        b"\x30\x03\x02\x01\x01",
        b"\x30\x05\x02\x01\x01\x61\x00",
        b"\x30\x0c\x02\x01\x01\x7e\x07\x0a\x01\x00\x04\x00\x04\x00",
        // As if the bind had succeeded, and then an operation that there isn't.
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\x30\x05\x02\x01\x02\x7e\x00",
    ] {
        let parrot = Parrot::start(nonsense).unwrap();
        let urls = vec![format!("ldaps://127.0.0.1:{}", parrot.port)];
        let authorities = Some(parrot.authorities());
        let timeout = Duration::from_secs(3);
        let ldap = Ldap::new(Settings { urls, authorities, timeout, ..settings(&slapd) }).unwrap();
        unavailable(ldap.authenticate("alice", &secret("alice-pw")).await);
    }
}

#[tokio::test]
async fn an_entry_without_a_name_signs_nobody_in() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let bound = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
    let entry = b"\x30\x09\x02\x01\x02\x64\x04\x04\x00\x30\x00";
    let done = b"\x30\x0c\x02\x01\x02\x65\x07\x0a\x01\x00\x04\x00\x04\x00";
    let parrot = Parrot::start(&[&bound[..], entry, done].concat()).unwrap();
    let urls = vec![format!("ldaps://127.0.0.1:{}", parrot.port)];
    let nameless = Settings { urls, authorities: Some(parrot.authorities()), ..settings(&slapd) };
    assert!(matches!(refused(sign_in(nameless, "alice", "alice-pw").await), Refusal::UnknownUser));
}

#[tokio::test]
async fn an_unknown_user_costs_what_a_wrong_password_costs() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldaps://{}", listener.local_addr().unwrap());
    let ldap = Ldap::new(Settings { urls: vec![url], ..settings(&slapd) }).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, to) = (Arc::clone(&connections), slapd.tls_port);
    let mut relay = JoinSet::new();
    relay.spawn(async move {
        let mut each = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            each.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    for user in ["alice", "nobody", "twin"] {
        refused(ldap.authenticate(user, &secret("wrong")).await);
        assert_eq!(connections.swap(0, Ordering::Relaxed), 2, "{user}");
    }
}

#[tokio::test]
async fn wrong_settings_are_told_apart_from_wrong_passwords() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let service =
        |password: &str| Service { dn: "cn=service,dc=test".to_owned(), password: secret(password) };
    let wrong = Ldap::new(Settings { service: Some(service("wrong")), ..settings(&slapd) }).unwrap();
    assert!(matches!(wrong.check().await, Err(RealmError::Misconfigured(_))));
    let outcome = wrong.authenticate("alice", &secret("alice-pw")).await;
    assert!(matches!(outcome, Err(RealmError::Misconfigured(_))), "{outcome:?}");
    let base = Ldap::new(Settings { user_base: "ou=none,dc=test".to_owned(), ..settings(&slapd) }).unwrap();
    assert!(matches!(base.check().await, Err(RealmError::Misconfigured(_))));

    let never =
        |settings: Settings| assert!(matches!(Ldap::new(settings), Err(RealmError::Misconfigured(_))));
    never(Settings { urls: vec![slapd.ldap()], ..settings(&slapd) });
    never(Settings { urls: Vec::new(), ..settings(&slapd) });
    never(Settings { service: Some(service("")), ..settings(&slapd) });
    never(Settings { user_filter: Some("(a=b)(c=d)".to_owned()), ..settings(&slapd) });
    never(Settings { user_attribute: "uid=*)(a".to_owned(), ..settings(&slapd) });
    never(Settings { user_base: String::new(), ..settings(&slapd) });
    never(Settings { group_base: Some("groups".to_owned()), ..settings(&slapd) });
    never(Settings { authorities: Some("/nonexistent".into()), ..settings(&slapd) });
}
