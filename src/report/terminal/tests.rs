use super::super::sample;
use super::*;

fn reports() -> Vec<Report> {
    vec![
        sample::healthy(),
        sample::faulty(),
        sample::broken(),
        sample::large(),
        sample::huge(),
        sample::tiny(),
        sample::quantized(),
    ]
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for report in reports() {
        for width in [0, 60, 61, 80, 100, 300] {
            let text = terminal(&report, true, width);
            for line in text.lines() {
                assert!(measure_text_width(line) <= width.max(60), "{width}: {line}");
            }
        }
    }
}

#[test]
fn colour_adds_nothing_but_colour() {
    for report in reports() {
        let (plain, coloured) = (terminal(&report, false, 80), terminal(&report, true, 80));
        assert!(!plain.contains('\u{1b}'));
        assert_eq!(console::strip_ansi_codes(&coloured), plain);
        assert!(coloured.contains('\u{1b}'));
    }
}

#[test]
fn an_adapter_that_was_not_applied_is_said_before_the_verdict_and_once() {
    let mut report = sample::faulty();
    let note = format!("lattice-f16 has no adapter hook: {}", crate::trace::ADAPTER_NOT_APPLIED);
    report.provenance.candidate.notes = vec![note.clone()];
    report.warnings = vec![format!("candidate: {note}")];
    let text = terminal(&report, false, 100);
    assert_eq!(text.lines().nth(1), Some(note.as_str()), "{text}");
    assert_eq!(text.matches("was not applied").count(), 1, "{text}");
}

#[test]
fn a_point_has_the_same_largest_error_and_ratio_wherever_it_is_shown() {
    let mut report = sample::faulty();
    let mut later = report.faults[0].clone();
    (later.step, later.rel_l2, later.ratio) = (1, 0.75, 4321.0);
    report.faults.push(later);
    let text = terminal(&report, false, 100);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("largest error 7.5e-1, ratio 4321 × explained; 2 prompts and steps"), "{text}");
}

#[test]
fn very_many_layers_leave_the_verdict_on_the_screen() {
    let text = terminal(&sample::huge(), false, 100);
    assert!(text.lines().count() < 90, "{text}");
    assert!(text.contains("with smaller errors"));
}

#[test]
fn the_output_for_a_sound_engine() {
    insta::assert_snapshot!(terminal(&sample::healthy(), false, 80));
}

#[test]
fn the_output_for_a_faulty_engine() {
    insta::assert_snapshot!(terminal(&sample::faulty(), false, 100));
}

#[test]
fn the_output_for_a_run_with_infinities_and_missing_points() {
    insta::assert_snapshot!(terminal(&sample::broken(), false, 60));
}

#[test]
fn the_output_for_many_layers_and_prompts() {
    insta::assert_snapshot!(terminal(&sample::large(), false, 80));
}

#[test]
fn the_output_for_a_quantized_engine() {
    insta::assert_snapshot!(terminal(&sample::quantized(), false, 80));
}

#[test]
fn the_output_for_several_engines() {
    insta::assert_snapshot!(terminal_set(&sample::engines(), false, 100));
    for width in [0, 60, 80, 100, 300] {
        for line in terminal_set(&sample::engines(), true, width).lines() {
            assert!(measure_text_width(line) <= width.clamp(NARROWEST, WIDEST), "{width}: {line}");
        }
    }
}
