//! `checkpoint`: the processes of a container to files.

use super::criu::{AsItIs, Descriptors, Directories, Program};
use super::rpc::{Kind, Options, Response, flag};
use super::{CheckpointOptions, DESCRIPTORS, config_file, mounts};
use crate::error::{Error, Names};
use crate::runtime::Container;
use crate::{procfs, validate};
use carrack_spec::runtime::{NamespaceKind, Spec, Status};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

const LOG: &str = "dump.log";

impl Container {
    /// Stores the container's processes in files. They end, unless the options
    /// let them run on; deleting the container is left to the caller.
    ///
    /// Needs root, and criu 3.15 or later.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is running or paused; [`Error::Criu`]
    /// with the end of criu's log, and the container then runs on.
    pub fn checkpoint(&self, options: CheckpointOptions) -> Result<(), Error> {
        match self.status()? {
            Status::Running | Status::Paused => {}
            status => return Err(self.wrong_status("checkpoint", status)),
        }
        let spec = self.spec()?;
        Directories::check(&options.criu, true)?;
        check_parent(&options)?;
        let program = Program::find()?;
        program.check_version("checkpoints", [0, 0, 0])?;
        program.check_features(options.pre_dump, options.criu.lazy_pages)?;
        let directories = Directories::open(&options.criu, true, LOG)?;
        let mut request = directories.options(&options.criu, LOG);
        self.choose(&options, &mut request);
        name_namespaces(&spec, &mut request)?;
        let kind = match options.pre_dump {
            true => Kind::PreDump,
            false => {
                self.name_mounts(&spec, &mut request)?;
                self.save_descriptors(&options.criu.images)?;
                Kind::Dump
            }
        };
        let mut criu = program.spawn(&Descriptors::default(), &AsItIs, Names::default())?;
        let mut status = options.status;
        let dumped = criu.go().map_err(Into::into).and_then(|()| {
            criu.carry_out(kind, &request, |response, _| {
                notified(response, &mut status);
                Ok(())
            })
        });
        match dumped {
            Ok(()) => {
                criu.end();
                Ok(())
            }
            Err(reason) => {
                // It lets the processes go on by itself, so it gets the time for that.
                criu.end();
                Err(reason.explain("checkpoint", &directories.log))
            }
        }
    }

    fn choose(&self, options: &CheckpointOptions, request: &mut Options) {
        let switches = [
            (flag::LEAVE_RUNNING, options.leave_running),
            (flag::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight),
            (flag::LINK_REMAP, options.link_remap),
            (flag::TRACK_MEMORY, options.parent.is_some()),
        ];
        let on = switches.iter().filter(|(_, on)| *on);
        request.flags.extend(on.map(|(field, _)| *field));
        request.pid = Some(self.record.init_process_pid);
        request.root = self.record.config.rootfs.clone();
        request.page_server = options.page_server.clone();
        request.config = config_file(&self.record.carrack.annotations);
        let paths = &self.record.cgroup_paths;
        request.freezer = paths.get("freezer").or_else(|| paths.get("")).cloned();
        let parent = options.parent.as_ref();
        request.parent = parent.map(|path| path.to_string_lossy().into_owned());
    }

    fn name_mounts(&self, spec: &Spec, request: &mut Options) -> Result<(), Error> {
        let cgroups = self.cgroup()?.mounts_for_container();
        let root = mounts::Root::open(self.record.rootfs())?;
        let external = mounts::external(spec, self.record.bundle(), &cgroups)?;
        for mount in external {
            let name = root.name(&mount.destination);
            request.mounts.push((name.clone(), name));
        }
        let proc = procfs::open()?;
        let link = format!("{}/root", self.record.init_process_pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&proc, link, flags, Mode::empty())
            .map_err(|e| Error::system("cannot open the container's root", e))?;
        for path in mounts::masked_files(spec, root.as_fd()) {
            request.mounts.push((path, mounts::NULL.to_owned()));
        }
        Ok(())
    }

    fn save_descriptors(&self, images: &Path) -> Result<(), Error> {
        let path = images.join(DESCRIPTORS);
        let text = serde_json::to_vec(&self.record.external_descriptors).unwrap_or_default();
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|e| Error::path("cannot write", &path, e))
    }
}

fn check_parent(options: &CheckpointOptions) -> Result<(), Error> {
    let Some(parent) = &options.parent else {
        return Ok(());
    };
    let images = &options.criu.images;
    let whole = match images.exists() {
        true => images.join(parent),
        // It will be made; until then no way leads through it.
        false => without_dots(&images.join(parent)),
    };
    let failed = |e| {
        Error::path(
            "cannot use the earlier checkpoint (--parent-path)",
            &whole,
            e,
        )
    };
    if parent.is_absolute() {
        // The link that criu makes must still lead there when the directories move.
        let reason = "it must be relative to the images' directory";
        return Err(failed(std::io::Error::other(reason)));
    }
    std::fs::read_dir(&whole).map(drop).map_err(failed)
}

/// The path with each `..` taken with what stands before it.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        let last = clean.components().next_back();
        match (part, last) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                clean.pop();
            }
            _ => clean.push(part),
        }
    }
    clean
}

/// Network and pid namespaces given by path stay as they are, outside of the checkpoint.
fn name_namespaces(spec: &Spec, request: &mut Options) -> Result<(), Error> {
    let Some(linux) = &spec.linux else {
        return Ok(());
    };
    for (kind, name, key) in EXTERNAL {
        let Some(path) = validate::path_of(linux, kind) else {
            continue;
        };
        let metadata = std::fs::metadata(path)
            .map_err(|e| Error::path("cannot find the namespace", Path::new(path), e))?;
        request
            .external
            .push(format!("{name}[{}]:{key}", metadata.ino()));
    }
    Ok(())
}

/// Namespaces that criu can leave outside, with their names in its options and in images.
pub const EXTERNAL: [(NamespaceKind, &str, &str); 2] = [
    (NamespaceKind::Network, "net", "extRootNetNS"),
    (NamespaceKind::Pid, "pid", "extRootPidNS"),
];

fn notified(response: &Response, status: &mut Option<OwnedFd>) {
    if response.script != "status-ready" {
        return;
    }
    if let Some(fd) = status.take()
        && let Err(error) = rustix::io::write(&fd, &[0])
    {
        log::warn!("cannot tell that lazy pages can be served: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_checkpoint_is_found_before_the_images_directory_is_made() {
        for (path, wanted) in [
            ("/a/images/../before", "/a/before"),
            ("images/../before", "before"),
            ("images/../../before", "../before"),
            ("../images/../before", "../before"),
        ] {
            assert_eq!(without_dots(Path::new(path)), Path::new(wanted), "{path}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("before")).unwrap();
        let mut options = CheckpointOptions {
            parent: Some("../before".into()),
            ..CheckpointOptions::default()
        };
        options.criu.images = directory.path().join("images");
        check_parent(&options).unwrap();
        options.parent = Some("../missing".into());
        assert!(check_parent(&options).is_err());
    }
}
