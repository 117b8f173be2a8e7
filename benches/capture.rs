//! What it costs to watch lattice: each pass with hooks against lattice's own un-instrumented entry point on the same
//! tokens, in one run, so that only ratios count.
//!
//! ```text
//! cargo bench --bench capture                        a synthetic model of 8 layers, 128 tokens
//! cargo bench --bench capture -- MODEL TOKENS        another model, as many tokens
//! cargo bench --bench capture -- --short             small, to see that it runs
//! ```
//!
//! Rounds are interleaved and medians are taken, of as many rounds as fit into some minutes; beside the time stands,
//! where the system tells, the CPU time of all threads, which says more on a busy machine. lattice has no Q4 engine for
//! the processor: there the pass without a hook is what the others are held against.

use half::bf16;
use layerdiff::capture::open_engine;
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::error::Result;
use layerdiff::hook::{At, CaptureHook, Hook, NoHook};
use layerdiff::model::PointFilter;
use layerdiff::prompt::Prompt;
use layerdiff::tensor::Tensor;
use layerdiff::trace::{Provenance, TraceWriter, WriteOptions};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many rounds there are, of which the median counts.
#[derive(Clone, Copy)]
struct Rounds {
    least: usize,
    most: usize,
    /// How long those of one engine may take once there are enough of them.
    time: Duration,
}

const ROUNDS: Rounds = Rounds { least: 7, most: 25, time: Duration::from_secs(400) };
const ONCE: Rounds = Rounds { least: 1, most: 1, ..ROUNDS };

/// As `capture` has it.
const SHARD_BYTES: usize = 8 << 20;

/// The outputs of the layers.
const LAYERS: &str = "model.layers.{[0-9],[0-9][0-9]}";

/// All points but the logits, which the engine itself computes of the last position only.
const INSIDE: &str = "model.*";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let root = tempfile::tempdir().unwrap();
    let synthetic = root.path().join("model");
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [model, tokens] => measure(Path::new(model), tokens.parse().unwrap(), ROUNDS),
        ["--short"] => {
            synthesize(&synthetic, 64, 4);
            measure(&synthetic, 16, ONCE);
        }
        [] => {
            synthesize(&synthetic, 512, 8);
            measure(&synthetic, 128, ROUNDS);
        }
        other => panic!("MODEL TOKENS, --short or nothing, and not {other:?}"),
    }
}

/// Takes every tensor of some points and drops it.
struct Sink(PointFilter);

impl Hook for Sink {
    fn wants(&self, point: &str) -> bool {
        self.0.accepts(point)
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        Ok(std::hint::black_box(tensor))
    }
}

/// Copies every tensor of some points and drops the copy.
struct Copied(PointFilter);

impl Hook for Copied {
    fn wants(&self, point: &str) -> bool {
        self.0.accepts(point)
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        drop(std::hint::black_box(tensor.to_le_bytes()));
        Ok(tensor)
    }
}

/// What is timed: its name, and the engine's work on a prompt.
type Work<'a> = (&'a str, &'a dyn Fn(&mut dyn Engine));

