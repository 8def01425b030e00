//! CPU time of processes, from `/proc` (proc(5)), and which process listens on a port.

use std::{collections::BTreeMap, ffi::OsStr, fs, time::Duration};

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux.
const TICKS: u64 = 100;

/// Processes whose CPU time counts, by name. Each stands for those that it has started as well.
#[derive(Debug, Clone, Default)]
pub struct Watched(pub Vec<(String, u32)>);

impl Watched {
    /// User and system time that each has taken so far, to 10 ms. A process that is gone has none.
    pub fn cpu(&self) -> Vec<(String, Duration)> {
        let table = table();
        self.0
            .iter()
            .map(|(name, pid)| (name.clone(), tree(&table, *pid)))
            .collect()
    }
}

/// One line of the table of processes: its parent; ticks of its own, and of those of its children that have ended.
struct Process {
    parent: u32,
    own: u64,
    ended: u64,
}

fn table() -> BTreeMap<u32, Process> {
    let directory = fs::read_dir("/proc").into_iter().flatten().flatten();
    directory
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read(pid)?)))
        .collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything. After it: the parent in field 4, times in 14 to 17.
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(14)? + ticks(15)?,
        ended: ticks(16)? + ticks(17)?,
    })
}

/// The time of a process and of everything below it.
fn tree(table: &BTreeMap<u32, Process>, root: u32) -> Duration {
    let (mut ticks, mut next) = (0, vec![root]);
    while let Some(pid) = next.pop() {
        let Some(process) = table.get(&pid) else { continue };
        ticks += process.own + process.ended;
        next.extend(
            table
                .iter()
                .filter(|(_, process)| process.parent == pid)
                .map(|(pid, _)| *pid),
        );
    }
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// User and system time that this process has taken.
pub fn own() -> Duration {
    read(std::process::id()).map_or(Duration::ZERO, |process| {
        Duration::from_millis(process.own * 1000 / TICKS)
    })
}

/// The process that listens on a TCP port of this machine, if this user may see it.
pub fn listener(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, port))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = |link: fs::DirEntry| {
            fs::read_link(link.path()).is_ok_and(|target| target.as_os_str() == OsStr::new(&socket))
        };
        descriptors.any(holds).then_some(pid)
    })
}

/// Reads `/proc/net/tcp`: local address in field 2, state in field 4 (`0A` listens), inode in field 10.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        (fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A").then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        process::{Command, Stdio},
        time::Instant,
    };

    use super::*;

    #[test]
    fn this_process_is_found_by_the_port_on_which_it_listens() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(socket.local_addr().unwrap().port()), Some(std::process::id()));
    }

    #[test]
    fn work_takes_cpu_time_and_a_process_that_is_gone_has_none() {
        let (start, before) = (Instant::now(), own());
        let mut sum = 0_u64;
        while own() < before + Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(start.elapsed() < Duration::from_mins(1), "no CPU time is counted");
        }
        assert!(read(u32::MAX).is_none());
    }

    /// What counts for a shell that has others run a loop, once the loop is over and somebody sleeps.
    fn counted(script: &str) -> Duration {
        let work = "sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
        let mut shell = Command::new("sh")
            .args(["-c", &script.replace("WORK", work)])
            .spawn()
            .unwrap();
        let start = Instant::now();
        let sleeper = loop {
            let family = table()
                .into_iter()
                .filter(|(pid, process)| *pid == shell.id() || process.parent == shell.id());
            let sleeps =
                |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep");
            if let Some(pid) = family.map(|(pid, _)| pid).find(sleeps) {
                break pid;
            }
            assert!(start.elapsed() < Duration::from_mins(1), "nobody sleeps");
            std::thread::sleep(Duration::from_millis(10));
        };
        let counted = Watched(vec![("shell".to_owned(), shell.id())]).cpu()[0].1;
        shell.kill().unwrap();
        shell.wait().unwrap();
        Command::new("kill")
            .arg(sleeper.to_string())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        counted
    }

    #[test]
    fn a_process_counts_with_those_that_it_started_and_those_that_ended() {
        // The one that ran the loop sleeps, and its parent waits for it; or it has ended, and its parent sleeps.
        for script in ["WORK; exec sleep 30' & wait", "WORK'; exec sleep 30"] {
            let counted = counted(script);
            assert!(counted >= Duration::from_millis(20), "{script}: {counted:?}");
        }
    }
}
