//! How far it is, on standard error: one line that is written over on a terminal, a line every ten seconds elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Steps done of steps to do.
pub struct Progress {
    total: usize,
    done: usize,
    cached: usize,
    started: Instant,
    told: Instant,
    every: Option<Duration>,
    terminal: bool,
}

impl Progress {
    /// Nothing is told when `tell` is false.
    pub fn new(total: usize, tell: bool) -> Self {
        let terminal = stderr().is_terminal();
        let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let now = Instant::now();
        Self { total, done: 0, cached: 0, started: now, told: now, every: tell.then_some(every), terminal }
    }

    /// One more; `cached` when it cost no work.
    pub fn step(&mut self, cached: bool) {
        self.done += 1;
        self.cached += usize::from(cached);
        if self.every.is_some_and(|every| self.told.elapsed() >= every) {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let line = line(self.total, self.done, self.cached, self.started.elapsed());
        // Progress that cannot be written is no reason to fail.
        let _ = match self.terminal {
            true => write!(stderr(), "\r\x1b[K{line}"),
            false => writeln!(stderr(), "{line}"),
        };
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.terminal && self.every.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn line(total: usize, done: usize, cached: usize, took: Duration) -> String {
    let worked = done - cached;
    let share = 100 * done / total.max(1);
    let known = if cached > 0 { format!(", {cached} known from before") } else { String::new() };
    if worked == 0 {
        return format!("{done} of {total} pictures ({share} %){known}");
    }
    let rate = worked as f64 / took.as_secs_f64().max(1e-9);
    let left = (total - done) as f64 / rate;
    let left = match left as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    };
    format!("{done} of {total} pictures ({share} %), {rate:.1} a second, {left} left{known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_work_done() {
        let said = line(1000, 500, 100, Duration::from_secs(40));
        assert_eq!(said, "500 of 1000 pictures (50 %), 10.0 a second, 50 s left, 100 known from before");
        assert_eq!(line(10, 5, 5, Duration::ZERO), "5 of 10 pictures (50 %), 5 known from before");
        assert!(line(100_000, 1000, 0, Duration::from_secs(100)).ends_with("2.8 h left"));
    }
}
