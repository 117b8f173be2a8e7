//! What a command owes to the person at the terminal: `doctor`, completions, the manual, talk and silence, colour.

mod common;

use common::{bundled_model, command, finished, layerdiff};
use std::path::Path;

/// Every command, as `--help` lists them.
fn commands() -> Vec<String> {
    let help = layerdiff(&["--help"]).stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    list.lines()
        // A line that goes on with a description is indented further.
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|rest| rest.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn the_doctor_runs_every_engine_and_says_how_to_mend_what_is_missing() {
    let model = bundled_model();
    let args = ["doctor", "--python", "/nonexistent/python", "--model", model.to_str().unwrap(), "--json"];
    let run = layerdiff(&args);
    let report = run.json();
    assert_eq!((run.code, report["outcome"].as_str()), (2, Some("invalid")), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let engines: Vec<_> =
        checks.iter().filter(|c| c["name"].as_str().unwrap().starts_with("lattice-")).collect();
    assert_eq!(engines.len(), 6);
    for engine in engines {
        assert_eq!(engine["ok"], true, "{engine:#}");
        assert!(engine["details"]["self_check"]["evidence"][0]["elements"].as_u64().unwrap() > 0);
    }
    let bad: Vec<_> = checks.iter().filter(|c| c["ok"] == false).collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert!(bad[0]["found"].as_str().unwrap().contains("/nonexistent/python"));
    assert!(bad[0]["hint"].as_str().unwrap().contains("pip install ./hooks"));
    let model = checks.iter().find(|c| c["name"] == "model").unwrap();
    assert!(model["details"]["trace_bytes"].as_u64().unwrap() > 1_000_000, "{model:#}");
    assert!(checks.iter().any(|c| c["details"]["free_bytes"].as_u64().is_some()));
}

#[test]
fn the_doctor_names_what_is_wrong_with_a_model() {
    let empty = tempfile::tempdir().unwrap();
    let run =
        layerdiff(&["doctor", "--python", "/nonexistent/python", "--model", empty.path().to_str().unwrap()]);
    assert_eq!(run.code, 2);
    assert!(
        run.stdout.contains("PROBLEM  model") && run.stdout.contains("problems: 2 of 10"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("config.json") && run.stdout.contains("hint: --model wants"),
        "{}",
        run.stdout
    );
}

#[test]
#[ignore = "needs PyTorch"]
fn the_doctor_finds_nothing_amiss_where_pytorch_is_installed() {
    let run = layerdiff(&["doctor", "--json"]);
    let report = run.json();
    assert_eq!(run.code, 0, "{report:#}");
    let python = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "PyTorch").unwrap();
    assert!(python["details"]["libraries"]["torch"].is_string(), "{python:#}");
}

#[test]
fn each_shell_can_complete_every_command() {
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = layerdiff(&["completions", shell]);
        assert_eq!(script.code, 0);
        for command in &commands {
            assert!(script.stdout.contains(command.as_str()), "{shell}: {command}");
        }
    }
}

#[test]
fn bash_completes_a_command_and_its_options() {
    let root = tempfile::tempdir().unwrap();
    let script = root.path().join("layerdiff.bash");
    std::fs::write(&script, layerdiff(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let program = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _layerdiff layerdiff \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = std::process::Command::new("bash").args(["-c", &program]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("layerdiff insp"), "inspect");
    assert_eq!(complete("layerdiff run --refer"), "--reference");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("a/man1");
    let run = layerdiff(&["man", "--out", out.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:#?}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    for command in commands() {
        let page = read(&format!("layerdiff-{command}.1"));
        assert!(page.contains(&format!("layerdiff\\-{command}")) && page.contains("\\-\\-json"), "{command}");
        assert!(page.contains(".SH EXAMPLES\n.nf\n  layerdiff"), "{command} has no examples: {page}");
    }
    // Examples are shown a line each, and not filled.
    let page = read("layerdiff-faults-run.1");
    let (_, examples) = page.split_once("\n.SH EXAMPLES\n.nf\n").unwrap_or_else(|| panic!("{page}"));
    let (examples, rest) = examples.split_once("\n.fi\n").unwrap();
    assert!(examples.lines().count() > 1 && !examples.contains(".SH"), "{examples}");
    assert!(examples.lines().all(|line| line.starts_with("  layerdiff faults run")), "{examples}");
    assert!(!rest.contains("layerdiff faults run"), "{rest}");
    assert_eq!(layerdiff(&["man"]).stdout.trim_end(), read("layerdiff.1").trim_end());
    // Earlier pages are replaced, and nothing else is.
    assert_eq!(layerdiff(&["man", "--out", out.to_str().unwrap()]).code, 0);
    std::fs::write(out.join("layerdiff-run.1"), "years of work").unwrap();
    let refused = layerdiff(&["man", "--out", out.to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("hint: only such a one"), "{refused:#?}");
    assert_eq!(read("layerdiff-run.1"), "years of work");
    // A file is in the way.
    std::fs::write(root.path().join("file"), "").unwrap();
    let refused = layerdiff(&["man", "--out", root.path().join("file").to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("hint:"), "{refused:#?}");
}

fn compared(flags: &[&str]) -> common::Run {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/reference");
    let root = root.to_str().unwrap();
    layerdiff(&[&["compare", root, root, "--points", "*norm"], flags].concat())
}

#[test]
fn verbose_says_the_stages_and_their_time_and_quiet_says_nothing() {
    let plain = compared(&[]);
    assert!(plain.stderr.starts_with("hint: ") && plain.stderr.lines().count() == 1, "{}", plain.stderr);
    let talk = compared(&["--verbose"]);
    assert_eq!(talk.stdout, plain.stdout);
    let lines: Vec<&str> = talk.stderr.lines().filter(|line| !line.starts_with("hint: ")).collect();
    assert!(lines[0].starts_with("comparing ") && lines[0].ends_with('…'), "{lines:?}");
    assert!(lines[1].starts_with("comparing ") && lines[1].ends_with(" s"), "{lines:?}");
    assert_eq!(compared(&["--quiet"]).stderr, "");
    let both = compared(&["--quiet", "--verbose"]);
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "{both:#?}");
}

#[test]
fn colours_are_for_terminals_and_can_be_forced_and_forbidden() {
    let run = |variables: &[(&str, &str)]| {
        let mut command = command(&["doctor", "--python", "/nonexistent/python"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        finished(&mut command).stdout
    };
    assert!(!run(&[]).contains('\x1b'));
    let forced = run(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains("\x1b[32mok") && forced.contains("PROBLEM"), "{forced}");
    assert_eq!(console::strip_ansi_codes(&forced).lines().next(), run(&[]).lines().next());
}

/// Runs a command in a terminal of so many columns, by Python's `pty`.
const TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
columns, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 40, int(columns), 0, 0))
    os.execv(command[0], command)
out = b''
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    out += part
sys.stdout.buffer.write(out)
";

#[test]
#[ignore = "needs Python"]
fn a_terminal_gets_progress_colours_and_lines_of_its_width_but_no_colour_with_no_color() {
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = |columns: &str, variable: Option<(&str, &str)>| {
        let mut command = std::process::Command::new(&python);
        command.args(["-c", TERMINAL, columns, env!("CARGO_BIN_EXE_layerdiff"), "doctor"]);
        command
            .args(["--python", "/nonexistent/python"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color");
        let output = command.envs(variable).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let coloured = run("64", None);
    assert!(
        coloured.contains("\x1b[32mok") && coloured.contains("5/6") && coloured.contains(" left"),
        "{coloured}"
    );
    let result = coloured.rsplit("\x1b[2K").next().unwrap();
    for line in console::strip_ansi_codes(result).lines().filter(|line| !line.contains("/")) {
        assert!(line.trim_end().chars().count() <= 64, "{line}");
    }
    let plain = run("120", Some(("NO_COLOR", "1")));
    assert!(!plain.contains("\x1b[3") && plain.contains("ok       lattice-f32"), "{plain}");
}
