//! What a hypothesis reads otherwise than it is: other inputs, parameters and constants for the same formula.

use super::step::{Replayed, Step};
use crate::tensor::{DType, TensorView};

/// A tensor that takes the place of another.
#[derive(Debug)]
struct Owned {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Owned {
    fn new(shape: Vec<usize>, values: &[f64]) -> Self {
        Self { shape, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView { dtype: DType::F64, shape: &self.shape, bytes: &self.bytes }
    }
}

/// Changes of what a step reads. The rounding of the arithmetic stays that of the captured tensors.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    inputs: Vec<(usize, Owned)>,
    parameters: Vec<(usize, Owned)>,
    names: Vec<(usize, String)>,
    numbers: Vec<(&'static str, f64)>,
    fresh: bool,
}

/// Nothing is changed.
pub(super) static NONE: Edits = Edits {
    inputs: Vec::new(),
    parameters: Vec::new(),
    names: Vec::new(),
    numbers: Vec::new(),
    fresh: false,
};

fn find<T>(list: &[(usize, T)], i: usize) -> Option<&T> {
    list.iter().find(|(at, _)| *at == i).map(|(_, found)| found)
}

impl Edits {
    /// A constant of the component.
    pub fn of_number(name: &'static str, value: f64) -> Self {
        Self { numbers: vec![(name, value)], ..Self::default() }
    }

    /// The input number `i`, changed.
    pub fn of_input(step: &Step<'_>, i: usize, change: impl FnOnce(&mut [f64])) -> Replayed<Self> {
        Self::default().and_input(step, i, change)
    }

    /// The input number `i` too.
    pub fn and_input(mut self, step: &Step<'_>, i: usize, change: impl FnOnce(&mut [f64])) -> Replayed<Self> {
        let view = step.input(i)?;
        let mut values = view.to_f64();
        change(&mut values);
        self.inputs.push((i, Owned::new(view.shape.to_vec(), &values)));
        Ok(self)
    }

    /// The parameter number `i`, changed; its shape is given to the change and taken back.
    pub fn of_parameter(
        step: &Step<'_>,
        i: usize,
        change: impl FnOnce(&mut Vec<usize>, &mut Vec<f64>),
    ) -> Replayed<Self> {
        let view = step.parameter(i)?;
        let (mut shape, mut values) = (view.shape.to_vec(), view.to_f64());
        change(&mut shape, &mut values);
        Ok(Self { parameters: vec![(i, Owned::new(shape, &values))], ..Self::default() })
    }

    /// Another parameter in place of number `i`.
    pub fn of_name(i: usize, name: String) -> Self {
        Self { names: vec![(i, name)], ..Self::default() }
    }

    /// Nothing is left of the step before.
    pub fn fresh() -> Self {
        Self { fresh: true, ..Self::default() }
    }

    pub(super) fn input(&self, i: usize) -> Option<TensorView<'_>> {
        find(&self.inputs, i).map(Owned::view)
    }

    pub(super) fn parameter(&self, i: usize) -> Option<TensorView<'_>> {
        find(&self.parameters, i).map(Owned::view)
    }

    pub(super) fn name(&self, i: usize) -> Option<&str> {
        find(&self.names, i).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }
}
