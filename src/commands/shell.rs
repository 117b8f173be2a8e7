//! `layerdiff completions` and `layerdiff man`: the command line for shells and for `man`.

use super::{Ui, print_json, print_text};
use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::error::{Error, Result};
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
    std::fs::create_dir_all(dir).map_err(|e| Error::io("make the directory of the pages", dir, &e))?;
    let mut files = Vec::new();
    for (name, command) in pages(&command, NAME) {
        let path = dir.join(format!("{name}.1"));
        refuse_other(&path)?;
        crate::files::write_whole("the page", &path, page(command)?.as_bytes())?;
        files.push(path);
    }
    if ui.json {
        print_json(&json!({"outcome": Outcome::Pass, "files": files}))?;
    } else {
        print_text(&format!("{} pages: {}", files.len(), dir.display()))?;
    }
    Ok(Outcome::Pass)
}

/// Refuses to replace what is no page of this command.
fn refuse_other(path: &Path) -> Result<()> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(text) if text.contains(&format!("\n.TH {NAME}")) => Ok(()),
        _ => Err(Error::new("another file has the page's name")
            .at(path)
            .hint("only pages of layerdiff are replaced: choose another directory, or remove the file")),
    }
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
    Ok(String::from_utf8_lossy(&page).into_owned())
}
