//! The comparison of two traces against a pass that only sums both files, in one run, so that only ratios count.
//!
//! ```text
//! cargo bench --bench compare                      256 MB a side
//! cargo bench --bench compare -- 2000              2 GB a side
//! cargo bench --bench compare -- 256 --numpy       also a vectorized numpy script, `compare.py` beside this
//! cargo bench --bench compare -- --short           4 MB a side, one round
//! ```
//!
//! What is timed is right: the metrics of the first tensor are held against plain formulas, and with `--numpy` against
//! the script's.
//!
//! Rounds are interleaved and medians are taken: `sum`, then each comparison, then again. The traces are written
//! to the temporary directory first and lie in the page cache.

#[path = "compare/agree.rs"]
mod agree;

use half::{bf16, f16};
use layerdiff::metrics;
use layerdiff::prompt::Prompt;
use layerdiff::tensor::{DType, TensorView};
use layerdiff::trace::{Provenance, Trace, TraceWriter, WriteOptions};
use memmap2::Mmap;
use rayon::prelude::*;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 7;
/// Elements of a tensor: 512 tokens of width 2048.
const SHAPE: [usize; 2] = [512, 2048];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let (usual, rounds) = if has("--short") { (4, 1) } else { (256, ROUNDS) };
    let megabytes: usize = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(usual);
    let root = tempfile::tempdir().unwrap();
    println!("{megabytes} MB a side, {} threads, medians of {rounds}", rayon::current_num_threads());
    println!("{:<26} {:>9} {:>9} {:>12}", "", "GB/s", "of sum", "× slower");
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let sides = ["reference", "candidate"].map(|name| root.path().join(format!("{name}-{dtype}")));
        for (seed, side) in (1..).zip(&sides) {
            write(side, dtype, seed, megabytes << 20);
        }
        agree::with_formulas(&sides);
        measure(dtype, &sides, rounds, has("--numpy"));
    }
}

/// A trace of noise; the two sides differ by about 1e-3.
fn write(out: &Path, dtype: DType, seed: u64, bytes: usize) {
    let options = WriteOptions {
        architecture: "qwen3_5".into(),
        config: serde_json::json!({}),
        provenance: Provenance::default(),
        adapter: None,
        shard_bytes: 64 << 20,
    };
    let mut writer = TraceWriter::create(out, options).unwrap();
    writer.start_prompt(&Prompt {
        id: "p".into(),
        category: None,
        text: None,
        token_ids: vec![0; SHAPE[0]],
        step_token_ids: Vec::new(),
    });
    let elements: usize = SHAPE.iter().product();
    let mut state = 1u64;
    let mut other = seed;
    for i in 0..(bytes / (elements * dtype.size())).max(1) {
        let random = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((*state >> 40) as u32) / f64::from(1 << 24) - 0.5
        };
        let values = (0..elements).map(|_| {
            let common = random(&mut state);
            (common + 1e-3 * common * random(&mut other)) as f32
        });
        let bytes: Vec<u8> = match dtype {
            DType::BF16 => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            DType::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        writer.push(0, &format!("tensor.{i}"), dtype, &SHAPE, bytes, "original", false).unwrap();
    }
    writer.finish(None).unwrap();
}

fn shards(trace: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(trace).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect()
}

/// Reads both sides and adds their words up.
fn sum(sides: &[PathBuf; 2]) -> u64 {
    let files: Vec<PathBuf> = sides.iter().flat_map(|side| shards(side)).collect();
    // SAFETY: nobody writes to the files while they are mapped.
    let maps: Vec<Mmap> =
        files.iter().map(|file| unsafe { Mmap::map(&File::open(file).unwrap()) }.unwrap()).collect();
    let pieces: Vec<&[u8]> = maps.iter().flat_map(|map| map.chunks(1 << 20)).collect();
    let add = |piece: &&[u8]| {
        piece.as_chunks().0.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
    };
    pieces.par_iter().map(add).reduce(|| 0, u64::wrapping_add)
}

/// The largest of what is said of the pairs, as the command takes them: in parallel across tensors.
fn compare(sides: &[PathBuf; 2], of: impl Fn(TensorView<'_>, TensorView<'_>) -> f64 + Sync) -> f64 {
    let [reference, candidate] = [&sides[0], &sides[1]].map(|side| Trace::open(side).unwrap());
    let one = |entry: &layerdiff::trace::Entry| {
        let other = candidate.find(&entry.prompt, entry.step, &entry.point).unwrap();
        of(reference.view(entry), candidate.view(other))
    };
    reference.entries().par_iter().map(one).reduce(|| 0.0, f64::max)
}

/// What the script says of the tensors: the seconds it took, and the metrics of the first.
fn numpy(sides: &[PathBuf; 2], quantiles: bool) -> serde_json::Value {
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare.py");
    let output = Command::new(python).arg(script).args(sides).arg(quantiles.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn measure(dtype: DType, sides: &[PathBuf; 2], rounds: usize, with_numpy: bool) {
    let bytes: u64 = sides.iter().flat_map(|side| shards(side)).map(|f| f.metadata().unwrap().len()).sum();
    let timed = |work: &dyn Fn() -> u64| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed().as_secs_f64()
    };
    let all = |r: TensorView<'_>, c: TensorView<'_>| metrics::compare(r, c, Some(0)).rel_l2;
    let tokens = |r: TensorView<'_>, c: TensorView<'_>| metrics::rel_l2_along(r, c, 0)[0];
    let [mut summed, mut compared, mut along] = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        summed.push(timed(&|| sum(sides)));
        compared.push(timed(&|| compare(sides, all).to_bits()));
        along.push(timed(&|| compare(sides, tokens).to_bits()));
    }
    let [summed, compared, along] = [summed, compared, along].map(median);
    let row = |what: &str, seconds: f64| {
        let rate = bytes as f64 / seconds / 1e9;
        let what = format!("{dtype}, {what}");
        println!("{what:<26} {rate:>9.2} {:>8.0} % {:>11.1}", 100.0 * summed / seconds, seconds / compared);
    };
    row("sum", summed);
    row("all metrics", compared);
    row("without quantiles", along);
    // numpy has no bfloat16.
    if !with_numpy || dtype != DType::F32 {
        return;
    }
    for (what, quantiles) in [("numpy", false), ("numpy with quantiles", true)] {
        let said = numpy(sides, quantiles);
        row(what, said["seconds"].as_f64().unwrap());
        agree::with_numpy(sides, &said["first"]);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
