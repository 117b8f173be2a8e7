//! What a tap costs that is off: a kernel with a call of it after each row, against the kernel alone.
//!
//! `cargo bench --bench tap` prints the ratio for rows of some widths. The fastest of many rounds counts, of both in
//! turns: whatever else the machine does only adds.

use layerdiff::tap::Tap;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 50;

/// Elements of a round.
const ELEMENTS: usize = 1 << 18;

fn main() {
    println!("silu(gate) * up, a call of the tap for each row; the tap is off");
    for width in [16, 128, 1024] {
        let (gate, up) = (vec![0.5_f32; ELEMENTS], vec![2.0_f32; ELEMENTS]);
        let mut act = vec![0.0_f32; ELEMENTS];
        let (mut without, mut with) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            without = without.min(timed(|| kernel(&gate, &up, &mut act, width, |_, _| ())));
            let tap = black_box(layerdiff::tap::global());
            with = with.min(timed(|| {
                kernel(&gate, &up, &mut act, width, |row, act| tell(tap, row, act));
            }));
        }
        let call = (with.as_secs_f64() - without.as_secs_f64()) / (ELEMENTS / width) as f64 * 1e9;
        println!(
            "rows of {width:>4}: {:.4} of the time without, {call:.2} ns a call",
            with.as_secs_f64() / without.as_secs_f64()
        );
    }
}

fn tell(tap: &Tap, row: usize, act: &[f32]) {
    tap.rows("model.layers.0.mlp.act", row, &[1, act.len()], act);
}

fn kernel(gate: &[f32], up: &[f32], act: &mut [f32], width: usize, seen: impl Fn(usize, &[f32])) {
    let rows = gate.chunks(width).zip(up.chunks(width)).zip(act.chunks_mut(width));
    for (row, ((gate, up), act)) in rows.enumerate() {
        silu_mul(gate, up, act);
        seen(row, act);
    }
}

/// One compiled function for both, or the compiler's luck would be what is measured.
#[inline(never)]
fn silu_mul(gate: &[f32], up: &[f32], act: &mut [f32]) {
    for ((g, u), a) in gate.iter().zip(up).zip(act.iter_mut()) {
        *a = g / (1.0 + (-g).exp()) * u;
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
