//! CPU time of processes, from `/proc` (proc(5)), and which process listens on a port.

use std::{ffi::OsStr, fs, time::Duration};

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux.
const TICKS: u64 = 100;

/// User and system time that a process has taken, to 10 ms; `None` if it is gone.
pub fn of(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything; fields 14 and 15 come after it.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let total = ticks()? + ticks()?;
    Some(Duration::from_millis(total * 1000 / TICKS))
}

/// User and system time that this process has taken.
pub fn own() -> Duration {
    of(std::process::id()).unwrap_or_default()
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
    use std::{net::TcpListener, time::Instant};

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
        assert_eq!(of(u32::MAX), None);
    }
}
