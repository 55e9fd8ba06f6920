//! `/proc/spl/kstat/zfs/arcstats`: the cache of ZFS.

use crate::host::read::Malformed;

/// Two lines of headings.
const HEADINGS: usize = 2;

/// Its size in bytes.
pub(super) fn arc_size(text: &str) -> Result<u64, Malformed> {
    let mut rows = text.lines().skip(HEADINGS).map(|line| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next(), fields.nth(1))
    });
    let size = rows.find_map(|(name, value)| value.filter(|_| name == Some("size")));
    size.and_then(|size| size.parse().ok()).ok_or(Malformed("no size"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_size_is_found_by_its_name() {
        let text = "13 1 0x01 123 33456 5934063461 2160246283000\nname                            type data\n\
                    hits                            4    7\nc_max                           4    99\n\
                    size                            4    8589934592\n";
        assert_eq!(arc_size(text), Ok(8_589_934_592));
        assert!(arc_size("a\nname type data\nhits 4 1\n").is_err());
    }

    proptest! {
        #[test]
        fn arc_size_never_panics(text in "a\nb\n(size|[0-9]{1,22}| |\\n|.){0,40}") {
            let _size = arc_size(&text);
        }
    }
}
