//! A group: one cgroup in every hierarchy of the machine, made, entered, found again.
//!
//! ```text
//! create ── mkdir in every hierarchy ──► Group ── apply ── entry ──► child enters by itself
//!    │                                     │
//!    └─ any failure: what was made is      └─ attach(pid): move another process in
//!       removed again, parents included       (the only way into a systemd scope)
//! ```
//!
//! Creating costs one `mkdir` a hierarchy when the parents exist (and, on v1,
//! the copying of the parent's cpuset, which the kernel leaves empty). A cgroup
//! that exists already is accepted only when it is neither populated nor frozen.
//! Without rights a rootless caller gets a group without cgroups; such a group
//! refuses limits by name and does nothing else.

use crate::error::{Error, Result};
use crate::files;
use crate::layout::{Hierarchy, Layout, Mode, Version};
use crate::path::{CgroupPath, below, component};
use crate::systemd::{self, Scope};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// We write to the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd makes a transient scope on our request over D-Bus.
    Systemd {
        /// Ask the user's service manager rather than the system's.
        user: bool,
    },
}

/// What cgroup a container wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The container's id; names the cgroup when `path` is empty.
    pub id: &'a str,
    /// `linux.cgroupsPath`: `/absolute`, `relative`, or `slice:prefix:name` for systemd. May be empty.
    pub path: &'a str,
    /// Who makes it.
    pub driver: Driver,
    /// The caller may lack rights to cgroups: go on without one.
    pub rootless: bool,
    /// systemd unit properties beyond the limits, as name and value in GVariant text
    /// (`org.systemd.property.*` annotations without the prefix). Ignored by [`Driver::Cgroupfs`].
    pub properties: &'a [(&'a str, &'a str)],
}

/// The cgroup of one hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub version: Version,
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
    pub dir: PathBuf,
}

impl Node {
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// A container's (or any workload's) cgroups, one in each hierarchy.
#[derive(Debug)]
pub struct Group {
    pub(crate) mode: Mode,
    pub(crate) nodes: Vec<Node>,
    pub(crate) scope: Option<Scope>,
    pub(crate) rootless: bool,
    /// The v1 `tasks` files in the order of the nodes, opened by create and taken by the first entry.
    pub(crate) tasks: Mutex<Vec<OwnedFd>>,
}

/// Handles with which a new process enters the group without a grace-period wait.
#[derive(Debug)]
pub struct Entry {
    /// v2: the cgroup's directory, for `CLONE_INTO_CGROUP`.
    pub v2: Option<OwnedFd>,
    /// v1: the `tasks` files, open for writing; the new process writes `0` to each by itself.
    pub v1_tasks: Vec<OwnedFd>,
}

impl Group {
    /// Makes the group, or plans the scope that [`Group::attach`] starts with the first process.
    ///
    /// Needs write access to the parent cgroup. On failure nothing made by this call is left.
    pub fn create(layout: &Layout, request: &Request<'_>) -> Result<Group> {
        let checked = |layout: &Layout| match layout.is_checked() {
            true => Ok(layout.clone()),
            false => Layout::checked(),
        };
        if let Driver::Systemd { user } = request.driver {
            return systemd::plan(&checked(layout)?, request, user);
        }
        let path = CgroupPath::parse(if request.path.is_empty() {
            request.id
        } else {
            request.path
        })?;
        if path.relative.is_empty() {
            return Err(Error::Path {
                path: request.path.to_owned(),
                reason: "a container cannot live in the root cgroup",
            });
        }
        // What a rootless caller may not use is left out, so a wrong guess would not show.
        if request.rootless {
            return Group::create_below(&checked(layout)?, request, &path);
        }
        match Group::create_below(layout, request, &path) {
            Err(error) if !layout.is_checked() => {
                log::debug!("not as usual, looking for the hierarchies: {error}");
                Group::create_below(&Layout::checked()?, request, &path)
            }
            other => other,
        }
    }

