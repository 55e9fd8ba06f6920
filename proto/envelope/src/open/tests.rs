use proptest::prelude::*;

use super::*;
use crate::key::Signer;
use crate::order::{ConsoleKind, Operation};
use crate::v1::{self, ConsoleClose, ConsoleOpen, envelope};

const NOW: i64 = 1_800_000_000_000;

fn signer() -> Signer {
    Signer::new(&[7; 32])
}

fn console_open() -> ConsoleOpen {
    ConsoleOpen {
        console_id: "0f".repeat(16),
        vm_uuid: "9a3c0f6e-1111-4222-8333-444455556666".to_owned(),
        kind: v1::ConsoleKind::Vnc.into(),
        rendezvous: vec![9; 32],
        until_unix_ms: NOW + 3_600_000,
    }
}

fn with(open: ConsoleOpen) -> Envelope {
    Envelope {
        cluster: "lab".to_owned(),
        node_id: "n1".to_owned(),
        command_id: "ab".repeat(16),
        sequence: 3,
        issued_unix_ms: NOW,
        expires_unix_ms: NOW + 60_000,
        actor: "ada@local".to_owned(),
        operation: Some(envelope::Operation::ConsoleOpen(open)),
    }
}

fn good() -> Envelope {
    with(console_open())
}

fn opened(envelope: &Envelope) -> Result<Order, EnvelopeError> {
    open(&signer().sign(envelope), &[signer().public_key()])
}

fn refused_field(envelope: &Envelope) -> &'static str {
    match opened(envelope) {
        Err(EnvelopeError::Field(InvalidField { field, .. })) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_says_what_its_envelope_does() {
    let order = opened(&good()).unwrap();
    assert_eq!(order.signer, signer().public_key().id());
    assert_eq!(order.command.to_string(), "ab".repeat(16));
    assert_eq!((order.sequence, order.actor.as_str()), (3, "ada@local"));
    assert_eq!(order.operation.name(), "console-open");
    let Operation::ConsoleOpen(open) = order.operation else { panic!() };
    assert_eq!((open.kind, open.console.to_string()), (ConsoleKind::Vnc, "0f".repeat(16)));
    assert_eq!(open.rendezvous.as_bytes(), &[9; 32]);
    let close = ConsoleClose { console_id: "0f".repeat(16) };
    let close = Envelope { operation: Some(envelope::Operation::ConsoleClose(close)), ..good() };
    assert_eq!(opened(&close).unwrap().operation, Operation::ConsoleClose(open.console));
}

#[test]
fn only_a_key_of_the_node_counts() {
    let signed = signer().sign(&good());
    let other = Signer::new(&[8; 32]);
    assert_eq!(open(&signed, &[]), Err(EnvelopeError::UnknownKey));
    assert_eq!(open(&signed, &[other.public_key()]), Err(EnvelopeError::UnknownKey));
    assert!(open(&signed, &[other.public_key(), signer().public_key()]).is_ok());
    // One that says it is of another's key.
    let key_id = signer().public_key().id();
    let forged = SignedEnvelope { key_id: key_id.as_bytes().to_vec(), ..other.sign(&good()) };
    assert_eq!(open(&forged, &[signer().public_key()]), Err(EnvelopeError::Signature(key_id)));
}

#[test]
fn bytes_that_nobody_signed_are_not_decoded() {
    let signed = SignedEnvelope { envelope: vec![255; 8], ..signer().sign(&good()) };
    assert!(matches!(open(&signed, &[signer().public_key()]), Err(EnvelopeError::Signature(_))));
    let signed = signer().sign_bytes(vec![255; 8]);
    assert!(matches!(open(&signed, &[signer().public_key()]), Err(EnvelopeError::Decode(_))));
    let signed = signer().sign_bytes(vec![0; MAX_ENVELOPE + 1]);
    assert_eq!(open(&signed, &[signer().public_key()]), Err(EnvelopeError::TooLong(MAX_ENVELOPE + 1)));
}

#[test]
fn what_a_decoder_would_skip_or_overwrite_is_refused() {
    let good = good().encode_to_vec();
    // Field 15; the sequence once more; an empty field 8 that would be merged with the one that is there.
    for more in [[0x78, 1].as_slice(), &[0x20, 4], &[0x42, 0]] {
        let signed = signer().sign_bytes([&good, more].concat());
        assert_eq!(open(&signed, &[signer().public_key()]), Err(EnvelopeError::Unknown), "{more:?}");
    }
}

#[test]
fn each_field_has_its_bounds() {
    let cases: [(&str, Envelope); 17] = [
        ("operation", Envelope { operation: None, ..good() }),
        ("command_id", Envelope { command_id: "AB".repeat(16), ..good() }),
        ("command_id", Envelope { command_id: "ab".repeat(15), ..good() }),
        ("command_id", Envelope { command_id: "+".to_owned() + &"a".repeat(31), ..good() }),
        ("actor", Envelope { actor: "a\nb".to_owned(), ..good() }),
        ("actor", Envelope { actor: "a\u{202e}b".to_owned(), ..good() }),
        ("actor", Envelope { actor: "a".repeat(321), ..good() }),
        ("actor", Envelope { actor: String::new(), ..good() }),
        ("cluster", Envelope { cluster: String::new(), ..good() }),
        ("sequence", Envelope { sequence: 0, ..good() }),
        ("expires_unix_ms", Envelope { expires_unix_ms: NOW, ..good() }),
        ("expires_unix_ms", Envelope { expires_unix_ms: NOW + 60_001, ..good() }),
        ("expires_unix_ms", Envelope { issued_unix_ms: i64::MIN, ..good() }),
        ("kind", with(ConsoleOpen { kind: 7, ..console_open() })),
        ("vm_uuid", with(ConsoleOpen { vm_uuid: console_open().vm_uuid.replace('-', ""), ..console_open() })),
        ("rendezvous", with(ConsoleOpen { rendezvous: vec![9; 31], ..console_open() })),
        ("console_id", with(ConsoleOpen { console_id: String::new(), ..console_open() })),
    ];
    for (field, envelope) in cases {
        assert_eq!(refused_field(&envelope), field, "{envelope:?}");
    }
    assert_eq!(refused_field(&with(ConsoleOpen { until_unix_ms: 0, ..console_open() })), "until_unix_ms");
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = [signer().public_key()];
        if let Ok(signed) = SignedEnvelope::decode(bytes.as_slice()) {
            prop_assert!(open(&signed, &keys).is_err());
        }
        // Even where the controller itself signs them, they are well formed or refused.
        drop(open(&signer().sign_bytes(bytes.clone()), &keys));
        let signed = SignedEnvelope { signature: bytes, ..signer().sign(&good()) };
        prop_assert!(open(&signed, &keys).is_err());
    }

    #[test]
    fn one_bit_less_or_more_is_refused(bit: prop::sample::Index) {
        let whole = signer().sign(&good()).encode_to_vec();
        let mut bytes = whole.clone();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(signed) = SignedEnvelope::decode(bytes.as_slice()) {
            prop_assert!(open(&signed, &[signer().public_key()]).is_err());
        }
    }

    #[test]
    fn what_was_cut_is_refused(cut: prop::sample::Index) {
        let mut bytes = signer().sign(&good()).encode_to_vec();
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(signed) = SignedEnvelope::decode(bytes.as_slice()) {
            prop_assert!(open(&signed, &[signer().public_key()]).is_err());
        }
    }
}
