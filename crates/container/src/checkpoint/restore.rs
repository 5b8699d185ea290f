//! `restore`: a container from a checkpoint.
//!
//! criu runs in a mount namespace of its own, made by the child before it
//! executes criu. There missing mount points are made first, in a copy of the root
//! file system's mounts, beneath the root only, and nothing of that shows or stays
//! outside. criu is given the root file system where it is: on hosts whose mounts
//! are shared it takes the peer groups of all mounts of one file system from the
//! mount that the root lies on, and that mount must hold the sources of bind
//! mounts too.

use super::criu::{Criu, Descriptors, Directories, Prepare, Program, Reason};
use super::dump::EXTERNAL;
use super::mounts::{self, Sort};
use super::rpc::{CgroupsMode, Kind, Options, Response, flag};
use super::{DESCRIPTORS, RestoreOptions, attributes, config_file};
use crate::create::{Maker, Undo};
use crate::error::{Error, Names};
use crate::init::inroot::{self, Want};
use crate::init::report::{At, Stage, Step};
use crate::record::{self, Record, StateDir};
use crate::runtime::{Container, Created, Runtime};
use crate::{
    config, group, hooks, namespaces, netdev, pid_file, plan, procfs, rdt, userns, validate,
};
use carrack_cgroup::{Group, Layout};
use carrack_spec::ContainerId;
use carrack_spec::runtime::{Linux, NamespaceKind, Spec, Status};
use carrack_sys::clone::{self, ns};
use carrack_sys::{fdpass, mount, pidfd};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const LOG: &str = "restore.log";
/// Directory of the state directory where mount points are made.
const PLACE: &str = "criu-root";
/// Largest `descriptors.json`, in bytes.
const DESCRIPTORS_BYTES_MAX: u64 = 64 << 10;
const SIGKILL: i32 = 9;
const MS_REC_SLAVE: u64 = 16384 | 1 << 19;

impl Runtime {
    /// Makes a container whose processes go on where a checkpoint stored them.
    ///
    /// Needs root, and criu 3.15 or later.
    ///
    /// # Errors
    /// As [`Runtime::create`], and [`Error::Criu`] with the end of criu's log.
    /// Bundle and images are looked at before criu is. Nothing made by the call is left then.
    pub fn restore(&self, id: &ContainerId, options: RestoreOptions) -> Result<Created, Error> {
        let bundle = std::fs::canonicalize(&options.bundle)
            .map_err(|e| Error::path("cannot find the bundle", &options.bundle, e))?;
        let (text, spec) = config::read(&bundle.join("config.json"))?;
        validate::spec(&spec)?;
        if options.criu.cgroups == CgroupsMode::Strict {
            return Err(Error::invalid(
                "--manage-cgroups-mode",
                "strict wants criu to make the container's cgroup, which a restore makes itself; use full",
            ));
        }
        Directories::check(&options.criu, false)?;
        let stored_streams = read_descriptors(&options.criu.images)?;
        let program = Program::find()?;
        match options.lsm_profile.is_some() || options.lsm_mount_context.is_some() {
            true => program.check_version("another security label", [3, 16, 0])?,
            false => program.check_version("checkpoints", [0, 0, 0])?,
        }
        program.check_features(false, options.criu.lazy_pages)?;
        let directories = Directories::open(&options.criu, false, LOG)?;
        if let Some(gid) = root_group(&spec) {
            directories.let_in(gid);
        }
        let mut undo = Undo {
            directory: Some(StateDir::create(self.root(), id)?),
            ..Undo::default()
        };
        let restorer = Restorer {
            maker: Maker {
                runtime: self,
                id,
                bundle: &bundle,
                text: &text,
                spec: &spec,
                at_once: true,
            },
            directories: &directories,
            program: &program,
            stored_streams,
        };
        let made = restorer.restore(options, &mut undo);
        undo.settle(made, spec)
    }
}

/// The group on the host that is root in the container's own user namespace, if it has one.
fn root_group(spec: &Spec) -> Option<u32> {
    let mut mappings = spec.linux.iter().flat_map(|linux| &linux.gid_mappings);
    let root = mappings.find(|mapping| mapping.container_id == 0);
    root.map(|mapping| mapping.host_id)
}

struct Restorer<'a> {
    maker: Maker<'a>,
    directories: &'a Directories,
    program: &'a Program,
    /// Names of init's standard streams at the checkpoint.
    stored_streams: Vec<String>,
}

