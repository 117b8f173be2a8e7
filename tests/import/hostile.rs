//! Files made to run code, to fill the memory, or to write elsewhere.

use crate::world::{World, refused};
use std::io::Write;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An archive of these entries, stored.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    packed(entries, CompressionMethod::Stored)
}

fn packed(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn text(text: &str) -> Vec<u8> {
    [b"X".to_vec(), (text.len() as u32).to_le_bytes().to_vec(), text.as_bytes().to_vec()].concat()
}

fn int(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

fn ints(numbers: &[i64]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|n| int(*n)).collect(), b"t".to_vec()].concat()
}

/// A pickle of a dictionary with one tensor, as torch.save writes it.
fn tensor(name: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    lazy(name, numel, offset, shape, strides, b"")
}

/// The same with more arguments of the tensor, after `requires_grad`.
fn lazy(name: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64], more: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02}(".to_vec(),
        text(name),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(numel),
        b"tQ".to_vec(),
        int(offset),
        ints(shape),
        ints(strides),
        b"\x89N".to_vec(),
        more.to_vec(),
        b"tRu.".to_vec(),
    ]
    .concat()
}

/// The embedding as a `.pt` whose storage holds 40 numbers.
fn torch(pickle: &[u8]) -> World {
    let world = World::new();
    let storage: Vec<u8> = world.values("model.embed_tokens").iter().flat_map(|v| v.to_le_bytes()).collect();
    world.file("dumps/a.pt", archive(&[("a/data.pkl", pickle), ("a/data/0", &storage)]));
    world
}

