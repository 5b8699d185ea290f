//! Containers for people who never wrote a `config.json`.
//!
//! ```
//! use carrack_container::ContainerBuilder;
//!
//! let spec = ContainerBuilder::new("/srv/root")
//!     .command(["sh", "-c", "exec my-service"])
//!     .hostname("demo")
//!     .bind_read_only("/srv/data", "/data")
//!     .tmpfs("/tmp", "64MiB")
//!     .memory_limit("512MiB")
//!     .cpu_quota(1.5)
//!     .pids_limit(100)
//!     .build()
//!     .unwrap();
//! assert_eq!(spec.hostname, "demo");
//! ```
//!
//! | step | where | what it does |
//! |---|---|---|
//! | settings | here | values in memory; the first mistake is kept for `build` |
//! | [`ContainerBuilder::build`] | `compose` | a pure function from the settings to a [`Spec`] |
//! | [`ContainerBuilder::spawn`] | `running` | makes and starts the container, with its streams |
//! | [`Running`], [`Child`] | `running` | wait, exec, statistics, limits, events, delete |
//!
//! What is not asked for is safe: own namespaces of every kind but user and
//! time, no network but the loopback interface, no new privileges, fourteen
//! capabilities, no device but the harmless ones, and the parts of procfs and
//! sysfs that tell of or change the host covered or read-only.
//!
//! Nothing here needs a particular thread: containers may be made and waited
//! for from many at once.

mod command;
mod compose;
mod running;
mod stdio;

pub use command::Command;
pub use running::{Child, Output, Running};
pub use stdio::Stdio;

use crate::error::Error;
use crate::options::{Console, CreateOptions};
use crate::runtime::Runtime;
use carrack_cgroup::{Limits, Size};
use carrack_spec::runtime::{
    Device, Hook, Hooks, IdMapping, Mount, NamespaceKind, Spec, TimeOffset,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The network a container lives in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// Its own, with nothing in it but the loopback interface.
    #[default]
    None,
    /// The caller's.
    Host,
    /// The one of this namespace file, such as `/run/netns/blue` or `/proc/PID/ns/net`.
    Join(PathBuf),
}

/// When a [`Hook`] runs; see the runtime specification, "POSIX-platform Hooks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStage {
    /// In the caller's namespaces, once the container's exist.
    CreateRuntime,
    /// In the container's namespaces, before its root is the root.
    CreateContainer,
    /// In the container, just before the program.
    StartContainer,
    /// In the caller's namespaces, after the program started.
    Poststart,
    /// In the caller's namespaces, after the container was deleted.
    Poststop,
}

/// A namespace that is not simply new.
#[derive(Debug, Clone)]
enum Sharing {
    Caller,
    Path(PathBuf),
}

