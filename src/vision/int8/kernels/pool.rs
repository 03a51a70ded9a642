//! A few threads that share one frame's work and sleep between frames.
//!
//! [`Pool::run`] hands out task numbers to the calling thread and its helpers until none is left. Inside a frame (while
//! a [`Frame`] guard lives) idle helpers poll briefly before they sleep, because the next layer's work is microseconds
//! away; between frames they sleep at once, so an idle daemon costs nothing.
//!
//! [`Pool::blocks`] and [`Pool::rows`] are what ops use: they cut an output into disjoint pieces and give each task the
//! only reference to its piece, so that no op needs `unsafe`.
#![allow(unsafe_code, reason = "lends borrowed closures and disjoint output pieces to threads")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Polls before an idle helper sleeps, some tens of microseconds: longer than the serial stretches between layers.
const POLLS: u32 = 20_000;

/// A borrowed task function with its lifetime erased.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the function behind `call` is `Sync`, and `Pool::run` keeps it alive until every helper has let go of it.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// Helpers inside the present job.
    inside: usize,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    left: Condvar,
    /// Raised with every job: what idle helpers poll.
    epoch: AtomicU64,
    in_frame: AtomicBool,
    next: AtomicUsize,
    panicked: AtomicBool,
}

impl Shared {
    /// A panic elsewhere does not make the counters wrong, so a poisoned lock is taken all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, job: Job) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                return;
            }
            // SAFETY: `run` returns, and so ends the closure's borrow, only after every helper left the job.
            unsafe { (*job.call)(task) };
        }
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            let mut polls = 0;
            while self.epoch.load(Ordering::Acquire) == seen && polls < POLLS && self.in_frame.load(Ordering::Relaxed) {
                std::hint::spin_loop();
                polls += 1;
            }
            let mut state = self.lock();
            while self.epoch.load(Ordering::Acquire) == seen && !state.stop {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            seen = self.epoch.load(Ordering::Acquire);
            let Some(job) = state.job else { continue };
            state.inside += 1;
            drop(state);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(job))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.lock().inside -= 1;
            self.left.notify_one();
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
        self.0.in_frame.store(false, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool in which `threads` threads work, the caller among them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let mut pool = Pool { shared: Arc::default(), helpers: vec![] };
        for i in 1..threads {
            let shared = pool.shared.clone();
            let helper = std::thread::Builder::new().name(format!("encoder-{i}")).spawn(move || shared.help())?;
            pool.helpers.push(helper);
        }
        Ok(pool)
    }

    /// Threads that share the work, the caller among them.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Marks the beginning of a frame.
    pub fn frame(&self) -> Frame<'_> {
        self.shared.in_frame.store(true, Ordering::Relaxed);
        Frame(&self.shared)
    }

    /// Calls `f` once for every task number below `tasks`, on any thread, and returns when all are done.
    ///
    /// Must not be called from within `f`, nor from two threads at once: the encoder that owns the pool runs one
    /// frame at a time.
    ///
    /// # Panics
    /// When a task panicked on a helper.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.helpers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(f);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; `Leave` below ends the job before this borrow ends, unwinding included.
        let call = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(std::ptr::from_ref(f))
        };
        let job = Job { call, tasks };
        {
            let mut state = shared.lock();
            shared.next.store(0, Ordering::Relaxed);
            state.job = Some(job);
            shared.epoch.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        {
            let _leave = Leave(shared);
            shared.work(job);
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
        let mut state = self.0.lock();
        state.job = None;
        while state.inside > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
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

impl<T> Block<'_, T> {
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
