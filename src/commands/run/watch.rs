//! Runs the candidate and compares it with the reference, while it runs or from its trace.

use super::super::arm::Arm;
use super::super::command_line;
use super::super::compare::as_it_is;
use super::sources::Against;
use super::{ALL, Job};
use crate::basis::Gains;
use crate::capture::{Request, capture_fed, watch};
use crate::cli::Keep;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::PointFilter;
use crate::online::{self, Online};
use crate::prompt::{Prompt, token_texts};
use crate::replay::Held;
use crate::report::{Live, Options, Report, Revisit, assemble};
use crate::split::Feed;
use crate::trace::Trace;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// One run of a candidate.
pub(super) struct Run<'a> {
    /// The engine.
    pub name: &'a str,
    pub feed: Feed,
    pub request: Request<'a>,
    /// For what is of no use afterwards.
    pub work: &'a Path,
}

/// The name of a trace that is kept beside a report.
pub(super) const CANDIDATE: &str = "candidate";

impl Job<'_> {
    /// Judges a candidate: while it runs, unless its whole trace is kept.
    pub(super) fn watch(
        &self,
        run: &Run<'_>,
        engine: &mut dyn Engine,
        against: &Against,
        arm: Option<Arm>,
        held: Option<&Held>,
    ) -> Result<Report> {
        let (prompts, steps) = (run.request.prompts, self.sources.steps);
        let reference = Trace::open(&against.reference)?.restricted_to(prompts, steps);
        let (arm, arm_floor) = match arm {
            Some(Arm { trace, floor }) => (Some(trace.restricted_to(prompts, steps)), floor),
            None => (None, None),
        };
        let gains = self.model.gains()?;
        let reference_held = match held {
            Some(_) => as_it_is(self.model, &reference)?,
            None => None,
        };
        let options = Options {
            graph: self.model.graph(),
            gains: &gains,
            held,
            reference_held: reference_held.as_ref(),
            points: self.points,
            floor: arm_floor.as_ref().unwrap_or_else(|| against.floors.first().expect("at least one")),
            floors: &against.floors,
            quantized: arm.as_ref(),
            other_weights: self.args.weights.is_some(),
            live: None,
            command: command_line(),
            quiet: self.ui.quiet,
        };
        let mut report = match self.kept(run.name).filter(|_| self.args.keep == Keep::All) {
            Some(kept) => {
                capture_fed(run.feed, engine, &run.request, &kept)?;
                assemble(&reference, &Trace::open(&kept)?, &options)?
            }
            None => self.online(run, engine, &reference, &gains, options)?,
        };
        if let Some(text) = token_texts(self.model.path()) {
            report.name_tokens(text);
        }
        Ok(report)
    }

    fn online(
        &self,
        run: &Run<'_>,
        engine: &mut dyn Engine,
        reference: &Trace,
        gains: &Gains,
        options: Options<'_>,
    ) -> Result<Report> {
        let Options { graph, points, held, quantized: arm, .. } = options;
        let against = online::Against { graph, points, reference, arm, gains, held };
        let (online, check) =
            watch(run.feed, engine, &run.request, |options| Ok(Online::new(against, options)))?;
        let (candidate, measured) = online.close(Some(check))?;
        let engine = RefCell::new(engine);
        let again = |wanted: &Revisit| self.again(run, &mut **engine.borrow_mut(), wanted);
        let live = Live { measured: &measured, again: &again, keeps: self.args.keep == Keep::Faulty };
        assemble(reference, &candidate, &Options { live: Some(live), ..options })
    }

    /// Runs the candidate once more, for some points of some prompts alone.
    fn again(&self, run: &Run<'_>, engine: &mut dyn Engine, wanted: &Revisit) -> Result<Trace> {
        let chosen = run.request.prompts.iter().filter(|p| wanted.prompts.contains(&p.id));
        let prompts: Vec<Prompt> = chosen.cloned().collect();
        let points: PointFilter = self.points.clone().among(wanted.points.clone());
        let keeps = wanted.faults && self.args.keep == Keep::Faulty;
        let kept = self.kept(run.name).filter(|_| keeps);
        let out = kept.unwrap_or_else(|| run.work.join("again"));
        let request = Request { prompts: &prompts, points: &points, ..run.request };
        capture_fed(run.feed, engine, &request, &out)?;
        Trace::open(&out)
    }

    /// Where a trace of the candidate is kept; none where no report is written.
    fn kept(&self, engine: &str) -> Option<PathBuf> {
        let out = self.out?;
        Some(if self.args.engine == ALL { out.join(CANDIDATE).join(engine) } else { out.join(CANDIDATE) })
    }
}
