//! How much memory `layerdiff compare` takes for traces that are larger than the machine's.
//!
//! ```text
//! cargo bench --bench memory                   both sides together a quarter larger than the memory
//! cargo bench --bench memory -- 100            100 GB, both sides together
//! cargo bench --bench memory -- --short        a few MB, in seconds
//! ```
//!
//! The traces are of a dense decoder: few tensors of up to gigabytes, and many small ones. Small tensors are noise,
//! large ones holes in their files, which take no room on the disk but are read like any other zeros (on a disk: in
//! a `tmpfs` they take memory). The last element of the largest kind of tensor differs, and the last element of the last
//! tensor of the last shard is NaN: both must be found, so that all was read.
//!
//! What is printed is the largest amount of anonymous memory, sampled while the command runs. Pages of the
//! mapped files are the system's to drop and count apart. Fails above 256 MB, or where the report is not as it must be.

use layerdiff::model::{Graph, ModelConfig};
use layerdiff::prompt::Prompt;
use layerdiff::tensor::DType;
use layerdiff::trace::{Entry, Manifest, Provenance, Shard};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: u64 = 256 << 20;

/// Larger tensors are holes.
const SMALL: u64 = 1 << 20;

/// A decoder, what it is given, and how much is in a shard.
struct Form {
    config: Value,
    tokens: usize,
    steps: u32,
    shard_bytes: u64,
}

impl Form {
    fn new(width: usize, vocabulary: usize, steps: u32, shard_bytes: u64) -> Self {
        let config = json!({
            "model_type": "llama", "num_hidden_layers": 4, "hidden_size": width, "vocab_size": vocabulary,
            "num_attention_heads": width / 128, "num_key_value_heads": width / 512, "head_dim": 128,
            "intermediate_size": width * 7 / 2, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        });
        Self { config, tokens: 64, steps, shard_bytes }
    }

    /// All entries, with the bytes of each, in the order of execution.
    fn entries(&self) -> Vec<(Entry, u64)> {
        let graph = Graph::for_config(&ModelConfig::new(self.config.clone()).unwrap()).unwrap();
        let mut entries: Vec<(Entry, u64)> = Vec::new();
        let (mut shard, mut filled) = (0, 0);
        for step in 0..=self.steps {
            let tokens = if step == 0 { self.tokens } else { 1 };
            for component in graph.components() {
                let entry = Entry {
                    order: entries.len() as u64,
                    prompt: "p".into(),
                    step,
                    point: component.point.clone(),
                    dtype: component.dtype.unwrap_or(DType::F32),
                    shape: graph.shape(component, tokens, self.tokens + step as usize),
                    basis: "original".into(),
                    derived: false,
                    shard,
                    rows: None,
                };
                let bytes = entry.byte_len().unwrap() as u64;
                filled += bytes;
                entries.push((entry, bytes));
                if filled >= self.shard_bytes {
                    (shard, filled) = (shard + 1, 0);
                }
            }
        }
        entries
    }

    fn bytes(&self) -> u64 {
        self.entries().iter().map(|(_, bytes)| bytes).sum()
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let memory = total_memory();
    let form = if args.iter().any(|arg| arg == "--short") {
        Form::new(512, 1000, 4, 1 << 20)
    } else {
        let gigabytes = args.iter().find_map(|arg| arg.parse::<u64>().ok()).map(|n| n * 1_000_000_000);
        let wanted = gigabytes.unwrap_or(memory + memory / 4);
        let mut form = Form::new(4096, 128_256, 16, 512 << 20);
        while 2 * form.bytes() < wanted {
            form.tokens += 64;
        }
        form
    };
    let root = tempfile::tempdir().unwrap();
    let sides = ["reference", "candidate"].map(|name| root.path().join(name));
    for (out, candidate) in sides.iter().zip([false, true]) {
        write(out, &form, candidate);
    }
    let entries = form.entries();
    let largest = entries.iter().map(|(_, bytes)| *bytes).max().unwrap();
    println!(
        "{:.2} GB on both sides, memory {:.2} GB; {} tensors a side of up to {:.3} GB, in {} shards",
        2.0 * form.bytes() as f64 / 1e9,
        memory as f64 / 1e9,
        entries.len(),
        largest as f64 / 1e9,
        entries.last().unwrap().0.shard + 1,
    );
    let report = root.path().join("report");
    let start = Instant::now();
    let (exit_code, peak) = compare(&sides[0], &sides[1], &report);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "compared in {seconds:.1} s, {:.2} GB/s; at most {:.1} MB of anonymous memory, {:.1} MB with pages of files",
        2.0 * form.bytes() as f64 / seconds / 1e9,
        peak.anonymous as f64 / 1e6,
        peak.all as f64 / 1e6
    );
    assert_eq!(exit_code, Some(1), "two faults are planted");
    found(&serde_json::from_slice(&std::fs::read(report.join("report.json")).unwrap()).unwrap(), &form);
    assert!(peak.samples > 0 && peak.anonymous > 0, "nothing was sampled");
    assert!(peak.anonymous < LIMIT, "more than {} MB of anonymous memory", LIMIT >> 20);
}

