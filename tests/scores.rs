//! Some rows of attention's scores: the same numbers in less space, judged as the whole is.

mod common;

use common::{bundled_model, layerdiff};
use layerdiff::capture::open_engine;
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::error::Result;
use layerdiff::hook::{At, CaptureHook, Chain, Hook};
use layerdiff::model::{PointFilter, Scores};
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::{Trace, TraceWriter, WriteOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ATTENTION: &str = "model.layers.3.self_attn";
const ROWS: Scores = Scores::Rows(8);
const FORCED: [u32; 2] = [47, 53];

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (7 * i * i + 5) % 1000).collect()
}

/// What a fault makes of a point's numbers; scores that came before are at hand.
type Change = fn(&mut Values, shape: &[usize], scores: &[f32]);

/// A fault at one point of the prefill, in an engine that then goes on with it.
struct Fault {
    point: String,
    change: Change,
    scores: Vec<f32>,
}

impl Fault {
    fn at(local: &str, change: Change) -> Self {
        Self { point: format!("{ATTENTION}.{local}"), change, scores: Vec::new() }
    }
}

impl Hook for Fault {
    fn wants(&self, point: &str) -> bool {
        point == self.point || point == format!("{ATTENTION}.scores")
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        assert!(at.rows.is_none(), "a hook that does not ask for rows is given all");
        if at.step == 0 && at.point == self.point {
            (self.change)(&mut tensor.values, &tensor.shape, &self.scores);
        }
        if let Values::F32(scores) = &tensor.values {
            self.scores.clone_from(scores);
        }
        Ok(tensor)
    }
}

struct Bench {
    model: ModelDir,
    root: TempDir,
    tokens: Vec<u32>,
}

impl Bench {
    fn new() -> Self {
        let model = ModelDir::open(&bundled_model()).unwrap();
        Self { model, root: tempfile::tempdir().unwrap(), tokens: tokens(40) }
    }

