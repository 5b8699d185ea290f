//! criu's requests and answers, as far as the runtime speaks them.
//!
//! ```text
//! us                                criu swrk FD
//!   request (kind, options)   ──▶
//!                             ◀──   notify (script, pid)     any number of times;
//!   notify-success            ──▶                            criu waits for each
//!                             ◀──   response (kind, success) the end
//! ```
//! Field numbers are facts of criu's `rpc.proto`; each packet of the socket is
//! one message.

use super::wire::{Malformed, Reader, Writer};

/// What is asked for, and what an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Checkpoint.
    Dump = 1,
    /// Restore.
    Restore = 2,
    /// Checkpoint of memory only.
    PreDump = 4,
    /// A step was reached.
    Notify = 6,
    /// What kernel and criu can do together.
    FeatureCheck = 9,
    /// criu's version.
    Version = 10,
}

/// What criu does with cgroups and their properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupsMode {
    /// Nothing.
    Ignore = 0,
    /// Make what is missing, set properties of what was made.
    Soft = 3,
    /// As soft, and set all properties.
    Full = 4,
    /// Make all anew; what exists is an error.
    Strict = 5,
    /// criu's default, which is soft.
    #[default]
    Default = 6,
}

impl CgroupsMode {
    /// By the name that the command line has for it; empty is the default.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Default,
            "ignore" => Self::Ignore,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// Options of a dump or restore.
#[derive(Debug, Default)]
pub struct Options {
    /// Descriptor of the images' directory, a number of our own process.
    pub images: i32,
    /// The same for the directory of logs.
    pub work: Option<i32>,
    /// Name of the log in it.
    pub log: &'static str,
    /// The process to dump.
    pub pid: Option<i32>,
    /// The root file system, a mount.
    pub root: String,
    /// Directory of an earlier dump, relative to the images.
    pub parent: Option<String>,
    /// Switches by field number.
    pub flags: Vec<u32>,
    /// Cgroups.
    pub cgroups: CgroupsMode,
    /// New place of the root cgroup of each controller.
    pub cgroup_roots: Vec<(String, String)>,
    /// Mounts from outside: what the image calls it, and on dump its mount point or on restore its source.
    pub mounts: Vec<(String, String)>,
    /// Other things from outside.
    pub external: Vec<String>,
    /// Names in the image that get a descriptor of criu's process.
    pub inherit: Vec<(String, i32)>,
    /// Namespaces to join: kind and file.
    pub join: Vec<(&'static str, String)>,
    /// Namespaces (`CLONE_NEW…`) that are made without what was in them.
    pub empty_namespaces: u64,
    /// Directory of the freezer cgroup.
    pub freezer: Option<String>,
    /// Where pages go.
    pub page_server: Option<(String, u16)>,
    /// criu's own configuration file.
    pub config: Option<String>,
    /// Security profile to restore with.
    pub lsm_profile: Option<String>,
    /// SELinux context of restored mounts.
    pub lsm_mount_context: Option<String>,
}

/// Field numbers of switches.
pub mod flag {
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXTERNAL_UNIX_SOCKETS: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const TRACK_MEMORY: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const LINK_REMAP: u32 = 18;
    pub const MANAGE_CGROUPS: u32 = 24;
    pub const RESTORE_SIBLING: u32 = 26;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
}

/// Debug messages too; they are what one needs when a dump fails.
const LOG_LEVEL: i64 = 4;

impl Options {
    fn write(&self, out: &mut Writer) {
        out.int(1, self.images.into());
        if let Some(pid) = self.pid {
            out.int(2, pid.into());
        }
        for &field in &self.flags {
            out.flag(field, true);
        }
        out.int(9, LOG_LEVEL).text(10, self.log);
        if let Some((address, port)) = &self.page_server {
            out.message(11, |server| {
                server.text(1, address).int(2, (*port).into());
            });
        }
        out.text(13, &self.root);
        if let Some(work) = self.work {
            out.int(17, work.into());
        }
        pairs(out, 23, &self.mounts);
        pairs(out, 25, &self.cgroup_roots);
        for (key, fd) in &self.inherit {
            out.message(27, |pair| {
                pair.text(1, key).int(2, (*fd).into());
            });
        }
        out.int(34, self.cgroups as i64);
        for text in &self.external {
            out.text(37, text);
        }
        out.int(38, self.empty_namespaces as i64);
        for (kind, file) in &self.join {
            out.message(39, |pair| {
                pair.text(1, kind).text(2, file);
            });
        }
        let texts = [
            (14, &self.parent),
            (44, &self.freezer),
            (51, &self.config),
            (53, &self.lsm_profile),
            (63, &self.lsm_mount_context),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                out.text(field, text);
            }
        }
    }
}

fn pairs(out: &mut Writer, field: u32, list: &[(String, String)]) {
    for (first, second) in list {
        out.message(field, |pair| {
            pair.text(1, first).text(2, second);
        });
    }
}

/// A request.
pub fn request(kind: Kind, options: Option<&Options>) -> Vec<u8> {
    let mut out = Writer::default();
    out.int(1, kind as i64);
    if let Some(options) = options {
        out.message(2, |inner| options.write(inner));
    }
    out.finish()
}

/// Asks for features: memory tracking, lazy pages.
pub fn feature_request(track_memory: bool, lazy_pages: bool) -> Vec<u8> {
    let mut out = Writer::default();
    out.int(1, Kind::FeatureCheck as i64);
    out.message(5, |features| {
        features.flag(1, track_memory).flag(2, lazy_pages);
    });
    out.finish()
}

/// The answer to a notification.
pub fn notified() -> Vec<u8> {
    let mut out = Writer::default();
    out.int(1, Kind::Notify as i64).flag(3, true);
    out.finish()
}

/// What criu says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The number of its [`Kind`].
    pub kind: i32,
    /// Whether it worked.
    pub success: bool,
    /// Of a notification: the step.
    pub script: String,
    /// Of a notification: the process it is about.
    pub pid: i32,
    /// Why it did not work, as an errno.
    pub errno: i32,
    /// Why it did not work, in words.
    pub message: String,
    /// Features: memory tracking, lazy pages.
    pub features: [bool; 2],
    /// Version: major, minor, patch.
    pub version: [i32; 3],
}

