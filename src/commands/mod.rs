//! The commands: what was typed becomes objects, and these do the work.

mod arm;
mod capture;
mod compare;
mod dequantize;
mod doctor;
mod faults;
mod import;
mod inspect;
mod plot;
mod quantize;
mod release;
mod run;
mod shell;
mod show;
mod tokens;

use crate::cli::{Cli, Command, Format, InputArgs};
use crate::error::{Error, Result};
use crate::files::ReplacedDir;
pub use crate::files::remove_unfinished;
use crate::prompt::{Prompt, parse_prompts, read_prompts, select};
use crate::report::{Outcome, Report, ReportSet, github, github_set, terminal, terminal_set, write_all};
use crate::trace::Trace;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What every command knows about the terminal.
#[derive(Debug, Clone, Copy)]
struct Ui {
    json: bool,
    quiet: bool,
    format: Format,
}

impl Ui {
    /// A line on stderr, unless the user wants none; nobody may be listening.
    fn say(self, line: impl std::fmt::Display) {
        if !self.quiet {
            let _nobody_listens = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// Runs a command to its exit code.
pub fn execute(cli: &Cli) -> ExitCode {
    crate::progress::talk(cli.verbose);
    let format = cli.command.format();
    let ui = Ui { json: cli.json, quiet: cli.quiet || cli.json, format };
    let result = match &cli.command {
        _ if cli.json && format != Format::Terminal => Err(two_formats()),
        Command::Run(args) => run::run(args, ui),
        Command::Capture(args) => capture::run(args, ui),
        Command::Compare(args) => compare::run(args, ui),
        Command::Import(args) => import::run(args, ui),
        Command::Inspect(args) => inspect::run(args, ui),
        Command::Quantize(args) => quantize::run(args, ui),
        Command::Dequantize(args) => dequantize::run(args, ui),
        Command::Faults(args) => faults::run(args, ui),
        Command::Tokens(args) => tokens::run(args, ui),
        Command::Release(args) => release::run(args, ui),
        Command::Show(args) => show::run(args, ui),
        Command::Plot(args) => plot::run(args, ui),
        Command::Doctor(args) => doctor::run(args, ui),
        Command::Completions(args) => shell::completions(args, ui),
        Command::Man(args) => shell::man(args, ui),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            if ui.json {
                print_invalid(&error.to_string());
            }
            let _nobody_listens = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(Outcome::Invalid.exit_code())
        }
    }
}

/// Ends what could not be parsed, and what only asked for help.
pub fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        print_invalid(error.to_string().trim_end());
    }
    let _nobody_listens = error.print();
    ExitCode::from(if error.use_stderr() { Outcome::Invalid } else { Outcome::Pass }.exit_code())
}

fn print_invalid(error: &str) {
    // Who cannot read this still has stderr and the exit code.
    let _unread = print_json(&json!({"outcome": "invalid", "error": error}));
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print_text(&serde_json::to_string_pretty(value).expect("reports have string keys only"))
}

/// Prints one document; a reader that went away is no error, a full disk is.
fn print_text(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot write to standard output: {e}"))
                .hint("the result is lost: make room, or send it elsewhere"))
        }
        _ => Ok(()),
    }
}

/// Prints a report and writes it, if `out` is given.
fn publish(report: &Report, out: Option<ReplacedDir>, target: Option<&Path>, ui: Ui) -> Result<Outcome> {
    if let Some(staged) = out {
        let _stage = crate::progress::stage("writing the report");
        staged.write(|dir| write_all(report, dir))?;
        staged.publish()?;
    }
    let files: Vec<PathBuf> =
        target.iter().flat_map(|dir| ["report.md", "report.html"].map(|name| dir.join(name))).collect();
    print_result(
        ui,
        report,
        || github(report),
        |width| terminal(report, console::colors_enabled(), width),
        &files,
    )?;
    Ok(report.outcome)
}

/// Prints the reports of several engines and writes them.
fn publish_set(set: &ReportSet, out: ReplacedDir, target: &Path, ui: Ui) -> Result<Outcome> {
    let stage = crate::progress::stage("writing the report");
    out.write(|dir| set.write_all(dir))?;
    drop(stage);
    out.publish()?;
    let files = ["report.md", "report.html"].map(|name| target.join(name));
    print_result(
        ui,
        set,
        || github_set(set),
        |width| terminal_set(set, console::colors_enabled(), width),
        &files,
    )?;
    Ok(set.outcome)
}

/// Prints a result in the format that was asked for, and says where its `files` are: as a part of what a person
/// reads, else on stderr, since stdout is then a document.
fn print_result(
    ui: Ui,
    json: &impl serde::Serialize,
    github: impl FnOnce() -> String,
    terminal: impl FnOnce(usize) -> String,
    files: &[PathBuf],
) -> Result<()> {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let files = (!files.is_empty()).then(|| format!("report: {}", files.join(", ")));
    if ui.json {
        return print_json(json);
    }
    if ui.format == Format::Github {
        print_text(&github())?;
        files.into_iter().for_each(|files| ui.say(files));
        return Ok(());
    }
    print_text(&terminal(width()))?;
    files.map_or(Ok(()), |files| print_text(&files))
}

fn two_formats() -> Error {
    Error::new("--json and --format both say what is printed").hint("leave one of them out")
}

/// How wide a line of text may be.
fn width() -> usize {
    let stdout = console::Term::stdout();
    if stdout.is_term() { usize::from(stdout.size().1) } else { 100 }
}

/// The prompts that were asked for, without tokens; none when nothing was asked for.
fn chosen_prompts(input: &InputArgs) -> Result<Option<Vec<Prompt>>> {
    prompts_from(input.prompts.as_deref(), &input.prompt.ids)
}

/// The prompts of a file or a trace with these ids; none when nothing was asked for.
fn prompts_from(from: Option<&Path>, ids: &[String]) -> Result<Option<Vec<Prompt>>> {
    let all = match from {
        Some(path) if path.is_dir() => Trace::open(path)?.manifest().prompts.clone(),
        Some(path) => read_prompts(path)?,
        None if ids.is_empty() => return Ok(None),
        None => standard_prompts()?,
    };
    let chosen = select(all, ids);
    chosen.map(Some).map_err(|e| from.iter().fold(e, Error::at))
}

fn standard_prompts() -> Result<Vec<Prompt>> {
    parse_prompts(crate::bundle::PROMPTS)
}

/// Decode steps when nothing else says how many.
const STEPS: usize = 4;

/// The command line, for the report. Where its parts lay is left out: with or without, it is the same release.
fn command_line() -> Vec<String> {
    let mut args = std::env::args().skip(1);
    let mut line = vec!["layerdiff".to_owned()];
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--parts" => drop(args.next()),
            _ if arg.starts_with("--parts=") => (),
            _ => line.push(arg),
        }
    }
    line
}
