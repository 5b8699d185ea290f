//! `run`: from a request to a running container.
//!
//! Every step registers how to take it back; what fails later takes back all before it, in reverse. After
//! the monitor accepted the container, taking back is the monitor's.

use crate::compose::{Facts, compose};
use crate::containers::ContainerRecord;
use crate::engine::lock;
use crate::monitor::{Monitor, died};
use crate::request::{Network, RunRequest};
use crate::user::{Databases, identity};
use crate::{Engine, EngineError};
use carrack_spec::ContainerId;
use carrack_spec::runtime::{ConsoleSize, Device, Spec};
use carrack_task::{Call, Client, Create, Event, Exit, Id, TaskError};
use rustix::fs::{FlockOperation, Mode};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Child;

/// Random bytes of an id.
const ID_BYTES: usize = 32;
/// Longest wait for one event before asking again, in milliseconds.
const EVENT_WAIT_MS: u32 = 60_000;

/// A container that runs in the foreground. When this value and the process end, so does the container.
#[derive(Debug)]
pub struct Run {
    id: ContainerId,
    directory: PathBuf,
    client: Client,
    child: Child,
    /// The other end of the container's terminal.
    pub terminal: Option<OwnedFd>,
}

/// Paths to remove unless everything goes well.
#[derive(Default)]
struct Rollback(Vec<PathBuf>);

impl Drop for Rollback {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }
}

