//! Mount options: the table of `config.md` ("Linux mount options") and what a
//! list of options means together.
//!
//! Pure. A later option overrides an earlier one, as in mount(8). What is not
//! in the table goes to the file system as data, and the file system judges it.

use carrack_sys::mount::{MountAttr, attr};

/// What a mount's options ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `MS_…` flags to set at mount(2).
    pub flags: u64,
    /// `MS_…` flags that were named and cleared: they also clear what a bind mount inherits.
    pub cleared: u64,
    /// Propagation changes (`MS_…`, with `MS_REC`), in order.
    pub propagation: Vec<u64>,
    /// Recursive attributes to set and to clear (`rro`, `rsuid`, …).
    pub recursive: MountAttr,
    /// File system data, joined by commas.
    pub data: String,
    /// Copy what the image has at the destination into the new tmpfs.
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// Bind a symbolic link itself instead of what it points to.
    pub no_follow: bool,
}

#[derive(Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    Propagation(u64),
    /// Recursive attributes: set, clear.
    Recursive(u64, u64),
    CopyUp,
    IdMap(bool),
    NoFollow,
    Nothing,
}

use Effect::{Clear, CopyUp, IdMap, NoFollow, Nothing, Propagation, Recursive, Set};

const MS_REC: u64 = libc_ms::REC;

/// `MS_…` of `linux/mount.h`.
pub mod libc_ms {
    #![allow(missing_docs)]
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
    pub const SYNCHRONOUS: u64 = 16;
    pub const REMOUNT: u64 = 32;
    pub const MANDLOCK: u64 = 64;
    pub const DIRSYNC: u64 = 128;
    pub const NOSYMFOLLOW: u64 = 256;
    pub const NOATIME: u64 = 1024;
    pub const NODIRATIME: u64 = 2048;
    pub const BIND: u64 = 4096;
    pub const REC: u64 = 16384;
    pub const SILENT: u64 = 32768;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const RELATIME: u64 = 1 << 21;
    pub const I_VERSION: u64 = 1 << 23;
    pub const STRICTATIME: u64 = 1 << 24;
    pub const LAZYTIME: u64 = 1 << 25;
}

use libc_ms as ms;

/// Flags that belong to a file system, not to a mount of it.
pub const OF_FILE_SYSTEM: u64 =
    ms::SYNCHRONOUS | ms::MANDLOCK | ms::DIRSYNC | ms::I_VERSION | ms::LAZYTIME;

