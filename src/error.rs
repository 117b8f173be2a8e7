//! The one error type: cause, expected and got, path, and a hint what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, in the words that a user needs to mend it.
///
/// Every error ends the command with exit code 2: the input or the setup was bad, or less
/// than was asked for could be done.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    expected: Option<(String, String)>,
    path: Option<PathBuf>,
    hint: Option<Hint>,
}

/// What the user can do.
#[derive(Clone, PartialEq, Eq)]
enum Hint {
    /// As good as can be said without knowing what it was about; a better one takes its place.
    Usual(&'static str),
    Own(String),
}

/// The result of all fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with its cause in one clause, lower case, without a full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), expected: None, path: None, hint: None }
    }

    /// Adds the value that was expected and the one that was there.
    pub fn expected(mut self, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        self.expected = Some((expected.to_string(), got.to_string()));
        self
    }

    /// Adds the file or directory concerned, unless a deeper place has already named one.
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.path.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Adds what the user can do, unless a deeper place has already said it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if !matches!(self.hint, Some(Hint::Own(_))) {
            self.hint = Some(Hint::Own(hint.into()));
        }
        self
    }

    /// Names what is, or lies in, `to` where the error names it in `from`: what is being written has another name
    /// until it is complete.
    pub fn moved(mut self, from: &Path, to: &Path) -> Self {
        let rest = self.path.as_deref().and_then(|path| path.strip_prefix(from).ok());
        if let Some(rest) = rest {
            self.path = Some(if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) });
        }
        self
    }

    /// Says first what the error is about: `WHAT: CAUSE`.
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The cause alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// An error of the operating system while doing `what` with `path`.
    pub fn io(what: &str, path: impl AsRef<Path>, source: &std::io::Error) -> Self {
        let mut error = Self::new(format!("cannot {what}: {source}")).at(path);
        match source.kind() {
            std::io::ErrorKind::NotFound => {
                error.hint =
                    Some(Hint::Usual("check the path; relative paths start at the current directory"));
                error
            }
            std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
                error.hint("a file is in the way: a part of this path has to be a directory")
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => error.hint(
                "choose a file that you may read and a place where you may write, or change the permissions",
            ),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                error.hint("free some disk space; a trace needs less with fewer --points")
            }
            _ => error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some((expected, got)) = &self.expected {
            write!(f, "\n  expected: {expected}\n       got: {got}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "\n      path: {}", plain(&path.display().to_string()))?;
        }
        match &self.hint {
            Some(Hint::Usual(hint)) => write!(f, "\n  hint: {hint}"),
            Some(Hint::Own(hint)) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// As it is displayed: a `main` that returns an error prints it so.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// True for what a terminal would obey: control characters, and those that turn the direction of writing.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text of strangers on one line: what a terminal would obey is written as escapes.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The nearest of `known` to a mistyped `name`, for a hint: "did you mean".
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // People write `qwen3.5` and `lattice_f32`.
    let plain = |name: &str| name.replace(['.', '-'], "_");
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&plain(name), &plain(candidate)), candidate))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The nearest of the `known` points: of those that end in the same part, or in the one nearest to it. A bare
/// `k_rope` means one of the points with this ending, though every one of them is far longer.
pub fn nearest_point<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let last = |point: &'a str| point.rsplit('.').next().unwrap_or(point);
    let wanted = name.rsplit('.').next().unwrap_or(name);
    // A layer's number ends the name of its output, and says nothing by itself.
    let endings = known.iter().map(|point| last(point)).filter(|end| end.parse::<u32>().is_err());
    let ending =
        if known.iter().any(|point| last(point) == wanted) { Some(wanted) } else { nearest(wanted, endings) };
    let alike = known.iter().copied().filter(|point| ending == Some(last(point)));
    // The first of equals: the layers come in order.
    let closest =
        alike.min_by(|a, b| strsim::jaro_winkler(name, b).total_cmp(&strsim::jaro_winkler(name, a)));
    closest.or_else(|| nearest(name, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_cause_values_path_and_hint_in_this_order() {
        let error = Error::new("shape differs").expected("[2, 3]", "[3, 2]").at("a/b").hint("transpose it");
        assert_eq!(
            error.to_string(),
            "shape differs\n  expected: [2, 3]\n       got: [3, 2]\n      path: a/b\n  hint: transpose it"
        );
    }

    #[test]
    fn a_lack_of_permission_is_answered_for_reading_and_for_writing() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::io("read a dump", "a", &denied).to_string();
        assert!(error.contains("that you may read") && error.contains("where you may write"), "{error}");
    }

    #[test]
    fn a_text_of_strangers_is_on_one_line_and_commands_no_terminal() {
        assert_eq!(plain("a\n\x1b[31mb\u{202e}é"), "a\\n\\u{1b}[31mb\\u{202e}é");
    }

    #[test]
    fn what_is_being_written_is_called_as_it_will_be() {
        let error = |path: &str| Error::new("full").at(path).moved(Path::new("a/.b.x"), Path::new("a/b"));
        for (path, shown) in [("a/.b.x", "a/b"), ("a/.b.x/c", "a/b/c"), ("a/c", "a/c")] {
            assert_eq!(error(path).to_string(), format!("full\n      path: {shown}"));
        }
    }

    #[test]
    fn a_hint_takes_the_place_of_the_usual_one_for_a_missing_file() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Error::io("read it", "a", &missing);
        assert!(error.to_string().contains("hint: check the path"));
        let error = error.hint("first").hint("second").to_string();
        assert!(error.ends_with("hint: first"), "{error}");
    }

    #[test]
    fn the_deepest_path_and_hint_win() {
        let error = Error::new("x").at("deep").hint("first").at("shallow").hint("second");
        assert_eq!(error.to_string(), "x\n      path: deep\n  hint: first");
    }

    #[test]
    fn a_point_is_known_by_its_ending_and_its_layer() {
        let known = ["model.layers.3", "model.layers.3.self_attn.k_rope", "model.layers.7.self_attn.k_rope"];
        assert_eq!(nearest_point("k_rope", known), Some(known[1]));
        assert_eq!(nearest_point("model.layers.7.k_rope", known), Some(known[2]));
        assert_eq!(nearest_point("model.layers.3.self_attn.k_rop", known), Some(known[1]));
        assert_eq!(nearest_point("k_ropee", known), Some(known[1]));
        assert_eq!(nearest_point("model.layers.7.self_attn.krope", known), Some(known[2]));
        assert_eq!(nearest_point("zzz", known), None);
    }

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(nearest("code-1", ["code-01", "reasoning-01"]), Some("code-01"));
        assert_eq!(nearest("zzz", ["code-01"]), None);
    }
}
