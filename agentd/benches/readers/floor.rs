//! The floor: a process that keeps files open, has the kernel write them into one buffer and reads the numbers there, whatever
//! they are of. It is another process than the lane's, which may have no room for all of them twice.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::side_by_side::timed;

/// What this program is called with to be the floor.
pub(crate) const ARGUMENT: &str = "--floor";

pub(crate) struct Floor {
    process: Child,
    orders: ChildStdin,
    costs: BufReader<ChildStdout>,
    pub(crate) files: usize,
}

impl Floor {
    /// Of the files that this process keeps open now below one of these directories, which is what a lane that has read
    /// keeps. `rare`: names of those that are read in one of so many cycles; a directory is listed.
    pub(crate) fn kept(below: &[&str], also: &[&str], rare: &[(&str, u32)]) -> std::io::Result<Self> {
        let descriptors = fs::read_dir("/proc/self/fd")?.flatten();
        let kept = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        let mut paths: Vec<PathBuf> = kept
            .filter(|path| below.iter().any(|dir| path.starts_with(dir)) && path.is_file())
            .chain(also.iter().map(PathBuf::from))
            .collect();
        paths.sort_unstable();
        let mut process = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let mut orders = process.stdin.take().ok_or_else(missing)?;
        let costs = BufReader::new(process.stdout.take().ok_or_else(missing)?);
        for path in &paths {
            let every = rare.iter().find(|(name, _)| path.ends_with(name)).map_or(1, |(_, every)| *every);
            writeln!(orders, "{every} {}", path.display())?;
        }
        writeln!(orders)?;
        Ok(Self { process, orders, costs, files: paths.len() })
    }

    /// What so many cycles cost.
    pub(crate) fn read(&mut self, cycles: u32) -> Duration {
        let mut line = String::new();
        let asked = writeln!(self.orders, "{cycles}").and_then(|()| self.costs.read_line(&mut line));
        let cost = asked.ok().and_then(|_| line.trim().parse().ok());
        Duration::from_nanos(cost.expect("the floor answers"))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("end the floor: {error}");
        }
    }
}

enum Kept {
    File(File),
    Dir(PathBuf),
}

/// What the process does: it is told its files, then asked for cycles until nobody asks any more.
pub(crate) fn run() -> std::io::Result<()> {
    let mut lines = std::io::stdin().lines();
    let mut all = Vec::new();
    for line in lines.by_ref() {
        let line = line?;
        let Some((every, path)) = line.split_once(' ') else { break };
        let path = Path::new(path);
        let kept = if path.is_dir() { Kept::Dir(path.to_owned()) } else { Kept::File(File::open(path)?) };
        all.push((every.parse().unwrap_or(1), kept));
    }
    let (mut cycle, mut buffer) = (0_u32, vec![0; 64 * 1024]);
    for line in lines {
        let cost = timed(line?.parse().unwrap_or(1), || {
            for (_, kept) in all.iter().filter(|(every, _)| cycle.is_multiple_of(*every)) {
                std::hint::black_box(match kept {
                    Kept::File(file) => {
                        let length = file.read_at(&mut buffer, 0).unwrap_or(0);
                        numbers(&buffer[..length])
                    }
                    Kept::Dir(path) => fs::read_dir(path).map_or(0, Iterator::count),
                });
            }
            cycle = cycle.wrapping_add(1);
        });
        let mut out = std::io::stdout();
        writeln!(out, "{}", cost.as_nanos())?;
        out.flush()?;
    }
    Ok(())
}

/// All whole numbers of a text, so that none is left out.
fn numbers(text: &[u8]) -> usize {
    let (mut all, mut number) = (0_usize, 0_usize);
    for byte in text {
        if byte.is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add(usize::from(byte - b'0'));
        } else {
            all = all.wrapping_add(std::mem::take(&mut number));
        }
    }
    all
}