fn measure(dir: &Path, tokens: u32, rounds: Rounds) {
    let model = ModelDir::open(dir).unwrap();
    let vocabulary = model.graph().dim("vocab") as u32;
    let prompt = Prompt {
        id: "p".into(),
        category: None,
        text: None,
        // Spread over the vocabulary.
        token_ids: (0..tokens).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary).collect(),
        step_token_ids: Vec::new(),
    };
    println!(
        "{} layers, hidden {}, vocabulary {vocabulary}; {tokens} tokens, {} threads",
        model.graph().components().iter().filter_map(|c| c.layer).max().map_or(0, |last| last + 1),
        model.graph().dim("hidden"),
        rayon::current_num_threads()
    );
    let ids = &prompt.token_ids;
    let glob = |glob: &str| PointFilter::new(glob).unwrap();
    let hooked = |engine: &mut dyn Engine, hook: &mut dyn Hook| engine.run_unchecked(ids, &[], hook).unwrap();
    let root = tempfile::tempdir().unwrap();
    let bytes = Cell::new(0);
    let to_disk = |engine: &mut dyn Engine, points: &str, checked: bool| {
        let out = root.path().join("trace");
        let mut writer = TraceWriter::create(&out, options(&model)).unwrap();
        writer.start_prompt(&prompt);
        let points = glob(points);
        let mut hook = CaptureHook::new(&mut writer, &points);
        if checked {
            engine.run(ids, &[], &mut hook).unwrap();
        } else {
            hooked(engine, &mut hook);
        }
        writer.finish(None).unwrap();
        bytes.set(size(&out));
        std::fs::remove_dir_all(&out).unwrap();
    };
    for (name, path) in [
        ("lattice-f32", Some("batched")),
        ("lattice-f32", Some("serial")),
        ("lattice-f16", None),
        ("lattice-q4", None),
    ] {
        let mut engine = open_engine(name, &model, path).unwrap();
        to_disk(engine.as_mut(), "*", false);
        let alone = engine.run_alone(ids, &[]).unwrap();
        let no_hook: Work<'_> = ("no hook", &|engine| hooked(engine, &mut NoHook));
        let base: Work<'_> =
            ("un-instrumented", &|engine| assert!(engine.run_alone(ids, &[]).unwrap(), "it has run before"));
        let mut works: Vec<Work<'_>> = if alone { vec![base, no_hook] } else { vec![no_hook] };
        let hooks: [Work<'_>; 9] = [
            ("layer outputs, dropped", &|engine| hooked(engine, &mut Sink(glob(LAYERS)))),
            ("layer outputs, to disk", &|engine| to_disk(engine, LAYERS, false)),
            ("all but logits, dropped", &|engine| hooked(engine, &mut Sink(glob(INSIDE)))),
            ("all but logits, copied", &|engine| hooked(engine, &mut Copied(glob(INSIDE)))),
            ("all but logits, to disk", &|engine| to_disk(engine, INSIDE, false)),
            ("all points, dropped", &|engine| hooked(engine, &mut Sink(glob("*")))),
            ("all points, copied", &|engine| hooked(engine, &mut Copied(glob("*")))),
            ("all points, to disk", &|engine| to_disk(engine, "*", false)),
            ("the same, with self-check", &|engine| to_disk(engine, "*", true)),
        ];
        works.extend(hooks);
        let times = interleaved(&works, engine.as_mut(), rounds);
        println!(
            "\n{}: all points are {:.1} MB; medians of {}",
            path.map_or_else(|| name.to_owned(), |path| format!("{name} {path}")),
            bytes.get() as f64 / 1e6,
            times[0].len()
        );
        print(&works, &times);
    }
}

/// Seconds, and seconds of the processor.
type Times = [f64; 2];

/// The times that each took, by round.
fn interleaved(works: &[Work<'_>], engine: &mut dyn Engine, rounds: Rounds) -> Vec<Vec<Times>> {
    let mut times = vec![Vec::new(); works.len()];
    let begin = Instant::now();
    for round in 0..rounds.most {
        // An odd number of them has one in the middle.
        if round >= rounds.least && round % 2 == 1 && begin.elapsed() > rounds.time {
            break;
        }
        for ((_, work), times) in works.iter().zip(&mut times) {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            work(engine);
            times.push([start.elapsed().as_secs_f64(), cpu_seconds() - cpu]);
        }
    }
    times
}

/// What all threads of this process have used so far, in hundredths of seconds as Linux counts; else 0.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields
        .get(11..13)
        .map_or(0.0, |ticks| ticks.iter().filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0)
}