    fn engine(&self, path: &str) -> Box<dyn Engine> {
        open_engine("lattice-f32", &self.model, Some(path)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A capture with these rows, with a fault or without.
    fn capture(&self, engine: &mut dyn Engine, scores: Scores, fault: Option<Fault>, name: &str) -> Trace {
        let mut provenance = engine.provenance();
        provenance.hashes = self.model.hashes().unwrap();
        let options = WriteOptions {
            architecture: "qwen3_5".into(),
            config: self.model.config().as_json().clone(),
            provenance,
            adapter: None,
            shard_bytes: 8 << 20,
        };
        let mut writer = TraceWriter::create(&self.path(name), options).unwrap();
        let mut prompt = common::prompt("p", &self.tokens);
        prompt.step_token_ids = FORCED.to_vec();
        writer.start_prompt(&prompt);
        let points = PointFilter::default().keeping(scores);
        let mut hook = CaptureHook::new(&mut writer, &points).of(self.model.graph(), None);
        match fault {
            Some(mut fault) => {
                engine.run_unchecked(&self.tokens, &FORCED, &mut Chain(vec![&mut fault, &mut hook])).unwrap();
            }
            None => {
                let evidence = engine.run(&self.tokens, &FORCED, &mut hook).unwrap();
                assert!(evidence.iter().all(|e| e.elements > 0 && e.mismatches == 0), "{evidence:?}");
            }
        }
        writer.finish(None).unwrap();
        Trace::open(&self.path(name)).unwrap()
    }

    fn compare(&self, reference: &str, candidate: &str) -> (i32, Value) {
        let [reference, candidate, out] = [reference, candidate, "report"].map(|name| self.path(name));
        let args: [&std::ffi::OsStr; 8] = [
            "compare".as_ref(),
            reference.as_ref(),
            candidate.as_ref(),
            "--model".as_ref(),
            self.model.path().as_ref(),
            "--json".as_ref(),
            "--out".as_ref(),
            out.as_ref(),
        ];
        let run = layerdiff(&args);
        (run.code, run.json())
    }
}

fn faults(report: &Value) -> Vec<&str> {
    report["faults"].as_array().unwrap().iter().map(|fault| fault["point"].as_str().unwrap()).collect()
}

fn point<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut points = report["points"].as_array().unwrap().iter();
    points.find(|p| p["point"] == name && p["step"] == 0).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_rows_are_those_of_the_whole_bit_for_bit_and_all_else_is_the_same() {
    let mut bench = Bench::new();
    // More than one tile of queries and of keys.
    bench.tokens = tokens(150);
    for path in ["serial", "batched"] {
        let mut engine = bench.engine(path);
        let whole = bench.capture(engine.as_mut(), Scores::All, None, &format!("whole-{path}"));
        let part = bench.capture(engine.as_mut(), ROWS, None, &format!("part-{path}"));
        let mut seen = 0;
        for (all, some) in whole.entries().iter().zip(part.entries()) {
            assert_eq!((&all.point, all.step), (&some.point, some.step));
            let (all_view, some_view) = (whole.view(all), part.view(some));
            let Some(rows) = &some.rows else {
                assert_eq!(all_view.bytes, some_view.bytes, "{path} {} step {}", all.point, all.step);
                continue;
            };
            assert_eq!(Some(rows), ROWS.rows(150, 150).as_ref());
            let width = 150 * all.dtype.size();
            let heads = all_view.bytes.chunks_exact(150 * width);
            let picked: Vec<u8> = heads
                .flat_map(|head| rows.iter().flat_map(|t| head[t * width..][..width].to_vec()))
                .collect();
            assert!(picked == some_view.bytes, "{path} {}", all.point);
            seen += 1;
        }
        assert_eq!(seen, 2 * 3, "mask, scores and probabilities of two layers");
    }
}

#[test]
fn a_healthy_run_passes_whichever_side_has_some_rows_only() {
    let bench = Bench::new();
    let mut engine = bench.engine("serial");
    bench.capture(engine.as_mut(), Scores::All, None, "whole");
    bench.capture(engine.as_mut(), ROWS, None, "eight");
    bench.capture(engine.as_mut(), Scores::Rows(5), None, "five");
    let scores = format!("{ATTENTION}.scores");
    for (reference, candidate, kept) in
        [("whole", "eight", 8), ("eight", "whole", 8), ("eight", "eight", 8), ("five", "eight", 2)]
    {
        let (code, report) = bench.compare(reference, candidate);
        assert_eq!((code, report["outcome"].as_str()), (0, Some("pass")), "{reference} {candidate}");
        assert_eq!(report["verdict"]["rests_on"], "replay");
        let coverage = &report["coverage"];
        assert_eq!(coverage["matched"], coverage["expected"]);
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains(&format!("(in prompt p {kept} of 40)")), "{warnings}");
        let row = point(&report, &scores);
        assert_eq!(row["shape"], serde_json::json!([4, kept, 40]));
        assert_eq!(row["elements"], 4 * kept * 40);
        let measured: Vec<usize> = row["per_token"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .filter_map(|(t, error)| (!error.is_null()).then_some(t))
            .collect();
        assert_eq!((measured.len(), measured[0], measured[kept - 1]), (kept, 0, 39));
        // A context is whole, and judged whole.
        let context = point(&report, &format!("{ATTENTION}.context"));
        assert!(
            context["local_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0 && ratio <= 1.0),
            "{context}"
        );
    }
    let (_, report) = bench.compare("whole", "whole");
    assert!(!report["warnings"].to_string().contains("--scores"));
}

#[test]
fn a_token_s_error_is_shown_at_the_token() {
    let bench = Bench::new();
    let mut engine = bench.engine("serial");
    bench.capture(engine.as_mut(), Scores::All, None, "whole");
    let fault = Fault::at("scores", |values, shape, _| {
        let Values::F32(values) = values else { panic!("numbers") };
        let kept = ROWS.rows(shape[1], shape[2]).unwrap()[3];
        values[kept * shape[2]] += 1.0;
    });
    bench.capture(engine.as_mut(), ROWS, Some(fault), "eight");
    let (code, report) = bench.compare("whole", "eight");
    let kept = ROWS.rows(40, 40).unwrap()[3];
    assert_eq!((code, faults(&report)), (1, vec![&*format!("{ATTENTION}.scores")]));
    let row = point(&report, &format!("{ATTENTION}.scores"));
    assert_eq!(row["max_abs_at"]["index"], serde_json::json!([0, kept, 0]));
    assert!(row["per_token"][kept].as_f64().unwrap() > 1e-3);
    let said = report["diagnosis"].to_string();
    assert!(said.contains(&format!("tokens {kept} of the 8 whose rows were captured")), "{said}");
}

/// Faults in the whole layer: the point, the formula's name, and what is planted.
const PLANTED: [(&str, &str, Change); 5] = [
    ("attention_mask", "mask-off-by-one", |values, shape, _| {
        let Values::U8(mask) = values else { panic!("a mask") };
        mask.chunks_exact_mut(shape[1]).enumerate().for_each(|(t, row)| row[(t + 1).min(shape[1] - 1)] = 1);
    }),
    ("scores", "scale-missing", |values, _, _| {
        let Values::F32(scores) = values else { panic!("numbers") };
        scores.iter_mut().for_each(|s| *s *= 8.0);
    }),
    ("scores", "mask-strict", |values, shape, _| {
        let Values::F32(scores) = values else { panic!("numbers") };
        let width = shape[2];
        scores.chunks_exact_mut(width).enumerate().for_each(|(i, row)| row[i % shape[1]] = f32::NEG_INFINITY);
    }),
    ("probs", "softmax-exp2", |values, shape, scores| {
        let Values::F32(probs) = values else { panic!("numbers") };
        probs.copy_from_slice(scores);
        for row in probs.chunks_exact_mut(shape[2]) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|s| *s = (*s - max).exp2());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|p| *p /= sum);
        }
    }),
    ("context", "context-half-zero", |values, shape, _| {
        let Values::F32(context) = values else { panic!("numbers") };
        let d = shape[2];
        context.chunks_exact_mut(d).for_each(|head| head[d / 2..].fill(0.0));
    }),
];

