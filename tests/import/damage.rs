//! Files that were damaged, or put together from pieces: the whole import ends well or in an error.

use crate::common::bundled_model;
use crate::formats::{bundled, goldens};
use layerdiff::checkpoint::ModelDir;
use layerdiff::import::map::Map;
use layerdiff::import::{Request, format, import, suggest};
use layerdiff::trace::Trace;
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

/// One file of each format that has a structure.
const FILES: [&str; 5] =
    ["arrays.npz", "arrays/step_0/layer_0.npy", "tensors.pt", "legacy.pt", "tensors.safetensors"];

static REFERENCE: LazyLock<Trace> = LazyLock::new(|| Trace::open(&bundled()).unwrap());
static MODEL: LazyLock<ModelDir> = LazyLock::new(|| ModelDir::open(&bundled_model()).unwrap());

/// Imports a file as the command does, with names known and unknown; nothing may panic, and what is written is
/// a trace.
fn survives(name: &str, bytes: &[u8], crop: bool) -> bool {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(Path::new(name).file_name().unwrap());
    std::fs::write(&path, bytes).unwrap();
    let Ok(source) = format::open(&path) else { return false };
    let map = if crop {
        "[[tensor]]\nfile = \"*\"\npoint = \"model.norm\"\ncrop = { axis = 0, keep = \"tokens\" }\ntranspose = [0, 1]\n"
    } else {
        ""
    };
    let map = Map::parse(map).unwrap();
    let prompts = &REFERENCE.manifest().prompts;
    let at = prompts.iter().position(|p| p.id == "instruction-07").unwrap();
    let request = Request {
        source: source.as_ref(),
        path: &path,
        map: &map,
        graph: MODEL.graph(),
        config: REFERENCE.manifest().config.clone(),
        adapter: None,
        prompts: &prompts[at..=at],
        step: 0,
        reference: Some(&REFERENCE),
        engine: ("e", "1"),
        quantized: false,
        precision: None,
        ignore_unknown: true,
        trust_map: false,
    };
    let _map_or_error = suggest(&request);
    let out = root.path().join("out");
    let done = import(&request, &out).is_ok();
    assert_eq!(done, out.exists());
    done && Trace::open(&out).is_ok_and(|trace| !trace.entries().is_empty())
}

#[test]
fn the_files_are_imported_while_nothing_is_damaged() {
    for name in FILES.into_iter().filter(|name| *name != "legacy.pt") {
        assert!(survives(name, &std::fs::read(goldens().join(name)).unwrap(), false), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic(
        file in 0..FILES.len(),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
        crop in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = std::fs::read(goldens().join(FILES[file])).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        survives(FILES[file], &bytes, crop);
    }

    #[test]
    fn a_file_of_pieces_of_files_is_an_error_and_never_a_panic(
        file in 0..FILES.len(),
        other in 0..FILES.len(),
        crop in any::<bool>(),
        pieces in prop::collection::vec(
            (any::<bool>(), any::<prop::sample::Index>(), 1..200usize, any::<prop::sample::Index>(), 1..50usize),
            1..4,
        ),
    ) {
        let mut bytes = std::fs::read(goldens().join(FILES[file])).unwrap();
        let theirs = std::fs::read(goldens().join(FILES[other])).unwrap();
        for (own, from, length, to, times) in pieces {
            let source = if own { bytes.clone() } else { theirs.clone() };
            let from = from.index(source.len());
            let piece = source[from..source.len().min(from + length)].repeat(times);
            let to = to.index(bytes.len());
            // In place of what is there where it is said once, so that what lies behind keeps its place.
            let end = if times == 1 { bytes.len().min(to + piece.len()) } else { to };
            bytes.splice(to..end, piece);
        }
        survives(FILES[file], &bytes, crop);
    }

    #[test]
    fn a_pickle_of_repeated_pieces_is_an_error_and_never_a_panic(
        crop in any::<bool>(),
        pieces in prop::collection::vec(
            (any::<prop::sample::Index>(), 1..60usize, any::<prop::sample::Index>(), 0..20usize),
            1..4,
        ),
    ) {
        // The archive is whole, so that the reader of the pickle sees what was put together.
        let mut zip = zip::ZipArchive::new(std::fs::File::open(goldens().join("tensors.pt")).unwrap()).unwrap();
        let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for i in 0..zip.len() {
            let mut entry = zip.by_index(i).unwrap();
            let name = entry.name().unwrap().into_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            if name.ends_with("data.pkl") {
                for (from, length, to, times) in &pieces {
                    let from = from.index(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + length)].repeat(*times);
                    let to = to.index(bytes.len());
                    // Nothing at all is a piece that is missing.
                    let end = if *times == 0 { bytes.len().min(to + length) } else { to };
                    bytes.splice(to..end, piece);
                }
            }
            let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            out.start_file(name, stored).unwrap();
            std::io::Write::write_all(&mut out, &bytes).unwrap();
        }
        survives("tensors.pt", &out.finish().unwrap().into_inner(), crop);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_never_a_panic(
        file in 0..FILES.len(),
        keep in 0..40usize,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        // The beginning of a real file, so that more than the first look is taken.
        let real = std::fs::read(goldens().join(FILES[file])).unwrap();
        survives(FILES[file], &[&real[..keep], &bytes].concat(), false);
    }
}
