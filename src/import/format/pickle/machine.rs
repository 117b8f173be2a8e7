//! The instructions of a pickle.

use super::{Id, Value};
use std::collections::HashMap;

/// What a pickle may name: containers, and the functions by which tensors are rebuilt.
const KNOWN: [&str; 6] = [
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._tensor _rebuild_from_type_v2",
];

/// The stack machine, of which only what builds values is there.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// The values that a pickle builds, and the place of the one that it stands for.
    pub fn run(bytes: &'a [u8]) -> Result<(Vec<Value>, Id), String> {
        let mut machine = Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok((machine.values, root))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("its pickle ends too early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned little-endian number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Result<u64, String> {
        Ok(self.take(n)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A signed one.
    fn signed(&mut self, n: usize) -> Result<i64, String> {
        if n == 0 {
            return Ok(0);
        }
        if n > 8 {
            return Err(format!("its pickle has a number of {n} bytes"));
        }
        let unused = 64 - 8 * n as u32;
        Ok((self.number(n)? << unused).cast_signed() >> unused)
    }

    fn text(&mut self, n: usize) -> Result<String, String> {
        let bytes = self.take(n)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "its pickle has a text that is not UTF-8".into())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|b| *b == b'\n').ok_or("its pickle ends too early")?;
        let line = self.text(n)?;
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        match self.stack.pop() {
            Some(id) if self.values[id] != Value::Mark => Ok(id),
            _ => Err("its pickle takes a value that is not there".into()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|id| self.values[*id] == Value::Mark);
        let mark = mark.ok_or("its pickle lacks a mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let start = self.stack.len().checked_sub(n).ok_or("its pickle takes a value that is not there")?;
        let items = self.stack.split_off(start);
        self.push(Value::List(items));
        Ok(())
    }

    fn append(&mut self, new: Vec<Id>) -> Result<(), String> {
        let list = self.pop()?;
        self.stack.push(list);
        match &mut self.values[list] {
            Value::List(items) => items.extend(new),
            _ => return Err("its pickle appends to what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, new: &[Id]) -> Result<(), String> {
        let dict = self.pop()?;
        self.stack.push(dict);
        match &mut self.values[dict] {
            Value::Dict(items) if new.len().is_multiple_of(2) => {
                items.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err("its pickle sets keys of what is no dict".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = format!("{module} {name}");
        let storage = module == "torch" && name.ends_with("Storage");
        if global == "torch._utils _rebuild_tensor_v3" {
            return Err("it has a tensor of a type that is not read: save it as float64, float32, float16 or bfloat16, a mask as bool".into());
        }
        if !storage && !KNOWN.contains(&global.as_str()) {
            return Err(format!("it would have Python call `{module}.{name}`, which is no way to a tensor"));
        }
        self.push(Value::Global(global));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Value::Global(name) = &self.values[function] else {
            return Err("its pickle calls what is no function".into());
        };
        let value = match name.as_str() {
            "collections OrderedDict" => match &self.values[arguments] {
                Value::List(items) if items.is_empty() => Value::Dict(Vec::new()),
                // What is in it must not be lost.
                _ => return Err("its pickle makes a dict of arguments, which torch.save does not".into()),
            },
            // A tuple of its only argument's values: the argument itself will do.
            "torch Size" => match &self.values[arguments] {
                Value::List(items) if items.len() == 1 => {
                    self.stack.push(items[0]);
                    return Ok(());
                }
                _ => return Err("its pickle has a malformed size".into()),
            },
            _ => Value::Call(name.clone(), arguments),
        };
        self.push(value);
        Ok(())
    }

    /// Executes one instruction; false at the end.
    fn step(&mut self) -> Result<bool, String> {
        match self.take(1)?[0] {
            0x80 => drop(self.take(1)?),
            // Frames only help to read ahead.
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(false),
            b'(' => self.push(Value::Mark),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            b')' | b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items));
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.set(&items)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(&module, &name)?;
                    }
                    _ => return Err("its pickle names a function by what is no text".into()),
                }
            }
            b'R' | 0x81 => self.call()?,
            // Attributes of a container, such as a state dict's `_metadata`: no tensor is in them.
            b'b' => drop(self.pop()?),
            other => self.literal_or_memo(other)?,
        }
        Ok(true)
    }

    /// Executes an instruction that pushes a number, a text or what was there before.
    fn literal_or_memo(&mut self, instruction: u8) -> Result<(), String> {
        match instruction {
            b'K' => {
                let n = self.number(1)?.cast_signed();
                self.push(Value::Int(n));
            }
            b'M' => {
                let n = self.number(2)?.cast_signed();
                self.push(Value::Int(n));
            }
            b'J' => {
                let n = self.signed(4)?;
                self.push(Value::Int(n));
            }
            0x8a => {
                let n = self.number(1)? as usize;
                let n = self.signed(n)?;
                self.push(Value::Int(n));
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float);
            }
            b'X' => {
                let n = self.number(4)? as usize;
                let text = self.text(n)?;
                self.push(Value::Text(text));
            }
            0x8c => {
                let n = self.number(1)? as usize;
                let text = self.text(n)?;
                self.push(Value::Text(text));
            }
            b'q' => {
                let n = self.number(1)? as u32;
                self.remember(n)?;
            }
            b'r' => {
                let n = self.number(4)? as u32;
                self.remember(n)?;
            }
            0x94 => {
                let n = self.memo.len() as u32;
                self.remember(n)?;
            }
            b'h' => {
                let n = self.number(1)? as u32;
                self.recall(n)?;
            }
            b'j' => {
                let n = self.number(4)? as u32;
                self.recall(n)?;
            }
            other => {
                return Err(format!(
                    "its pickle has the instruction {other:#04x}, which torch.save does not write"
                ));
            }
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let id = *self.stack.last().ok_or("its pickle takes a value that is not there")?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or("its pickle recalls a value that is not there")?;
        self.stack.push(id);
        Ok(())
    }
}