impl Restorer<'_> {
    fn restore(&self, mut options: RestoreOptions, undo: &mut Undo) -> Result<Created, Error> {
        let maker = &self.maker;
        let directory = StateDir::of(maker.runtime.root(), maker.id);
        let empty = Linux::default();
        let linux = maker.spec.linux.as_ref().unwrap_or(&empty);
        let proc = procfs::open()?;
        let mut record =
            maker.first_record(linux, &proc, procfs::own_stat(proc.as_fd()).as_ref())?;
        directory.save_config(maker.text)?;
        directory.save(&record)?;
        record.external_descriptors = record::stream_names(&proc, options.stdio.as_ref());
        let terminal = match &maker.spec.process {
            Some(process) => plan::terminal_plan(process, &options.console)?,
            None => None,
        };

        let layout = Layout::detect()?;
        let group = group::create(&layout, &record, maker.spec)?;
        let group = undo.group.insert(group);
        record.cgroup_paths = group.paths();
        let resources = linux.resources.clone().unwrap_or_default();
        group.apply(&resources)?;

        let place = directory.below(PLACE);
        std::fs::create_dir(&place).map_err(|e| Error::path("cannot make", &place, e))?;
        let mut request = self.request(&options, group, &record)?;
        let mut names = Names::default();
        let own = userns::own_caps();
        let (_, all) = namespaces::plan(linux, userns::is_admin(own), &mut names)?;
        record.carrack.namespaces = all;
        let mut descriptors = Descriptors {
            stdio: options.stdio.take(),
            ..Descriptors::default()
        };
        name_namespaces(linux, &mut request, &mut descriptors)?;
        let stage = stage(
            maker.spec,
            maker.bundle,
            record.rootfs(),
            &place,
            &mut names,
        )?;
        let closid = rdt::plan(linux, maker.id)?;

        let mut progress = Progress {
            maker,
            linux,
            proc: &proc,
            directory: &directory,
            record: &mut record,
            devices: &mut undo.devices,
            terminal,
            console: None,
            init: None,
        };
        let others = children(&proc);
        let mut criu = self.program.spawn(&descriptors, &stage, names)?;
        let restored = (|| -> Result<(), Reason> {
            group.attach(criu.pid()).map_err(Error::from)?;
            if !validate::has(linux, NamespaceKind::User) {
                let rules = plan::device_rules(&resources.devices);
                group.apply_devices(&rules).map_err(Error::from)?;
            }
            progress.record.cgroup_paths = group.paths();
            directory.save(progress.record)?;
            request.cgroup_roots = cgroup_roots(&proc, &criu)?;
            criu.go()?;
            // Kept until criu has answered: it opens them through our own descriptors.
            let inside = self.directories.seen_by(proc.as_fd(), criu.pid())?;
            inside.name_in(&mut request);
            criu.carry_out(Kind::Restore, &request, |response, fd| {
                progress.notified(response, fd)
            })
        })();
        let console = progress.console;
        let init = progress.init;
        let result = match restored {
            Ok(()) => {
                criu.end();
                init.ok_or_else(|| {
                    Error::system(
                        "criu did not say which process it restored",
                        std::io::ErrorKind::InvalidData,
                    )
                })
            }
            Err(reason) => {
                if matches!(reason, Reason::Refused(_)) {
                    // It takes back what it made by itself, so it gets the time for that.
                    criu.end();
                } else {
                    criu.kill();
                }
                drop(init);
                end_restored(&proc, group, &request.cgroup_roots, &others);
                Err(reason.explain("restore", &self.directories.log))
            }
        };
        let (pid, pidfd) = result?;
        undo.child = pidfd.try_clone().ok();
        if let Some(closid) = &closid {
            undo.enter_rdt(closid, pid, &mut record)?;
            directory.save(&record)?;
        }
        let _ = std::fs::remove_dir(&place);
        if let Some(path) = &options.pid_file {
            pid_file::write(path, pid)?;
        }
        let container =
            Container::from_parts(maker.runtime.clone(), maker.id.clone(), directory, record);
        Ok(Created {
            container,
            console,
            pidfd,
        })
    }

    fn request(
        &self,
        options: &RestoreOptions,
        group: &Group,
        record: &Record,
    ) -> Result<Options, Error> {
        let mut request = self.directories.options(&options.criu, LOG);
        request
            .flags
            .extend([flag::EVASIVE_DEVICES, flag::RESTORE_SIBLING]);
        request.lsm_profile = options.lsm_profile.clone();
        request.lsm_mount_context = options.lsm_mount_context.clone();
        request.config = config_file(&self.maker.spec.annotations);
        request.root = record.rootfs().to_string_lossy().into_owned();
        let root = mounts::Root::open(record.rootfs())?;
        let cgroups = group.mounts_for_container();
        let external = mounts::external(self.maker.spec, self.maker.bundle, &cgroups)?;
        for mount in external {
            request
                .mounts
                .push((root.name(&mount.destination), mount.source));
        }
        if self
            .maker
            .spec
            .linux
            .as_ref()
            .is_some_and(|linux| !linux.masked_paths.is_empty())
        {
            let null = mounts::NULL.to_owned();
            request.mounts.push((null.clone(), null));
        }
        for (number, name) in (0..3).zip(&self.stored_streams) {
            if name.starts_with("pipe:") {
                request.inherit.push((name.clone(), number));
            }
        }
        Ok(request)
    }
}

