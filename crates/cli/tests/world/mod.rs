//! A world of its own for each test: a store with a busybox image and a directory of run-time state,
//! both gone afterwards; and the check that nothing of a container is left.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod machines;

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Compression, ImageWriter};
use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{Skip, TempDir, leaks, skip, unique};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: &str = "sh ls cat id echo env hostname sleep pwd tty stty touch true false test mount grep kill mkdir \
    mknod dd unshare umount head printf ip sync rm wc";
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\nextra:x:1002:app\n";

/// A store and a directory of run-time state.
pub struct World {
    directory: TempDir,
}

impl World {
    /// A world without images.
    pub fn empty() -> Result<World, Skip> {
        skip::root()?;
        Ok(World {
            directory: TempDir::new(),
        })
    }

    /// A world with the image `busybox:test`.
    pub fn new() -> Result<World, Skip> {
        let world = World::empty()?;
        skip::exists(BUSYBOX)?;
        let carrack = Path::new(env!("CARGO_BIN_EXE_carrack"));
        if !carrack.with_file_name("carrack-runtime").exists() {
            return Err(Skip::new(
                "carrack-runtime is not built; run `cargo build -p carrack-runtime`",
            ));
        }
        let archive = world.path("image.tar");
        std::fs::write(&archive, image()).unwrap();
        world
            .carrack(&["load", "-q", "-i", archive.to_str().unwrap()])
            .ok()
            .stdout_is("busybox:test\n");
        Ok(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `carrack` in this world.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carrack"));
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"));
        command
            .args(["--config", "/dev/null"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs `carrack` to its end.
    pub fn carrack(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args))
    }

    /// `carrack run --rm FLAGS busybox:test ARGS`.
    pub fn run(&self, flags: &[&str], args: &[&str]) -> Output {
        self.carrack(&[&["run", "--rm"], flags, &["busybox:test"], args].concat())
    }

    /// Fails unless no container has left anything.
    #[track_caller]
    pub fn assert_nothing_left(&self, name: &str) {
        let left = leaks::of(name, self.directory.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        for directory in [
            "root/snapshots",
            "root/tmp",
            "root/leases",
            "run/containers",
        ] {
            let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
            loop {
                let entries: Vec<_> = std::fs::read_dir(self.path(directory))
                    .unwrap()
                    .flatten()
                    .map(|e| e.path())
                    .collect();
                if entries.is_empty() {
                    break;
                }
                assert!(
                    std::time::Instant::now() < until,
                    "left behind: {entries:?}"
                );
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        let states = std::fs::read_dir(self.path("run/runtime"))
            .into_iter()
            .flatten()
            .flatten();
        let states: Vec<_> = states
            .map(|e| e.file_name())
            .filter(|n| n != "@seccomp")
            .collect();
        assert!(states.is_empty(), "left behind: {states:?}");
    }
}

/// A name no other test has.
pub fn name() -> String {
    format!("cli-{}", unique())
}

/// The image as a docker archive of two layers; the second hides a file of the first.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let busybox = std::fs::read(BUSYBOX).unwrap();
        let mut base = Writer::new(Vec::new());
        for (path, mode) in [
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("home", 0o755),
        ] {
            let entry = Entry {
                mode,
                ..Entry::new(Kind::Directory, path)
            };
            base.append(&entry, &mut std::io::empty()).unwrap();
        }
        let file = |layer: &mut Writer<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]| {
            let entry = Entry {
                mode,
                size: bytes.len() as u64,
                ..Entry::new(Kind::Regular, path)
            };
            layer.append(&entry, &mut &bytes[..]).unwrap();
        };
        file(&mut base, "bin/busybox", 0o755, &busybox);
        file(&mut base, "etc/hidden", 0o644, b"");
        file(&mut base, "etc/passwd", 0o644, PASSWD.as_bytes());
        file(&mut base, "etc/group", 0o644, GROUP.as_bytes());
        for applet in APPLETS.split_whitespace() {
            let entry = Entry {
                link: "busybox".into(),
                ..Entry::new(Kind::Symlink, format!("bin/{applet}"))
            };
            base.append(&entry, &mut std::io::empty()).unwrap();
        }
        let mut top = Writer::new(Vec::new());
        let etc = Entry {
            mode: 0o755,
            ..Entry::new(Kind::Directory, "etc")
        };
        top.append(&etc, &mut std::io::empty()).unwrap();
        file(&mut top, "etc/.wh.hidden", 0o644, b"");
        let config = ContainerConfig {
            cmd: vec!["sh".into(), "-c".into(), "echo default".into()],
            env: vec!["OF_IMAGE=yes".into()],
            ..ContainerConfig::default()
        };
        let mut image = ImageWriter::new(config);
        image
            .layer(base.finish().unwrap(), Compression::None)
            .unwrap();
        image
            .layer(top.finish().unwrap(), Compression::None)
            .unwrap();
        image
            .write_docker(Some(&"busybox:test".parse().unwrap()), Vec::new())
            .unwrap()
    })
}
