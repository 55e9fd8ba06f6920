use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType,
};

use super::*;

/// An authority and its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A certificate as a controller issues it.
    fn issue(&self, key: &NewKey, name: &str, generation: u64) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://c/node/{name}").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let request = CertificateSigningRequestParams::from_der(&key.request.clone().into()).unwrap();
        let leaf = params.signed_by(&request.public_key, &self.issuer).unwrap();
        Certificate {
            leaf: leaf.der().to_vec().into(),
            authorities: vec![self.der.clone().into()],
            expires_unix_ms: 5,
            generation,
        }
    }
}

fn facts() -> Facts {
    Facts {
        node: "nodes/a".into(),
        controller_host: "h".into(),
        controller_port: Some(8006),
        agents_port: 7,
        certificate_expires_unix_ms: 0,
        generation: 0,
    }
}

/// Node `a`, with its authority.
fn enrolled_in(dir: &Path) -> (Authority, Enrolled) {
    let authority = Authority::new();
    let change = Change::begin(dir).unwrap();
    let key = change.pending("t").unwrap();
    let certificate = authority.issue(&key, "a", 1);
    let enrolled = key.certified(&certificate, facts()).unwrap();
    change.keep(&enrolled).unwrap();
    (authority, enrolled)
}

fn renewed(authority: &Authority, before: &Enrolled) -> Enrolled {
    let key = NewKey::generate().unwrap();
    let certificate = authority.issue(&key, "a", before.facts.generation + 1);
    before.renewed(key, &certificate).unwrap()
}

/// As an agent kept it in four files.
fn kept_in_four_files(dir: &Path, enrolled: &Enrolled) {
    let ders = enrolled.authorities.iter();
    let authorities: Vec<u8> =
        ders.flat_map(|der| [&u32::try_from(der.len()).unwrap().to_be_bytes()[..], der].concat()).collect();
    let facts = "node = 'nodes/a'\ncontroller_host = 'h'\nagents_port = 7\ncertificate_expires_unix_ms = 5\n";
    let parts: [(&str, &[u8]); 4] = [
        ("node-key.der", &enrolled.key.0),
        ("node.der", &enrolled.leaf),
        ("authorities.bin", &authorities),
        ("node.toml", facts.as_bytes()),
    ];
    for (name, content) in parts {
        horcrux_transport::files::write_private(&dir.join(name), content).unwrap();
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_enrollment_that_is_tried_again_uses_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let change = Change::begin(dir.path()).unwrap();
    let first = change.pending("t").unwrap();
    assert!(change.pending("t").unwrap().key == first.key);
    assert!(change.pending("another").unwrap().key != first.key, "another token buys another key's");
}

#[test]
fn what_was_kept_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Enrolled::load(dir.path()), Err(IdentityError::NotEnrolled)));
    let (authority, kept) = enrolled_in(dir.path());
    let enrolled = Enrolled::load(dir.path()).unwrap();
    assert!(enrolled.is(&kept) && enrolled.key == kept.key);
    assert_eq!(enrolled.authorities, vec![authority.der]);
    assert_eq!(enrolled.id(), "spiffe://c/node/a");
    let facts = Facts { certificate_expires_unix_ms: 5, generation: 1, ..facts() };
    assert_eq!(enrolled.facts, facts);
    assert_eq!(names_in(dir.path()), ["identity.lock", "node.toml"]);
    let mode = fs::metadata(dir.path().join("node.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_is_printed_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (_, enrolled) = enrolled_in(dir.path());
    let printed = format!("{enrolled:?} {:?}", NewKey::generate().unwrap());
    assert_eq!(printed.matches("key: Key").count(), 2, "{printed}");
}

#[test]
fn a_certificate_that_is_of_no_use_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, before) = enrolled_in(dir.path());
    let other = Authority::new();
    let refused = |change: &dyn Fn(&mut Certificate, &NewKey)| {
        let key = NewKey::generate().unwrap();
        let mut certificate = authority.issue(&key, "a", 2);
        change(&mut certificate, &key);
        before.renewed(key, &certificate).is_err()
    };
    assert!(refused(&|c, _| c.leaf = b"garbage".to_vec().into()));
    assert!(refused(&|c, _| c.leaf = before.leaf.clone().into()), "another key's");
    assert!(refused(&|c, _| c.authorities = vec![other.der.clone().into()]), "signed by none of these");
    assert!(refused(&|c, key| *c = authority.issue(key, "b", 2)), "another node's");
    assert!(!refused(&|_, _| {}));
}

#[test]
fn a_renewal_replaces_key_certificate_authorities_and_generation_together() {
    let dir = tempfile::tempdir().unwrap();
    let (old, before) = enrolled_in(dir.path());
    let new_authority = Authority::new();
    let key = NewKey::generate().unwrap();
    let mut certificate = new_authority.issue(&key, "a", 2);
    certificate.authorities.push(old.der.into());
    let after = before.renewed(key, &certificate).unwrap();
    Change::begin(dir.path()).unwrap().keep(&after).unwrap();
    let found = Enrolled::load(dir.path()).unwrap();
    assert!(found.is(&after) && found.key != before.key);
    assert_eq!((found.facts.generation, found.authorities.len()), (2, 2));
}

#[test]
fn one_process_at_a_time_changes_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    let change = Change::begin(dir.path()).unwrap();
    assert!(matches!(Change::begin(dir.path()), Err(IdentityError::Busy)));
    drop(change);
    Change::begin(dir.path()).unwrap();
}