    fn create_below(layout: &Layout, request: &Request<'_>, path: &CgroupPath) -> Result<Group> {
        let mut made = Made::default();
        let mut nodes = Vec::with_capacity(layout.hierarchies().len());
        let mut tasks = Vec::with_capacity(layout.hierarchies().len());
        for hierarchy in layout.hierarchies() {
            match create_node(layout.mode(), hierarchy, path, &mut made) {
                Ok((node, file)) => {
                    nodes.push(node);
                    tasks.extend(file);
                }
                Err(e) if request.rootless && lacks_rights(&e) => {
                    log::debug!("rootless, going on without this cgroup: {e}");
                }
                Err(e) => {
                    made.undo();
                    return Err(e);
                }
            }
        }
        Ok(Group {
            mode: layout.mode(),
            nodes,
            scope: None,
            rootless: request.rootless,
            tasks: Mutex::new(tasks),
        })
    }

    /// The group again from the paths that [`Group::paths`] gave.
    ///
    /// Does no I/O; a cgroup that is gone shows in the first operation.
    pub fn open(layout: &Layout, paths: &BTreeMap<String, String>, driver: Driver) -> Group {
        let mut nodes: Vec<Node> = Vec::with_capacity(layout.hierarchies().len());
        for (controller, dir) in paths.iter().rev() {
            let dir = PathBuf::from(dir);
            let version = if controller.is_empty() {
                Version::V2
            } else {
                Version::V1
            };
            if let Some(node) = nodes.iter_mut().find(|n| n.dir == dir) {
                node.controllers.push(controller.clone());
                continue;
            }
            let mountpoint = layout
                .hierarchies()
                .iter()
                .filter(|h| h.version == version && dir.starts_with(&h.mountpoint))
                .map(|h| h.mountpoint.clone())
                .max_by_key(|m| m.as_os_str().len());
            nodes.push(Node {
                version,
                controllers: match version {
                    Version::V1 => vec![controller.clone()],
                    Version::V2 => Vec::new(),
                },
                mountpoint: mountpoint.unwrap_or_default(),
                dir,
            });
        }
        let scope = systemd::reopen(driver, &nodes);
        Group {
            mode: layout.mode(),
            nodes,
            scope,
            rootless: !rustix::process::geteuid().is_root(),
            tasks: Mutex::default(),
        }
    }

    /// The directories: key is the controller's name on v1 (`name=systemd` for a named
    /// hierarchy) and empty on v2. Empty for a group without cgroups.
    pub fn paths(&self) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::new();
        for node in &self.nodes {
            let dir = node.dir.to_string_lossy().into_owned();
            match node.version {
                Version::V2 => {
                    paths.insert(String::new(), dir);
                }
                Version::V1 => {
                    for controller in &node.controllers {
                        paths.insert(controller.clone(), dir.clone());
                    }
                }
            }
        }
        paths
    }

    /// True when the group has no cgroup at all (rootless without rights).
    pub fn is_none(&self) -> bool {
        self.nodes.is_empty()
    }

    /// True when only [`Group::attach`] can bring a process in, as the scope does not exist
    /// before its first process does; [`Group::entry`] works after that.
    pub fn needs_attach(&self) -> bool {
        self.scope.as_ref().is_some_and(|s| !s.is_started())
    }

    /// Opens what a new process needs to enter the group by itself.
    pub fn entry(&self) -> Result<Entry> {
        if self.needs_attach() {
            return Err(Error::NoCgroup {
                what: "be entered before attach() started its scope",
            });
        }
        let opened = self
            .tasks
            .lock()
            .map(|mut tasks| std::mem::take(&mut *tasks));
        let mut entry = Entry {
            v2: None,
            v1_tasks: opened.unwrap_or_default(),
        };
        let open_all = entry.v1_tasks.is_empty();
        for node in &self.nodes {
            match node.version {
                Version::V1 if !open_all => {}
                Version::V1 => entry.v1_tasks.push(files::open_write(&node.file("tasks"))?),
                Version::V2 => {
                    let fd = files::open(&node.dir, OFlags::PATH | OFlags::DIRECTORY)
                        .map_err(|e| Error::io("open", &node.dir, e))?;
                    entry.v2 = Some(fd);
                }
            }
        }
        Ok(entry)
    }