fn print(works: &[Work<'_>], times: &[Vec<Times>]) {
    println!("{:<28} {:>9} {:>8} {:>8}   of the rounds", "", "seconds", "ratio", "of CPU");
    for ((name, _), own) in works.iter().zip(times) {
        let ratios =
            |i: usize| own.iter().zip(&times[0]).map(|(own, base)| own[i] / base[i]).collect::<Vec<_>>();
        let (low, high) =
            ratios(0).iter().fold((f64::MAX, 0.0f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let [ratio, cpu] = [0, 1].map(|i| median(ratios(i)));
        let seconds = median(own.iter().map(|times| times[0]).collect());
        println!("{name:<28} {seconds:>9.3} {ratio:>8.3} {cpu:>8.3}   {low:.3} to {high:.3}");
    }
}

fn options(model: &ModelDir) -> WriteOptions {
    WriteOptions {
        architecture: model.graph().description().name.clone(),
        config: model.config().as_json().clone(),
        provenance: Provenance::default(),
        adapter: None,
        shard_bytes: SHARD_BYTES,
    }
}

fn size(trace: &Path) -> u64 {
    std::fs::read_dir(trace).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes a model of the real layout with random weights; every fourth layer is of full attention.
fn synthesize(dir: &Path, hidden: usize, layers: usize) {
    let (vocab, inner, heads, head) = (16 * hidden, 3 * hidden, 4, hidden / 2);
    let (keys, key, values, value) = (4, hidden / 4, 4, hidden / 4);
    let conv = 2 * keys * key + values * value;
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| drop(shapes.insert(name, shape.to_vec()));
    add("model.language_model.embed_tokens.weight".into(), &[vocab, hidden]);
    add("model.language_model.norm.weight".into(), &[hidden]);
    for i in 0..layers {
        let mut add = |local: &str, shape: &[usize]| {
            add(format!("model.language_model.layers.{i}.{local}"), shape);
        };
        add("input_layernorm.weight", &[hidden]);
        add("post_attention_layernorm.weight", &[hidden]);
        add("mlp.gate_proj.weight", &[inner, hidden]);
        add("mlp.up_proj.weight", &[inner, hidden]);
        add("mlp.down_proj.weight", &[hidden, inner]);
        if i % 4 == 3 {
            add("self_attn.q_proj.weight", &[2 * heads * head, hidden]);
            add("self_attn.k_proj.weight", &[heads / 2 * head, hidden]);
            add("self_attn.v_proj.weight", &[heads / 2 * head, hidden]);
            add("self_attn.o_proj.weight", &[hidden, heads * head]);
            add("self_attn.q_norm.weight", &[head]);
            add("self_attn.k_norm.weight", &[head]);
        } else {
            add("linear_attn.in_proj_qkv.weight", &[conv, hidden]);
            add("linear_attn.in_proj_z.weight", &[values * value, hidden]);
            add("linear_attn.in_proj_a.weight", &[values, hidden]);
            add("linear_attn.in_proj_b.weight", &[values, hidden]);
            add("linear_attn.out_proj.weight", &[hidden, values * value]);
            add("linear_attn.conv1d.weight", &[conv, 1, 4]);
            add("linear_attn.norm.weight", &[value]);
            add("linear_attn.A_log", &[values]);
            add("linear_attn.dt_bias", &[values]);
        }
    }
    let text = json!({
        "model_type": "qwen3_5_text", "hidden_size": hidden, "vocab_size": vocab, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads / 2, "head_dim": head,
        "intermediate_size": inner, "linear_num_key_heads": keys, "linear_num_value_heads": values,
        "linear_key_head_dim": key, "linear_value_head_dim": value, "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true, "eos_token_id": 0, "hidden_act": "silu",
        "layer_types": (0..layers).map(|i| if i % 4 == 3 { "full_attention" } else { "linear_attention" })
            .collect::<Vec<_>>(),
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
            "mrope_section": [head / 8 - 2 * (head / 24), head / 24, head / 24], "mrope_interleaved": true,
        },
    });
    write(dir, &shapes, &json!({"model_type": "qwen3_5", "tie_word_embeddings": true, "text_config": text}));
}

fn write(dir: &Path, shapes: &BTreeMap<String, Vec<usize>>, config: &Value) {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((state >> 40) as u32) / f64::from(1 << 23) - 1.0
    };
    let tensors: Vec<(&String, &Vec<usize>, Vec<u8>)> = shapes
        .iter()
        .map(|(name, shape)| {
            // Matrices keep the size of their input.
            let scale = if shape.len() == 1 {
                0.1
            } else {
                (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt()
            };
            let values = (0..shape.iter().product()).map(|_| bf16::from_f64(scale * random()));
            (name, shape, values.flat_map(bf16::to_le_bytes).collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::BF16, (*shape).clone(), bytes).unwrap()));
    std::fs::create_dir(dir).unwrap();
    serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/model/tokenizer.json");
    std::fs::copy(tokenizer, dir.join("tokenizer.json")).unwrap();
}
