//! Attributes of bind mounts after a restore.
//!
//! criu (3.17 at least) forgets the attributes of bind mounts of files,
//! read-only among them. So they are set once more, by a child that enters the
//! container's mount namespace, while criu still holds the restored processes.

use super::mounts::{self, Sort};
use crate::error::{Error, Names};
use crate::init::inroot;
use crate::init::report::{self, At, Message, Stage, Step};
use crate::plan::options;
use crate::talk::{Child, Until};
use crate::{init, plan};
use carrack_spec::runtime::Spec;
use carrack_sys::clone::{self, Cloned, Parentage, ns};
use carrack_sys::mount::{MountAttr, mount_setattr};
use carrack_sys::{cred, pidfd};
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIGKILL: i32 = 9;

/// A mount and its attributes: its own, and those for all below too.
struct Setting {
    destination: CString,
    own: MountAttr,
    below: MountAttr,
}

/// Sets the attributes of all bind mounts in the mount namespace of process `pid`.
pub fn set_again(spec: &Spec, proc: &OwnedFd, pid: i32) -> Result<(), Error> {
    let mut names = Names::default();
    let settings = settings(spec, &mut names)?;
    if settings.is_empty() {
        return Ok(());
    }
    let failed = |e| Error::system("cannot enter the restored mount namespace", e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace =
        rustix::fs::openat(proc, format!("{pid}/ns/mnt"), flags, Mode::empty()).map_err(failed)?;
    let (ours, theirs) = super::criu::pair()?;
    match clone::clone_process(0, Parentage::Child, None).map_err(failed)? {
        Cloned::Child => {
            drop(ours);
            let done = set_all(&settings, namespace.as_fd())
                .and_then(|()| report::send(theirs.as_fd(), Message::Ready, &[]).at(Stage::Wait));
            match done {
                Ok(()) => clone::exit(0),
                Err(fail) => init::finish(theirs.as_fd(), Err(fail)),
            }
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut child = Child {
                pid,
                pidfd,
                socket: ours,
                console: None,
                hook_output: None,
            };
            child.follow(Until::Ready, &names, &mut super::criu::NoAnswers)?;
            let _ = pidfd::wait(child.pidfd.as_fd(), true);
            Ok(())
        }
    }
}

fn settings(spec: &Spec, names: &mut Names) -> Result<Vec<Setting>, Error> {
    let mut list = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let Sort::Bind { .. } = mounts::sort(mount, index)? else {
            continue;
        };
        let parsed = options::parse(&mount.options);
        let (own, below) = (parsed.attributes(), parsed.recursive);
        if own == MountAttr::default() && below == MountAttr::default() {
            continue;
        }
        names
            .mounts
            .push(format!("{} at {}", mount.source, mount.destination));
        list.push(Setting {
            destination: plan::c_string(
                &plan::inside(&mount.destination),
                &format!("mounts[{index}]"),
            )?,
            own,
            below,
        });
    }
    Ok(list)
}

fn set_all(settings: &[Setting], namespace: BorrowedFd<'_>) -> Step {
    cred::parent_death_signal(SIGKILL).at(Stage::Wait)?;
    clone::setns(namespace, ns::MOUNT).at(Stage::JoinNamespace)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Stage::RootTree)?;
    for (index, setting) in settings.iter().enumerate() {
        let mount = inroot::open(root.as_fd(), &setting.destination, OFlags::PATH)
            .at_index(Stage::MountAttributes, index)?;
        for (recursive, attributes) in [(false, &setting.own), (true, &setting.below)] {
            if *attributes != MountAttr::default() {
                mount_setattr(mount.as_fd(), recursive, attributes)
                    .at_index(Stage::MountAttributes, index)?;
            }
        }
    }
    Ok(())
}
