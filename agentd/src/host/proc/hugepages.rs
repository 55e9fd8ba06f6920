//! Pools of huge pages, of every size: `/proc/meminfo` counts pages of the default size alone, and hosts of VMs often
//! set aside pages of 1 GiB.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape};

#[derive(Debug)]
pub(super) struct HugePages {
    /// `/sys/kernel/mm/hugepages`.
    dir: PathBuf,
    pools: Vec<Pool>,
}

/// Memory set aside, and what of it is in no use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetAside {
    pub(super) total: u64,
    pub(super) free: u64,
}

#[derive(Debug)]
struct Pool {
    page_bytes: u64,
    total: KeptFile,
    free: KeptFile,
}

impl HugePages {
    pub(super) fn new(dir: PathBuf) -> Self {
        let pools = pools(&dir);
        Self { dir, pools }
    }

    /// None where the kernel has no pools in sysfs.
    pub(super) fn read(&mut self, buffer: &mut Buffer) -> Result<Option<SetAside>, ReadError> {
        if self.pools.is_empty() {
            return Ok(None);
        }
        let mut sum = SetAside { total: 0, free: 0 };
        for pool in &mut self.pools {
            let total = pool.total.parse(buffer, pages)?;
            let free = pool.free.parse(buffer, pages)?;
            sum.total = sum.total.saturating_add(total.saturating_mul(pool.page_bytes));
            sum.free = sum.free.saturating_add(free.saturating_mul(pool.page_bytes));
        }
        Ok(Some(sum))
    }

    /// Looks for pools where there were none.
    pub(super) fn look_again(&mut self) {
        if self.pools.is_empty() {
            self.pools = pools(&self.dir);
        }
    }
}

/// A directory for each size: `hugepages-2048kB`.
fn pools(dir: &Path) -> Vec<Pool> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let file = |name| KeptFile::new(entry.path().join(name), Shape::Whole, Keep::Open);
        Some(Pool {
            page_bytes: kibibytes.saturating_mul(1024),
            total: file("nr_hugepages"),
            free: file("free_hugepages"),
        })
    };
    entries.filter_map(pool).collect()
}

fn pages(text: &str) -> Result<u64, Malformed> {
    text.trim_end().parse().map_err(|_| Malformed("not a number of pages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(dir: &Path, size: &str, total: &str, free: &str) {
        let pool = dir.join(size);
        fs::create_dir(&pool).unwrap();
        fs::write(pool.join("nr_hugepages"), total).unwrap();
        fs::write(pool.join("free_hugepages"), free).unwrap();
    }

    #[test]
    fn pages_of_every_size_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut pages = HugePages::new(dir.path().to_path_buf());
        assert_eq!(pages.read(&mut Buffer::default()).unwrap(), None);
        pool(dir.path(), "hugepages-2048kB", "3\n", "1\n");
        pool(dir.path(), "hugepages-1048576kB", "2\n", "2\n");
        pages.look_again();
        let set_aside = SetAside { total: (6 << 20) + (2 << 30), free: (2 << 20) + (2 << 30) };
        assert_eq!(pages.read(&mut Buffer::default()).unwrap(), Some(set_aside));
    }

    #[test]
    fn a_pool_that_cannot_be_read_gives_no_sum() {
        let dir = tempfile::tempdir().unwrap();
        pool(dir.path(), "hugepages-2048kB", "3\n", "");
        assert!(HugePages::new(dir.path().to_path_buf()).read(&mut Buffer::default()).is_err());
    }
}