/// What happens meanwhile.
struct Progress<'a> {
    maker: &'a Maker<'a>,
    linux: &'a Linux,
    proc: &'a OwnedFd,
    directory: &'a StateDir,
    record: &'a mut Record,
    devices: &'a mut netdev::Moved,
    terminal: Option<plan::TerminalPlan>,
    console: Option<OwnedFd>,
    init: Option<(i32, OwnedFd)>,
}

impl Progress<'_> {
    fn notified(&mut self, response: &Response, fd: Option<OwnedFd>) -> Result<(), Error> {
        match response.script.as_str() {
            "setup-namespaces" => self.set_up(response.pid),
            "post-restore" => self.restored(response.pid),
            "orphan-pts-master" => self.take_master(fd),
            _ => Ok(()),
        }
    }

    fn set_up(&mut self, pid: i32) -> Result<(), Error> {
        if validate::makes(self.linux, NamespaceKind::Network) {
            netdev::move_devices(self.linux, self.proc.as_fd(), pid, self.devices)?;
        }
        let Some(hooks) = &self.maker.spec.hooks else {
            return Ok(());
        };
        let mut state = self.record.state(Status::Creating);
        state.pid = pid;
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)
    }

    fn restored(&mut self, pid: i32) -> Result<(), Error> {
        let init =
            pidfd::open(pid).map_err(|e| Error::system("cannot open the restored process", e))?;
        self.init = Some((pid, init));
        self.record.note_init(self.proc.as_fd(), pid);
        // criu keeps the clocks of the checkpoint by a time namespace that nobody asked for.
        let clocks =
            |of: &str| rustix::fs::readlinkat(self.proc, format!("{of}/ns/time"), Vec::new());
        if let (Ok(own), Ok(its)) = (clocks("self"), clocks(&pid.to_string()))
            && own != its
        {
            self.record.carrack.namespaces |= ns::TIME;
        }
        self.directory.save(self.record)?;
        attributes::set_again(self.maker.spec, self.proc, pid)
    }

    fn take_master(&mut self, fd: Option<OwnedFd>) -> Result<(), Error> {
        let (Some(master), Some(terminal)) = (fd, &self.terminal) else {
            return Ok(());
        };
        if let Some((rows, columns)) = terminal.size {
            let _ = carrack_sys::pty::set_size(master.as_fd(), rows, columns);
        }
        if terminal.plain_line_ends {
            carrack_sys::pty::plain_line_ends(master.as_fd())
                .map_err(|e| Error::system("cannot set the attributes of the terminal", e))?;
        }
        match &terminal.socket {
            Some(socket) => fdpass::send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                .map(drop)
                .map_err(|e| Error::system("cannot send the terminal to the console socket", e)),
            None => {
                self.console = Some(master);
                Ok(())
            }
        }
    }
}

/// The cgroup of each controller that criu itself is in: the new root of what it restores.
fn cgroup_roots(proc: &OwnedFd, criu: &Criu) -> Result<Vec<(String, String)>, Error> {
    let text = procfs::read(proc.as_fd(), &format!("{}/cgroup", criu.pid()))
        .map_err(|e| Error::system("cannot read the cgroups of criu", e))?;
    Ok(parse_cgroups(&text))
}