fn npy(header: &str, values: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

#[test]
fn a_handmade_file_of_pytorch_is_read_when_nothing_is_wrong_with_it() {
    torch(&tensor("model.embed_tokens", 40, 0, &[5, 8], &[8, 1])).imports("", &["model.embed_tokens"]);
}

#[test]
fn a_pickle_that_would_run_a_command_is_refused_and_nothing_runs() {
    let world = World::new();
    let mark = world.path("ran");
    let command = format!("touch {}", mark.display());
    let pickle = [b"\x80\x02cos\nsystem\n".to_vec(), text(&command), b"\x85R.".to_vec()].concat();
    world.file("dumps/a.pt", archive(&[("a/data.pkl", &pickle)]));
    refused!(world);
    assert!(!mark.exists());
}

#[test]
fn a_bare_pickle_is_refused() {
    let world = World::new();
    world.file("dumps/a.pt", b"\x80\x04\x95cposix\nsystem\n");
    refused!(world);
}

#[test]
fn the_old_format_of_pytorch_is_refused() {
    let world = World::new();
    std::fs::copy(crate::formats::goldens().join("legacy.pt"), world.path("dumps/a.pt")).unwrap();
    refused!(world);
}

#[test]
fn a_tensor_beyond_its_storage_is_refused() {
    refused!(torch(&tensor("model.embed_tokens", 40, 1, &[5, 8], &[8, 1])));
}

#[test]
fn a_storage_that_is_shorter_than_it_claims_is_refused() {
    refused!(torch(&tensor("model.embed_tokens", 400, 0, &[5, 8], &[8, 1])));
}

#[test]
fn a_tensor_of_an_impossible_shape_is_refused() {
    refused!(torch(&tensor("model.embed_tokens", 40, 0, &[1 << 40, 1 << 40], &[1, 1])));
}

#[test]
fn a_negative_stride_is_refused() {
    refused!(torch(&tensor("model.embed_tokens", 40, 39, &[5, 8], &[-8, -1])));
}

#[test]
fn a_tensor_that_repeats_its_elements_is_refused() {
    refused!(torch(&tensor("model.embed_tokens", 40, 0, &[5, 8], &[0, 1])));
}

#[test]
fn a_tensor_whose_elements_lie_far_apart_is_refused() {
    let world = World::new();
    let storage = vec![0; 4 * 50_000];
    let pickle = tensor("model.embed_tokens", 50_000, 0, &[5, 8], &[10_000, 1]);
    world.file("dumps/a.pt", archive(&[("a/data.pkl", &pickle), ("a/data/0", &storage)]));
    refused!(world);
}

#[test]
fn a_tensor_that_is_negated_where_it_is_used_is_refused() {
    let negated = [b"}".to_vec(), text("neg"), b"\x88s".to_vec()].concat();
    refused!(torch(&lazy("model.embed_tokens", 40, 0, &[5, 8], &[8, 1], &negated)));
    for nothing in [&b"N"[..], b"}"] {
        let pickle = lazy("model.embed_tokens", 40, 0, &[5, 8], &[8, 1], nothing);
        torch(&pickle).imports("", &["model.embed_tokens"]);
    }
}

#[test]
fn a_name_that_is_as_long_as_a_book_is_refused() {
    // The name once, and then twenty thousand times by the two bytes that recall it.
    let name = [text(&"k".repeat(1 << 20)), b"q\x01N".to_vec()].concat();
    refused!(torch(&[b"\x80\x02}(".to_vec(), name, b"h\x01N".repeat(20_000), b"u.".to_vec()].concat()));
}

#[test]
fn names_that_fill_the_memory_together_are_refused() {
    let whole = tensor(&"k".repeat(1000), 40, 0, &[5, 8], &[8, 1]);
    // The pair is remembered before the dictionary is filled, and recalled over and over.
    let pair = &whole[4..whole.len() - 2];
    let key = text(&"k".repeat(1000));
    let (key, value) = pair.split_at(key.len());
    let first = [key, b"q\x01", value, b"q\x02"].concat();
    refused!(torch(&[b"\x80\x02}(".to_vec(), first, b"h\x01h\x02".repeat(100_000), b"u.".to_vec()].concat()));
}

#[test]
fn what_is_no_tensor_is_counted_and_named_up_to_a_few() {
    let mut pickle = tensor("model.embed_tokens", 40, 0, &[5, 8], &[8, 1]);
    pickle.truncate(pickle.len() - 2);
    (0..100).for_each(|i| pickle.extend([text(&format!("lr{i}")), b"N".to_vec()].concat()));
    pickle.extend(b"u.");
    let trace = torch(&pickle).import("");
    let notes = trace.manifest().provenance.notes.join("\n");
    assert!(notes.contains("left out: 100: lr0, lr1") && notes.contains("lr7, and 92 more"), "{notes}");
}

#[test]
fn a_dictionary_made_of_arguments_is_refused() {
    let pickle = [&b"\x80\x02ccollections\nOrderedDict\n(]("[..], &text("a"), b"N\x86etR."].concat();
    refused!(torch(&pickle));
}

#[test]
fn a_dump_without_elements_is_refused_whatever_its_other_axes_claim() {
    let world = World::new();
    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (0, 17179869184, 17179869184), }\n";
    world.file("dumps/up.npy", npy(header, b""));
    world.file(
        "map.toml",
        "[[tensor]]\nfile = \"up\"\npoint = \"model.layers.1.mlp.up_proj\"\ncrop = { axis = 1, keep = 17179869184 }\n",
    );
    refused!(world, "import dumps --reference reference --map map.toml --out out");
    world.file("dumps/model.norm.npy", npy(header, b""));
    std::fs::remove_file(world.path("dumps/up.npy")).unwrap();
    world.refusal("import dumps --reference reference --out out");
    world.refusal("import dumps/model.norm.npy --reference reference --out out");
}

#[test]
fn a_link_out_of_the_directory_is_refused_and_one_within_it_followed() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    std::os::unix::fs::symlink("embed.f32", world.path("dumps/layer_0.f32")).unwrap();
    assert_eq!(world.import("").entries().len(), 2);
    std::fs::remove_dir_all(world.path("out")).unwrap();
    world.file("secret.f32", [0; 160]);
    std::os::unix::fs::symlink("../secret.f32", world.path("dumps/final_norm.f32")).unwrap();
    let told = world.refusal("import dumps --reference reference --out out");
    assert!(told.contains("a link leads out of the directory"), "{told}");
    std::fs::remove_file(world.path("dumps/final_norm.f32")).unwrap();
    std::os::unix::fs::symlink("/", world.path("dumps/all")).unwrap();
    world.refusal("import dumps --reference reference --out out");
}

#[test]
fn names_that_command_a_terminal_or_write_into_a_map_are_shown_as_escapes() {
    let world = World::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n";
    let name = "a\n[[tensor]]\nfile = \"*\"\nignore = true\n#\u{1b}[31mred\u{7f}.npy";
    world.file("dumps/a.npz", archive(&[(name, &npy(header, &[0; 12]))]));
    world.raw("final_norm.f32", &world.values("model.norm"));
    refused!(world);
    let run = world.run("import dumps --reference reference --suggest");
    assert!(
        !run.stdout.contains('\u{1b}') && run.stdout.matches("\n[[tensor]]").count() == 1,
        "{}",
        run.stdout
    );
    world.file("map.toml", run.stdout);
    world.imports("--map map.toml", &["model.norm"]);
}

