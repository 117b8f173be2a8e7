//! Pickles as data: what `torch.save` writes, and nothing that could run.
//!
//! A pickle is a program for a stack machine, and Python's own reader calls whatever function it names. Here
//! a name is only compared with the few that rebuild tensors; any other is an error, and no function is ever
//! called. Values lie in one list and name each other by their place in it: no depth, no repetition and no
//! circle in a hostile file costs more than the file is long. candle-core's reader, which the crate has
//! already, copies what is named, passes over what it does not know, and trusts lengths.

mod machine;

use machine::Machine;

/// Place of a value.
pub(super) type Id = usize;

/// A value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    /// `module name`, with a space.
    Global(String),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What the archive holds beside the pickle: a storage.
    Persistent(Id),
    /// A function with its arguments, not called.
    Call(String, Id),
    Mark,
}

/// The values of a pickle, and the one that it stands for.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (values, root) = Machine::run(bytes)?;
        Ok(Self { values, root })
    }

    pub fn root(&self) -> Id {
        self.root
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The values of a tuple or list; none for anything else.
    pub fn list(&self, id: Id) -> Option<&[Id]> {
        if let Value::List(items) = self.get(id) { Some(items) } else { None }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        if let Value::Int(n) = self.get(id) { Some(*n) } else { None }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// A tuple of sizes: whole numbers, none negative.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.list(id)?.iter().map(|n| usize::try_from(self.int(*n)?).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_rebuilds_no_tensor_is_refused_before_it_has_arguments() {
        let error = Pickle::parse(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
        assert!(error.contains("`os.system`"), "{error}");
        let error = Pickle::parse(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.").unwrap_err();
        assert!(error.contains("`posix.system`"), "{error}");
    }

    #[test]
    fn lengths_beyond_the_end_and_missing_values_are_errors() {
        for bytes in [
            &b"X\xff\xff\xff\xff"[..],
            b"\x8a\xff",
            b"R.",
            b"t",
            b"h\x07",
            b"(R.",
            b"cos",
            b"",
            b"K\x01a.",
            b"N\x87",
        ] {
            assert!(Pickle::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn numbers_keep_their_signs() {
        for (bytes, n) in [
            (&b"\x8a\x01\xff."[..], -1),
            (b"\x8a\x02\x00\x01.", 256),
            (b"J\xfe\xff\xff\xff.", -2),
            (b"\x8a\x00.", 0),
        ] {
            let pickle = Pickle::parse(bytes).unwrap();
            assert_eq!(pickle.int(pickle.root()), Some(n));
        }
    }
}