#[test]
fn a_fault_in_attention_is_named_at_its_point_alone_and_so_is_its_formula() {
    let bench = Bench::new();
    let mut engine = bench.engine("serial");
    bench.capture(engine.as_mut(), ROWS, None, "reference");
    for (i, (local, name, change)) in PLANTED.into_iter().enumerate() {
        let candidate = format!("candidate-{i}");
        bench.capture(engine.as_mut(), ROWS, Some(Fault::at(local, change)), &candidate);
        let (code, report) = bench.compare("reference", &candidate);
        let wanted = format!("{ATTENTION}.{local}");
        assert_eq!((code, faults(&report)), (1, vec![&*wanted]), "{name}");
        let names: Vec<&Value> =
            report["diagnosis"].as_array().unwrap().iter().map(|found| &found["id"]).collect();
        assert!(names.contains(&&Value::from(name)), "{name}: {names:?}");
    }
}

#[test]
fn a_context_that_errs_where_no_probabilities_were_captured_is_found_and_the_report_says_what_it_rests_on() {
    let bench = Bench::new();
    let mut engine = bench.engine("batched");
    bench.capture(engine.as_mut(), ROWS, None, "reference");
    let wrong = Fault::at("context", |values, shape, _| {
        let Values::F32(context) = values else { panic!("numbers") };
        let width = shape[1] * shape[2];
        assert!(!ROWS.rows(40, 40).unwrap().contains(&3));
        context[3 * width..][..shape[2]].iter_mut().for_each(|v| *v *= 1.002);
    });
    bench.capture(engine.as_mut(), ROWS, Some(wrong), "candidate");
    let (code, report) = bench.compare("reference", "candidate");
    assert_eq!((code, faults(&report)), (1, vec![&*format!("{ATTENTION}.context")]));
    let reason = report["faults"][0]["reason"].to_string();
    assert!(reason.contains("replayed from queries and keys"), "{reason}");
}

#[test]
fn scores_that_err_leave_the_context_of_other_tokens_without_a_judgement_of_its_own() {
    let bench = Bench::new();
    let mut engine = bench.engine("serial");
    bench.capture(engine.as_mut(), ROWS, None, "reference");
    bench.capture(engine.as_mut(), ROWS, Some(Fault::at("scores", PLANTED[1].2)), "candidate");
    let (_, report) = bench.compare("reference", "candidate");
    let context = point(&report, &format!("{ATTENTION}.context"));
    assert_eq!((&context["state"], &context["local_ratio"]), (&"inherited".into(), &Value::Null));
    let why = context["replay_unmeasured"].as_str().unwrap();
    assert!(why.contains("32 of the 40 tokens") && why.contains("scores errs beyond its bounds"), "{why}");
}

fn run(root: &Path, scores: &str, out: &str) -> Value {
    let out = root.join(out);
    let args: [&std::ffi::OsStr; 12] = [
        "run".as_ref(),
        "--engine".as_ref(),
        "lattice-f32".as_ref(),
        "--prompt".as_ref(),
        "code-01".as_ref(),
        "--steps".as_ref(),
        "1".as_ref(),
        "--scores".as_ref(),
        scores.as_ref(),
        "--quiet".as_ref(),
        "--out".as_ref(),
        out.as_ref(),
    ];
    assert_eq!(layerdiff(&args).code, 0);
    let mut report: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert!(report["provenance"].as_object_mut().unwrap().remove("command").is_some());
    report
}

#[test]
fn as_many_rows_as_tokens_make_the_report_of_all() {
    let root = tempfile::tempdir().unwrap();
    let all = run(root.path(), "all", "all");
    for scores in ["auto", "rows:77", "rows:4000000000"] {
        assert!(run(root.path(), scores, &scores.replace(':', "-")) == all, "{scores}");
    }
    let some = run(root.path(), "rows:8", "some");
    assert_eq!((&some["outcome"], some == all), (&"pass".into(), false));
}

#[test]
fn an_engine_against_itself_compares_the_rows_of_both_ways() {
    let root = tempfile::tempdir().unwrap();
    let args =
        ["run", "--engine", "lattice-f16", "--reference", "self", "--prompt", "code-01", "--steps", "1"];
    let out = root.path().join("report");
    let more = ["--scores", "rows:8", "--json", "--out", out.to_str().unwrap()];
    let run = layerdiff(&[&args[..], &more].concat());
    let report = run.json();
    assert_eq!((run.code, report["outcome"].as_str()), (0, Some("pass")), "{report:#}");
    assert_eq!(point(&report, &format!("{ATTENTION}.scores"))["shape"], serde_json::json!([4, 8, 76]));
}
