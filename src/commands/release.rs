//! `layerdiff release`: layers and tokens of every engine, joined.

mod parts;

use super::tokens::{Candidate, Session, Setup, planted};
use super::{Ui, command_line, print_result, run};
use crate::bundle::Bundle;
use crate::checkpoint::ModelDir;
use crate::cli::{InputArgs, ReleaseArgs, RunArgs};
use crate::engine::{CANDIDATES, check_known};
use crate::error::{Error, Result};
use crate::faults::{Fault, named};
use crate::files::ReplacedDir;
use crate::report::{Outcome, Report, write_all};
use crate::tokens::{EngineRelease, Release, profile, write_tokens};
use parts::Parts;
use std::io::Write;
use std::path::Path;

/// What is planted into every engine.
type Planted = Option<(&'static Fault, Option<usize>)>;

/// Where the results of the engines come from.
enum Source<'a> {
    /// PyTorch, which has run once for all engines, and the comparisons by layer of all of them.
    Live(Box<Session<'a>>, Result<Vec<(String, Result<Report>)>>),
    /// What others have made.
    Parts(Parts<'a>),
}

pub(super) fn run(args: &ReleaseArgs, ui: Ui) -> Result<Outcome> {
    let known: Vec<&str> = CANDIDATES.into_iter().chain(["all"]).collect();
    args.engine.iter().try_for_each(|name| check_known(name, &known))?;
    let chosen: Vec<&str> = CANDIDATES.into_iter().filter(|name| is_chosen(args, name)).collect();
    let profiles =
        chosen.iter().map(|name| profile(args.on.profile.as_deref(), name)).collect::<Result<Vec<_>>>()?;
    let fault = args.fault.as_deref().map(named).transpose()?.map(|fault| (fault, args.layer));
    let bundle = Bundle::unpack()?;
    if let Some(part) = args.part {
        let setup = Setup::new(&args.on, &bundle, Ui { quiet: true, ..ui })?;
        setup.refuse_steps(args.steps)?;
        return parts::make(part, args, &setup, &chosen, fault);
    }
    let out = ReplacedDir::stage(&args.out, "report.json")?;
    let setup = Setup::new(&args.on, &bundle, ui)?;
    setup.refuse_steps(args.steps)?;
    setup.say(&profiles);
    let mut source = match &args.parts {
        Some(dir) => Source::Parts(Parts::new(dir, &setup, parts::job(args, &setup)?)),
        None => Source::Live(Box::new(Session::new(&setup, None)?), layers(args, fault, ui)),
    };
    let mut release =
        Release::new(command_line(), fault.map(planted).map(|said| said.trim_start().to_owned()));
    for (name, profile) in chosen.iter().zip(&profiles) {
        let candidate = Candidate { name, path: None, fault };
        let (tokens, by_layer) = match &mut source {
            Source::Live(session, layers) => (session.judge(&candidate, profile), of_engine(layers, name)),
            Source::Parts(parts) => (parts.tokens(&candidate, profile)?, parts.layers(name)?),
        };
        let mut errors = Vec::new();
        let tokens = tokens.map_err(|e| errors.push(format!("tokens: {e}"))).ok();
        let by_layer = by_layer.map_err(|e| errors.push(format!("layers: {e}"))).ok();
        if let Some(report) = &tokens {
            out.write(|out| write_into(&out.join(name).join("tokens"), |dir| write_tokens(report, dir)))?;
        }
        if let Some(report) = &by_layer {
            out.write(|out| {
                write_into(&out.join(name).join("layers"), |dir| write_all(report, dir).map(drop))
            })?;
        }
        release.add(EngineRelease::new(name, (tokens.as_ref(), by_layer.as_ref()), errors));
    }
    out.write(|dir| release.write(dir))?;
    out.publish()?;
    let files = [args.out.join("report.md")];
    print_result(ui, &release, || release.github(), |width| release.terminal(width), &files)?;
    Ok(release.outcome)
}

fn is_chosen(args: &ReleaseArgs, engine: &str) -> bool {
    args.engine.iter().any(|name| name == "all" || name == engine)
}

/// The comparison of one engine. Where none could be made at all, each engine has that error: its tokens can
/// be judged all the same.
fn of_engine(layers: &mut Result<Vec<(String, Result<Report>)>>, name: &str) -> Result<Report> {
    let all = layers.as_mut().map_err(|e| e.clone())?;
    let place = all.iter().position(|(engine, _)| engine == name);
    place.map_or_else(|| Err(Error::new("it was not run")), |place| all.swap_remove(place).1)
}

fn write_into(dir: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io("make the report's directory", dir, &e))?;
    write(dir)
}

/// The comparison by layer of each engine, of the same prompts.
fn layers(args: &ReleaseArgs, fault: Planted, ui: Ui) -> Result<Vec<(String, Result<Report>)>> {
    let on = &args.on;
    let mut all = tempfile::NamedTempFile::new()
        .map_err(|e| Error::io("create a temporary file", std::env::temp_dir(), &e))?;
    all.write_all(crate::bundle::PROMPTS.as_bytes())
        .map_err(|e| Error::io("write the prompts", all.path(), &e))?;
    let prompts = match (&on.prompts, on.prompt.ids.is_empty()) {
        (Some(path), _) => Some(path.clone()),
        // The standard set, from which ids are chosen; without a choice all of it.
        (None, true) => Some(all.path().to_path_buf()),
        (None, false) => None,
    };
    let engine = match args.engine.as_slice() {
        [only] => only,
        _ => "all",
    };
    let input = InputArgs::every_point(prompts, on.prompt.clone(), args.steps, on.python.clone());
    let run_args = RunArgs::against_torch(on.model.clone(), engine, None, input);
    let open = |name: &str, model: &ModelDir, path: Option<&str>| {
        // Of several that are not all, the others end here, before anything of theirs has run.
        if !is_chosen(args, name) {
            return Err(Error::new("it was not asked for"));
        }
        Candidate { name, path, fault }.open(name, model, path)
    };
    run::judge(&run_args, &open, ui)
}
