//! The shapes of images that are measured.
//!
//! | shape | what it is like |
//! |---|---|
//! | `base` | a distribution's smallest system: one layer, 8,700 entries |
//! | `python` | a language's image: six layers, whiteouts, 2,000 hard links, special bits, capabilities |
//! | `small` | three layers, 55,000 entries, small files |
//! | `fat` | three layers with large programs |
//! | `deep` | fifty layers, for mounts |

use std::io::Write;

use anyhow::Result;
use carrack_store::tar::{Entry, Kind, Writer};

use super::content::{Content, Numbers, Vocabulary};

/// Least size of a file that is not empty.
const FILE_BYTES_MIN: u64 = 80;
/// Entries in a directory, on the average.
const FILES_IN_DIRECTORY: u64 = 12;
/// Directories in one another before a new one begins at the layer's top.
const DEPTH: u64 = 4;
/// Files of a layer that get more names.
const LINKED_MAX: usize = 400;
/// When everything was changed: some day of 2023.
const CHANGED: i64 = 1_690_000_000;
/// A capability as the kernel stores it: version 2, effective, `CAP_NET_BIND_SERVICE`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// One layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Entries, about.
    pub entries: u64,
    /// Sizes of files go over so many doublings.
    pub octaves: u64,
    /// Large files and their size.
    pub large: (u64, u64),
    /// Hard links among the entries.
    pub links: u64,
    /// Directories of the layer below that are hidden.
    pub whiteouts: u64,
}

const fn layer(entries: u64, octaves: u64) -> Layer {
    Layer {
        entries,
        octaves,
        large: (0, 0),
        links: 0,
        whiteouts: 0,
    }
}

/// Name and layers of a shape, lowest first.
pub fn shapes() -> Vec<(&'static str, Vec<Layer>)> {
    let base = layer(8_742, 11);
    let python = vec![
        base,
        layer(1_500, 12),
        Layer {
            links: 2_000,
            large: (4, 12 << 20),
            ..layer(9_000, 11)
        },
        layer(1_200, 12),
        Layer {
            whiteouts: 20,
            ..layer(700, 11)
        },
        layer(6, 8),
    ];
    let small = vec![layer(30_000, 9), layer(20_000, 9), layer(5_000, 9)];
    let fat = vec![
        layer(5_000, 11),
        Layer {
            large: (14, 30 << 20),
            ..layer(800, 10)
        },
        Layer {
            large: (6, 40 << 20),
            ..layer(400, 10)
        },
    ];
    vec![
        ("base", vec![base]),
        ("python", python),
        ("small", small),
        ("fat", fat),
        ("deep", vec![layer(40, 8); 50]),
    ]
}

/// Writes layer `number` of a shape as a tar stream. `seed` is another one for each shape.
pub fn write<W: Write>(
    vocabulary: &Vocabulary,
    layer: &Layer,
    seed: u64,
    number: u64,
    output: W,
) -> Result<W> {
    let mut making = Making {
        tar: Writer::new(output),
        vocabulary,
        numbers: Numbers::new(seed << 16 | number),
        directory: String::new(),
        made: 0,
    };
    making.all(layer, number)?;
    Ok(making.tar.finish()?)
}

struct Making<'a, W: Write> {
    tar: Writer<W>,
    vocabulary: &'a Vocabulary,
    numbers: Numbers,
    directory: String,
    made: u64,
}

impl<W: Write> Making<'_, W> {
    fn all(&mut self, layer: &Layer, number: u64) -> Result<()> {
        let root = format!("layer{number}");
        self.enter(&root)?;
        let mut linked = Vec::new();
        let mut depth = 0;
        for at in 0..layer.entries {
            if at % FILES_IN_DIRECTORY == 0 {
                let parent = match depth {
                    0 => root.clone(),
                    _ => self.directory.clone(),
                };
                depth = (depth + 1) % DEPTH;
                self.enter(&format!("{parent}/dir{at:05}"))?;
            } else if self.numbers.below(12) == 0 {
                self.symlink()?;
            } else {
                let octave = self.numbers.below(layer.octaves);
                let least = FILE_BYTES_MIN << octave;
                let size = least + self.numbers.below(least);
                let path = self.file(size)?;
                if linked.len() < LINKED_MAX {
                    linked.push(path);
                }
            }
        }
        for _ in 0..layer.large.0 {
            self.file(layer.large.1)?;
        }
        self.enter(&format!("{root}/links"))?;
        for target in linked.iter().cycle().take(layer.links as usize) {
            self.hard_link(target)?;
        }
        self.whiteouts(
            layer.whiteouts,
            &format!("layer{}", number.saturating_sub(1)),
        )
    }

    /// Hides directories of the layer below, and what is in its first one.
    fn whiteouts(&mut self, count: u64, below: &str) -> Result<()> {
        let stride = FILES_IN_DIRECTORY * DEPTH;
        let hidden = (1..=count).map(|at| format!("{below}/.wh.dir{:05}", at * stride));
        let opaque = (count > 0).then(|| format!("{below}/dir00000/.wh..wh..opq"));
        for path in hidden.chain(opaque) {
            let entry = Entry::new(Kind::Regular, path);
            self.tar.append(&entry, &mut std::io::empty())?;
        }
        Ok(())
    }

    fn entry(&mut self, kind: Kind, path: &str) -> Entry {
        let mut entry = Entry::new(kind, path);
        entry.mtime = (CHANGED + self.numbers.below(10_000_000) as i64, 0);
        // One in twenty belongs to a service.
        if self.numbers.below(20) == 0 {
            (entry.uid, entry.gid) = (33, 33);
        }
        entry
    }

    fn enter(&mut self, path: &str) -> Result<()> {
        path.clone_into(&mut self.directory);
        let entry = self.entry(Kind::Directory, &format!("{path}/"));
        Ok(self.tar.append(&entry, &mut std::io::empty())?)
    }

    fn next_path(&mut self) -> String {
        self.made += 1;
        format!("{}/file{}", self.directory, self.made)
    }

    fn file(&mut self, size: u64) -> Result<String> {
        let path = self.next_path();
        let mut entry = self.entry(Kind::Regular, &path);
        entry.size = size;
        let kind = self.numbers.below(300);
        match kind {
            0 => entry.mode = 0o4755,
            1 => entry
                .xattrs
                .push((b"security.capability".to_vec(), CAPABILITY.to_vec())),
            2..60 => entry.mode = 0o755,
            _ => {}
        }
        // Programs and libraries are larger than texts.
        let text = size < 32 << 10 && !kind.is_multiple_of(5);
        let mut content = Content::new(self.vocabulary, self.numbers.next(), text, size);
        self.tar.append(&entry, &mut content)?;
        Ok(path)
    }

    fn symlink(&mut self) -> Result<()> {
        let path = self.next_path();
        let mut entry = self.entry(Kind::Symlink, &path);
        entry.link = format!("../file{}", self.made).into_bytes();
        Ok(self.tar.append(&entry, &mut std::io::empty())?)
    }

    fn hard_link(&mut self, target: &str) -> Result<()> {
        let path = self.next_path();
        let mut entry = self.entry(Kind::HardLink, &path);
        entry.link = target.as_bytes().to_vec();
        Ok(self.tar.append(&entry, &mut std::io::empty())?)
    }
}
