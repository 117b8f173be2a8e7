//! The example for GitHub Actions: it is YAML, its commands exist, and it fails where layerdiff does.

use clap::Parser;
use layerdiff::cli::{Cli, Command, Format, ShowFormat};
use yaml_rust2::{Yaml, YamlLoader};

const WORKFLOW: &str = include_str!("../reports/ci/layerdiff.yml");

fn workflow() -> Yaml {
    let mut all = YamlLoader::load_from_str(WORKFLOW).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The steps of a job.
fn steps(job: &str) -> Vec<Yaml> {
    workflow()["jobs"][job]["steps"].as_vec().unwrap().clone()
}

/// The lines of the scripts of all jobs, with the step that each is in.
fn scripts() -> Vec<(Yaml, String)> {
    let jobs = workflow()["jobs"].as_hash().unwrap().clone();
    let all = jobs.values().flat_map(|job| job["steps"].as_vec().unwrap().clone());
    all.flat_map(|step| {
        let lines = step["run"].as_str().unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        lines.into_iter().map(move |line| (step.clone(), line))
    })
    .collect()
}

/// A command line up to where its output goes.
fn parsed(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('>')).collect();
    Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{line}: {e}")).command
}

#[test]
fn every_command_of_the_workflow_is_understood() {
    let ours: Vec<Command> = scripts()
        .iter()
        .filter(|(_, line)| line.starts_with("layerdiff "))
        .map(|(_, line)| parsed(line))
        .collect();
    assert_eq!(ours.len(), 2);
    assert!(ours.iter().any(|c| matches!(c, Command::Release(_)) && c.format() == Format::Github));
    assert!(ours.iter().any(|c| matches!(c, Command::Show(args) if args.format == ShowFormat::Github)));
    // Commands that are only spoken of.
    let spoken = WORKFLOW.lines().filter_map(|line| line.strip_prefix("#   ")).collect::<Vec<_>>();
    assert!(matches!(parsed(spoken[0]), Command::Compare(_)));
}

#[test]
fn the_gate_fails_with_the_exit_code_and_keeps_its_report_all_the_same() {
    let steps = steps("gate");
    let of =
        |what: &str| steps.iter().position(|s| s["run"].as_str().is_some_and(|r| r.contains(what))).unwrap();
    let gate = &steps[of("layerdiff release")];
    assert!(gate["continue-on-error"].is_badvalue() && gate["if"].is_badvalue());
    // The last command of the script decides, and no pipe hides its exit code.
    let last = gate["run"].as_str().unwrap().trim_end().lines().last().unwrap().to_owned();
    assert!(last.starts_with("layerdiff release ") && !last.contains('|'), "{last}");
    assert!(last.ends_with(">> \"$GITHUB_STEP_SUMMARY\""), "{last}");
    for later in &steps[of("layerdiff release") + 1..] {
        assert!(later["if"].as_str().unwrap().contains("!cancelled()"), "{later:?}");
    }
    let kept = steps.last().unwrap()["with"]["path"].as_str().unwrap();
    for file in ["junit.xml", "report.html", "comment.md"] {
        assert!(kept.lines().any(|line| line.ends_with(file)), "{kept}");
    }
}

/// What a pull request says of itself must not become a part of a script.
#[test]
fn no_script_takes_words_from_the_event() {
    for (_, line) in scripts() {
        assert!(!line.contains("${{"), "{line}");
    }
    assert_eq!(workflow()["permissions"]["contents"].as_str(), Some("read"));
    assert_eq!(WORKFLOW.matches("${{").count(), WORKFLOW.matches("}}").count());
    let uses = WORKFLOW.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: "));
    assert!(uses.into_iter().all(|action| action.starts_with("actions/") && action.contains("@v")));
}
