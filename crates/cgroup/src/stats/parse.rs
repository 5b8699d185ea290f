//! The shapes of the kernel's statistics files. Pure; what does not parse is left out.

use super::{BlockIoEntry, Pressure, PressureLine};
use std::collections::BTreeMap;

/// `key value` lines.
pub(super) fn flat(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// One number, zero when it is none.
pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// One limit: `max`, and on v1 anything from 2^63 less a page, is none.
pub(super) fn limit(text: &str) -> Option<u64> {
    const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
    text.trim().parse().ok().filter(|n| *n < V1_UNLIMITED)
}

/// Numbers separated by blanks.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .map_while(|n| n.parse().ok())
        .collect()
}

/// `0-2,5`. Ids beyond what kernels support end the list.
pub(super) fn id_list(text: &str) -> Vec<u32> {
    const IDS_MAX: u32 = 1 << 16;
    let mut ids = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
            break;
        };
        if last >= IDS_MAX {
            break;
        }
        ids.extend(first..=last);
    }
    ids
}

/// v1: `8:0 Read 4096`, `8:0 4096`; the `Total` lines are left out as sums.
pub(super) fn block_v1(text: &str) -> Vec<BlockIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let second = words.next()?;
            let (operation, value) = match words.next() {
                Some(value) => (second, value),
                None => ("", second),
            };
            (operation != "Total").then_some(())?;
            Some(BlockIoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                operation: operation.to_owned(),
                value: value.parse().ok()?,
            })
        })
        .collect()
}

/// v2: `8:0 rbytes=1 wbytes=2 rios=3 …` as (bytes, operations).
pub(super) fn block_v2(text: &str) -> (Vec<BlockIoEntry>, Vec<BlockIoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            list.push(BlockIoEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            });
        }
    }
    (bytes, operations)
}

/// `NAME key=value key=value` lines, as name → key → limit or count.
pub(super) fn nested(text: &str) -> BTreeMap<String, BTreeMap<String, Option<u64>>> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let name = words.next()?.to_owned();
            let pairs = words
                .filter_map(|w| w.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.parse().ok()))
                .collect();
            Some((name, pairs))
        })
        .collect()
}

/// A PSI file; `None` when it has no line of that kind.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut seen = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let target = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *target = pressure_line(words);
        seen = true;
    }
    seen.then_some(pressure)
}

fn pressure_line<'a>(words: impl Iterator<Item = &'a str>) -> PressureLine {
    let mut line = PressureLine::default();
    for (key, value) in words.filter_map(|w| w.split_once('=')) {
        match key {
            "avg10" => line.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => line.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => line.avg300 = value.parse().unwrap_or(0.0),
            "total" => line.total_us = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_know_both_ways_of_saying_none() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("4096\n"), Some(4096));
    }

    #[test]
    fn id_lists_expand_and_stay_bounded() {
        assert_eq!(id_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(id_list("\n"), [0u32; 0]);
        assert_eq!(id_list("1,0-4294967295"), [1]);
    }

    #[test]
    fn block_lines_of_both_versions_are_read() {
        let v1 = block_v1("8:0 Read 10\n8:0 Total 10\n8:16 7\nTotal 17\n");
        assert_eq!(v1.len(), 2);
        assert_eq!((v1[0].operation.as_str(), v1[0].value), ("Read", 10));
        assert_eq!((v1[1].minor, v1[1].value), (16, 7));
        let (bytes, operations) =
            block_v2("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nx\n");
        assert_eq!((bytes.len(), operations.len()), (3, 3));
        assert_eq!(operations[1].value, 4);
    }

    #[test]
    fn pressure_files_are_read() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=5\n";
        let p = pressure(text).unwrap();
        assert!((p.some.avg10 - 1.5).abs() < 1e-9);
        assert_eq!((p.some.total_us, p.full.total_us), (77, 5));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn rdma_lines_are_read() {
        let map = nested("mlx5_0 hca_handle=2 hca_object=max\n");
        assert_eq!(map["mlx5_0"]["hca_handle"], Some(2));
        assert_eq!(map["mlx5_0"]["hca_object"], None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[0-9a-z:=, \n-]*") {
            flat(&text);
            id_list(&text);
            block_v1(&text);
            block_v2(&text);
            nested(&text);
            pressure(&text);
            numbers(&text);
            limit(&text);
        }
    }
}