/// Every option the runtime itself understands, sorted by name.
const TABLE: &[(&str, Effect)] = &[
    ("acl", Nothing),
    ("async", Clear(ms::SYNCHRONOUS)),
    ("atime", Clear(ms::NOATIME)),
    ("bind", Set(ms::BIND)),
    ("copy-symlink", NoFollow),
    ("defaults", Nothing),
    ("dev", Clear(ms::NODEV)),
    ("diratime", Clear(ms::NODIRATIME)),
    ("dirsync", Set(ms::DIRSYNC)),
    ("exec", Clear(ms::NOEXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Set(ms::I_VERSION)),
    ("lazytime", Set(ms::LAZYTIME)),
    ("loud", Clear(ms::SILENT)),
    ("mand", Set(ms::MANDLOCK)),
    ("noatime", Set(ms::NOATIME)),
    ("nodev", Set(ms::NODEV)),
    ("nodiratime", Set(ms::NODIRATIME)),
    ("noexec", Set(ms::NOEXEC)),
    ("noiversion", Clear(ms::I_VERSION)),
    ("nolazytime", Clear(ms::LAZYTIME)),
    ("nomand", Clear(ms::MANDLOCK)),
    ("norelatime", Clear(ms::RELATIME)),
    ("nostrictatime", Clear(ms::STRICTATIME)),
    ("nosuid", Set(ms::NOSUID)),
    ("nosymfollow", Set(ms::NOSYMFOLLOW)),
    ("private", Propagation(ms::PRIVATE)),
    ("ratime", Recursive(0, attr::ATIME)),
    ("rbind", Set(ms::BIND | MS_REC)),
    ("rdev", Recursive(0, attr::NODEV)),
    ("rdiratime", Recursive(0, attr::NODIRATIME)),
    ("relatime", Set(ms::RELATIME)),
    ("remount", Set(ms::REMOUNT)),
    ("rexec", Recursive(0, attr::NOEXEC)),
    ("ridmap", IdMap(true)),
    ("rnoatime", Recursive(attr::NOATIME, attr::ATIME)),
    ("rnodev", Recursive(attr::NODEV, 0)),
    ("rnodiratime", Recursive(attr::NODIRATIME, 0)),
    ("rnoexec", Recursive(attr::NOEXEC, 0)),
    ("rnorelatime", Recursive(0, attr::ATIME)),
    ("rnostrictatime", Recursive(0, attr::ATIME)),
    ("rnosuid", Recursive(attr::NOSUID, 0)),
    ("rnosymfollow", Recursive(attr::NOSYMFOLLOW, 0)),
    ("ro", Set(ms::RDONLY)),
    ("rprivate", Propagation(ms::PRIVATE | MS_REC)),
    ("rrelatime", Recursive(0, attr::ATIME)),
    ("rro", Recursive(attr::RDONLY, 0)),
    ("rrw", Recursive(0, attr::RDONLY)),
    ("rshared", Propagation(ms::SHARED | MS_REC)),
    ("rslave", Propagation(ms::SLAVE | MS_REC)),
    ("rstrictatime", Recursive(attr::STRICTATIME, attr::ATIME)),
    ("rsuid", Recursive(0, attr::NOSUID)),
    ("rsymfollow", Recursive(0, attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(ms::UNBINDABLE | MS_REC)),
    ("rw", Clear(ms::RDONLY)),
    ("shared", Propagation(ms::SHARED)),
    ("silent", Set(ms::SILENT)),
    ("slave", Propagation(ms::SLAVE)),
    ("strictatime", Set(ms::STRICTATIME)),
    ("suid", Clear(ms::NOSUID)),
    ("symfollow", Clear(ms::NOSYMFOLLOW)),
    ("sync", Set(ms::SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(ms::UNBINDABLE)),
];

/// Names of all options the runtime understands, for `features`.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Reads a list of options.
pub fn parse(options: &[String]) -> Options {
    let mut out = Options::default();
    for option in options {
        match TABLE.binary_search_by_key(&option.as_str(), |(name, _)| name) {
            Ok(found) => out.take(TABLE[found].1),
            Err(_) => {
                if !out.data.is_empty() {
                    out.data.push(',');
                }
                out.data.push_str(option);
            }
        }
    }
    out
}

impl Options {
    fn take(&mut self, effect: Effect) {
        match effect {
            Set(flag) => {
                self.flags |= flag;
                self.cleared &= !flag;
            }
            Clear(flag) => {
                self.flags &= !flag;
                self.cleared |= flag;
            }
            Propagation(flag) => self.propagation.push(flag),
            Recursive(set, clear) => {
                self.recursive.set = self.recursive.set & !clear | set;
                self.recursive.clear = self.recursive.clear & !set | clear;
            }
            CopyUp => self.copy_up = true,
            IdMap(recursive) => self.idmap = Some(recursive),
            NoFollow => self.no_follow = true,
            Nothing => {}
        }
    }

    /// The per-mount attributes of the flags, for mount_setattr(2) on a bind mount.
    pub fn attributes(&self) -> MountAttr {
        let mut out = MountAttr::default();
        for (flag, bit) in PER_MOUNT {
            if self.flags & flag != 0 {
                out.set |= bit;
            }
            if self.cleared & flag != 0 {
                out.clear |= bit;
            }
        }
        // The access time mode is one field of two bits: setting any mode clears the field first.
        let atime = [
            (ms::NOATIME, attr::NOATIME),
            (ms::STRICTATIME, attr::STRICTATIME),
            (ms::RELATIME, 0),
        ];
        for (flag, mode) in atime {
            if self.flags & flag != 0 {
                out.clear |= attr::ATIME;
                out.set = out.set & !attr::ATIME | mode;
            } else if self.cleared & flag != 0 && flag != ms::RELATIME {
                out.clear |= attr::ATIME;
            }
        }
        out
    }

    /// Whether the mount is a bind mount by its options.
    pub fn is_bind(&self) -> bool {
        self.flags & ms::BIND != 0
    }
}

const PER_MOUNT: [(u64, u64); 6] = [
    (ms::RDONLY, attr::RDONLY),
    (ms::NOSUID, attr::NOSUID),
    (ms::NODEV, attr::NODEV),
    (ms::NOEXEC, attr::NOEXEC),
    (ms::NODIRATIME, attr::NODIRATIME),
    (ms::NOSYMFOLLOW, attr::NOSYMFOLLOW),
];

/// `rootfsPropagation` and the propagation options by name.
pub fn propagation_named(name: &str) -> Option<u64> {
    let found = TABLE
        .binary_search_by_key(&name, |(option, _)| option)
        .ok()?;
    match TABLE[found].1 {
        Propagation(flag) => Some(flag),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Options {
        parse(&options.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn what_is_unknown_is_data() {
        let options = of(&["nosuid", "mode=755", "size=64k", "ro"]);
        assert_eq!(options.data, "mode=755,size=64k");
        assert_eq!(options.flags, ms::NOSUID | ms::RDONLY);
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(of(&["ro", "rw"]).flags, 0);
        assert_eq!(of(&["ro", "rw"]).attributes().clear, attr::RDONLY);
        assert_eq!(of(&["rw", "ro"]).attributes().set, attr::RDONLY);
        let recursive = of(&["rro", "rrw"]).recursive;
        assert_eq!((recursive.set, recursive.clear), (0, attr::RDONLY));
    }

    #[test]
    fn access_time_modes_replace_each_other() {
        let attributes = of(&["strictatime"]).attributes();
        assert_eq!(
            (attributes.set, attributes.clear),
            (attr::STRICTATIME, attr::ATIME)
        );
        let recursive = of(&["rnoatime"]).recursive;
        assert_eq!(
            (recursive.set, recursive.clear),
            (attr::NOATIME, attr::ATIME)
        );
    }

    #[test]
    fn propagation_keeps_its_order() {
        let options = of(&["rbind", "rslave", "shared"]);
        assert_eq!(options.propagation, [ms::SLAVE | ms::REC, ms::SHARED]);
        assert!(options.is_bind());
        assert_eq!(propagation_named("rshared"), Some(ms::SHARED | ms::REC));
        assert_eq!(propagation_named("ro"), None);
    }
}