impl Engine {
    /// Makes and starts a container. `streams` are its standard input, output and error; not used when the
    /// request asks for a terminal.
    ///
    /// Needs root.
    ///
    /// # Errors
    /// [`EngineError`]; nothing of the container is left then.
    pub fn run(
        &self,
        request: &RunRequest,
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<Run, EngineError> {
        self.sweep()?;
        let id = match &request.name {
            Some(name) => name.clone(),
            None => random_id(),
        };
        let mut rollback = Rollback::default();
        let making = lock(&self.runroot.join("lock"), FlockOperation::LockShared)?;
        let image = self.image_to_run(&request.image)?;
        let config = self.store.image_config(&image)?;
        let directory = self.directory(id.as_str());
        let mode = Mode::from_raw_mode(0o700);
        rustix::fs::mkdir(&directory, mode).map_err(|e| match e {
            rustix::io::Errno::EXIST => EngineError::NameInUse(id.to_string()),
            e => EngineError::io("make the directory", &directory)(e.into()),
        })?;
        rollback.0.push(directory.clone());
        let path = directory.join("lock");
        let alive = lock(&path, FlockOperation::NonBlockingLockExclusive)?
            .ok_or_else(|| EngineError::NameInUse(id.to_string()))?;
        let disk = self.store.create_snapshot(&id, &image, &self.runroot)?;
        rollback.0.push(disk.path().to_owned());
        drop(making);

        let root = disk.mount(request.remove, None)?;
        let files = Databases::read(root.as_fd())?;
        let wanted = request.user.as_deref().unwrap_or(&config.config.user);
        let facts = Facts {
            id: id.to_string(),
            identity: identity(wanted, &request.groups, &files)?,
            files: Some(directory.clone()),
            devices: if request.privileged {
                host_devices(Path::new("/dev"))
            } else {
                Vec::new()
            },
            in_user_namespace: in_user_namespace(),
        };
        let spec = compose(&config, request, &facts)?;
        let record = ContainerRecord::new(&id, &image.name(), &args_of(&spec), request.remove);
        write_bundle(&directory, request.network, &spec, &record)?;

        let mut remove = Vec::new();
        if request.remove {
            remove = vec![disk.path().to_owned(), directory.clone()];
        }
        let Monitor {
            mut child,
            mut client,
        } = self.start_monitor(&directory, id.as_str(), alive)?;
        let call = Call::Create(Create {
            id: Id(id.clone()),
            bundle: directory.clone(),
            root: true,
            terminal: request.terminal.is_some(),
            start: true,
            tied: true,
            release: true,
            remove,
        });
        let mut fds = vec![root.as_fd()];
        if request.terminal.is_none() {
            fds.extend(streams);
        }
        match client.create(call, &fds) {
            Ok(made) => {
                rollback.0.clear();
                Ok(Run {
                    id,
                    directory,
                    client,
                    child,
                    terminal: made.terminal,
                })
            }
            Err(error) => {
                let error = died(error, &directory, id.as_str());
                drop(client);
                drop(root);
                // Without a connection and a container it ends by itself.
                let _ = child.wait();
                // One that was killed after the container began, but before it could say so, leaves
                // it running; the rollback takes the directory that a later sweep would find it by.
                if self.runroot.join("runtime").join(id.as_str()).exists() {
                    self.delete_by_force(id.as_str());
                }
                Err(error)
            }
        }
    }
}

impl Run {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Sends a signal to the container's first process. One that has ended is no error.
    ///
    /// # Errors
    /// The monitor cannot be reached.
    pub fn signal(&mut self, signal: i32) -> Result<(), EngineError> {
        let call = Call::Signal {
            id: Id(self.id.clone()),
            exec: None,
            signal,
            all: false,
        };
        match self.client.call(call) {
            Ok(_) | Err(TaskError::Failed(_)) => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Sets the size of the container's terminal. A container that has ended is no error.
    ///
    /// # Errors
    /// The monitor cannot be reached.
    pub fn resize(&mut self, size: ConsoleSize) -> Result<(), EngineError> {
        match self.client.call(Call::Resize {
            id: Id(self.id.clone()),
            exec: None,
            size,
        }) {
            Ok(_) | Err(TaskError::Failed(_)) => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// True when [`Run::exit`] answers without waiting for the descriptor to become readable.
    pub fn has_event(&self) -> bool {
        self.client.has_event()
    }

    /// Takes one event; the exit of the container, when that is what it is. Waits if there is none yet.
    ///
    /// # Errors
    /// [`EngineError::MonitorDied`].
    pub fn exit(&mut self) -> Result<Option<Exit>, EngineError> {
        match self.client.event(EVENT_WAIT_MS) {
            Ok(Event::Exited {
                id,
                exec: None,
                exit,
            }) if id.0 == self.id => Ok(Some(exit)),
            Ok(_) | Err(TaskError::Timeout) => Ok(None),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Ends a monitor that cannot be reached.
    fn lost(&mut self, error: TaskError) -> EngineError {
        // The connection is the first thing a dying process loses, its locks and sockets
        // follow: only once it is reaped does it look dead to whoever sweeps up after it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        died(error, &self.directory, self.id.as_str())
    }

    /// Waits until the monitor has cleaned up and ended. Call after [`Run::exit`] gave the exit.
    pub fn finish(mut self) {
        drop(self.client);
        let _ = self.child.wait();
    }
}

impl AsFd for Run {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

fn random_id() -> ContainerId {
    use rustix::rand::{GetRandomFlags, getrandom};
    loop {
        let mut bytes = [0_u8; ID_BYTES];
        let filled = rustix::io::retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if let (Ok(ID_BYTES), Ok(id)) = (filled, hex.parse()) {
            return id;
        }
    }
}

fn args_of(spec: &Spec) -> Vec<String> {
    spec.process
        .as_ref()
        .map(|p| p.args.clone())
        .unwrap_or_default()
}

/// Writes the bundle; the record last, as it says that the bundle is complete.
fn write_bundle(
    directory: &Path,
    network: Network,
    spec: &Spec,
    record: &ContainerRecord,
) -> Result<(), EngineError> {
    let put = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).map_err(EngineError::io("write", path))
    };
    let json = |name: &str, text: serde_json::Result<Vec<u8>>| {
        let path = directory.join(name);
        text.map_err(|e| EngineError::io("write", path)(e.into()))
            .and_then(|text| put(name, &text))
    };
    let rootfs = directory.join("rootfs");
    rustix::fs::mkdir(&rootfs, Mode::from_raw_mode(0o700))
        .map_err(|e| EngineError::io("make the directory", &rootfs)(e.into()))?;
    let host = |name: &str| std::fs::read(Path::new("/etc").join(name)).unwrap_or_default();
    put("hostname", format!("{}\n", spec.hostname).as_bytes())?;
    match network {
        Network::Host => {
            put("hosts", &host("hosts"))?;
            put("resolv.conf", &host("resolv.conf"))?;
        }
        Network::None => {
            let lines = format!(
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{}\n",
                spec.hostname
            );
            put("hosts", lines.as_bytes())?;
            put("resolv.conf", b"")?;
        }
    }
    // Whoever reads these inside is not root.
    for name in ["hostname", "hosts", "resolv.conf"] {
        let path = directory.join(name);
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o644))
            .map_err(|e| EngineError::io("set the mode of", &path)(e.into()))?;
    }
    json("config.json", serde_json::to_vec(spec))?;
    json("container.json", serde_json::to_vec(record))
}

/// The host's device nodes, one level of directories deep, without terminals and the container's own.
fn host_devices(directory: &Path) -> Vec<Device> {
    const SKIPPED: [&str; 8] = [
        "pts",
        "shm",
        "fd",
        "mqueue",
        "console",
        "ptmx",
        "tty",
        "hugepages",
    ];
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        let kind = metadata.file_type();
        if SKIPPED.iter().any(|s| name == *s) {
            continue;
        }
        if kind.is_dir() && directory == Path::new("/dev") {
            found.extend(host_devices(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Device {
                kind: if kind.is_char_device() { "c" } else { "b" }.to_owned(),
                path: entry.path().to_string_lossy().into_owned(),
                major: i64::from(rustix::fs::major(metadata.rdev())),
                minor: i64::from(rustix::fs::minor(metadata.rdev())),
                file_mode: Some(metadata.mode() & 0o7777),
                uid: Some(metadata.uid()),
                gid: Some(metadata.gid()),
            });
        }
    }
    found
}

/// Whether ids of this process stand for others.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}