#[test]
fn another_identity_has_another_stamp() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stamp(dir.path()), None);
    let (authority, before) = enrolled_in(dir.path());
    let first = stamp(dir.path());
    assert!(first.is_some() && first == stamp(dir.path()));
    Change::begin(dir.path()).unwrap().keep(&renewed(&authority, &before)).unwrap();
    assert_ne!(stamp(dir.path()), first);
}

#[test]
fn a_damaged_part_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (_, enrolled) = enrolled_in(dir.path());
    let file = dir.path().join("node.toml");
    let good = fs::read_to_string(&file).unwrap();
    let other = NewKey::generate().unwrap();
    let key = |text: &str| text.lines().find(|line| line.starts_with("key = ")).unwrap().to_owned();
    let another_dir = tempfile::tempdir().unwrap();
    kept::Change::begin(another_dir.path()).unwrap().keep(&Enrolled { key: other.key, ..enrolled }).unwrap();
    let others = key(&fs::read_to_string(another_dir.path().join("node.toml")).unwrap());
    for wrong in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace(&key(&good), "key = \"?\""),
        good.replace(&key(&good), &others),
    ] {
        fs::write(&file, &wrong).unwrap();
        let told = Enrolled::load(dir.path()).unwrap_err();
        assert!(matches!(told, IdentityError::Damaged { .. }), "{told}");
        assert!(told.to_string().contains("node.toml"), "{told}");
    }
}

#[test]
fn an_identity_in_four_files_is_read_and_goes_with_its_first_renewal() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, enrolled) = enrolled_in(dir.path());
    fs::remove_file(dir.path().join("node.toml")).unwrap();
    kept_in_four_files(dir.path(), &enrolled);
    let old = Enrolled::load(dir.path()).unwrap();
    assert!(old.is(&enrolled) && old.key == enrolled.key);
    assert_eq!((old.facts.generation, old.controller()), (0, None), "not known");
    let after = renewed(&authority, &old);
    Change::begin(dir.path()).unwrap().keep(&after).unwrap();
    assert!(Enrolled::load(dir.path()).unwrap().is(&after));
    assert_eq!(names_in(dir.path()), ["identity.lock", "node.toml"]);
    kept_in_four_files(dir.path(), &enrolled);
    fs::remove_file(dir.path().join("node.der")).unwrap();
    let told = Enrolled::load(dir.path()).unwrap_err().to_string();
    assert!(told.contains("node.der"), "{told}");
}

/// Every step of a replacement that a kill can come before, from the first byte written to the last file removed.
#[test]
fn a_kill_between_any_two_steps_leaves_the_identity_before_or_after() {
    for from_four_files in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (authority, before) = enrolled_in(dir.path());
        if from_four_files {
            kept_in_four_files(dir.path(), &before);
        }
        let file = dir.path().join("node.toml");
        let text_before = fs::read(&file).unwrap();
        let after = renewed(&authority, &before);
        let aside = tempfile::tempdir().unwrap();
        Change::begin(aside.path()).unwrap().keep(&after).unwrap();
        let text_after = fs::read(aside.path().join("node.toml")).unwrap();
        let loads = |expected: &Enrolled| {
            let found = Enrolled::load(dir.path()).unwrap();
            assert!(found.is(expected) && found.key == expected.key);
        };
        let partial = dir.path().join("node.4711.partial");
        for written in [0, 1, text_after.len() / 2, text_after.len()] {
            fs::write(&partial, &text_after[..written]).unwrap();
            loads(&before);
            assert_eq!(fs::read(&file).unwrap(), text_before);
        }
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&partial, &file).unwrap();
        loads(&after);
        // What an agent that kept four files left is removed one by one.
        for left in ["node-key.der", "node.der", "authorities.bin"] {
            if from_four_files {
                fs::remove_file(dir.path().join(left)).unwrap();
            }
            loads(&after);
        }
        let third = renewed(&authority, &after);
        Change::begin(dir.path()).unwrap().keep(&third).unwrap();
        loads(&third);
    }
}

const REPLACES_IN: &str = "HORCRUX_TEST_REPLACES_IN";

/// What the test below kills: it does nothing unless that started it.
#[test]
fn replaces_an_identity_until_it_is_killed() {
    let Some(dir) = std::env::var_os(REPLACES_IN).map(PathBuf::from) else { return };
    let authority = Authority::new();
    let mut key = NewKey::generate().unwrap();
    for generation in 1.. {
        let certificate = authority.issue(&key, "a", generation);
        let new = key.certified(&certificate, facts()).unwrap();
        Change::begin(&dir).unwrap().keep(&new).unwrap();
        key = NewKey::generate().unwrap();
    }
}

#[test]
fn kill_9_at_any_moment_leaves_a_whole_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let mut last = None;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "identity::tests::replaces_an_identity_until_it_is_killed"])
            .env(REPLACES_IN, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Until it has begun, and then a moment of another length each time.
        for _ in 0..200 {
            if stamp(dir.path()) != last {
                break;
            }
            assert!(never.recv_timeout(Duration::from_millis(10)).is_err());
        }
        assert!(never.recv_timeout(Duration::from_micros(317 * round)).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        Enrolled::load(dir.path()).unwrap();
        assert_ne!(stamp(dir.path()), last, "round {round} replaced nothing");
        last = stamp(dir.path());
    }
    let (_, enrolled) = enrolled_in(dir.path());
    assert!(Enrolled::load(dir.path()).unwrap().is(&enrolled));
    assert_eq!(names_in(dir.path()), ["identity.lock", "node.toml"], "half-written files hold keys too");
}