impl Response {
    /// Reads an answer.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut response = Self::default();
        for field in Reader::new(bytes) {
            match field? {
                (1, value) => response.kind = value.int()?,
                (2, value) => response.success = value.flag()?,
                (5, value) => {
                    for field in Reader::within(value)? {
                        match field? {
                            (1, value) => response.script = value.text()?,
                            (2, value) => response.pid = value.int()?,
                            _ => {}
                        }
                    }
                }
                (7, value) => response.errno = value.int()?,
                (8, value) => {
                    for field in Reader::within(value)? {
                        match field? {
                            (1, value) => response.features[0] = value.flag()?,
                            (2, value) => response.features[1] = value.flag()?,
                            _ => {}
                        }
                    }
                }
                (9, value) => response.message = value.text()?,
                (10, value) => {
                    for field in Reader::within(value)? {
                        match field? {
                            (1, value) => response.version[0] = value.int()?,
                            (2, value) => response.version[1] = value.int()?,
                            (4, value) => response.version[2] = value.int()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_every_option_at_its_number() {
        let options = Options {
            images: 7,
            work: Some(8),
            log: "dump.log",
            pid: Some(4242),
            root: "/r".into(),
            flags: vec![flag::LEAVE_RUNNING, flag::ORPHAN_PTS_MASTER],
            mounts: vec![("/a".into(), "/b".into())],
            inherit: vec![("pipe:[1]".into(), 1)],
            freezer: Some("/f".into()),
            page_server: Some(("::1".into(), 99)),
            ..Options::default()
        };
        let bytes = request(Kind::Dump, Some(&options));
        let mut top = Reader::new(&bytes).map(Result::unwrap);
        assert_eq!(top.next().unwrap().1.int(), Ok(Kind::Dump as i32));
        let inner: Vec<u32> = Reader::within(top.next().unwrap().1)
            .unwrap()
            .map(|field| field.unwrap().0)
            .collect();
        assert_eq!(inner, [1, 2, 3, 50, 9, 10, 11, 13, 17, 23, 27, 34, 38, 44]);
    }

    #[test]
    fn answers_are_read() {
        let mut out = Writer::default();
        out.int(1, 6).int(2, 1).message(5, |notify| {
            notify.text(1, "post-restore").int(2, 77);
        });
        out.text(99, "of a later version");
        let response = Response::read(&out.finish()).unwrap();
        assert_eq!((response.kind, response.success), (6, true));
        assert_eq!(
            (response.script.as_str(), response.pid),
            ("post-restore", 77)
        );
        assert_eq!(Response::read(&[0x2a, 5, 1]), Err(Malformed));
    }

    #[test]
    fn cgroup_modes_go_by_the_names_of_the_command_line() {
        assert_eq!(CgroupsMode::named("strict"), Some(CgroupsMode::Strict));
        assert_eq!(CgroupsMode::named(""), Some(CgroupsMode::Default));
        assert_eq!(CgroupsMode::named("SOFT"), None);
    }
}