fn parse_cgroups(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    lines
        .flat_map(|(controllers, path)| {
            controllers
                .split(',')
                .map(move |name| (name.to_owned(), path.to_owned()))
        })
        .collect()
}

/// Ends what criu had restored when it failed, and reaps our children among that: those that
/// are not the `others` of before.
fn end_restored(proc: &OwnedFd, group: &Group, roots: &[(String, String)], others: &[i32]) {
    let _ = group.kill(SIGKILL);
    let new = children(proc).into_iter();
    for pid in new.filter(|pid| !others.contains(pid)) {
        let text = procfs::read(proc.as_fd(), &format!("{pid}/cgroup")).unwrap_or_default();
        if may_be_in(&text, roots)
            && let Ok(child) = pidfd::open(pid)
        {
            let _ = pidfd::wait(child.as_fd(), true);
        }
    }
}

/// The children of this thread, those that criu made beside itself among them.
fn children(proc: &OwnedFd) -> Vec<i32> {
    let text = procfs::read(proc.as_fd(), "thread-self/children").unwrap_or_default();
    let pids = text.split_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process with these cgroups is, or was, in all of `roots`. The cgroup of a dead
/// process may be gone already, and v1 hierarchies show the root for it.
fn may_be_in(text: &str, roots: &[(String, String)]) -> bool {
    let cgroups = parse_cgroups(&text.replace(" (deleted)", ""));
    cgroups
        .iter()
        .all(|cgroup| cgroup.1 == "/" || roots.contains(cgroup))
}

fn read_descriptors(images: &Path) -> Result<Vec<String>, Error> {
    let path = images.join(DESCRIPTORS);
    let failed = |e: std::io::Error| Error::path("cannot read", &path, e);
    let file = File::open(&path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(DESCRIPTORS_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let list: Option<Vec<String>> = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    Ok(list.unwrap_or_default())
}

/// Namespaces given by path: criu inherits network and pid, and joins the others.
fn name_namespaces(
    linux: &Linux,
    request: &mut Options,
    descriptors: &mut Descriptors,
) -> Result<(), Error> {
    for (kind, _, key) in EXTERNAL {
        if let Some(path) = validate::path_of(linux, kind) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|e| Error::path("cannot open the namespace", Path::new(path), e))?;
            request.inherit.push((key.to_owned(), file.as_raw_fd()));
            descriptors.inherit.push(file);
        }
    }
    let joins = [
        (NamespaceKind::Ipc, "ipc"),
        (NamespaceKind::Uts, "uts"),
        (NamespaceKind::User, "user"),
        (NamespaceKind::Mount, "mnt"),
    ];
    for (kind, name) in joins {
        if let Some(path) = validate::path_of(linux, kind) {
            request.join.push((name, path.to_owned()));
        }
    }
    for kind in [NamespaceKind::Cgroup, NamespaceKind::Time] {
        if validate::path_of(linux, kind).is_some() {
            return Err(Error::invalid(
                "linux.namespaces",
                format!("criu cannot restore into a {kind:?} namespace given by path"),
            ));
        }
    }
    Ok(())
}

/// What the child prepares for criu.
struct RootStage {
    rootfs: CString,
    place: CString,
    points: Vec<Point>,
}

/// A mount point that must exist before criu mounts there.
struct Point {
    destination: CString,
    /// What is bound there, with its own mount points: path and whether with all below.
    bound: Option<(CString, bool)>,
}

fn stage(
    spec: &Spec,
    bundle: &Path,
    rootfs: &Path,
    place: &Path,
    names: &mut Names,
) -> Result<RootStage, Error> {
    let text = |path: &Path, field: &str| plan::c_string(&path.to_string_lossy(), field);
    names.rootfs = rootfs.to_string_lossy().into_owned();
    let mut stage = RootStage {
        rootfs: text(rootfs, "root.path")?,
        place: text(place, "state root")?,
        points: Vec::new(),
    };
    // What lies on a tmpfs is in the checkpoint.
    let stored: Vec<String> = spec
        .mounts
        .iter()
        .filter(|mount| mount.kind == "tmpfs")
        .map(|mount| plan::inside(&mount.destination) + "/")
        .collect();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let inside = plan::inside(&mount.destination);
        if stored.iter().any(|above| inside.starts_with(above)) {
            continue;
        }
        let bound = match mounts::sort(mount, index)? {
            // Hierarchies gather on a tmpfs, or lie on sysfs: criu finds their places there.
            Sort::Cgroup | Sort::Nothing => continue,
            Sort::FileSystem => None,
            Sort::Bind { recursive } => Some((
                text(&bundle.join(&mount.source), &format!("mounts[{index}]"))?,
                recursive,
            )),
        };
        names
            .mounts
            .push(format!("{} at {}", mount.source, mount.destination));
        stage.points.push(Point {
            destination: mounts::destination(mount, index)?,
            bound,
        });
    }
    Ok(stage)
}

