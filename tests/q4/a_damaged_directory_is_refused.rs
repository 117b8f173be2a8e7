//! Directories that are damaged or contradict themselves.

use super::*;

#[test]
fn for_a_truncated_file() {
    let shorten = |dir: &Path| {
        let bytes = std::fs::read(dir.join(Q_PROJ)).unwrap();
        std::fs::write(dir.join(Q_PROJ), &bytes[..bytes.len() - 7]).unwrap();
    };
    refused("q4", shorten, "the file is truncated");
}

#[test]
fn for_a_file_that_ends_in_its_header() {
    refused("q4", |dir| std::fs::write(dir.join(Q_PROJ), b"KHQ4\x02\0\0\0").unwrap(), "within its header");
}

#[test]
fn for_one_block_too_many() {
    let lengthen = |dir: &Path| {
        let mut bytes = std::fs::read(dir.join(Q_PROJ)).unwrap();
        bytes.extend([0x3c; 20]);
        std::fs::write(dir.join(Q_PROJ), bytes).unwrap();
    };
    refused("quarot", lengthen, "goes on after its last element");
}

#[test]
fn for_a_wrong_magic() {
    refused("q4", patch(Q_PROJ, 0, b"KHQ9"), "does not begin with its magic");
    refused("q4", patch(NORM, 0, b"KHQ4"), "does not begin with its magic");
}

#[test]
fn for_another_version() {
    refused("q4", patch(Q_PROJ, 4, &[1]), "another version of its format");
}

#[test]
fn for_another_shape() {
    refused("q4", patch(Q_PROJ, 8, &[3]), "another number of sizes");
    refused("q4", patch(Q_PROJ, 12, &[1]), "another shape than the index says");
}

#[test]
fn for_another_number_of_elements() {
    refused("q4", patch(Q_PROJ, 28, &[1]), "another number of elements");
}

#[test]
fn for_a_scale_that_is_zero_of_either_sign_or_not_finite() {
    for scale in [&[0, 0], &[0, 0x80], &[0, 0x7c], &[0, 0xfc], &[1, 0x7e]] {
        refused("q4", patch(Q_PROJ, BLOCKS + 20, scale), "block 1 has an impossible scale");
    }
}

#[test]
fn for_a_bias_that_is_not_finite() {
    refused("quarot", patch(Q_PROJ, BLOCKS + 2, &[0, 0x7c]), "block 0 has an impossible bias");
}

#[test]
fn for_a_16_bit_tensor_that_is_not_finite() {
    refused("q4", patch(NORM, 28, &[0, 0x7e]), "element 0 is not finite");
}

#[test]
fn for_a_missing_file() {
    refused("q4", |dir| std::fs::remove_file(dir.join(Q_PROJ)).unwrap(), "which the index lists");
}

#[test]
fn for_a_file_that_the_index_does_not_list() {
    refused("q4", |dir| std::fs::write(dir.join("x.q4"), "").unwrap(), "which the index does not list");
}

#[test]
fn for_a_tensor_that_is_neither_listed_nor_there() {
    let drop = |dir: &Path| {
        std::fs::remove_file(dir.join(NORM)).unwrap();
        edit_json(&dir.join(INDEX), |index| index.as_array_mut().unwrap().retain(|e| e["file"] != NORM));
    };
    refused("q4", drop, "lists no `model.norm.weight`");
}

#[test]
fn for_an_index_that_contradicts_itself() {
    let first = |key: &'static str, value: Value| {
        move |dir: &Path| edit_json(&dir.join(INDEX), |index| index[0][key] = value)
    };
    refused("q4", first("numel", 1.into()), "contradicts itself");
    refused("q4", first("quantized", false.into()), "names an unfit file");
    refused("q4", first("file", "../x.q4".into()), "names an unfit file");
    let second = |dir: &Path| edit_json(&dir.join(INDEX), |index| index[1] = index[0].clone());
    refused("q4", second, "twice");
    refused("q4", |dir| std::fs::write(dir.join(INDEX), "[").unwrap(), "index is malformed");
    refused("q4", |dir| std::fs::write(dir.join(INDEX), "[]").unwrap(), "lists no tensor");
}

#[test]
fn for_a_missing_seed() {
    refused("quarot", |dir| edit_json(&dir.join(INDEX), |i| i["quarot_seed"] = Value::Null), "has no seed");
    let array = |dir: &Path| edit_json(&dir.join(INDEX), |index| *index = index["tensors"].take());
    refused("quarot", array, "do not agree about the rotation's seed");
}

#[test]
fn for_two_seeds() {
    refused("quarot", |dir| edit_json(&dir.join(INDEX), |i| i["quarot_seed"] = 7.into()), "do not agree");
}

#[test]
fn for_rotations_at_run_time() {
    let online = |dir: &Path| {
        edit_json(&dir.join(INDEX), |index| index["artifact_version"] = "v1-online-r3r4".into());
    };
    refused("quarot", online, "wants rotations at run time");
}

#[test]
fn for_a_head_that_the_configuration_ties() {
    let tie = |dir: &Path| {
        edit_json(&dir.join("config.json"), |config| {
            config["tie_word_embeddings"] = true.into();
            config["text_config"]["tie_word_embeddings"] = true.into();
        });
    };
    refused("quarot", tie, "ties the head to the embedding");
}
