//! Python processes that have imported PyTorch and wait for commands: an import takes seconds, and one job captures a
//! model in several precisions.
//!
//! The first command of a server is on its command line, the others come on its stdin. Each is a fork of it
//! (`layerdiff_hooks/serve.py`), so that none sees what another left behind. It ends when its stdin is closed, with this
//! process at the latest.

use std::io::{BufRead, BufReader, Error, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

/// Characters that are kept of a line that Python says.
const LINE: usize = 1000;

/// Lines that are kept of what Python says.
const LINES: usize = 10_000;

/// Servers that have nothing to do.
static IDLE: Mutex<Vec<Server>> = Mutex::new(Vec::new());

/// Why a command did not come to an end.
pub(super) enum Failed {
    Start(Error),
    Wait(Error),
}

/// A process that forks commands.
pub(super) struct Server {
    /// The interpreter and its environment.
    key: String,
    child: Child,
    input: Option<ChildStdin>,
    talk: BufReader<ChildStderr>,
}

impl Server {
    /// Runs `PYTHON -m layerdiff_hooks ARGUMENTS…` to its end. Lines of JSON on its stderr go to `progress`, all
    /// others are returned, with its status.
    pub fn run(
        command: Command,
        mut progress: impl FnMut(&str),
    ) -> Result<(Vec<String>, ExitStatus), Failed> {
        let (mut server, served) = Self::told(command)?;
        let mut talk = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut server.talk).take(1 << 24).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let said = String::from_utf8_lossy(&line);
            let said = said.trim_end_matches(['\n', '\r']);
            log::debug!("Python: {said}");
            if let Some(status) = Some(said).filter(|_| served).and_then(ended) {
                IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(server);
                return Ok((talk, status));
            }
            if said.starts_with('{') {
                progress(said);
            } else if talk.len() < LINES {
                talk.push(said.chars().take(LINE).collect());
            }
        }
        server.input = None;
        let status = server.child.wait().map_err(Failed::Wait)?;
        Ok((talk, status))
    }

    /// One that runs this command: one that has nothing to do, or a new one, and whether it stays.
    fn told(mut command: Command) -> Result<(Self, bool), Failed> {
        let program = command.get_program().display();
        let key = format!("{program} {:?}", command.get_envs().collect::<Vec<_>>());
        let arguments: Option<Vec<String>> =
            command.get_args().map(|argument| argument.to_str().map(str::to_owned)).collect();
        // A name that is no text cannot be written into JSON, and only some systems can fork.
        let Some(arguments) = arguments.filter(|_| cfg!(unix)) else {
            return Ok((Self::start(command, key, Stdio::null())?, false));
        };
        // `-m layerdiff_hooks` is what it runs already.
        let line = serde_json::json!(arguments[2..]).to_string();
        while let Some(mut server) = Self::idle(&key) {
            let input = server.input.as_mut().expect("one that stays has a stdin");
            if writeln!(input, "{line}").and_then(|()| input.flush()).is_ok() {
                return Ok((server, true));
            }
        }
        command.env("LAYERDIFF_STAY", "1");
        Ok((Self::start(command, key, Stdio::piped())?, true))
    }

    /// One that has nothing to do.
    fn idle(key: &str) -> Option<Self> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(at) = idle.iter().position(|server| server.key == key) {
            let mut server = idle.swap_remove(at);
            if matches!(server.child.try_wait(), Ok(None)) {
                return Some(server);
            }
        }
        None
    }

    fn start(mut command: Command, key: String, input: Stdio) -> Result<Self, Failed> {
        let piped = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(Failed::Start)?;
        let talk = BufReader::new(child.stderr.take().expect("stderr is piped"));
        Ok(Self { key, input: child.stdin.take(), child, talk })
    }
}

/// The status in the line that a server writes at a command's end.
#[cfg(unix)]
fn ended(line: &str) -> Option<ExitStatus> {
    use std::os::unix::process::ExitStatusExt;
    let said: serde_json::Value = serde_json::from_str(line.strip_prefix('{').map(|_| line)?).ok()?;
    let code = i32::try_from(said.get("ended")?.as_i64()?).ok()?;
    // As the system has it: the signal, or the code above it.
    Some(ExitStatus::from_raw(if code < 0 { -code } else { code << 8 }))
}

#[cfg(not(unix))]
fn ended(_: &str) -> Option<ExitStatus> {
    None
}
