//! A few threads that share one frame's work and sleep between frames.
//!
//! [`Pool::run`] shares task numbers out between the calling thread and its helpers, the same part of them to each every time, so that what
//! a thread wrote for one layer is in its own caches when it reads it for the next; who is done takes over from the others. Inside a frame
//! (while a [`Frame`] guard lives) idle helpers poll briefly before they sleep, because the next layer's work is microseconds
//! away; between frames they sleep at once, so an idle daemon costs nothing. A frame has a hundred jobs of some tens of
//! microseconds, which a call of the system would lengthen noticeably: there is none while all threads are awake. Nor is there a word that
//! two threads write more often than a job needs: between cores that share no cache it takes a fifth of a microsecond each time.
//!
//! [`Pool::blocks`] and [`Pool::rows`] are what ops use: they cut an output into disjoint pieces and give each task the
//! only reference to its piece, so that no op needs `unsafe`.
#![allow(unsafe_code, reason = "lends borrowed closures and disjoint output pieces to threads")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Polls before an idle helper sleeps, or who waits for helpers gives way: tens of microseconds and more, longer than the serial
/// stretches between layers.
const POLLS: u32 = 20_000;

/// In [`Turn::state`]: whether helpers may enter. Below it those inside are counted, above it jobs and frames, which is what idle helpers
/// poll.
const OPEN: u64 = 1 << 15;

/// One more job or frame.
const EPOCH: u64 = 2 * OPEN;

/// In a share: below it stands the next task, above it the epoch whose tasks are meant.
const TASKS: u64 = 1 << 24;

/// A borrowed task function with its lifetime erased.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// On lines of a cache by itself; processors fetch two at a time.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What each job writes and each helper reads, all of it at once.
#[derive(Default)]
struct Turn {
    state: AtomicU64,
    /// Written by the thread that runs jobs while the gate is shut and nobody inside; read by helpers that came in while it
    /// was open.
    job: UnsafeCell<Option<Job>>,
    in_frame: AtomicBool,
}

