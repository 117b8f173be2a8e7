//! `layerdiff completions` and `layerdiff man`: the command line for shells and for `man`.

use super::{Ui, print_json, print_text};
use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::error::{Error, Result};
use crate::files::replace_file;
use crate::report::Outcome;
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;

const NAME: &str = "layerdiff";

pub(super) fn completions(args: &CompletionsArgs, ui: Ui) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    if ui.json {
        let shell = args.shell.to_string();
        print_json(&json!({"outcome": Outcome::Pass, "shell": shell, "script": script}))?;
    } else {
        print_text(&script)?;
    }
    Ok(Outcome::Pass)
}

pub(super) fn man(args: &ManArgs, ui: Ui) -> Result<Outcome> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.out else {
        let page = page(command)?;
        if ui.json {
            print_json(&json!({"outcome": Outcome::Pass, "page": page}))?;
        } else {
            print_text(&page)?;
        }
        return Ok(Outcome::Pass);
    };
    let mut files = Vec::new();
    for (name, command) in pages(&command, NAME) {
        let path = dir.join(format!("{name}.1"));
        let text = page(command)?;
        let write =
            |file: &Path| std::fs::write(file, &text).map_err(|e| Error::io("write the page", &path, &e));
        replace_file(&path, is_page, write)?;
        files.push(path);
    }
    if ui.json {
        print_json(&json!({"outcome": Outcome::Pass, "files": files}))?;
    } else {
        print_text(&format!("{} pages: {}", files.len(), dir.display()))?;
    }
    Ok(Outcome::Pass)
}

/// True for the beginning of a page of this command.
fn is_page(start: &[u8]) -> bool {
    String::from_utf8_lossy(start).contains(&format!("\n.TH {NAME}"))
}

/// The command and all below it, under the names of their pages.
fn pages(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let mut found = vec![(name.to_owned(), command.clone())];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        found.extend(pages(below, &format!("{name}-{}", below.get_name())));
    }
    found
}

fn page(command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    let failed = |e: std::io::Error| Error::new(format!("cannot make the page: {e}"));
    let version = concat!("layerdiff ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command).source(version).render(&mut page).map_err(failed)?;
    Ok(with_examples(&String::from_utf8_lossy(&page)))
}

/// The page with its examples in a section of their own, a line a command: `clap_mangen` has them in one with the
/// notes, where `man` fills lines and spaces them out.
fn with_examples(page: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let end = rest.find(".SH ").unwrap_or(rest.len());
    let (extra, after) = rest.split_at(end);
    let (notes, examples) = extra.split_once("Examples:\n").unwrap_or((extra, ""));
    // Maps and tables stand among the notes too.
    let unfilled = |name: &str, text: &str| {
        let text = text.trim_end();
        if text.is_empty() { String::new() } else { format!(".SH {name}\n.nf\n{text}\n.fi\n") }
    };
    [before, &unfilled("NOTES", notes), &unfilled("EXAMPLES", examples), after].concat()
}
