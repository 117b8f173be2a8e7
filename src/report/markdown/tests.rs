use super::super::sample;
use super::*;

#[test]
fn a_page_has_fewer_than_sixty_lines_whatever_the_report() {
    let mut crowded = sample::huge();
    crowded.diagnosis = vec![sample::faulty().diagnosis[0].clone(); 70];
    let reports = vec![
        sample::healthy(),
        sample::faulty(),
        sample::broken(),
        sample::large(),
        sample::huge(),
        sample::tiny(),
        sample::quantized(),
        crowded,
    ];
    for report in reports {
        let page = markdown(&report);
        assert!(page.lines().count() < 60, "{}:\n{page}", page.lines().count());
        assert!(page.lines().filter(|l| l.starts_with("| ")).count() >= 5, "{page}");
    }
}

#[test]
fn hostile_names_become_neither_html_nor_tables() {
    let page = markdown(&sample::huge());
    assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains("@all"));
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let rows: Vec<&str> = page.lines().filter(|l| l.starts_with('|')).collect();
    for table in rows.chunk_by(|a, b| columns(a) == columns(b)) {
        assert!(table.iter().any(|l| l.starts_with("|--")), "{table:#?}");
    }
}

#[test]
fn a_layer_with_a_fault_is_never_left_out_while_there_is_room() {
    let page = markdown(&sample::large());
    assert!(page.contains("**born** at `linear_attn.decay`") && page.contains("**born** at `mlp.down_proj`"));
}

#[test]
fn the_page_of_a_sound_engine() {
    insta::assert_snapshot!(markdown(&sample::healthy()));
}

#[test]
fn the_page_of_a_faulty_engine() {
    insta::assert_snapshot!(markdown(&sample::faulty()));
}

#[test]
fn the_page_of_a_run_with_infinities_and_missing_points() {
    insta::assert_snapshot!(markdown(&sample::broken()));
}

#[test]
fn the_page_of_many_layers_and_prompts() {
    insta::assert_snapshot!(markdown(&sample::large()));
}

#[test]
fn the_page_of_a_quantized_engine() {
    insta::assert_snapshot!(markdown(&sample::quantized()));
}

#[test]
fn the_page_of_several_engines() {
    insta::assert_snapshot!(markdown_set(&sample::engines()));
}
