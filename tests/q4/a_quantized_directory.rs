//! The directory as lattice's own quantizer writes it.

use super::*;

#[test]
fn holds_the_files_and_the_index_of_upstream_s_quantizer() {
    let manifest = load_manifest(&Made::at("q4")).unwrap().unwrap();
    assert_eq!((manifest.flavor, manifest.quarot_seed), (ManifestFlavor::QuantizeQ4, None));
    let reader = QuarotTensorReader::open(&bundled_model()).unwrap();
    let mut names = reader.tensor_names();
    names.sort();
    assert_eq!(manifest.tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>(), names);
    for file in ["config.json", "tokenizer.json"] {
        let read = |dir: PathBuf| std::fs::read(dir.join(file)).unwrap();
        assert_eq!(read(Made::at("q4")), read(bundled_model()), "{file}");
    }
}

#[test]
fn of_quarot_has_its_seed_in_the_index_and_an_untied_head() {
    let manifest = load_manifest(&Made::at("quarot")).unwrap().unwrap();
    assert_eq!((manifest.flavor, manifest.quarot_seed), (ManifestFlavor::QuaRot, Some(DEFAULT_SEED)));
    let dir = Q4Dir::open(&Made::at("quarot")).unwrap();
    assert_eq!(dir.seed(), Some(DEFAULT_SEED));
    assert!(dir.entries().iter().any(|e| e.name == "lm_head.weight" && e.quantized));
    assert!(Made::at("quarot").join("tokenizer.json").is_file());
}

#[test]
fn reads_back_bit_for_bit_as_lattice_reads_it() {
    for name in ["q4", "quarot"] {
        let dir = Q4Dir::open(&Made::at(name)).unwrap();
        for entry in dir.entries() {
            let path = dir.path().join(&entry.file);
            let theirs = match entry.quantized {
                true => dequantize_q4_to_f32(&load_q4_file(&path).unwrap()),
                false => load_f16_tensor_file(&path).unwrap().0,
            };
            let ours = dir.dequantize(entry).unwrap();
            assert!(ours.len() == theirs.len() && ours.len() == entry.numel, "{}", entry.name);
            let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name} {}", entry.name);
        }
    }
}

#[test]
fn of_quarot_is_the_original_after_the_way_back_but_for_four_bits() {
    let model = bundled();
    let dir = Q4Dir::open(&Made::at("quarot")).unwrap();
    let errors = dir.parameter_error(&bundled_model(), &model.gains().unwrap()).unwrap();
    let quantized = dir.entries().iter().filter(|e| e.quantized);
    for name in quantized.map(|e| dir.parameter(&e.name)) {
        assert!((0.02..0.2).contains(&errors[&name]), "{name}: {}", errors[&name]);
    }
    assert!(!errors.contains_key("model.norm.weight"), "gains come from the original");
}

#[test]
fn that_lattice_s_metal_engine_has_loaded_is_still_accepted() {
    let dir = copy("q4");
    std::fs::write(dir.path().join("merged_qkvz_0_1_2.q4"), "cache").unwrap();
    assert!(Q4Dir::open(dir.path()).is_ok());
    let hash = |path: &Path| ModelDir::open(path).unwrap().hashes().unwrap().weights;
    assert_eq!(hash(dir.path()), hash(&Made::at("q4")));
}