struct Shared {
    turn: Apart<Turn>,
    /// How far each thread's part of the tasks is done.
    shares: Vec<Apart<AtomicU64>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Helpers that are asleep or about to be; they wait for `wake` with `bed` locked.
    asleep: AtomicUsize,
    bed: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `Turn::job` is only touched as it says, and the function behind it is `Sync`; `Pool::run` keeps that alive until every
// helper has left. Whatever else there is can be shared.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Shared {}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            turn: Apart::default(),
            shares: (0..threads).map(|_| Apart::default()).collect(),
            stop: AtomicBool::default(),
            panicked: AtomicBool::default(),
            asleep: AtomicUsize::default(),
            bed: Mutex::default(),
            wake: Condvar::default(),
        }
    }

    /// Does what thread `me` has to do of a job, and then what the others have not begun.
    fn work(&self, job: Job, epoch: u64, me: usize) {
        let threads = self.shares.len();
        for owner in (me..threads).chain(0..me) {
            let part = job.tasks * owner / threads..job.tasks * (owner + 1) / threads;
            while let Some(task) = self.take(owner, epoch, &part) {
                // SAFETY: `run` returns, and so ends the closure's borrow, only after every helper left the job.
                unsafe { (*job.call)(task) };
            }
        }
    }

    /// The next task of a thread's part, if there is one. Who is first in a job begins with the part's first: shares need not be
    /// set up, which would take them from the cores that use them.
    fn take(&self, owner: usize, epoch: u64, part: &Range<usize>) -> Option<usize> {
        let (share, epoch) = (&self.shares[owner].0, epoch.wrapping_mul(TASKS));
        let mut seen = share.load(Ordering::Relaxed);
        loop {
            let begun = seen & !(TASKS - 1) == epoch;
            let task = if begun { (seen & (TASKS - 1)) as usize } else { part.start };
            if task >= part.end {
                return None;
            }
            let now = epoch | (task as u64 + 1);
            match share.compare_exchange_weak(seen, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(task),
                Err(other) => seen = other,
            }
        }
    }

    /// Tells helpers that there is something to see, as `state` is raised by `raised`. Returns the new epoch.
    fn call(&self, raised: u64) -> u64 {
        // Release: who sees it sees the job. Either this sees that a helper goes to sleep, or that helper sees the new epoch: both are
        // in one order for all.
        let state = self.turn.0.state.fetch_add(raised, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            // A panic elsewhere leaves nothing behind this lock that could be wrong.
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
        state.wrapping_add(raised) / EPOCH
    }

    /// Waits for another epoch than `seen`.
    fn await_call(&self, seen: u64) {
        let Turn { state, in_frame, .. } = &self.turn.0;
        let called = |order| state.load(order) / EPOCH != seen;
        let mut polls = 0;
        while !called(Ordering::Relaxed) && polls < POLLS && in_frame.load(Ordering::Relaxed) {
            std::hint::spin_loop();
            polls += 1;
        }
        if !called(Ordering::Relaxed) {
            let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
            self.asleep.fetch_add(1, Ordering::SeqCst);
            while !called(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
                bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn help(&self, me: usize) {
        let Turn { state, job, .. } = &self.turn.0;
        let mut seen = 0;
        loop {
            self.await_call(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // Acquire: what was written before the gate was opened is seen behind it.
            let entered = state.fetch_add(1, Ordering::Acquire);
            seen = entered / EPOCH;
            if entered & OPEN != 0 {
                // SAFETY: it came in while the gate was open, so that nobody writes the job before it has left.
                let job = unsafe { *job.get() };
                let work = || job.into_iter().for_each(|job| self.work(job, seen, me));
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            // Release: what this thread has written is seen by who waits for it to leave.
            state.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Helper threads of one encoder; dropped with it.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

/// While it lives, a frame is being computed.
pub struct Frame<'a>(&'a Shared);

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.0.turn.0.in_frame.store(false, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool in which `threads` threads work, the caller among them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let mut pool = Pool { shared: Arc::new(Shared::new(threads)), helpers: vec![] };
        for i in 1..threads {
            let shared = pool.shared.clone();
            let helper = std::thread::Builder::new().name(format!("encoder-{i}")).spawn(move || shared.help(i))?;
            pool.helpers.push(helper);
        }
        Ok(pool)
    }

    /// A pool in which the caller works alone.
    pub fn alone() -> Pool {
        Pool { shared: Arc::new(Shared::new(1)), helpers: vec![] }
    }

    /// Threads that share the work, the caller among them.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Marks the beginning of a frame.
    pub fn frame(&self) -> Frame<'_> {
        self.shared.turn.0.in_frame.store(true, Ordering::Relaxed);
        // Who is woken now is awake when there is something to do.
        self.shared.call(EPOCH);
        Frame(&self.shared)
    }

    /// Calls `f` once for every task number below `tasks`, on any thread, and returns when all are done.
    ///
    /// Must not be called from within `f`, nor from two threads at once: the encoder that owns the pool runs one
    /// frame at a time.
    ///
    /// # Panics
    /// When a task panicked on a helper, or there are 2²⁴ of them.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.helpers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(f);
            return;
        }
        assert!((tasks as u64) < TASKS, "{tasks} tasks");
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; `Leave` below ends the job before this borrow ends, unwinding included.
        let call = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(std::ptr::from_ref(f))
        };
        let job = Job { call, tasks };
        // SAFETY: the gate is shut and was left by all at the end of the last job, and no other thread runs jobs. Who comes
        // in meanwhile finds it shut and reads nothing.
        unsafe { *shared.turn.0.job.get() = Some(job) };
        let epoch = shared.call(EPOCH + OPEN);
        {
            let _leave = Leave(shared);
            shared.work(job, epoch, 0);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a task panicked on a helper thread");
    }

    /// Cuts `out`, a matrix of `width` columns, into blocks of at most `rows` by `columns` and calls `f` on each.
    pub fn blocks<T: Send>(
        &self,
        out: &mut [T],
        width: usize,
        (rows, columns): (usize, usize),
        f: impl Fn(&mut Block<T>) + Sync,
    ) {
        if out.is_empty() {
            return;
        }
        let height = out.len() / width;
        let (down, across) = (height.div_ceil(rows), width.div_ceil(columns));
        let base = Base(out.as_mut_ptr());
        self.run(down * across, &|task| {
            let (y, x) = (task / across, task % across);
            let mut block = Block {
                base: base.get(),
                width,
                rows: y * rows..((y + 1) * rows).min(height),
                columns: x * columns..((x + 1) * columns).min(width),
                out: PhantomData,
            };
            f(&mut block);
        });
    }

    /// Cuts two matrices of equally many rows, of `widths` columns each, into runs of at most `step` rows and calls
    /// `f` with the first row's number and the two runs.
    pub fn rows<A: Send, B: Send>(
        &self,
        (a, b): (&mut [A], &mut [B]),
        (width_a, width_b): (usize, usize),
        step: usize,
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let height = b.len() / width_b;
        assert!(a.len() >= height * width_a, "matrices of different heights");
        let (base_a, base_b) = (Base(a.as_mut_ptr()), Base(b.as_mut_ptr()));
        self.run(height.div_ceil(step), &|task| {
            let from = task * step;
            let rows = step.min(height - from);
            // SAFETY: tasks are handed out once each, so these runs of rows are disjoint, and both lie inside their
            // matrices, which `run` outlives.
            let (a, b) = unsafe {
                (
                    std::slice::from_raw_parts_mut(base_a.get().add(from * width_a), rows * width_a),
                    std::slice::from_raw_parts_mut(base_b.get().add(from * width_b), rows * width_b),
                )
            };
            f(from, a, b);
        });
    }
}

/// Ends the job even when the caller's own share of it unwinds.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let state = &self.0.turn.0.state;
        state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut polls = 0;
        // Acquire: what helpers have written is seen once they have left.
        while state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            // At most a task is left to each helper. One that has lost its core is given this one.
            if polls < POLLS {
                std::hint::spin_loop();
                polls += 1;
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.call(EPOCH);
        for helper in self.helpers.drain(..) {
            // A helper that panicked has nothing left to give.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

struct Base<T>(*mut T);

// SAFETY: only ever used to derive disjoint pieces of a matrix of `T: Send`, one piece a task.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// One task's own piece of a matrix.
#[derive(Debug)]
pub struct Block<'a, T> {
    base: *mut T,
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    out: PhantomData<&'a mut [T]>,
}

impl<'a, T> Block<'a, T> {
    /// A whole matrix of `width` columns.
    pub fn whole(out: &'a mut [T], width: usize) -> Block<'a, T> {
        Block { base: out.as_mut_ptr(), width, rows: 0..out.len() / width, columns: 0..width, out: PhantomData }
    }

    /// The matrix rows of this piece.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The matrix columns of this piece.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Matrix row `row`, cut to this piece's columns.
    ///
    /// # Panics
    /// When the row belongs to another piece.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(self.rows.contains(&row), "row of another block");
        // SAFETY: the row is one of this piece's and its columns are this piece's alone; `&mut self` makes the slice
        // the only reference to them.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(row * self.width + self.columns.start), self.columns.len())
        }
    }

    /// Matrix rows `rows`, cut to columns counted from this piece's first.
    ///
    /// # Panics
    /// When a row or a column belongs to another piece.
    pub fn rows_of(&mut self, rows: Range<usize>, columns: Range<usize>) -> impl Iterator<Item = &mut [T]> {
        assert!(self.rows.start <= rows.start && rows.end <= self.rows.end, "rows of another block");
        assert!(columns.start <= columns.end && columns.end <= self.columns.len(), "columns of another block");
        let (count, width) = (columns.len(), self.width);
        let mut at = self.base.wrapping_add(rows.start * width + self.columns.start + columns.start);
        rows.map(move |_| {
            // SAFETY: as in `row`; each row is given out once, so the slices are disjoint, and the iterator holds the
            // `&mut self` while they live. Behind the last row `at` is not used.
            let row = unsafe { std::slice::from_raw_parts_mut(at, count) };
            at = at.wrapping_add(width);
            row
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).unwrap();
            let _frame = pool.frame();
            for tasks in [0, 1, 2, 7, 100] {
                let count: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|t| {
                    count[t].fetch_add(1, Ordering::Relaxed);
                });
                assert!(count.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    /// Short jobs one upon the other, so that helpers come late, in a frame and out of one, after pauses in which they sleep.
    #[test]
    fn jobs_follow_each_other_and_none_is_touched_by_a_helper_of_another() {
        for threads in 2..=4 {
            let pool = Pool::new(threads).unwrap();
            for frame in 0..40 {
                let guard = (frame % 4 != 0).then(|| pool.frame());
                for tasks in (0..200).map(|job| 2 + job % 5) {
                    let mut done = vec![0u8; tasks];
                    pool.blocks(&mut done, 1, (1, 1), |block| block.row(block.rows().start)[0] += 1);
                    assert!(done.iter().all(|times| *times == 1), "{threads} threads, frame {frame}: {done:?}");
                }
                drop(guard);
                std::thread::sleep(std::time::Duration::from_millis(frame % 3));
            }
        }
    }

    #[test]
    fn blocks_cover_the_matrix() {
        let pool = Pool::new(3).unwrap();
        let mut out = vec![0u32; 7 * 10];
        pool.blocks(&mut out, 10, (2, 4), |b| {
            for r in b.rows() {
                let from = b.columns().start;
                for (i, v) in b.row(r).iter_mut().enumerate() {
                    *v += (r * 10 + from + i) as u32;
                }
            }
        });
        assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32));
    }

    #[test]
    #[should_panic(expected = "task")]
    fn a_panic_in_a_task_reaches_the_caller() {
        let pool = Pool::new(2).unwrap();
        pool.run(64, &|t| assert!(t != 63, "a task failed"));
    }
}