#[test]
fn an_engine_that_commands_a_terminal_is_inspected_without_doing_so() {
    let world = World::new();
    world.raw("final_norm.f32", &world.values("model.norm"));
    world.file("map.toml", "engine = \"a\\u001b[31m\"\nversion = \"1\\nself-check  bit-equal\"\n");
    drop(world.import("--map map.toml"));
    let run = world.run("inspect out");
    assert!(!run.stdout.contains('\u{1b}') && !run.stdout.contains("\nself-check"), "{}", run.stdout);
}

#[test]
fn a_colon_in_an_archive_is_a_letter_and_a_drive_is_refused() {
    let world = World::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 8), }\n";
    let values: Vec<u8> = world.values("model.norm").iter().flat_map(|v| v.to_le_bytes()).collect();
    let array = npy(header, &values);
    world.file("dumps/a.npz", archive(&[("norm:0.npy", &array)]));
    world.file("map.toml", "[[tensor]]\nfile = \"norm:0\"\npoint = \"model.norm\"\n");
    world.imports("--map map.toml", &["model.norm"]);
    world.file("dumps/a.npz", archive(&[("C:model.norm.npy", &array)]));
    assert!(world.refusal("import dumps --reference reference --out new").contains("leads out"));
}

#[test]
fn a_type_of_pytorch_that_is_not_read_is_answered_with_those_that_are() {
    refused!(torch(b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n."));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let world = World::new();
    let pipe = world.path("dumps/embed.f32");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused!(world);
}

#[test]
fn a_container_within_itself_is_refused() {
    // x = []; x.append(x)
    refused!(torch(b"\x80\x02]q\x00h\x00a."));
}

#[test]
fn containers_that_name_each_other_over_and_over_are_refused() {
    // x0 = []; x1 = [x0] * 100; x2 = [x1] * 100; … would be 100^9 visits.
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    for level in 0..9u8 {
        pickle.extend(b"](");
        pickle.extend([b'h', level].repeat(100));
        pickle.extend([b'e', b'q', level + 1]);
    }
    pickle.push(b'.');
    refused!(torch(&pickle));
}

#[test]
fn a_zip_bomb_is_refused() {
    let world = World::new();
    let zeros = vec![0; 64 << 20];
    world.file("dumps/a.npz", packed(&[("model.norm.npy", &zeros)], CompressionMethod::Deflated));
    refused!(world);
}

#[test]
fn an_absolute_path_in_an_archive_is_refused() {
    let world = World::new();
    world.file("dumps/a.npz", archive(&[("/etc/model.norm.npy", b"")]));
    refused!(world);
}

#[test]
fn a_path_out_of_an_archive_is_refused() {
    let world = World::new();
    world.file("dumps/a.npz", archive(&[("a/../../model.norm.npy", b"")]));
    refused!(world);
}

#[test]
fn an_array_that_promises_more_than_it_has_is_refused() {
    let world = World::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n";
    world.file("dumps/model.norm.npy", npy(header, &[0; 160]));
    refused!(world);
}

#[test]
fn an_archive_whose_array_promises_more_than_it_has_is_refused() {
    let world = World::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 9), }\n";
    world.file("dumps/a.npz", archive(&[("model.norm.npy", &npy(header, &[0; 160]))]));
    refused!(world);
}

#[test]
fn an_array_of_objects_is_refused() {
    let world = World::new();
    let header = "{'descr': '|O', 'fortran_order': False, 'shape': (5, 8), }\n";
    world.file("dumps/model.norm.npy", npy(header, b"\x80\x04cos\nsystem\n"));
    refused!(world);
}

#[test]
fn an_archive_of_something_else_is_refused() {
    let world = World::new();
    world.file("dumps/a.zip", archive(&[("readme.txt", b"hello")]));
    refused!(world);
}

#[test]
fn integers_in_place_of_numbers_are_refused() {
    let world = World::new();
    let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (5, 8), }\n";
    world.file("dumps/model.norm.npy", npy(header, &[0; 320]));
    refused!(world);
}
