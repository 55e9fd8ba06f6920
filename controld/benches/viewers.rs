//! What it costs to read along with what VNC viewers send.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use horcrux_controld::console::rfb::{Filter, Input};

/// What a WebSocket's message holds at most.
const MESSAGE: usize = 64 << 10;

/// A filter behind the handshake.
fn filter(input: Input) -> Filter {
    let mut filter = Filter::new(input);
    let hello = Bytes::from_static(b"RFB 003.008\n\x01\x01");
    filter.pass(hello, &mut Vec::new()).expect("a handshake");
    filter
}

fn viewers(c: &mut Criterion) {
    let pointer = Bytes::from([5, 0, 1, 0, 1, 0].repeat(100_000));
    let mut clipboard = vec![6, 0, 0, 0, 0, 16, 0, 0];
    clipboard.resize(8 + (1 << 20), b'x');
    let clipboard = Bytes::from(clipboard);
    let mut group = c.benchmark_group("from_viewer");
    for (name, said, piece, input) in [
        ("pointer_one_by_one", &pointer, 6, Input::Pass),
        ("pointer_cut_in_halves", &pointer, 3, Input::Pass),
        ("pointer_in_large_pieces", &pointer, MESSAGE, Input::Pass),
        ("pointer_dropped", &pointer, MESSAGE, Input::Drop),
        ("clipboard", &clipboard, MESSAGE, Input::Pass),
    ] {
        group.throughput(Throughput::Bytes(said.len() as u64));
        let pieces: Vec<Bytes> = said.chunks(piece).map(|part| said.slice_ref(part)).collect();
        let (mut filter, mut out) = (filter(input), Vec::new());
        group.bench_function(name, |b| {
            b.iter(|| {
                for piece in &pieces {
                    filter.pass(piece.clone(), &mut out).expect("what a viewer sends");
                    black_box(&out);
                    out.clear();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, viewers);
criterion_main!(benches);
