//! Threads that check and sign, one run at a time each. Key operations block, so none of it happens on an async worker.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

type Task = Box<dyn FnOnce() + Send>;

/// A bounded number of OS threads. Dropping it lets the threads end when what they have is done.
pub struct Pool {
    tasks: SyncSender<Task>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

/// Every thread of the pool is busy and as many tasks wait: more were given than there are threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("every signing thread is busy")]
pub struct Busy;

impl Pool {
    /// Starts `threads` threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let (tasks, waiting) = sync_channel::<Task>(threads);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..threads {
            let waiting = waiting.clone();
            thread::Builder::new()
                .name(format!("sign-{number}"))
                .spawn(move || work(&waiting))?;
        }
        Ok(Self { tasks })
    }

    /// Hands a task to a thread.
    pub fn give(&self, task: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        self.tasks.try_send(Box::new(task)).map_err(|_| Busy)
    }
}

fn work(waiting: &Mutex<Receiver<Task>>) {
    loop {
        let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        if catch_unwind(AssertUnwindSafe(task)).is_err() {
            tracing::error!("a signing task panicked outside of its jobs");
        }
    }
}

/// Runs one job's part and turns a panic into its message, so that the job alone is lost.
pub fn shielded<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_message_and_the_thread_goes_on() {
        assert_eq!(shielded(|| 1), Ok(1));
        assert_eq!(shielded(|| panic!("no {}", 2)), Err::<(), _>("no 2".to_owned()));
        let pool = Pool::new(1).unwrap();
        let (done, finished) = channel();
        pool.give(|| panic!("outside")).unwrap();
        let mut given = false;
        while !given {
            let done = done.clone();
            given = pool.give(move || done.send(7).unwrap()).is_ok();
        }
        assert_eq!(finished.recv(), Ok(7));
    }
}
