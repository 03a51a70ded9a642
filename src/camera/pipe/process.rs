//! A command in a process group of its own.
//!
//! Promise: when a [`Process`] is dropped, or has been ended, nothing of its group is left. What it writes to its standard
//! error comes into our log line by line, bounded in length and number.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Between the request to end and the order: a stop of the daemon may take two seconds in all.
const GRACE: Duration = Duration::from_millis(400);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running command.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    words: Words,
    ended: bool,
}

impl Process {
    /// Starts `command`, of which the first word is the program.
    pub fn start(command: &[String]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stderr = child.stderr.take();
        Ok(Self { child, group, stdout, stderr, words: Words::new(program), ended: false })
    }

    /// Waits for output or its end, logging what comes on standard error meanwhile; false if neither came in time.
    pub fn wait(&mut self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).ok();
        let (output, words) = {
            let mut both = vec![PollFd::new(&self.stdout, PollFlags::IN)];
            both.extend(self.stderr.as_ref().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
            match poll(&mut both, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |at: usize| both.get(at).is_some_and(|fd| !fd.revents().is_empty());
            (ready(0), ready(1))
        };
        if words {
            self.listen();
        }
        Ok(output)
    }

    /// Reads output; to be called when [`Process::wait`] says that it does not block. Zero is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stdout.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.stdout.read(buffer),
            outcome => outcome,
        }
    }

    /// Ends all of the group: asks, then orders. What the command said last comes with its status.
    pub fn end(&mut self) -> (Option<ExitStatus>, Option<String>) {
        if self.ended {
            return (None, None);
        }
        self.ended = true;
        // A group that has gone by itself cannot be told, and need not be.
        let _ = kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while !self.has_exited() && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        // Before the leader is reaped, so that its number still is the group's and nobody else's.
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait().ok();
        while self.words_wait() {
            self.listen();
        }
        (status, self.words.last())
    }

    fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    fn words_wait(&self) -> bool {
        let Some(stderr) = &self.stderr else { return false };
        let mut one = [PollFd::new(stderr, PollFlags::IN)];
        matches!(poll(&mut one, Some(&Timespec::default())), Ok(ready) if ready > 0)
    }

    fn listen(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; 4096];
        match stderr.read(&mut buffer) {
            Ok(0) => self.stderr = None,
            Ok(count) => self.words.hear(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.stderr = None,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a command says on its standard error, on its way into the log.
#[derive(Debug)]
struct Words {
    program: String,
    line: Vec<u8>,
    last: Option<String>,
    logged: u32,
    kept_back: u32,
    since: Instant,
}

impl Words {
    /// Longer lines are cut.
    const LONGEST: usize = 400;
    /// Lines logged in a [`Words::STRETCH`]: there are commands that write one for each frame.
    const MOST: u32 = 20;
    const STRETCH: Duration = Duration::from_secs(60);

    fn new(program: &str) -> Self {
        let program = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { program, line: Vec::new(), last: None, logged: 0, kept_back: 0, since: Instant::now() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.log();
            } else if self.line.len() < Self::LONGEST {
                self.line.push(byte);
            }
        }
    }

    fn log(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim().replace(char::is_control, " ");
        self.line.clear();
        if line.is_empty() {
            return;
        }
        if self.since.elapsed() > Self::STRETCH {
            if self.kept_back > 0 {
                log::info!("{}: {} further lines", self.program, self.kept_back);
            }
            (self.since, self.logged, self.kept_back) = (Instant::now(), 0, 0);
        }
        if self.logged < Self::MOST {
            log::info!("{}: {line}", self.program);
            self.logged += 1;
        } else {
            self.kept_back += 1;
        }
        self.last = Some(line);
    }

    /// The last thing that was said.
    fn last(&mut self) -> Option<String> {
        self.log();
        self.last.take()
    }
}

/// The program as it would be started; `None` if there is none of that name that may be.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let startable = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| startable(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| startable(path))
}