    /// Moves a process (all its threads) into the group; starts the scope when it is planned only.
    ///
    /// On v1 each write waits for a grace period of about 10 ms: prefer [`Group::entry`] for new processes.
    pub fn attach(&self, pid: i32) -> Result<()> {
        if let Some(scope) = &self.scope
            && !scope.is_started()
        {
            return systemd::start(self, scope, pid);
        }
        let pid = pid.to_string();
        for node in &self.nodes {
            files::write(&node.file("cgroup.procs"), &pid)?;
        }
        Ok(())
    }

    /// An existing or future sub-cgroup in every hierarchy; does no I/O.
    ///
    /// `name` may have several components (`exec --cgroup`), but none may lead out of the group.
    pub fn sub(&self, name: &str) -> Result<Group> {
        self.sub_of(&[], name)
    }

    /// Like [`Group::sub`], but only in the hierarchies of these v1 controllers (the others stay
    /// with the group itself). No controllers means all hierarchies.
    pub fn sub_of(&self, controllers: &[&str], name: &str) -> Result<Group> {
        let path = CgroupPath::parse(name)?;
        if let Some(missing) = controllers
            .iter()
            .find(|c| !c.is_empty() && !self.nodes.iter().any(|n| n.has(c)))
        {
            return Err(Error::Path {
                path: format!("{missing}:{name}"),
                reason: "no v1 hierarchy of this group has that controller",
            });
        }
        let wanted = |node: &Node| {
            controllers.is_empty()
                || controllers
                    .iter()
                    .any(|c| node.has(c) || (c.is_empty() && node.version == Version::V2))
        };
        let nodes = self
            .nodes
            .iter()
            .map(|node| Node {
                dir: if wanted(node) {
                    below(&node.dir, &path.relative)
                } else {
                    node.dir.clone()
                },
                ..node.clone()
            })
            .collect();
        Ok(Group {
            mode: self.mode,
            nodes,
            scope: None,
            rootless: self.rootless,
            tasks: Mutex::default(),
        })
    }

    /// Makes a nested group below this one, or takes it when it exists.
    ///
    /// On v2 this group must hold no process itself when the child is to have limits.
    pub fn child(&self, name: &str) -> Result<Group> {
        let group = self.sub(component(name)?)?;
        let mut made = Made::default();
        for node in &group.nodes {
            if let Err(e) = make_dirs(node, &mut made) {
                made.undo();
                return Err(e);
            }
            if node.version == Version::V2
                && self.mode == Mode::Unified
                && let Err(e) = crate::v2::enable_below(&self.nodes, node)
            {
                log::debug!("no controllers for the nested group {name:?}: {e}");
            }
        }
        Ok(group)
    }

    /// Whether the group's cgroups are there (one of them is looked at).
    pub fn exists(&self) -> bool {
        self.nodes
            .first()
            .is_some_and(|n| rustix::fs::access(&n.dir, rustix::fs::Access::EXISTS).is_ok())
    }

    /// Makes the cgroups that are not there yet (a scope's, on v1).
    pub(crate) fn make_missing(&self) -> Result<()> {
        let mut made = Made::default();
        for node in &self.nodes {
            if let Err(e) = make_dirs(node, &mut made) {
                made.undo();
                return Err(e);
            }
        }
        Ok(())
    }

    pub(crate) fn v1(&self, controller: &str) -> Option<&Node> {
        self.nodes
            .iter()
            .find(|n| n.version == Version::V1 && n.has(controller))
    }

    pub(crate) fn v2(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.version == Version::V2)
    }
}

/// Errors that mean "not allowed here" rather than "broken".
fn lacks_rights(error: &Error) -> bool {
    use crate::error::libc_errno::{EACCES, EPERM, EROFS};
    matches!(error.raw_os_error(), Some(EACCES | EPERM | EROFS))
}

/// What a creation made so far, to be undone on failure.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn undo(&mut self) {
        for dir in self.0.drain(..).rev() {
            if let Err(e) = files::rmdir(&dir) {
                log::warn!("cannot remove the cgroup {dir:?} after a failure: {e}");
            }
        }
    }
}

