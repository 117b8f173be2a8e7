//! One component on a bench: inputs and outputs become a trace, and the replay judges it.

use crate::common::{config, prompt};
use crate::kernel::{KERNELS, Kernel};
use half::{bf16, f16};
use layerdiff::model::{Description, Graph, ModelConfig};
use layerdiff::replay::{Held, Local, Place, Replay, replay};
use layerdiff::tensor::DType;
use layerdiff::trace::{Incoming, Provenance, Trace, TraceWriter, WriteOptions};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::Value;

/// A model of which one component is tried.
pub struct Lab {
    config: Value,
    graph: Graph,
    weights: Vec<(String, Vec<usize>, DType, Vec<f32>)>,
    /// Element type of what the component puts out, and of what it reads.
    pub output: DType,
    pub input: DType,
    pub provenance: Provenance,
    /// The query tokens whose rows are kept of points that have one for each, where not all are.
    pub rows: Option<Vec<usize>>,
    /// Tokens of the prompt; the step after it is tried where something is carried.
    pub tokens: usize,
}

/// What a component reads.
pub struct Inputs<'a> {
    pub inputs: Vec<&'a [f32]>,
    pub carried: Option<&'a [f32]>,
    /// Other points of the step, by name.
    pub others: Vec<(&'a str, &'a [f32])>,
}

impl<'a> Inputs<'a> {
    pub fn new(inputs: &[&'a [f32]]) -> Self {
        Self { inputs: inputs.to_vec(), carried: None, others: Vec::new() }
    }
}

impl Lab {
    /// A model with these entries of its configuration.
    pub fn new(sizes: &[(&str, usize)], tokens: usize) -> Self {
        let mut config = config();
        for (key, size) in sizes {
            config[key] = (*size).into();
        }
        let graph =
            Graph::new(Description::named("qwen3_5").unwrap(), &ModelConfig::new(config.clone()).unwrap())
                .unwrap();
        let provenance = Provenance { dtype: "float32".into(), ..Provenance::default() };
        Self {
            config,
            graph,
            weights: Vec::new(),
            output: DType::F32,
            input: DType::F32,
            provenance,
            rows: None,
            tokens,
        }
    }

    pub fn weight(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.weights.push((name.into(), shape.to_vec(), DType::F32, values.to_vec()));
        self
    }

    /// A size of the model.
    pub fn dim(&self, name: &str) -> usize {
        self.graph.dim(name)
    }

    /// The local errors of these outputs of one component, all from the same inputs.
    pub fn judge(&self, point: &str, given: &Inputs<'_>, outputs: &[Vec<f32>]) -> Vec<Replay> {
        let root = tempfile::tempdir().unwrap();
        let views: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .weights
            .iter()
            .map(|(name, shape, dtype, values)| (name.clone(), shape.clone(), encode(*dtype, values)))
            .collect();
        let views = views.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &root.path().join("model.safetensors")).unwrap();
        let path = root.path().join("trace");
        let options = WriteOptions {
            architecture: "qwen3_5".into(),
            config: self.config.clone(),
            provenance: self.provenance.clone(),
            adapter: None,
            shard_bytes: 1 << 24,
        };
        let component = self.graph.component(point).unwrap();
        let step = u32::from(given.carried.is_some());
        let (n, past) = if step == 0 { (self.tokens, 0) } else { (1, self.tokens) };
        let mut writer = TraceWriter::create(&path, options).unwrap();
        let ids: Vec<u32> = (0..self.tokens as u32).collect();
        for (i, output) in outputs.iter().enumerate() {
            let mut prompt = prompt(&format!("p{i}"), &ids);
            prompt.step_token_ids = vec![0; step as usize];
            writer.start_prompt(&prompt);
            let mut push =
                |step: u32, n: usize, context: usize, point: &str, dtype: DType, values: &[f32]| {
                    let of = self.graph.get(point).unwrap();
                    let shape = self.graph.shape(of, n, context);
                    let dtype = of.dtype.unwrap_or(dtype);
                    assert_eq!(shape.iter().product::<usize>(), values.len(), "{point}");
                    let rows = self.rows.clone().filter(|_| self.graph.row_axis(of).is_some());
                    let (shape, values) = match &rows {
                        None => (shape, values.to_vec()),
                        Some(rows) => {
                            let kept = values.chunks_exact(n * context).flat_map(|head| {
                                rows.iter().flat_map(|t| head[t * context..][..context].to_vec())
                            });
                            (self.graph.shape_of_rows(of, n, context, Some(rows)), kept.collect())
                        }
                    };
                    let bytes = encode(dtype, &values);
                    let basis = "original";
                    let tensor = Incoming { step, point, dtype, shape: &shape, rows, basis, derived: false };
                    writer.take(tensor, bytes).unwrap();
                };
            for (point, values) in &given.others {
                push(step, n, past + n, point, self.input, values);
            }
            if let Some(carried) = given.carried {
                push(0, past, past, &component.carried[0], DType::F32, carried);
            }
            for (point, values) in component.inputs.iter().zip(&given.inputs) {
                push(step, n, past + n, point, self.input, values);
            }
            push(step, n, past + n, point, self.output, output);
        }
        writer.finish(None).unwrap();
        let trace = Trace::open(&path).unwrap();
        let held =
            Held::open(root.path(), self.graph.clone(), ModelConfig::new(self.config.clone()).unwrap())
                .unwrap();
        let places: Vec<Place<'_>> =
            trace.manifest().prompts.iter().map(|prompt| Place { prompt, step, point }).collect();
        replay(&trace, &held, &places, || ()).unwrap()
    }