/// Holds the report against what was planted.
fn found(report: &Value, form: &Form) {
    let faults = report["faults"].as_array().unwrap();
    let faults: Vec<_> = faults.iter().map(|f| (f["point"].as_str().unwrap(), f["step"].as_u64())).collect();
    assert_eq!(faults, [("lm_head", Some(0)), ("lm_head", Some(u64::from(form.steps)))]);
    let metrics = |step: u32| -> &Value {
        let points = report["points"].as_array().unwrap();
        points.iter().find(|p| p["point"] == "lm_head" && p["step"] == step).unwrap()
    };
    let last = form.config["vocab_size"].as_u64().unwrap() - 1;
    assert_eq!(metrics(0)["max_abs_at"]["index"], json!([form.tokens - 1, last]));
    assert_eq!(metrics(0)["rel_l2"], json!(0.5));
    assert_eq!(metrics(form.steps)["non_finite"]["mismatches"], json!(1));
    assert_eq!(metrics(form.steps)["max_abs_at"]["index"], json!([0, last]));
    let coverage = &report["coverage"];
    assert_eq!(coverage["matched"], json!(form.entries().len()));
    assert_eq!(coverage["matched"], coverage["expected"]);
    println!("both planted differences are found, in the last places");
}

fn write(out: &Path, form: &Form, candidate: bool) {
    std::fs::create_dir(out).unwrap();
    let entries = form.entries();
    let mut shards = Vec::new();
    for shard in entries.chunk_by(|a, b| a.0.shard == b.0.shard) {
        let file = format!("shard-{:05}.safetensors", shards.len());
        let last_step = |entry: &Entry| entry.step == form.steps;
        let bytes = write_shard(&out.join(&file), shard, candidate, last_step);
        shards.push(Shard { file, bytes });
    }
    let ids = |n: usize| (0..n as u32).map(|i| i % 1000).collect();
    let manifest = Manifest {
        format: "layerdiff-trace".into(),
        version: 1,
        architecture: "llama".into(),
        config: form.config.clone(),
        provenance: Provenance::default(),
        adapter: None,
        self_check: None,
        prompts: vec![Prompt {
            id: "p".into(),
            category: None,
            text: None,
            token_ids: ids(form.tokens),
            step_token_ids: ids(form.steps as usize),
        }],
        shards,
        tensors: entries.into_iter().map(|(entry, _)| entry).collect(),
        left_out: Vec::new(),
        generated: None,
    };
    std::fs::write(out.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// Writes a shard and returns its size.
fn write_shard(
    path: &Path,
    entries: &[(Entry, u64)],
    candidate: bool,
    last_step: impl Fn(&Entry) -> bool,
) -> u64 {
    let mut at = 0;
    let mut header = Map::new();
    for (entry, bytes) in entries {
        let dtype = format!("{:?}", entry.dtype);
        header.insert(
            entry.key(),
            json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [at, at + bytes]}),
        );
        at += bytes;
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let data = 8 + header.len() as u64;
    let mut file = File::create_new(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(data + at).unwrap();
    let mut at = data;
    for (entry, bytes) in entries {
        // The planted difference stands out among zeros.
        let planted_in = entry.point == "lm_head" && (entry.step == 0 || last_step(entry));
        if *bytes <= SMALL && entry.dtype == DType::F32 && !planted_in {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&noise(entry.order, *bytes as usize / 4)).unwrap();
        }
        at += bytes;
        if planted_in {
            let planted = if entry.step == 0 { 1.5 } else { f32::NAN };
            file.seek(SeekFrom::Start(at - 4)).unwrap();
            file.write_all(&if candidate { planted } else { 1.0 }.to_le_bytes()).unwrap();
        }
    }
    at
}

fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let numbers = (0..n).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    });
    numbers.flat_map(f32::to_le_bytes).collect()
}

/// The most of each kind of memory, in bytes.
#[derive(Default)]
struct Peak {
    anonymous: u64,
    all: u64,
    samples: usize,
}

/// Runs the command and watches it.
fn compare(reference: &Path, candidate: &Path, out: &Path) -> (Option<i32>, Peak) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layerdiff"));
    command.arg("--quiet").arg("compare").args([reference, candidate]).arg("--out").arg(out);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak = Peak::default();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), peak);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        if let Some(anonymous) = kilobytes(&status, "RssAnon:") {
            peak.anonymous = peak.anonymous.max(anonymous);
            peak.all = peak.all.max(kilobytes(&status, "VmHWM:").unwrap_or(0));
            peak.samples += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A figure of `/proc`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|n| n << 10)
}

/// The machine's memory.
fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux, whose /proc says what memory is used");
    kilobytes(&text, "MemTotal:").unwrap()
}
