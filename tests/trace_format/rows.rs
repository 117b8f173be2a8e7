//! Tensors of which some rows were captured.

use super::*;

/// A trace of a prompt of five tokens and a step, with these rows in the entry of the prefill or of the step.
fn with_rows(step: u32, shape: &[usize], rows: &Value) -> Fixture {
    let fixture = Fixture { root: tempfile::tempdir().unwrap() };
    let mut writer = TraceWriter::create(&fixture.path(), Draft::minimal().options).unwrap();
    let mut of = prompt("p", &[1, 2, 3, 4, 5]);
    of.step_token_ids = vec![6];
    writer.start_prompt(&of);
    let n = shape.iter().product();
    writer.push(step, "a", DType::U8, shape, vec![1; n], "original", false).unwrap();
    writer.finish(None).unwrap();
    edit_manifest(&fixture.path(), |m| m["tensors"][0]["rows"] = rows.clone());
    fixture
}

#[test]
fn of_some_query_tokens_are_listed_and_come_back() {
    let trace = with_rows(0, &[2, 5], &json!([0, 4])).is_read();
    assert_eq!(trace.entries()[0].rows, Some(vec![0, 4]));
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("trace");
    let mut writer = TraceWriter::create(&path, Draft::minimal().options).unwrap();
    writer.start_prompt(&prompt("p", &[1, 2, 3]));
    let (shape, rows) = (&[1usize, 3][..], Some(vec![2]));
    let (step, point, dtype, basis) = (0, "a", DType::U8, "original");
    writer.take(Incoming { step, point, dtype, shape, rows, basis, derived: false }, vec![1; 3]).unwrap();
    writer.push(0, "b", DType::U8, &[3, 3], vec![1; 9], "original", false).unwrap();
    writer.finish(None).unwrap();
    let rows: Vec<_> = Trace::open(&path).unwrap().entries().iter().map(|e| e.rows.clone()).collect();
    assert_eq!(rows, [Some(vec![2]), None]);
    let text = std::fs::read_to_string(path.join(MANIFEST)).unwrap();
    assert_eq!(text.matches("\"rows\"").count(), 1, "an entry with all rows does not list any");
}

#[test]
fn out_of_order_or_twice_are_refused() {
    for rows in [json!([4, 0]), json!([2, 2])] {
        with_rows(0, &[2, 5], &rows).is_refused("not in order, or one is listed twice");
    }
}

#[test]
fn of_a_token_that_the_step_has_not_are_refused() {
    with_rows(0, &[2, 5], &json!([0, 5])).is_refused("a token that the step does not have");
    with_rows(0, &[2, 5], &json!([0, u64::MAX])).is_refused("a token that the step does not have");
    with_rows(1, &[1, 6], &json!([3])).is_refused("a token that the step does not have");
}

#[test]
fn that_are_all_or_none_are_refused() {
    with_rows(0, &[5, 5], &json!([0, 1, 2, 3, 4])).is_refused("no part of the rows");
    with_rows(0, &[0, 5], &json!([])).is_refused("no part of the rows");
    with_rows(1, &[1, 6], &json!([0])).is_refused("no part of the rows");
}

#[test]
fn of_another_number_than_the_shape_has_are_refused() {
    with_rows(0, &[3, 5], &json!([0, 4])).is_refused("another number of rows than are listed");
}

#[test]
fn that_are_no_list_of_positions_are_refused() {
    for rows in [json!(3), json!("all"), json!([-1]), json!([0.5]), json!([[0]])] {
        with_rows(0, &[2, 5], &rows).is_refused("malformed");
    }
}
