//! The command line of `plot`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlotKind {
    /// The error by layer: of the whole model, of a family of points, of some points; of a set without --engine,
    /// what each engine adds.
    Curve,
    /// Layers × components, with --value total or local.
    Heatmap,
    /// How large the errors of a point are at values of which size.
    Magnitude,
    /// Points × heads.
    Heads,
    /// Points × tokens of one prompt; of one point a curve.
    Tokens,
}

impl PlotKind {
    /// The kind's name, of which a picture's file is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Curve => "curve",
            Self::Heatmap => "heatmap",
            Self::Magnitude => "magnitude",
            Self::Heads => "heads",
            Self::Tokens => "tokens",
        }
    }
}

/// What the cells of a heatmap show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlotValue {
    /// The relative L2 error that the candidate is judged by.
    Total,
    /// The local error by replay, as a multiple of its bound.
    Local,
}

/// Arguments of `plot`.
#[derive(Debug, Args)]
#[command(after_help = "\
A picture of an earlier run is replaced; any other file is left alone.

Examples:
  layerdiff plot reports/latest --kind heatmap --value local
  layerdiff plot reports/latest --kind curve --family rope --out rope.png
  layerdiff plot reports/latest --kind tokens --prompt code-01 --dark
  layerdiff plot reports/latest --kind magnitude --point model.layers.3.self_attn.k_rope
  layerdiff plot reports/latest --kind heads --point '*.k_rope' --out - > heads.svg
  layerdiff plot reports/latest --engine lattice-q4 --kind heatmap      after `run --engine all`")]
pub struct PlotArgs {
    /// A report.json of `run` or `compare`, or the directory with it; also one of several engines.
    pub report: PathBuf,
    /// What the picture shows.
    #[arg(long, value_name = "KIND", value_enum)]
    pub kind: PlotKind,
    /// Of a heatmap: what the cells show [default: total].
    #[arg(long, value_name = "NAME", value_enum)]
    pub value: Option<PlotValue>,
    /// Of a report of several engines: which one.
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// Only points of this family: residual, norm, projection, rope, attention, gdn, mlp, ….
    #[arg(long, value_name = "NAME")]
    pub family: Option<String>,
    /// Only points that this glob accepts, such as '*.k_rope'; `embed` and `logits` as in reports.
    #[arg(long, value_name = "GLOB")]
    pub point: Option<String>,
    /// Only this prompt [default: of each point the worst; of tokens that of the report].
    #[arg(long, value_name = "ID")]
    pub prompt: Option<String>,
    /// Only this step: 0 is the prefill [default: the worst].
    #[arg(long, value_name = "N")]
    pub step: Option<u32>,
    /// For a dark page.
    #[arg(long)]
    pub dark: bool,
    /// Where the picture goes, as SVG or PNG by its ending; `-` for SVG on stdout [default: KIND.svg].
    #[arg(long, value_name = "FILE.svg|FILE.png|-")]
    pub out: Option<PathBuf>,
}
