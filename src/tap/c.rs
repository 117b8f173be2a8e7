//! The tap for C, and for all that calls C: the functions of `layerdiff.h`, on the tap of the process.
//!
//! The header says what each function does, and what it expects of its pointers. No panic crosses the border.

use super::session::Layout;
use super::values::span;
use super::{Values, global, wanted};
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::slice;
use std::sync::{Mutex, PoisonError};

/// More axes than any point has.
const MAX_RANK: usize = 16;

/// Why a trace that was asked for has not begun: told by `layerdiff_end` again, since few look at what begin returns,
/// and an older trace of that name would be taken for the new one.
static NOT_BEGUN: Mutex<Option<Error>> = Mutex::new(None);

thread_local! {
    /// The text of the last error that this thread was told of.
    static ERROR: RefCell<CString> = RefCell::default();
}

/// Runs `work` and turns its outcome into a number: 0 where it went well.
fn outcome(work: impl FnOnce() -> Result<()>) -> c_int {
    let Err(error) = caught(work) else { return 0 };
    let text = CString::new(error.to_string().replace('\0', "?")).unwrap_or_default();
    // A thread that ends has nobody to tell.
    let _nobody_listens = ERROR.try_with(|last| last.replace(text));
    1
}

/// Runs `work` in the engine's path: its error is kept until `layerdiff_end`.
fn kept(work: impl FnOnce() -> Result<()>) {
    if let Err(error) = caught(work) {
        global().tell(|_| Err(error));
    }
}

fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new("layerdiff's tap has a bug").hint("please report it with what was printed"))
    })
}

/// A text of C.
///
/// # Safety
/// `text` is null, or ends in a zero byte and lives and stays as it is as long as the result.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::new(format!("the {what} is a null pointer")));
    }
    // SAFETY: not null, and by the caller's promise a text that ends.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|e| Error::new(format!("the {what} is not UTF-8: {e}")))
}

/// An array of C.
///
/// # Safety
/// `data` is null, or points to `len` elements, which live and stay as they are as long as the result.
unsafe fn array<'a, T>(data: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() || !data.is_aligned() {
        let kind = if data.is_null() { "a null pointer" } else { "not aligned to its elements" };
        return Err(Error::new(format!("the {what} is {kind}")));
    }
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Error::new(format!("the {what} is impossibly large")));
    }
    // SAFETY: not null, aligned, not too large, and by the caller's promise so many elements.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// The element type that the header calls `dtype`.
fn element(dtype: c_int) -> Result<DType> {
    Ok(match dtype {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::BF16,
        3 => DType::F64,
        4 => DType::U8,
        _ => return Err(Error::new("unknown dtype").expected("a layerdiff_dtype, 0 to 4", dtype)),
    })
}

/// # Safety
/// As [`array`], for elements of this type.
unsafe fn values<'a>(dtype: DType, data: *const c_void, len: usize) -> Result<Values<'a>> {
    let what = "data";
    // SAFETY: the caller promises so many elements of this type.
    unsafe {
        Ok(match dtype {
            DType::F32 => Values::F32(array(data.cast(), len, what)?),
            DType::F16 => Values::F16(array(data.cast(), len, what)?),
            DType::BF16 => Values::BF16(array(data.cast(), len, what)?),
            DType::F64 => Values::F64(array(data.cast(), len, what)?),
            DType::U8 => Values::Mask(array(data.cast(), len, what)?),
        })
    }
}

