//! Comparing while an engine runs: the verdict is that of a stored trace, byte for byte.

mod common;

use common::changed::Changed;
use common::{bundled_model, finished, layerdiff};
use layerdiff::basis::Gains;
use layerdiff::capture::{Request, capture, open_engine, watch};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::error::Result;
use layerdiff::faults::{FaultyEngine, named};
use layerdiff::floor::Floor;
use layerdiff::model::PointFilter;
use layerdiff::online::{Against, Online};
use layerdiff::prompt::Prompt;
use layerdiff::replay::Held;
use layerdiff::report::{Live, Options, Outcome, Report, Revisit, assemble};
use layerdiff::split::Feed;
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::Trace;
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;
use tempfile::TempDir;

/// A report without the command line that made it.
fn said(out: &Path) -> String {
    let text = std::fs::read_to_string(out.join("report.json")).unwrap();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    assert!(report["provenance"].as_object_mut().unwrap().remove("command").is_some());
    report.to_string()
}

/// What `run` says with these arguments and `--keep`, of which the exit code is `code`.
#[track_caller]
fn run(args: &[&str], keep: &str, code: i32) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let run = layerdiff(&[&["run", "--keep", keep, "--out", out.to_str().unwrap()], args].concat());
    assert_eq!(run.code, code, "{}", run.stderr);
    let said = said(&out);
    (dir, said)
}

#[test]
fn each_engine_is_judged_as_from_its_stored_trace() {
    for (engine, code) in [("lattice-f16", 0), ("lattice-q8_0", 1), ("lattice-quarot-q4", 0)] {
        let args = ["--engine", engine];
        let (stored, expected) = run(&args, "all", code);
        assert!(stored.path().join("report/candidate/manifest.json").is_file());
        let (kept, found) = run(&args, "none", code);
        assert!(found == expected, "{engine}");
        assert!(!kept.path().join("report/candidate").exists());
    }
}

#[test]
fn an_engine_against_itself_and_some_points_alone_are_judged_so_too() {
    for args in [
        &["--reference", "self", "--engine", "lattice-f32"][..],
        &["--points", "*.{delta_rule,recurrent_state,conv_state,q_l2norm}", "--engine", "lattice-q4"],
        &["--scores", "rows:2", "--engine", "lattice-f32"],
    ] {
        let found = ["all", "none"].map(|keep| {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("report");
            layerdiff(&[&["run", "--keep", keep, "--out", out.to_str().unwrap()], args].concat());
            said(&out)
        });
        assert!(found[0] == found[1], "{args:?}");
    }
}

#[test]
fn a_faulty_component_leaves_its_tensors_and_they_say_the_same() {
    let (dir, found) = run(&["--engine", "lattice-q8_0"], "faulty", 1);
    let report: Value = serde_json::from_str(&found).unwrap();
    let fault = report["first_fault"]["point"].as_str().unwrap();
    let candidate = dir.path().join("report/candidate");
    let trace = Trace::open(&candidate).unwrap();
    assert!(trace.entries().iter().any(|e| e.point == fault));
    assert!(trace.entries().len() * 4 < report["points"].as_array().unwrap().len(), "not all was kept");
    let inspected = layerdiff(&["inspect", candidate.to_str().unwrap(), fault]);
    assert_eq!(inspected.code, 0, "{}", inspected.stderr);
}

#[test]
fn engines_that_are_run_together_leave_theirs_apart() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let out = out.to_str().unwrap();
    let run = layerdiff(&[
        "run",
        "--engine",
        "all",
        "--points",
        "*.linear_attn.*",
        "--keep",
        "faulty",
        "--out",
        out,
    ]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("the candidate's trace: "), "{}", run.stderr);
    let kept = std::fs::read_dir(dir.path().join("report/candidate")).unwrap();
    let engines: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(engines, ["lattice-q8_0"], "the only faulty one");
}

#[test]
fn an_unknown_word_for_what_is_kept_is_refused() {
    let mut command = common::command(&["run", "--keep", "some"]);
    let run = finished(&mut command);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("[possible values: none, faulty, all]"), "{}", run.stderr);
}

