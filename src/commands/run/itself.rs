//! An engine against itself: its prefill of n tokens against its prefill of n − 1 tokens and a decode step.

use super::Job;
use super::sources::{Against, with_reference_steps};
use super::watch::Run;
use crate::capture::{Request, capture_fed};
use crate::checkpoint::ModelDir;
use crate::engine::Engine;
use crate::error::Result;
use crate::floor::Floor;
use crate::report::{Outcome, Report};
use crate::split::Feed;
use crate::trace::Trace;
use std::path::Path;

impl Job<'_> {
    /// Captures `engine` on `model` both ways, decode steps after the prompt included, and compares.
    pub(super) fn judge_by_itself(
        &self,
        name: &str,
        engine: &mut dyn Engine,
        model: &ModelDir,
        work: &Path,
    ) -> Result<Report> {
        let prompts = self.sources.prompts_for(None);
        let request = Request {
            model,
            prompts: &prompts,
            steps: self.sources.steps,
            points: self.points,
            dequantized: None,
            quiet: self.ui.quiet,
        };
        let reference = work.join("reference");
        capture_fed(Feed::Apart, engine, &request, &reference)?;
        let mut against = Against::captured(reference, self.args, self.model)?;
        // One token after the other is all that a serial engine does: cut or not, the operations are the same.
        if self.args.floor.is_empty() && engine.provenance().path == "serial" {
            against.floors = vec![Floor::Exact];
        }
        let prompts = with_reference_steps(prompts.clone(), &Trace::open(&against.reference)?);
        let run = Run { name, feed: Feed::Joined, request: Request { prompts: &prompts, ..request }, work };
        let mut report = self.watch(&run, engine, &against, None, None)?;
        report.verdict.reasoning.push(
            "The engine was compared with itself alone: what it gets wrong on both ways alike is not seen; `--reference torch` sees it.".into(),
        );
        if report.outcome == Outcome::Pass {
            report.verdict.headline += ", compared with itself alone";
        }
        Ok(report)
    }
}