    /// The local errors of a component as every kernel computes it; panics where one is beyond its bound.
    pub fn all(&self, point: &str, given: &Inputs<'_>, compute: impl Fn(Kernel) -> Vec<f32>) -> Vec<Local> {
        let outputs: Vec<Vec<f32>> = KERNELS.iter().map(|kernel| compute(*kernel)).collect();
        let done = self.judge(point, given, &outputs);
        let locals = KERNELS.iter().zip(done).map(|(kernel, replay)| {
            let Replay::Done(local) = replay else { panic!("{point} {kernel:?}: {replay:?}") };
            assert!(local.ratio <= 1.0, "{point} {kernel:?}: {local:?}");
            local
        });
        locals.collect()
    }

    /// The ratio of an output; panics where it was not replayed.
    pub fn ratio(&self, point: &str, given: &Inputs<'_>, output: Vec<f32>) -> f64 {
        self.bounded_ratio(point, given, output).unwrap_or_else(|| panic!("{point} has no bound"))
    }

    /// The ratio of an output, none where nothing bounds a correct kernel; panics where it was not replayed for
    /// another reason.
    pub fn bounded_ratio(&self, point: &str, given: &Inputs<'_>, output: Vec<f32>) -> Option<f64> {
        match self.judge(point, given, &[output]).remove(0) {
            Replay::Done(local) => Some(local.ratio),
            Replay::Unmeasured(why) if why.contains("may leave the range of 32 bits") => None,
            replay @ Replay::Unmeasured(_) => panic!("{point}: {replay:?}"),
        }
    }
}

fn encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::U8 => values.iter().map(|v| *v as u8).collect(),
    }
}

/// The numbers as a type of 16 bits holds them.
pub fn rounded(dtype: DType, values: Vec<f32>) -> Vec<f32> {
    match dtype {
        DType::F16 => values.into_iter().map(|v| f16::from_f32(v).to_f32()).collect(),
        DType::BF16 => values.into_iter().map(|v| bf16::from_f32(v).to_f32()).collect(),
        _ => values,
    }
}

/// The largest ratio of several runs, and the median of all, for the tables of the documentation.
pub struct Ratios(std::sync::Mutex<Vec<f64>>);

impl Ratios {
    pub const fn new() -> Self {
        Self(std::sync::Mutex::new(Vec::new()))
    }

    pub fn add(&self, locals: &[Local]) {
        self.0.lock().unwrap().extend(locals.iter().map(|l| l.ratio));
    }

    /// Prints them; the largest must be at least `least`, or the bound says nothing.
    pub fn print(&self, what: &str, least: f64) {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        all.sort_by(f64::total_cmp);
        let largest = *all.last().unwrap();
        println!("{what:<28} median {:.3}  largest {largest:.3}  of {}", all[all.len() / 2], all.len());
        assert!(largest >= least, "{what}: {largest} is far below the bound");
    }
}