/// A healthy reference, and prompts of which the second has more steps to be judged.
struct Bench {
    dir: TempDir,
    model: ModelDir,
    prompts: Vec<Prompt>,
    points: PointFilter,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            model: ModelDir::open(&bundled_model()).unwrap(),
            prompts: [("a", 9u32), ("b", 5)].map(|(id, n)| common::prompt(id, &tokens(n))).to_vec(),
            points: PointFilter::default(),
        };
        let mut engine = open_engine("lattice-f32", &bench.model, None).unwrap();
        capture(engine.as_mut(), &bench.request(), &bench.dir.path().join("reference")).unwrap();
        bench
    }

    fn request(&self) -> Request<'_> {
        Request {
            model: &self.model,
            prompts: &self.prompts,
            steps: 3,
            points: &self.points,
            dequantized: None,
            quiet: true,
        }
    }

    fn engine(&self) -> Box<dyn Engine> {
        open_engine("lattice-f32", &self.model, None).unwrap()
    }

    fn faulty(&self, fault: &str) -> FaultyEngine {
        FaultyEngine::new(self.engine(), &self.model, named(fault).unwrap(), None).unwrap()
    }

    /// Judges a faulty engine from its stored trace and while it runs.
    fn judged(&self, fault: &str) -> [Report; 2] {
        self.both(fault, &mut self.faulty(fault)).map(Result::unwrap)
    }

    /// Judges an engine from its stored trace and while it runs; what it leaves is called `name`.
    fn both(&self, name: &str, engine: &mut dyn Engine) -> [Result<Report>; 2] {
        let held = || {
            let (graph, config) = (self.model.graph().clone(), self.model.config().clone());
            Held::open(self.model.path(), graph, config).unwrap()
        };
        let (held, reference_held, gains) = (held(), held(), Gains::default());
        let reference = Trace::open(&self.dir.path().join("reference")).unwrap();
        // Decoding on the reference's tokens.
        let mut prompts = self.prompts.clone();
        for (prompt, known) in prompts.iter_mut().zip(&reference.manifest().prompts) {
            prompt.step_token_ids.clone_from(&known.step_token_ids);
        }
        let request = Request { prompts: &prompts, ..self.request() };
        let options = Options {
            graph: self.model.graph(),
            points: &self.points,
            floor: &Floor::Preset,
            floors: &[],
            quantized: None,
            held: Some(&held),
            reference_held: Some(&reference_held),
            gains: &gains,
            other_weights: false,
            live: None,
            command: Vec::new(),
            quiet: true,
        };
        let out = self.dir.path().join(name);
        capture(engine, &request, &out).unwrap();
        let stored = assemble(&reference, &Trace::open(&out).unwrap(), &options);

        let against = Against {
            graph: self.model.graph(),
            points: &self.points,
            reference: &reference,
            arm: None,
            gains: &gains,
            held: Some(&held),
        };
        // One tensor after the other: none may be gone before a component has read it, and few may be there.
        let open = |options| Ok(Online::new(against, options).in_batches_of(1));
        let (online, check) = match watch(Feed::Plain, engine, &request, open) {
            Ok(watched) => watched,
            Err(error) => return [stored, Err(error)],
        };
        let all: u64 = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!((online.most_bytes() as u64) < all / 8, "{} of {all} bytes", online.most_bytes());
        let (candidate, measured) = online.close(Some(check)).unwrap();
        let engine = RefCell::new(engine);
        let again = |wanted: &Revisit| {
            let out = self.dir.path().join(format!("{name}-again"));
            let points = self.points.clone().among(wanted.points.clone());
            capture(&mut **engine.borrow_mut(), &Request { points: &points, ..request }, &out)?;
            Trace::open(&out)
        };
        let live = Some(Live { measured: &measured, again: &again, keeps: false });
        let online = assemble(&reference, &candidate, &Options { live, ..options });
        [stored, online]
    }
}

/// The numbers of a tensor, which is none of integers.
fn numbers(tensor: &mut Tensor) -> &mut Vec<f32> {
    match &mut tensor.values {
        Values::F32(values) => values,
        Values::U8(_) => panic!("a mask"),
    }
}

#[test]
fn numbers_that_are_not_finite_are_judged_as_from_stored_traces() {
    let bench = Bench::new();
    let mut engine = bench.engine();
    let mut changed = Changed::new(engine.as_mut(), "model.layers.2.mlp.act", |_, _, tensor| {
        numbers(tensor)[3] = f32::NAN;
    });
    let [stored, online] = bench.both("nan", &mut changed).map(Result::unwrap);
    assert_eq!(stored.outcome, Outcome::Fault);
    assert_eq!(stored.first_fault.as_ref().unwrap().point, "model.layers.2.mlp.act");
    assert!(serde_json::to_string(&stored).unwrap() == serde_json::to_string(&online).unwrap());
}

#[test]
fn two_layers_of_the_same_bytes_are_refused_while_the_engine_runs() {
    let bench = Bench::new();
    let mut engine = bench.engine();
    let mut changed = Changed::new(engine.as_mut(), "model.layers.{4,5}", |_, _, tensor| {
        numbers(tensor).fill(0.25);
    });
    let [stored, online] = bench.both("same", &mut changed).map(|report| report.unwrap_err().to_string());
    for error in [stored, online] {
        assert!(error.contains("`model.layers.4` and `model.layers.5` are equal byte for byte"), "{error}");
    }
}

#[test]
fn an_engine_that_does_not_repeat_itself_is_refused_when_it_is_run_again() {
    let bench = Bench::new();
    // Two prompts are stored, two are watched, and then it changes.
    let mut engine = bench.engine();
    let mut changed = Changed::new(engine.as_mut(), "model.layers.2.mlp.act", |_, run, tensor| {
        numbers(tensor)[3] += if run < 4 { 1.0 } else { 1.5 };
    });
    let [stored, online] = bench.both("fickle", &mut changed);
    assert_eq!(stored.unwrap().outcome, Outcome::Fault);
    let error = online.unwrap_err().to_string();
    assert!(error.contains("gave other numbers when it was run again, at model.layers.2.mlp.act"), "{error}");
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 11) % 256).collect()
}

#[test]
fn planted_faults_are_found_and_named_as_from_stored_traces() {
    let bench = Bench::new();
    let mut faulty = 0;
    for fault in
        ["norm-eps-outside", "norm-mean-subtracted", "qk-norm-skipped", "linear-tail-dropped", "linear-tf32"]
    {
        let [stored, online] = bench.judged(fault);
        let [expected, found] = [&stored, &online].map(|report| serde_json::to_string(report).unwrap());
        assert!(expected == found, "{fault}");
        faulty += usize::from(stored.outcome == Outcome::Fault && !stored.diagnosis.is_empty());
    }
    assert!(faulty >= 4, "only {faulty} of the faults are seen in either way");
}