/// What all functions that take a tensor do; `strides` may be null.
///
/// # Safety
/// As the header says.
unsafe fn record(
    point: *const c_char,
    first_row: Option<usize>,
    (rank, shape, strides): (usize, *const usize, *const usize),
    (dtype, data): (c_int, *const c_void),
) {
    if !global().is_on() {
        return;
    }
    kept(|| {
        if rank > MAX_RANK {
            return Err(
                Error::new("impossible rank of a tensor").expected(format!("at most {MAX_RANK}"), rank)
            );
        }
        // SAFETY: the caller promises what the header says of each pointer.
        let (point, shape) = unsafe { (text(point, "point")?, array(shape, rank, "shape")?) };
        let given = !strides.is_null();
        // SAFETY: as above.
        let strides = given.then(|| unsafe { array(strides, rank, "strides") }).transpose()?;
        let layout = Layout { first_row, shape, strides };
        let dtype = element(dtype).map_err(|e| e.about(format!("`{point}`")))?;
        global().tell(|session| {
            session.tensor(point, layout, dtype, || {
                let len = span(shape, strides).ok_or_else(|| {
                    Error::new("impossible strides of a tensor").expected(
                        "elements that fit in memory",
                        format!("{:?} for {shape:?}", strides.unwrap_or_default()),
                    )
                })?;
                // SAFETY: as above; the elements are those that strides reach in the shape that the model gives
                // the point.
                unsafe { values(dtype, data, len) }
            })
        });
        Ok(())
    });
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_begin(
    engine: *const c_char,
    version: *const c_char,
    model_dir: *const c_char,
) -> c_int {
    outcome(|| {
        if wanted().is_none() {
            return Ok(());
        }
        let begin = || {
            // SAFETY: texts, as the header asks for.
            let [engine, version, dir] = unsafe {
                [
                    text(engine, "engine's name")?,
                    text(version, "version")?,
                    text(model_dir, "model's directory")?,
                ]
            };
            global().begin(engine, version, dir)
        };
        let begun = begin();
        *NOT_BEGUN.lock().unwrap_or_else(PoisonError::into_inner) = begun.as_ref().err().cloned();
        begun
    })
}

/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub extern "C" fn layerdiff_on() -> c_int {
    c_int::from(global().is_on())
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_quantized(dequantized_dir: *const c_char) {
    if !global().is_on() {
        return;
    }
    kept(|| {
        let known = !dequantized_dir.is_null();
        // SAFETY: a text, as the header asks for.
        let dir = known.then(|| unsafe { text(dequantized_dir, "directory") }).transpose()?;
        global().quantized(dir.map(Path::new));
        Ok(())
    });
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_prompt(id: *const c_char, token_ids: *const u32, count: usize) {
    if !global().is_on() {
        return;
    }
    kept(|| {
        // SAFETY: a text, and so many tokens, as the header asks for.
        let (id, tokens) = unsafe { (text(id, "prompt's id")?, array(token_ids, count, "array of tokens")?) };
        global().prompt(id, tokens);
        Ok(())
    });
}

/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub extern "C" fn layerdiff_step(token_id: u32) {
    kept(|| {
        global().step(token_id);
        Ok(())
    });
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_tensor(
    point: *const c_char,
    rank: usize,
    shape: *const usize,
    dtype: c_int,
    data: *const c_void,
) {
    // SAFETY: as the header asks for.
    unsafe { record(point, None, (rank, shape, std::ptr::null()), (dtype, data)) }
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_rows(
    point: *const c_char,
    first_row: usize,
    rank: usize,
    shape: *const usize,
    dtype: c_int,
    data: *const c_void,
) {
    // SAFETY: as the header asks for.
    unsafe { record(point, Some(first_row), (rank, shape, std::ptr::null()), (dtype, data)) }
}

/// # Safety
/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerdiff_strided(
    point: *const c_char,
    rank: usize,
    shape: *const usize,
    strides: *const usize,
    dtype: c_int,
    data: *const c_void,
) {
    // SAFETY: as the header asks for.
    unsafe { record(point, None, (rank, shape, strides), (dtype, data)) }
}

/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub extern "C" fn layerdiff_end() -> c_int {
    outcome(|| {
        let not_begun = NOT_BEGUN.lock().unwrap_or_else(PoisonError::into_inner).take();
        global().finish()?;
        not_begun.map_or(Ok(()), Err)
    })
}

/// See `layerdiff.h`.
#[unsafe(no_mangle)]
pub extern "C" fn layerdiff_error() -> *const c_char {
    ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
