//! Writing: whole or not at all, with little in memory.

use super::*;

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn works_in_one_hidden_sibling_and_renames_it_when_complete() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("trace");
    let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
    writer.start_prompt(&prompt("p", &[1]));
    writer.push(0, "a", DType::U8, &[200], vec![1; 200], "original", false).unwrap();
    let during = names(root.path());
    assert!(during.len() == 1 && during[0].starts_with(".trace."), "{during:?}");
    writer.finish(None).unwrap();
    assert_eq!(names(root.path()), ["trace"]);
    Trace::open(&target).unwrap();
}

#[test]
fn that_is_dropped_midway_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    for target in ["trace", "new/deep/trace"] {
        let mut writer = TraceWriter::create(&root.path().join(target), Draft::minimal().options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        writer.push(0, "a", DType::U8, &[200], vec![1; 200], "original", false).unwrap();
        drop(writer);
        assert!(names(root.path()).is_empty());
    }
}

#[test]
fn that_makes_an_invalid_trace_fails_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("trace");
    let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
    writer.start_prompt(&prompt("p", &[1]));
    for _ in 0..2 {
        writer.push(0, "a", DType::U8, &[1], vec![1], "original", false).unwrap();
    }
    let error = writer.finish(None).unwrap_err().to_string();
    assert!(error.contains("holds `a` (step 0, prompt `p`) twice"), "{error}");
    assert!(error.contains(target.to_str().unwrap()), "{error}");
    assert!(names(root.path()).is_empty());
}

#[test]
fn never_touches_what_exists() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("trace");
    Draft::minimal().write(&target);
    let before = tree(root.path());
    let error = TraceWriter::create(&target, Draft::tiny().options).unwrap_err().to_string();
    assert!(error.contains("already exists") && error.contains("hint: "), "{error}");
    assert_eq!(tree(root.path()), before);
}

#[test]
fn does_not_replace_a_trace_that_came_into_being_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("trace");
    let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
    writer.start_prompt(&prompt("p", &[1]));
    writer.push(0, "a", DType::U8, &[1], vec![1], "original", false).unwrap();
    Draft::minimal().write(&target);
    let before = tree(&target);
    let error = writer.finish(None).unwrap_err().to_string();
    assert!(error.contains("cannot put the output in place") && error.contains("hint: "), "{error}");
    assert_eq!(tree(&target), before);
    assert_eq!(names(root.path()), ["trace"]);
}

#[test]
fn keeps_a_few_shards_in_memory_and_no_more() {
    let root = tempfile::tempdir().unwrap();
    let mut options = Draft::minimal().options;
    options.shard_bytes = 1000;
    let mut writer = TraceWriter::create(&root.path().join("trace"), options).unwrap();
    writer.start_prompt(&prompt("p", &[1]));
    // A shard that is being written has another name, which may be gone when it is looked at.
    let on_disk = || -> usize {
        let staged = std::fs::read_dir(root.path()).unwrap().map(|dir| dir.unwrap().path());
        let shards = (0..7).map(|i| format!("shard-{i:05}.safetensors"));
        let files = staged.flat_map(|dir| shards.clone().map(move |shard| dir.join(shard)));
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len() as usize).sum()
    };
    // The next one, one that waits, and one that is being written.
    let few = 1000 + 2 * 8 * 130;
    for i in 0..50 {
        writer.push(0, &format!("t{i}"), DType::U8, &[130], vec![1; 130], "original", false).unwrap();
        let pending = ((i + 1) * 130_usize).saturating_sub(on_disk());
        assert!(pending < few, "{pending} bytes are pending after {i} tensors");
    }
    writer.finish(None).unwrap();
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    // The eighth tensor is the one that reaches the limit.
    let shards: Vec<usize> = trace.entries().iter().map(|e| e.shard).collect();
    assert_eq!(shards, (0..50).map(|i| i / 8).collect::<Vec<_>>());
    assert!(trace.entries().iter().all(|e| trace.view(e).bytes == [1; 130]));
}

#[test]
fn writes_the_same_bytes_again() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut draft = Draft::of(&[prompt("b", &[1, 2]), prompt("a", &[3])]);
    draft.options.shard_bytes = 5000;
    for root in [&one, &two] {
        draft.write(&root.path().join("trace"));
    }
    let relative = |root: &TempDir| -> Vec<_> {
        tree(root.path())
            .into_iter()
            .map(|(p, c)| (p.strip_prefix(root.path()).unwrap().to_owned(), c))
            .collect()
    };
    assert!(relative(&one).len() > 4);
    assert_eq!(relative(&one), relative(&two));
}
