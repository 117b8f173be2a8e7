//! Every key of a map, and what a map may not say.

use crate::world::{World, refused};

const UP: &str = "model.layers.1.mlp.up_proj";
const GATE: &str = "model.layers.1.mlp.gate_proj";
const K_ROPE: &str = "model.layers.3.self_attn.k_rope";

/// A world with one raw dump and one entry for it.
fn mapped(name: &str, values: &[f32], entry: &str) -> World {
    let world = World::new();
    world.raw(name, values);
    world.file("map.toml", format!("[[tensor]]\n{entry}"));
    world
}

/// Row-major values with both axes swapped.
fn turned(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

const WITH_MAP: &str = "import dumps --reference reference --map map.toml --out out";

#[test]
fn a_name_with_a_place_for_the_layer_is_a_point() {
    let world = World::new();
    world.raw("blk.1.up.f32", &world.values(UP));
    world.file("map.toml", "engine = \"mine\"\nversion = \"2\"\n[[tensor]]\nfile = \"blk.{i}.up\"\npoint = \"model.layers.{i}.mlp.up_proj\"\n");
    world.imports("--map map.toml", &[UP]);
    let trace = layerdiff::trace::Trace::open(&world.path("out")).unwrap();
    let who = &trace.manifest().provenance;
    assert_eq!((who.engine.as_str(), who.engine_version.as_str(), who.quantized), ("mine", "2", false));
}

#[test]
fn layers_may_count_from_1() {
    let world = World::new();
    let entry = "file = \"l{i}\"\npoint = \"model.layers.{i}\"\nlayer_offset = -1\n";
    world.raw("l1.f32", &world.values("model.layers.0"));
    world.raw("l4.f32", &world.values("model.layers.3"));
    world.file("map.toml", format!("[[tensor]]\n{entry}"));
    world.imports("--map map.toml", &["model.layers.0", "model.layers.3"]);
}

#[test]
fn raw_numbers_with_swapped_axes_are_turned() {
    let values = turned(&World::new().values(UP), 5);
    let world = mapped("up.f32", &values, &format!("file = \"up\"\npoint = \"{UP}\"\ntranspose = [1, 0]\n"));
    world.imports("--map map.toml", &[UP]);
}

#[test]
fn a_fused_gate_and_up_is_split_by_the_widths_of_its_points() {
    let world = World::new();
    let (gate, up) = (world.values(GATE), world.values(UP));
    let rows = gate.chunks(12).zip(up.chunks(12)).flat_map(|(g, u)| [g, u].concat());
    let values: Vec<f32> = rows.collect();
    let entry = "file = \"gate_up.{i}\"\nshape = [\"tokens\", 24]\nsplit = { axis = -1, points = [\"model.layers.{i}.mlp.gate_proj\", \"model.layers.{i}.mlp.up_proj\"] }\n";
    mapped("gate_up.1.f32", &values, entry).imports("--map map.toml", &[GATE, UP]);
    let sized = entry.replace("] }", "], sizes = [12, \"intermediate\"] }");
    mapped("gate_up.1.f32", &values, &sized).imports("--map map.toml", &[GATE, UP]);
}

#[test]
fn padding_is_cropped() {
    let values: Vec<f32> = World::new().values(UP).into_iter().chain([9.0; 3 * 12]).collect();
    let entry = format!(
        "file = \"up\"\npoint = \"{UP}\"\nshape = [8, 12]\ncrop = {{ axis = 0, keep = \"tokens\" }}\n"
    );
    mapped("up.f32", &values, &entry).imports("--map map.toml", &[UP]);
    let front: Vec<f32> = [9.0; 3 * 12].into_iter().chain(World::new().values(UP)).collect();
    let entry = entry.replace("keep", "start = 3, keep");
    mapped("up.f32", &front, &entry).imports("--map map.toml", &[UP]);
}

#[test]
fn heads_in_another_order_are_put_back() {
    let values = World::new().values(K_ROPE);
    let swapped: Vec<f32> = values.chunks(16).flat_map(|token| [&token[8..], &token[..8]].concat()).collect();
    let entry = format!("file = \"k\"\npoint = \"{K_ROPE}\"\nreorder = {{ axis = 1, order = [1, 0] }}\n");
    mapped("k.f32", &swapped, &entry).imports("--map map.toml", &[K_ROPE]);
}

#[test]
fn rotary_pairs_side_by_side_become_halves() {
    let values = World::new().values(K_ROPE);
    let paired: Vec<f32> =
        values.chunks(8).flat_map(|head| (0..8).map(|i| head[i / 2 + i % 2 * 4])).collect();
    let entry =
        format!("file = \"k\"\npoint = \"{K_ROPE}\"\npairs = {{ axis = -1, width = \"head_dim\" }}\n");
    mapped("k.f32", &paired, &entry).imports("--map map.toml", &[K_ROPE]);
    // Also where the heads lie in one axis.
    let entry = entry.replace("pairs", "shape = [\"tokens\", 16]\npairs");
    mapped("k.f32", &paired, &entry).imports("--map map.toml", &[K_ROPE]);
}

#[test]
fn raw_numbers_of_no_stated_type_are_what_the_map_states() {
    let world = World::new();
    let bytes: Vec<u8> =
        world.values(UP).iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    world.file("dumps/up.bin", &bytes);
    world.file("map.toml", format!("[[tensor]]\nfile = \"up\"\npoint = \"{UP}\"\ndtype = \"BF16\"\n"));
    let (dtype, _, found) = crate::world::bytes(&world.import("--map map.toml"), 0, UP);
    assert_eq!((dtype.to_string().as_str(), found), ("BF16", bytes));
}

#[test]
fn what_is_ignored_is_said_in_the_trace() {
    let world = mapped("scratch.f32", &[0.0; 7], "file = \"scratch*\"\nignore = true\n");
    world.raw("up.f32", &world.values(UP));
    world.raw("final_norm.f32", &world.values("model.norm"));
    let trace = world.import("--map map.toml --ignore-unknown");
    let notes = trace.manifest().provenance.notes.join("\n");
    assert!(
        notes.contains("as the map says: scratch") && notes.contains("known by that name: up"),
        "{notes}"
    );
    assert_eq!(trace.entries().len(), 1);
}

#[test]
fn a_map_that_is_suggested_imports_what_it_was_made_for() {
    let world = World::new();
    for layer in [0, 1] {
        let point = format!("model.layers.{layer}.mlp.up_proj");
        world.raw(&format!("b{layer}.up.f32"), &turned(&world.values(&point), 5));
    }
    world.raw("out.f32", &world.values("model.norm"));
    let run = world.run("import dumps --reference reference --suggest");
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(run.stdout.matches("[[tensor]]").count(), 2, "{}", run.stdout);
    world.file("map.toml", run.stdout);
    world.imports("--map map.toml", &["model.layers.0.mlp.up_proj", UP, "model.norm"]);
}

#[test]
fn a_fused_product_is_suggested_to_be_split() {
    let world = World::new();
    let points = ["gate_proj", "up_proj"].map(|name| format!("model.layers.1.mlp.{name}"));
    let [gate, up] = points.each_ref().map(|point| world.values(point));
    let width = 12;
    let rows = gate.chunks(width).zip(up.chunks(width)).flat_map(|(gate, up)| [gate, up].concat());
    world.raw("blk1.gate_up.f32", &rows.collect::<Vec<f32>>());
    let told = world.refusal("import dumps --reference reference --out out");
    assert!(told.contains(&format!("as many elements as `{}` together", points.join("`, `"))), "{told}");
    let run = world.run("import dumps --reference reference --suggest");
    assert!(run.stdout.contains("split = { axis = -1, points = ["), "{}", run.stdout);
    world.file("map.toml", run.stdout);
    world.imports("--map map.toml", &[&points[0], &points[1]]);
}

#[test]
fn a_suggested_map_has_single_names_first_and_a_place_only_where_it_is_right_for_all() {
    let world = World::new();
    let norms = |i: usize| format!("model.layers.{i}.input_layernorm");
    // Right by its number; a number that is no layer's; one more of a point that is taken; one that is nothing.
    world.raw("y0.f32", &world.values("model.layers.0"));
    world.raw("y1.f32", &world.values("model.layers.1"));
    world.raw("n0.f32", &world.values(&norms(0)));
    world.raw("n2.f32", &world.values(&norms(1)));
    world.raw("z0.f32", &world.values("model.layers.0"));
    world.raw("n3.f32", &[0.0; 7]);
    world.raw("*.f32", &world.values("model.norm"));
    let run = world.run("import dumps --reference reference --suggest");
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(run.stdout.contains("\"y{i}\"") && !run.stdout.contains("n{i}"), "{}", run.stdout);
    // The star would mean the others too.
    assert!(run.stdout.contains("# `*` means other names too"), "{}", run.stdout);
    std::fs::remove_file(world.path("dumps/*.f32")).unwrap();
    world.file("map.toml", run.stdout);
    let points = ["model.layers.0", "model.layers.1", &norms(0), &norms(1)];
    world.imports("--map map.toml", &points);
}

#[test]
fn a_suggestion_is_for_all_steps_or_says_which() {
    let mut world = World::new();
    let mut prompt = crate::common::prompt("a", &[1, 2, 3, 4, 5]);
    prompt.step_token_ids = vec![9];
    world.draft = crate::common::Draft::of(&[prompt]).with_step(1);
    std::fs::remove_dir_all(world.path("reference")).unwrap();
    world.draft.write(&world.path("reference"));
    let of = |point: &str, step: u32| {
        let tensors = &world.draft.tensors;
        tensors.iter().find(|t| t.point == point && t.step == step).unwrap().values()
    };
    world.raw("step_0/x.f32", &of("model.layers.1", 0));
    world.raw("step_1/x.f32", &of("model.layers.1", 1));
    world.raw("step_0/y.f32", &of("model.norm", 0));
    world.raw("step_1/y.f32", &of("model.layers.2", 1));
    let run = world.run("import dumps --reference reference --suggest");
    assert_eq!(run.stdout.matches("[[tensor]]").count(), 3, "{}", run.stdout);
    world.file("map.toml", run.stdout);
    assert_eq!(world.import("--map map.toml").entries().len(), 4);
}

#[test]
fn a_suggestion_asks_for_no_place_to_write() {
    let world = World::new();
    world.raw("x.f32", &world.values("model.norm"));
    let run = world.run("import dumps --reference reference --suggest --out reference");
    assert_eq!((run.code, run.stdout.contains("model.norm")), (0, true), "{run:#?}");
}

#[test]
fn an_entry_of_a_map_that_fits_no_dump_is_refused() {
    refused!(
        mapped("blk_up.f32", &[0.0; 60], &format!("file = \"blk_up.f32\"\npoint = \"{UP}\"\n")),
        WITH_MAP
    );
}

#[test]
fn a_split_into_no_points_is_refused() {
    refused!(mapped("up.f32", &[0.0; 60], "file = \"up\"\nsplit = { axis = -1, points = [] }\n"), WITH_MAP);
}

#[test]
fn an_edit_of_what_is_left_out_is_refused() {
    refused!(mapped("up.f32", &[0.0; 60], "file = \"up\"\nignore = true\ntranspose = [1, 0]\n"), WITH_MAP);
}

#[test]
fn parts_of_a_split_that_overflow_are_refused() {
    let huge = i64::MAX;
    let entry = format!(
        "file = \"up\"\nshape = [\"tokens\", 12]\nsplit = {{ axis = 1, points = [\"{GATE}\", \"{UP}\", \"model.norm\"], sizes = [{huge}, {huge}, 14] }}\n"
    );
    let told = mapped("up.f32", &[0.0; 60], &entry).refusal(WITH_MAP);
    assert!(told.contains("has another size"), "{told}");
}

#[test]
fn a_part_of_a_stack_of_all_layers_is_cropped() {
    let values: Vec<f32> = [vec![9.0; 40 * 99], World::new().values("model.norm")].concat();
    let entry = "file = \"hs\"\npoint = \"model.norm\"\nshape = [100, \"tokens\", 8]\ncrop = { axis = 0, keep = 1, start = 99 }\n";
    mapped("hs.f32", &values, entry).imports("--map map.toml", &["model.norm"]);
    let entry = entry.replace("[100, ", "[5000, ");
    refused!(mapped("hs.f32", &[0.0; 40 * 5000], &entry), WITH_MAP);
}

#[test]
fn the_help_has_every_key_of_a_map_in_lines_that_fit_a_terminal() {
    let run = World::new().run("import --help");
    let keys = "engine version precision quantized file point layer_offset ignore dtype shape crop transpose split reorder pairs axis keep start points sizes order width";
    for key in keys.split(' ') {
        assert!(run.stdout.contains(key), "{key}");
    }
    let map = run.stdout.split("DUMPS is a directory").nth(1).unwrap();
    for line in map.lines() {
        assert!(line.chars().count() <= 78, "{line}");
    }
    // The example is a map.
    let example: Vec<&str> =
        map.lines().skip_while(|l| !l.starts_with("  engine =")).take_while(|l| !l.is_empty()).collect();
    layerdiff::import::map::Map::parse(&example.join("\n")).unwrap();
}

#[test]
fn without_a_model_both_ways_to_name_it_are_told() {
    refused!(World::new(), "import dumps --out out");
}

#[test]
fn an_unknown_key_of_a_map_is_answered_with_the_nearest() {
    refused!(mapped("up.f32", &[0.0; 60], "file = \"up\"\nponit = \"model.norm\"\n"), WITH_MAP);
}

#[test]
fn a_point_of_a_map_that_the_model_lacks_is_answered_with_the_nearest() {
    refused!(mapped("up.f32", &[0.0; 60], "file = \"up\"\npoint = \"model.layers.1.mlp.up\"\n"), WITH_MAP);
}

#[test]
fn an_entry_of_a_map_without_a_point_is_refused() {
    refused!(mapped("up.f32", &[0.0; 60], "file = \"up\"\n"), WITH_MAP);
}

#[test]
fn an_unknown_size_in_a_map_is_answered_with_the_nearest() {
    let entry = format!("file = \"up\"\npoint = \"{UP}\"\nshape = [\"token\", 12]\n");
    refused!(mapped("up.f32", &[0.0; 60], &entry), WITH_MAP);
}

#[test]
fn a_shape_of_a_map_that_the_file_has_not_is_refused() {
    let entry = format!("file = \"up\"\npoint = \"{UP}\"\nshape = [\"tokens\", 13]\n");
    refused!(mapped("up.f32", &[0.0; 60], &entry), WITH_MAP);
}

#[test]
fn a_transposition_of_axes_that_are_not_there_is_refused() {
    let entry = format!("file = \"up\"\npoint = \"{UP}\"\nshape = [\"tokens\", 12]\ntranspose = [1, 2]\n");
    refused!(mapped("up.f32", &[0.0; 60], &entry), WITH_MAP);
}

#[test]
fn a_split_that_does_not_add_up_is_refused() {
    let entry = format!(
        "file = \"up\"\nshape = [\"tokens\", 12]\nsplit = {{ axis = 1, points = [\"{GATE}\", \"{UP}\"] }}\n"
    );
    refused!(mapped("up.f32", &[0.0; 60], &entry), WITH_MAP);
}

#[test]
fn an_order_that_names_a_place_twice_is_refused() {
    let entry = format!("file = \"k\"\npoint = \"{K_ROPE}\"\nreorder = {{ axis = 1, order = [1, 1] }}\n");
    refused!(mapped("k.f32", &[0.0; 80], &entry), WITH_MAP);
}

#[test]
fn values_of_another_point_prove_a_map_wrong() {
    let world = World::new();
    world.raw("layer_0.f32", &world.values("model.layers.1"));
    world.raw("layer_2.f32", &world.values("model.layers.2"));
    refused!(world);
    // Who knows better may have it.
    let trace = world.import("--trust-map");
    assert_eq!(trace.entries().len(), 2);
}

#[test]
fn layers_that_are_off_by_one_prove_a_map_wrong() {
    let world = World::new();
    // As Transformers' `hidden_states`: the embedding comes first.
    world.raw("layer_0.f32", &world.values("model.embed_tokens"));
    for i in 1..4 {
        world.raw(&format!("layer_{i}.f32"), &world.values(&format!("model.layers.{}", i - 1)));
    }
    refused!(world);
}

#[test]
fn values_with_swapped_axes_prove_a_map_wrong() {
    let values = turned(&World::new().values(UP), 5);
    refused!(mapped("up.f32", &values, &format!("file = \"up\"\npoint = \"{UP}\"\n")), WITH_MAP);
}

#[test]
fn axes_that_a_file_states_otherwise_than_its_point_are_refused() {
    let world = World::new();
    let values: Vec<u8> = turned(&world.values(UP), 5).iter().flat_map(|v| v.to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 5), }\n";
    let length = (header.len() as u16).to_le_bytes();
    world.file("dumps/up.npy", [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &values].concat());
    let entry = format!("[[tensor]]\nfile = \"up\"\npoint = \"{UP}\"\n");
    world.file("map.toml", &entry);
    refused!(world, WITH_MAP);
    world.file("map.toml", format!("{entry}transpose = [1, 0]\n"));
    world.imports("--map map.toml", &[UP]);
}

#[test]
fn values_with_rotary_pairs_side_by_side_prove_a_map_wrong() {
    let values = World::new().values(K_ROPE);
    let paired: Vec<f32> =
        values.chunks(8).flat_map(|head| (0..8).map(|i| head[i / 2 + i % 2 * 4])).collect();
    refused!(mapped("k.f32", &paired, &format!("file = \"k\"\npoint = \"{K_ROPE}\"\n")), WITH_MAP);
}

#[test]
fn an_engine_that_errs_is_imported_and_not_blamed_on_the_map() {
    // All values wrong; a layer that does nothing, whose output is the one before; one that ends too early.
    let noise = |name: &str| crate::common::noise(name, 40);
    for broken in [
        [noise("x"), noise("y"), noise("z")],
        [World::new().values("model.layers.0"), World::new().values("model.layers.0"), noise("z")],
        [
            World::new().values("model.layers.0"),
            World::new().values("model.layers.1.post_attention_residual"),
            noise("z"),
        ],
    ] {
        let world = World::new();
        for (i, values) in broken.iter().enumerate() {
            world.raw(&format!("layer_{i}.f32"), values);
        }
        assert_eq!(world.import("").entries().len(), 3);
    }
}
