//! The replay of the whole bundled trace against lattice's f32 passes over the same tokens, in one run and on one
//! thread, so that only their ratio counts.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo bench --profile dev --bench replay
//! RAYON_NUM_THREADS=1 cargo bench --profile dev --bench replay -- MODEL PROMPT_TOKENS STEPS
//! ```
//!
//! With a model, a prompt of so many tokens is captured from lattice's f32 engine and replayed.

use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::hook::NoHook;
use layerdiff::model::{Op, PointFilter};
use layerdiff::prompt::Prompt;
use layerdiff::replay::{Held, Place, replay};
use layerdiff::trace::Trace;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Each is timed so many times, and the fastest counts: whatever else the machine does only adds.
const ROUNDS: usize = 3;

/// What takes longer than this is timed once.
const LONG: Duration = Duration::from_secs(2);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.as_slice() {
        [model, tokens, steps] => {
            other(Path::new(model), tokens.parse().unwrap(), steps.parse().unwrap());
        }
        _ => bundled(),
    }
}

fn bundled() {
    let bundle = Bundle::unpack().unwrap();
    let model = ModelDir::open(&bundle.model()).unwrap();
    let trace = Trace::open(&bundle.reference()).unwrap();
    measure(&model, &trace);
}

fn other(dir: &Path, tokens: u32, steps: usize) {
    let model = ModelDir::open(dir).unwrap();
    let vocabulary = model.graph().dim("vocab") as u32;
    let prompts = [Prompt {
        id: "p".into(),
        category: None,
        text: None,
        // Spread over the vocabulary.
        token_ids: (0..tokens).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary).collect(),
        step_token_ids: Vec::new(),
    }];
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("trace");
    let points = PointFilter::default();
    let request =
        Request { model: &model, prompts: &prompts, steps, points: &points, dequantized: None, quiet: true };
    capture(open_engine("lattice-f32", &model, Some("serial")).unwrap().as_mut(), &request, &out).unwrap();
    report_memory("capture");
    measure(&model, &Trace::open(&out).unwrap());
}

fn measure(model: &ModelDir, trace: &Trace) {
    let held = Held::open(model.path(), model.graph().clone(), model.config().clone()).unwrap();
    let prompts = &trace.manifest().prompts;
    let tokens: usize = prompts.iter().map(|p| p.token_ids.len()).sum();
    let steps: usize = prompts.iter().map(|p| p.step_token_ids.len()).sum();
    println!(
        "{} prompts, {tokens} tokens and {steps} decode steps, {} threads",
        prompts.len(),
        rayon::current_num_threads()
    );
    let places = all(model, prompts, None);
    let run = |places: &[Place<'_>]| drop(replay(trace, &held, places, || ()).unwrap());
    let whole = fastest(|| run(&places));
    report_memory("replay");
    println!("replay of {} points: {:.3} s", places.len(), whole.as_secs_f64());
    let mut kinds = BTreeMap::new();
    for component in model.graph().components() {
        kinds.entry(format!("{:?}", component.op)).or_insert(component.op);
    }
    for (name, op) in kinds {
        let places = all(model, prompts, Some(op));
        let time = fastest(|| run(&places));
        println!(
            "    {name:<18} {:.3} s, {:.0} %",
            time.as_secs_f64(),
            100.0 * time.as_secs_f64() / whole.as_secs_f64()
        );
    }
    for path in ["serial", "batched"] {
        let mut engine = open_engine("lattice-f32", model, Some(path)).unwrap();
        let pass = fastest(|| passes(engine.as_mut(), prompts));
        println!(
            "lattice-f32, {path}: {:.3} s; the replay takes {:.2} times that",
            pass.as_secs_f64(),
            whole.as_secs_f64() / pass.as_secs_f64()
        );
    }
}

/// All components of all steps, or those of one kind.
fn all<'a>(model: &'a ModelDir, prompts: &'a [Prompt], op: Option<Op>) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    for prompt in prompts {
        for step in 0..=prompt.step_token_ids.len() as u32 {
            let wanted = model.graph().components().iter().filter(|c| op.is_none_or(|op| op == c.op));
            places.extend(wanted.map(|c| Place { prompt, step, point: &c.point }));
        }
    }
    places
}

/// The same tokens once through the engine, without any hook.
fn passes(engine: &mut dyn Engine, prompts: &[Prompt]) {
    for prompt in prompts {
        engine.run_unchecked(&prompt.token_ids, &prompt.step_token_ids, &mut NoHook).unwrap();
    }
}

fn fastest(mut work: impl FnMut()) -> Duration {
    let mut once = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let first = once(0);
    if first > LONG { first } else { (1..ROUNDS).map(once).min().unwrap().min(first) }
}

/// The most memory that the process has held since the last time, where the system tells: mapped weights and traces count.
fn report_memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("{when}: peak memory {}", line.trim_start_matches("VmHWM:").trim());
    }
    // The next peak starts from here.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