impl Prepare for RootStage {
    fn prepare(&self, _socket: BorrowedFd<'_>) -> Step {
        clone::unshare(ns::MOUNT).at(Stage::NewNamespace)?;
        mount::mount(c"", c"/", c"", MS_REC_SLAVE, None).at(Stage::Propagation)?;
        if self.points.is_empty() {
            return Ok(());
        }
        // Nested points lie on what is bound above them, so the copy is attached meanwhile.
        let tree = mount::clone_tree(CWD, &self.rootfs, true).at(Stage::RootTree)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&self.place, flags, Mode::empty()).at(Stage::RootAttach)?;
        mount::attach(tree.as_fd(), place.as_fd()).at(Stage::RootAttach)?;
        for (index, point) in self.points.iter().enumerate() {
            make_point(tree.as_fd(), point, index)?;
        }
        mount::detach(&self.place).at(Stage::RootAttach)
    }
}

fn make_point(root: BorrowedFd<'_>, point: &Point, index: usize) -> Step {
    match &point.bound {
        None => inroot::ensure(root, &point.destination, Want::Directory)
            .at_index(Stage::MountDestination, index)
            .map(drop),
        Some((path, recursive)) => {
            let tree = mount::clone_tree(CWD, path, *recursive).at_index(Stage::Mount, index)?;
            make_and_attach(root, &point.destination, tree.as_fd())
                .at_index(Stage::MountDestination, index)
        }
    }
}

fn make_and_attach(
    root: BorrowedFd<'_>,
    destination: &CStr,
    tree: BorrowedFd<'_>,
) -> carrack_sys::Result<()> {
    let want = match inroot::is_directory(tree)? {
        true => Want::Directory,
        false => Want::File,
    };
    let target = inroot::ensure(root, destination, want)?;
    mount::attach(tree, target.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_a_process_are_told_by_controller() {
        let text = "5:cpu,cpuacct:/a\n2:name=systemd:/b:c\n0::/d\n";
        let wanted = [
            ("cpu", "/a"),
            ("cpuacct", "/a"),
            ("name=systemd", "/b:c"),
            ("", "/d"),
        ];
        let wanted = wanted.map(|(name, path)| (name.to_owned(), path.to_owned()));
        assert_eq!(parse_cgroups(text), wanted);
    }

    #[test]
    fn the_dead_are_known_by_what_their_cgroups_still_show() {
        let roots = parse_cgroups("5:cpu:/a\n0::/d\n");
        for (text, wanted) in [
            ("5:cpu:/a\n0::/d\n", true),
            ("5:cpu:/\n0::/d (deleted)\n", true),
            ("5:cpu:/\n0::/other\n", false),
            ("5:cpu:/a/b\n0::/d\n", false),
        ] {
            assert_eq!(may_be_in(text, &roots), wanted, "{text}");
        }
    }

    #[test]
    fn mount_points_on_a_tmpfs_are_left_to_criu() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.0","mounts":[
                {"destination":"/dev","type":"tmpfs","source":"tmpfs"},
                {"destination":"/dev/pts","type":"devpts","source":"devpts"},
                {"destination":"/data","type":"bind","source":"here","options":["rbind"]}]}"#,
        )
        .unwrap();
        let mut names = Names::default();
        let place = Path::new("/state/criu-root");
        let (bundle, rootfs) = (Path::new("/bundle"), Path::new("/bundle/rootfs"));
        let stage = stage(&spec, bundle, rootfs, place, &mut names).unwrap();
        let points: Vec<_> = stage
            .points
            .iter()
            .map(|p| p.destination.as_c_str())
            .collect();
        assert_eq!(points, [c"dev", c"data"]);
        assert_eq!(
            stage.points[1].bound,
            Some((c"/bundle/here".to_owned(), true))
        );
        assert_eq!(names.mounts.len(), 2);
    }
}
