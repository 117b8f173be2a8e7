//! An engine that computes in 16 bits and saves 32.

use crate::common::bundled_model;
use crate::formats::bundled;
use crate::world::{World, refused};
use half::bf16;
use layerdiff::tensor::DType;
use layerdiff::trace::Trace;

const PROMPT: &str = "instruction-07";

fn rounded(value: f64) -> f32 {
    bf16::from_f64(value).to_f32()
}

/// What an MLP of bfloat16 computes, saved as f32: its activation, of the very numbers that it was given.
fn world() -> World {
    let world = World::new();
    let reference = Trace::open(&bundled()).unwrap();
    let layer = "model.layers.3.mlp";
    let values = |name: &str| {
        let view = reference.view(reference.find(PROMPT, 0, &format!("{layer}.{name}")).unwrap());
        let mut values = vec![0.0; view.len()];
        view.read_into(0, &mut values);
        values.into_iter().map(rounded).collect::<Vec<f32>>()
    };
    let (gate, up) = (values("gate_proj"), values("up_proj"));
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let act = gate.iter().zip(&up).map(|(g, u)| rounded(silu(f64::from(*g)) * f64::from(*u)));
    for (name, values) in [("act", &act.collect()), ("gate_proj", &gate), ("up_proj", &up)] {
        world.raw(&format!("{layer}.{name}.f32"), values);
    }
    world
}

fn import(world: &World, more: &str) -> crate::common::Run {
    let line = format!("import dumps --reference {} --prompt {PROMPT} --out out {more}", bundled().display());
    let run = world.run(&line);
    assert_eq!(run.code, 0, "{run:#?}");
    run
}

fn compare(world: &World) -> serde_json::Value {
    let (reference, weights) = (bundled(), bundled_model());
    world
        .run(&format!(
            "compare {} out --only-captured --weights {} --json",
            reference.display(),
            weights.display()
        ))
        .json()
}

/// The largest ratio of error to bound that replay finds.
fn largest(report: &serde_json::Value) -> f64 {
    let ratios = report["points"].as_array().unwrap().iter().filter_map(|p| p["local_ratio"].as_f64());
    ratios.reduce(f64::max).expect("something was replayed")
}

/// Imports and compares with what the engine computes in, and without saying it.
fn both(world: &World) -> [serde_json::Value; 2] {
    let run = import(world, "--dtype bfloat16");
    assert!(!run.stderr.contains("note:"), "{run:#?}");
    let trace = Trace::open(&world.path("out")).unwrap();
    assert_eq!(trace.manifest().provenance.dtype, "bfloat16");
    let mut floats = trace.entries().iter().filter(|e| e.dtype.is_float());
    assert!(floats.all(|e| e.dtype == DType::BF16));
    let told = compare(world);
    std::fs::remove_dir_all(world.path("out")).unwrap();
    // What is not said costs a false fault, and the import tells of it.
    let run = import(world, "");
    assert!(run.stderr.contains("note: all values are bfloat16 numbers"), "{run:#?}");
    [told, compare(world)]
}

#[test]
fn an_engine_in_bfloat16_that_saves_f32_is_replayed_in_what_it_computes_in() {
    let [told, untold] = both(&world());
    assert!(largest(&told) <= 1.0 && largest(&untold) > 100.0, "{} {}", largest(&told), largest(&untold));
    assert_eq!(untold["outcome"], "fault");
}

#[test]
#[ignore = "needs PyTorch"]
fn a_whole_run_in_bfloat16_that_was_saved_as_f32_has_no_fault_by_replay() {
    let world = World::new();
    let (reference, weights) = (bundled(), bundled_model());
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = world.run(&format!(
        "capture --engine torch --python {python} --dtype bfloat16 --model {} --prompts {} --prompt {PROMPT} --out arm",
        weights.display(),
        reference.display()
    ));
    assert_eq!(run.code, 0, "{run:#?}");
    let arm = Trace::open(&world.path("arm")).unwrap();
    for entry in arm.entries().iter().filter(|e| e.step == 0) {
        let view = arm.view(entry);
        if entry.dtype == DType::U8 {
            world.file(&format!("dumps/{}.u8", entry.point), view.bytes);
            continue;
        }
        // What PyTorch keeps in float32 is what an engine would not have.
        let mut values = vec![0.0; view.len()];
        view.read_into(0, &mut values);
        if entry.dtype == DType::BF16 {
            world.raw(&format!("{}.f32", entry.point), &values.iter().map(|v| *v as f32).collect::<Vec<_>>());
        }
    }
    let [told, untold] = both(&world);
    assert!(largest(&told) <= 1.0 && largest(&untold) > 100.0, "{} {}", largest(&told), largest(&untold));
    assert_ne!(told["outcome"], "fault", "{:#}", told["verdict"]);
    assert_eq!(untold["outcome"], "fault");
}

#[test]
fn a_number_that_the_stated_type_has_not_is_refused() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    refused!(world, "import dumps --reference reference --dtype bfloat16 --out out");
}

#[test]
fn a_map_states_the_precision_of_all_files_and_of_some() {
    let world = World::new();
    let values: Vec<f32> =
        world.values("model.embed_tokens").iter().map(|v| rounded(f64::from(*v))).collect();
    world.raw("e.f32", &values);
    world.raw("final_norm.f32", &world.values("model.norm"));
    let entry = "[[tensor]]\nfile = \"e\"\npoint = \"model.embed_tokens\"\nprecision = \"bfloat16\"\n";
    world.file("map.toml", entry);
    let trace = world.import("--map map.toml");
    let dtypes: Vec<DType> = trace.entries().iter().map(|e| e.dtype).collect();
    assert_eq!(dtypes, [DType::BF16, DType::F32]);
    assert_eq!(trace.manifest().provenance.dtype, "bfloat16, float32");
    std::fs::remove_dir_all(world.path("out")).unwrap();
    std::fs::remove_file(world.path("dumps/final_norm.f32")).unwrap();
    world.file("map.toml", format!("precision = \"float16\"\n{entry}"));
    assert_eq!(world.import("--map map.toml").entries()[0].dtype, DType::BF16);
    std::fs::remove_dir_all(world.path("out")).unwrap();
    world.file("map.toml", "precision = \"bfloat16\"\n");
    world.file("dumps/embed.f32", values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    std::fs::remove_file(world.path("dumps/e.f32")).unwrap();
    assert_eq!(world.import("--map map.toml").manifest().provenance.dtype, "bfloat16");
}
