//! Python processes that have imported PyTorch and wait for commands: an import takes seconds, and one job captures a
//! model in several precisions.
//!
//! Each command is a fork of its server (`layerdiff_hooks/serve.py`), so that none sees what another left behind.
//! A server ends when its stdin is closed, with this process at the latest.

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
        let arguments: Option<Vec<&str>> = command.get_args().map(std::ffi::OsStr::to_str).collect();
        // A name that is no text cannot be written into JSON; and only some systems can fork.
        let served = cfg!(unix).then_some(arguments).flatten();
        let mut server = match &served {
            Some(_) => Self::idle(&command)?,
            None => Self::start(command_of(&command, command.get_args()), String::new())?,
        };
        let mut told = false;
        if let (Some(arguments), Some(input)) = (&served, &mut server.input) {
            let line = serde_json::json!(arguments[2..]);
            // One that has ended says on its stderr why.
            told = writeln!(input, "{line}").and_then(|()| input.flush()).is_ok();
        }
        if !told {
            server.input = None;
        }
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
            if let Some(status) = served.as_ref().and_then(|_| ended(said)) {
                IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(server);
                return Ok((talk, status));
            }
            if said.starts_with('{') {
                progress(said);
            } else if talk.len() < LINES {
                talk.push(said.chars().take(LINE).collect());
            }
        }
        let status = server.child.wait().map_err(Failed::Wait)?;
        Ok((talk, status))
    }

    /// One that has nothing to do, or a new one.
    fn idle(command: &Command) -> Result<Self, Failed> {
        let key = format!("{:?} {:?}", command.get_program(), command.get_envs().collect::<Vec<_>>());
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(at) = idle.iter().position(|server| server.key == key) {
            let mut server = idle.swap_remove(at);
            if matches!(server.child.try_wait(), Ok(None)) {
                return Ok(server);
            }
        }
        drop(idle);
        let arguments = ["-m", "layerdiff_hooks", "serve"].map(std::ffi::OsStr::new);
        Self::start(command_of(command, arguments.into_iter()), key)
    }

    fn start(mut command: Command, key: String) -> Result<Self, Failed> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(Failed::Start)?;
        let talk = BufReader::new(child.stderr.take().expect("stderr is piped"));
        Ok(Self { key, input: child.stdin.take(), child, talk })
    }
}

/// The same program and environment with other arguments.
fn command_of<'a>(command: &Command, arguments: impl Iterator<Item = &'a std::ffi::OsStr>) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(arguments);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
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