/// What a container is to be; see the [module](self) for an example.
///
/// Setters never fail: the first mistake is told by [`ContainerBuilder::build`].
#[derive(Debug, Clone)]
pub struct ContainerBuilder {
    root: PathBuf,
    read_only: bool,
    process: Command,
    hostname: Option<String>,
    domainname: Option<String>,
    mounts: Vec<Mount>,
    default_mounts: bool,
    default_protection: bool,
    masked: Vec<String>,
    readonly: Vec<String>,
    devices: Vec<Device>,
    network: Network,
    sharing: BTreeMap<NamespaceKind, Sharing>,
    uid_maps: Vec<IdMapping>,
    gid_maps: Vec<IdMapping>,
    time_offsets: BTreeMap<String, TimeOffset>,
    cgroup: String,
    limits: Limits,
    sysctl: BTreeMap<String, String>,
    seccomp: Option<Box<RawValue>>,
    hooks: Hooks,
    annotations: BTreeMap<String, String>,
    mistake: Option<(&'static str, String)>,
}

impl ContainerBuilder {
    /// A container whose root file system is the directory `root`.
    ///
    /// The directory is used in place: what the container writes stays there
    /// (see [`ContainerBuilder::read_only`]). A relative path starts at the
    /// caller's working directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            read_only: false,
            process: Command::new(Vec::<String>::new()),
            hostname: None,
            domainname: None,
            mounts: Vec::new(),
            default_mounts: true,
            default_protection: true,
            masked: Vec::new(),
            readonly: Vec::new(),
            devices: Vec::new(),
            network: Network::None,
            sharing: BTreeMap::new(),
            uid_maps: Vec::new(),
            gid_maps: Vec::new(),
            time_offsets: BTreeMap::new(),
            cgroup: String::new(),
            limits: Limits::new(),
            sysctl: BTreeMap::new(),
            seccomp: None,
            hooks: Hooks::default(),
            annotations: BTreeMap::new(),
            mistake: None,
        }
    }

    fn wrong(&mut self, setting: &'static str, reason: String) {
        self.mistake.get_or_insert((setting, reason));
    }

    // --- the process ---

    /// The program and its arguments. A program without a slash is sought in the container's `PATH`.
    pub fn command<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.process = self.process.command(args);
        self
    }

    /// Sets one environment variable. `PATH` has a default; nothing else is inherited.
    pub fn env(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.process = self.process.env(name, value);
        self
    }

    /// The working directory, absolute; made when it is missing. `/` by default.
    pub fn current_dir(mut self, path: impl Into<String>) -> Self {
        self.process = self.process.current_dir(path);
        self
    }

    /// User and group by number, as ids inside the container. Root by default.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.process = self.process.user(uid, gid);
        self
    }

    /// Supplementary groups.
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.process = self.process.groups(gids);
        self
    }

    /// The file mode creation mask; 0o022 by default.
    pub fn umask(mut self, mask: u32) -> Self {
        self.process = self.process.umask(mask);
        self
    }

    /// Gives a capability beyond the default ones, by name with or without `CAP_`; `ALL` gives
    /// every one. A process that is not root keeps (as ambient) only what is added here.
    pub fn add_capability(mut self, name: &str) -> Self {
        self.process = self.process.add_capability(name);
        self
    }

    /// Takes a capability away; `ALL` takes every one that is not added.
    pub fn drop_capability(mut self, name: &str) -> Self {
        self.process = self.process.drop_capability(name);
        self
    }

    /// Whether programs may gain privileges by being executed (setuid, file capabilities); not by default.
    pub fn allow_new_privileges(mut self, allow: bool) -> Self {
        self.process = self.process.allow_new_privileges(allow);
        self
    }

    /// A limit of setrlimit(2) by name (`NOFILE` or `RLIMIT_NOFILE`).
    pub fn rlimit(mut self, name: &str, soft: u64, hard: u64) -> Self {
        self.process = self.process.rlimit(name, soft, hard);
        self
    }

    /// How early the kernel kills the process when memory is short, -1000 (last) to 1000 (first).
    pub fn oom_score(mut self, value: i32) -> Self {
        self.process = self.process.oom_score(value);
        self
    }

    /// Gives the process a terminal as its streams; its master comes as [`Running::terminal`].
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.process = self.process.terminal(rows, columns);
        self
    }

    /// Standard input; inherited by default.
    pub fn stdin(mut self, stream: Stdio) -> Self {
        self.process = self.process.stdin(stream);
        self
    }

    /// Standard output; inherited by default.
    pub fn stdout(mut self, stream: Stdio) -> Self {
        self.process = self.process.stdout(stream);
        self
    }

    /// Standard error; inherited by default.
    pub fn stderr(mut self, stream: Stdio) -> Self {
        self.process = self.process.stderr(stream);
        self
    }

    // --- the file system ---

    /// Makes the root file system read-only inside; mounts in it stay what they are.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Shows a directory or file of the host at `destination`, writable.
    pub fn bind(self, source: impl AsRef<Path>, destination: impl Into<String>) -> Self {
        self.bind_with(source, destination, &["rbind", "rprivate"])
    }

    /// The same, read-only, with all mounts below it.
    pub fn bind_read_only(self, source: impl AsRef<Path>, destination: impl Into<String>) -> Self {
        self.bind_with(source, destination, &["rbind", "rprivate", "ro", "rro"])
    }

    fn bind_with(
        mut self,
        source: impl AsRef<Path>,
        destination: impl Into<String>,
        options: &[&str],
    ) -> Self {
        let Some(source) = source.as_ref().to_str() else {
            self.wrong("bind", format!("{:?} is not UTF-8", source.as_ref()));
            return self;
        };
        self.mounts.push(Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.into(),
            options: options.iter().map(|&o| o.to_owned()).collect(),
            ..Mount::default()
        });
        self
    }

    /// Memory as a file system of at most `size`, mode 1777.
    pub fn tmpfs(mut self, destination: impl Into<String>, size: impl Size) -> Self {
        let Some(bytes) = size.bytes() else {
            let reason = format!("{:?} is no size such as 64MiB", size.text());
            self.wrong("tmpfs", reason);
            return self;
        };
        self.mounts.push(Mount {
            destination: destination.into(),
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
            options: ["nosuid", "nodev", "mode=1777"]
                .iter()
                .map(|&o| o.to_owned())
                .chain([format!("size={bytes}")])
                .collect(),
            ..Mount::default()
        });
        self
    }

    /// Any other mount, as the specification writes it.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Leaves out `/proc`, `/dev`, `/sys` and what is in them; for callers who mount their own.
    pub fn without_default_mounts(mut self) -> Self {
        self.default_mounts = false;
        self
    }

    /// A device node, which the container may also use.
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// Covers one more path.
    pub fn mask_path(mut self, path: impl Into<String>) -> Self {
        self.masked.push(path.into());
        self
    }

    /// Makes one more path read-only.
    pub fn read_only_path(mut self, path: impl Into<String>) -> Self {
        self.readonly.push(path.into());
        self
    }

    /// Leaves the sensitive parts of procfs and sysfs open; paths named by
    /// [`ContainerBuilder::mask_path`] stay covered.
    pub fn without_default_protection(mut self) -> Self {
        self.default_protection = false;
        self
    }

    // --- namespaces ---

    /// The host name inside. The host's own is not changed.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// The NIS domain name inside.
    pub fn domainname(mut self, name: impl Into<String>) -> Self {
        self.domainname = Some(name.into());
        self
    }

    /// The network; none by default.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Shares a namespace with the caller instead of making one.
    ///
    /// Not for the mount namespace, which a container always has for itself,
    /// and the network, which is [`ContainerBuilder::network`]'s.
    pub fn share(mut self, kind: NamespaceKind) -> Self {
        if matches!(kind, NamespaceKind::Mount | NamespaceKind::Network) {
            self.wrong("share", format!("{kind:?} namespaces are not shared so"));
        }
        self.sharing.insert(kind, Sharing::Caller);
        self
    }

    /// Joins a namespace by its file, such as `/proc/PID/ns/ipc`.
    pub fn join(mut self, kind: NamespaceKind, path: impl Into<PathBuf>) -> Self {
        match kind {
            NamespaceKind::Network => self.network = Network::Join(path.into()),
            NamespaceKind::Mount => self.wrong("join", "a mount namespace cannot be joined".into()),
            kind => {
                self.sharing.insert(kind, Sharing::Path(path.into()));
            }
        }
        self
    }

    /// Maps a range of users and the same range of groups into a user namespace of the
    /// container's own: `inside` is the first id there, `outside` the first on the host.
    ///
    /// The root file system must be usable by the mapped ids.
    pub fn map_ids(self, inside: u32, outside: u32, count: u32) -> Self {
        self.map_users(inside, outside, count)
            .map_groups(inside, outside, count)
    }

    /// Maps users alone; groups need a map too.
    pub fn map_users(mut self, inside: u32, outside: u32, count: u32) -> Self {
        self.uid_maps.push(map(inside, outside, count));
        self
    }

    /// Maps groups alone; users need a map too.
    pub fn map_groups(mut self, inside: u32, outside: u32, count: u32) -> Self {
        self.gid_maps.push(map(inside, outside, count));
        self
    }

    /// Shifts a clock (`monotonic` or `boottime`) in a time namespace of the container's own.
    pub fn time_offset(mut self, clock: &str, seconds: i64) -> Self {
        let offset = TimeOffset {
            secs: seconds,
            nanosecs: 0,
        };
        self.time_offsets.insert(clock.to_owned(), offset);
        self
    }

    /// A kernel parameter of the container's namespaces, such as `net.ipv4.ip_forward`.
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctl.insert(name.into(), value.into());
        self
    }

    // --- resources ---

    /// The most memory, such as `"512MiB"`; beyond it pages are reclaimed, then processes killed.
    pub fn memory_limit(mut self, size: impl Size) -> Self {
        self.limits = self.limits.memory_limit(size);
        self
    }

    /// How many processors' time it may use, `1.5` for one and a half.
    pub fn cpu_quota(mut self, processors: f64) -> Self {
        self.limits = self.limits.cpu_quota(processors);
        self
    }

    /// The most tasks (processes and threads).
    pub fn pids_limit(mut self, tasks: u32) -> Self {
        self.limits = self.limits.pids_max(tasks);
        self
    }

    /// All limits at once, in the place of those set before: [`Limits`] has every kind.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The path of its cgroup, so that containers can be nested in a group made with
    /// [`carrack_cgroup::Group`]; by the id, beside the caller's, when not set.
    pub fn cgroup(mut self, path: impl Into<String>) -> Self {
        self.cgroup = path.into();
        self
    }

    // --- the rest ---

    /// A seccomp profile: the JSON object of `linux.seccomp` in the runtime specification.
    pub fn seccomp_json(mut self, profile: impl Into<String>) -> Self {
        match RawValue::from_string(profile.into()) {
            Ok(text) => self.seccomp = Some(text),
            Err(error) => self.wrong("seccomp_json", error.to_string()),
        }
        self
    }

    /// A program to run at a step of the life cycle, after those added before.
    pub fn hook(mut self, stage: HookStage, hook: Hook) -> Self {
        match stage {
            HookStage::CreateRuntime => self.hooks.create_runtime.push(hook),
            HookStage::CreateContainer => self.hooks.create_container.push(hook),
            HookStage::StartContainer => self.hooks.start_container.push(hook),
            HookStage::Poststart => self.hooks.poststart.push(hook),
            HookStage::Poststop => self.hooks.poststop.push(hook),
        }
        self
    }

    /// Free-form metadata, seen in the container's state.
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// The settings as the runtime specification writes them. Pure: no I/O.
    ///
    /// # Errors
    /// [`Error::Setting`] names the setting that is wrong, [`Error::Invalid`] settings that
    /// contradict each other.
    pub fn build(&self) -> Result<Spec, Error> {
        compose::spec(self)
    }

    /// Makes the container and starts its program.
    ///
    /// Needs root, or [`ContainerBuilder::map_ids`] with ids that the caller may map.
    ///
    /// # Errors
    /// Those of [`ContainerBuilder::build`] and [`Runtime::run`]; nothing is left behind then.
    pub fn spawn(self, runtime: &Runtime, id: &str) -> Result<Running, Error> {
        running::make(self, runtime, id, true)
    }

    /// Makes the container, whose program waits for [`Running::start`].
    ///
    /// # Errors
    /// As [`ContainerBuilder::spawn`].
    pub fn create(self, runtime: &Runtime, id: &str) -> Result<Running, Error> {
        running::make(self, runtime, id, false)
    }
}

fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
    IdMapping {
        container_id,
        host_id,
        size,
    }
}