fn create_node(
    mode: Mode,
    hierarchy: &Hierarchy,
    path: &CgroupPath,
    made: &mut Made,
) -> Result<(Node, Option<OwnedFd>)> {
    let base = if path.absolute {
        hierarchy.mountpoint.clone()
    } else {
        relative_base(mode, hierarchy)?
    };
    let node = Node {
        version: hierarchy.version,
        controllers: hierarchy.controllers.clone(),
        mountpoint: hierarchy.mountpoint.clone(),
        dir: below(&base, &path.relative),
    };
    if !make_dirs(&node, made)? {
        refuse_in_use(&node)?;
    }
    if mode == Mode::Unified
        && let Err(e) = crate::v2::enable_along(&node)
    {
        // A limit that needs the controller explains this again; without limits it does not matter.
        log::debug!("controllers are not passed on to {:?}: {e}", node.dir);
    }
    // Every v1 cgroup has the file: a directory without it is on no cgroup file system.
    let tasks = match node.version {
        Version::V1 => Some(files::open_write(&node.file("tasks"))?),
        Version::V2 => None,
    };
    Ok((node, tasks))
}

/// Where relative paths start: our own cgroup on v1. On v2 its parent, as our own holds
/// processes and so could not pass controllers on.
fn relative_base(mode: Mode, hierarchy: &Hierarchy) -> Result<PathBuf> {
    let own = hierarchy.own_directory()?;
    if mode != Mode::Unified || own == hierarchy.mountpoint {
        return Ok(own);
    }
    Ok(own.parent().map_or_else(|| own.clone(), Path::to_path_buf))
}

/// How often parents are made again that someone else's clean-up removed meanwhile.
const PARENT_TRIES: u32 = 10;

/// Makes the directory and missing parents; false when it was there already.
fn make_dirs(node: &Node, made: &mut Made) -> Result<bool> {
    let mut tries = 0;
    loop {
        match files::mkdir(&node.dir) {
            Ok(()) => break,
            Err(Errno::EXIST) => return Ok(false),
            Err(Errno::NOENT) if tries < PARENT_TRIES => {
                tries += 1;
                make_parents(node, made)?;
            }
            Err(e) => return Err(Error::io("create", &node.dir, e)),
        }
    }
    made.0.push(node.dir.clone());
    inherit_cpuset(node, &node.dir)?;
    Ok(true)
}

fn make_parents(node: &Node, made: &mut Made) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for dir in node.dir.ancestors().skip(1) {
        if dir == node.mountpoint || !dir.starts_with(&node.mountpoint) {
            break;
        }
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        match files::mkdir(dir) {
            Ok(()) => {
                made.0.push(dir.to_owned());
                inherit_cpuset(node, dir)?;
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Ok(()), // removed again already: the caller starts over
            Err(e) => return Err(Error::io("create", dir, e)),
        }
    }
    Ok(())
}

/// v1 leaves a new cpuset empty, and no task may enter an empty one: copy the parent's.
fn inherit_cpuset(node: &Node, dir: &Path) -> Result<()> {
    if node.version != Version::V1 || !node.has("cpuset") {
        return Ok(());
    }
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let _together = files::close_together();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = || files::read_single(&parent.join(file));
        let mut value = read()?;
        // Someone between the root and us left it empty, where no task can be: as runc, fill it.
        if value.trim_end().is_empty() && parent != node.mountpoint {
            inherit_cpuset(node, parent)?;
            value = read()?;
        }
        let value = value.trim_end();
        if !value.is_empty() {
            files::write(&dir.join(file), value)?;
        }
    }
    Ok(())
}

pub(crate) fn refuse_in_use(node: &Node) -> Result<()> {
    let pids = crate::life::pids_of(&node.dir, true)?;
    if !pids.is_empty() {
        return Err(Error::NotEmpty {
            path: node.dir.clone(),
            processes: pids.len(),
        });
    }
    if crate::life::node_is_frozen(node)? {
        return Err(Error::Frozen {
            path: node.dir.clone(),
        });
    }
    Ok(())
}
