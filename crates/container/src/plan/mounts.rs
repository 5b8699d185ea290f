//! Mounts of the configuration, planned.
//!
//! A bind mount becomes a detached tree right here when the caller has
//! `CAP_SYS_ADMIN` over its mount namespace: the source is looked up once, by
//! the host's rules, and its attributes are set before any container process
//! can see it. Otherwise (rootless) the child clones it by path in its own
//! namespaces, with the same rights as the caller. A source below the root file
//! system is what the mounts before it made of it: the child opens it inside the
//! root when its turn comes.

use super::Source;
use super::options::{self, Options, libc_ms as ms};
use super::process::c_string;
use crate::error::Error;
use carrack_spec::runtime::{IdMapping, Mount};
use carrack_sys::mount::{MountAttr, attr, clone_tree, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// One mount to carry out.
#[derive(Debug)]
pub struct MountPlan {
    /// Inside the root, lexically clean, no leading slash.
    pub destination: CString,
    /// What to mount.
    pub kind: MountKind,
    /// Attributes for the mount and all below it, set once it is in place.
    pub recursive: MountAttr,
    /// Propagation changes (`MS_…`), in order, once it is in place.
    pub propagation: Vec<u64>,
    /// The destination may lie on procfs.
    pub over_proc: bool,
    /// The destination is a new directory of this name in a tmpfs that this plan mounts.
    pub in_fresh: Option<Fresh>,
    /// Make it read-only at the very end, once it is filled.
    pub late_readonly: bool,
    /// Something is done to it later: init keeps its descriptor, as a second look-up of the
    /// destination could find something else.
    pub hold: bool,
}

/// A place in a tmpfs that the same plan mounts and nobody else has seen: names
/// in it are what the plan makes them, so they need no look-up.
#[derive(Debug)]
pub struct Fresh {
    /// The tmpfs' destination.
    pub top: CString,
    /// The directory to make in it.
    pub name: CString,
}

/// What to mount.
#[derive(Debug)]
pub enum MountKind {
    /// A bind mount.
    Bind {
        /// From where.
        source: Source,
        /// Attributes, when the child clones.
        attr: MountAttr,
        /// With the mounts below, when the child clones.
        recursive: bool,
    },
    /// A file system by mount(2).
    FileSystem {
        /// Its type.
        kind: CString,
        /// Its source.
        source: CString,
        /// `MS_…`.
        flags: u64,
        /// Its own options.
        data: Option<CString>,
        /// The same for the calls that make a mount by descriptor, where something must be done
        /// to what is mounted: looked up again, it could be another directory by then.
        detached: Option<Detached>,
        /// Copy the directory below into it.
        copy_up: bool,
        /// Give it the mode of the directory below: a tmpfs without a mode of its own.
        keep_mode: bool,
        /// No symbolic link may be in the destination.
        no_links: bool,
    },
    /// New attributes for what is mounted there.
    Remount {
        /// The attributes.
        attr: MountAttr,
        /// Which mount of the plan it is, when one has the same destination.
        of: Option<usize>,
    },
    /// No mount but a symbolic link (`copy-symlink`).
    Symlink {
        /// Where it points.
        target: CString,
    },
    /// A small tmpfs with file systems below it: cgroup v1 and its hierarchies.
    Gather {
        /// `MS_…` of each of the file systems.
        flags: u64,
        /// Directory, type and data of each.
        below: Vec<(CString, CString, Option<CString>)>,
        /// Symbolic links: name and target.
        links: Vec<(CString, CString)>,
    },
}

/// A file system's options one by one.
#[derive(Debug)]
pub struct Detached {
    /// Names, and values of those that have one.
    pub options: Vec<(CString, Option<CString>)>,
    /// `MOUNT_ATTR_…`.
    pub attr: u64,
}

/// What the parent may do and what it knows about the container.
pub struct MountContext<'a> {
    /// The bundle, for relative sources.
    pub bundle: &'a Path,
    /// The root file system.
    pub rootfs: &'a Path,
    /// The caller may clone mounts in its own namespace.
    pub privileged: bool,
    /// Propagation of trees whose mount names none (`MS_SLAVE` and the like, 0 to keep).
    pub tree_propagation: u64,
    /// SELinux context of file systems.
    pub mount_label: &'a str,
    /// The mount option that carries it (`run.oci.mount_context_type`).
    pub label_option: &'a str,
    /// The container's id mappings, for `idmap` without mappings.
    pub uid_mappings: &'a [IdMapping],
    /// As `uid_mappings`.
    pub gid_mappings: &'a [IdMapping],
    /// Path of the user namespace that the container joins, for the same.
    pub user_namespace: Option<&'a str>,
    /// What [`remounted`] found.
    pub remounted: Vec<String>,
}

/// Files of procfs that programs such as lxcfs may replace.
const PROC_FILES: [&str; 12] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
    "proc/sys/kernel/random/boot_id",
];

/// Plans mount number `index` of the configuration.
pub fn mount_plan(
    mount: &Mount,
    index: usize,
    context: &MountContext<'_>,
) -> Result<MountPlan, Error> {
    let field = format!("mounts[{index}]");
    if mount.destination.is_empty() {
        return Err(Error::invalid(&field, "destination is empty"));
    }
    if !mount.destination.starts_with('/') {
        log::warn!(
            "config.json: {field}: destination {:?} is not absolute; taken as /{0}",
            mount.destination
        );
    }
    let clean = inside(&mount.destination);
    let options = options::parse(&mount.options);
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let mut late_readonly = false;
    let hold = context.remounted.contains(&clean) && !is_remount(mount);
    let kind = if options.flags & ms::REMOUNT != 0 && options.is_bind() {
        MountKind::Remount {
            attr: options.attributes(),
            of: None,
        }
    } else if mount.kind == "bind" || options.is_bind() {
        check_proc(&clean, mount, &field)?;
        bind(mount, &options, &field, context)?
    } else {
        if mapped || options.idmap.is_some() {
            return Err(Error::invalid(&field, "id mappings are for bind mounts"));
        }
        late_readonly = delayed_readonly(mount, &options);
        file_system(mount, &options, &clean, &field, hold, context)?
    };
    Ok(MountPlan {
        destination: c_string(&clean, &field)?,
        kind,
        recursive: options.recursive,
        propagation: options.propagation.clone(),
        in_fresh: None,
        over_proc: PROC_FILES.contains(&clean.as_str()) || clean == "proc",
        hold: hold || late_readonly,
        late_readonly,
    })
}

/// The destinations whose mount gets other options later on.
pub fn remounted(mounts: &[Mount]) -> Vec<String> {
    let again = mounts.iter().filter(|mount| is_remount(mount));
    again.map(|mount| inside(&mount.destination)).collect()
}

fn is_remount(mount: &Mount) -> bool {
    mount.options.iter().any(|option| option == "remount")
}

/// A path inside the root: no leading slash, no empty, `.` or `..` components.
pub fn inside(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn check_proc(clean: &str, mount: &Mount, field: &str) -> Result<(), Error> {
    let below = clean.starts_with("proc/") && !PROC_FILES.contains(&clean);
    if below {
        let reason = format!(
            "{} is inside /proc; only files such as /proc/meminfo may be replaced",
            mount.destination
        );
        return Err(Error::invalid(field, reason));
    }
    Ok(())
}

/// A read-only tmpfs still gets its directories and devices first.
fn delayed_readonly(mount: &Mount, options: &Options) -> bool {
    mount.kind == "tmpfs" && options.flags & (ms::RDONLY | ms::REMOUNT) == ms::RDONLY
}

fn file_system(
    mount: &Mount,
    options: &Options,
    clean: &str,
    field: &str,
    hold: bool,
    context: &MountContext<'_>,
) -> Result<MountKind, Error> {
    let remount = options.flags & ms::REMOUNT != 0;
    if mount.kind.is_empty() && !remount {
        return Err(Error::invalid(field, "neither a type nor the option bind"));
    }
    if options.copy_up && (mount.kind != "tmpfs" || remount) {
        return Err(Error::invalid(field, "tmpcopyup is for a new tmpfs"));
    }
    if clean.starts_with("proc/") && mount.kind != "proc" && mount.kind != "tmpfs" {
        check_proc(clean, mount, field)?;
    }
    if clean.is_empty() {
        return Err(Error::invalid(
            field,
            "the destination is the root itself; set root.path instead",
        ));
    }
    let mut data = options.data.clone();
    let labelled = !matches!(
        mount.kind.as_str(),
        "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue"
    );
    if labelled && !context.mount_label.is_empty() && !data.contains("context=") {
        if !data.is_empty() {
            data.push(',');
        }
        data.push_str(&format!(
            "{}=\"{}\"",
            context.label_option, context.mount_label
        ));
    }
    let late_readonly = delayed_readonly(mount, options);
    let mut flags = options.flags;
    if late_readonly {
        flags &= !ms::RDONLY;
    }
    let source = if mount.source.is_empty() {
        &mount.kind
    } else {
        &mount.source
    };
    let has_mode = data.split(',').any(|option| option.starts_with("mode="));
    let new_tmpfs = mount.kind == "tmpfs" && !remount;
    let keep_mode = new_tmpfs && !has_mode;
    let touched = !options.propagation.is_empty() || options.recursive != MountAttr::default();
    let touched = touched || hold || late_readonly || keep_mode || options.copy_up;
    let detached = (touched && !remount)
        .then(|| detached(&data, flags, options, field))
        .transpose()?;
    Ok(MountKind::FileSystem {
        keep_mode,
        detached,
        kind: c_string(&mount.kind, field)?,
        source: c_string(source, field)?,
        flags,
        data: if data.is_empty() {
            None
        } else {
            Some(c_string(&data, field)?)
        },
        copy_up: options.copy_up,
        no_links: matches!(mount.kind.as_str(), "proc" | "sysfs"),
    })
}

/// The options of `data` one by one. A comma in quotes, or before a digit (in `mpol=bind:0,1`),
/// is part of a value, as the kernel's own parser of tmpfs has it.
pub(super) fn detached(
    data: &str,
    flags: u64,
    options: &Options,
    field: &str,
) -> Result<Detached, Error> {
    let named = [
        (ms::RDONLY, "ro"),
        (ms::SYNCHRONOUS, "sync"),
        (ms::MANDLOCK, "mand"),
        (ms::DIRSYNC, "dirsync"),
        (ms::LAZYTIME, "lazytime"),
    ];
    let mut words: Vec<String> = named
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    let (mut word, mut quoted) = (String::new(), false);
    let mut rest = data.chars().peekable();
    while let Some(letter) = rest.next() {
        let ends = letter == ',' && !quoted && !rest.peek().is_some_and(char::is_ascii_digit);
        match letter {
            _ if ends => words.push(std::mem::take(&mut word)),
            '"' => quoted = !quoted,
            letter => word.push(letter),
        }
    }
    words.push(word);
    let split = |word: &String| {
        let (name, value) = word
            .split_once('=')
            .map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
        let value = value.map(|value| c_string(value, field)).transpose()?;
        Ok((c_string(name, field)?, value))
    };
    Ok(Detached {
        options: words
            .iter()
            .filter(|word| !word.is_empty())
            .map(split)
            .collect::<Result<_, Error>>()?,
        attr: if flags & ms::RDONLY == 0 {
            options.attributes().set & !attr::RDONLY
        } else {
            options.attributes().set
        },
    })
}

fn bind(
    mount: &Mount,
    options: &Options,
    field: &str,
    context: &MountContext<'_>,
) -> Result<MountKind, Error> {
    if mount.source.is_empty() {
        return Err(Error::invalid(field, "a bind mount needs a source"));
    }
    check_bind_options(mount, options, field)?;
    let path = context.bundle.join(&mount.source);
    let text = path
        .to_str()
        .ok_or_else(|| Error::invalid(field, "source is not UTF-8"))?;
    let source = c_string(text, field)?;
    if options.no_follow
        && let Ok(target) = std::fs::read_link(&path)
    {
        let target = target
            .to_str()
            .ok_or_else(|| Error::invalid(field, "source is not UTF-8"))?;
        return Ok(MountKind::Symlink {
            target: c_string(target, field)?,
        });
    }
    let recursive = options.flags & ms::REC != 0;
    let attr = options.attributes();
    let mapped = options.idmap.is_some() || !mount.uid_mappings.is_empty();
    if !context.privileged {
        if mapped {
            return Err(Error::invalid(
                field,
                "an idmapped mount needs root on the host",
            ));
        }
        return Ok(MountKind::Bind {
            source: Source::Path(source),
            attr,
            recursive,
        });
    }
    if !mapped && let Some(below) = below_root(&path, context.rootfs) {
        return Ok(MountKind::Bind {
            source: Source::Inside(c_string(below, field)?),
            attr,
            recursive,
        });
    }
    let tree = clone_tree(CWD, &source, recursive).map_err(|e| {
        Error::system(
            format!("config.json: {field}: cannot open the source {text}"),
            e,
        )
    })?;
    let failed = |e| {
        Error::system(
            format!("config.json: {field}: cannot set the options of {text}"),
            e,
        )
    };
    set_tree(
        tree.as_fd(),
        attr,
        recursive,
        tree_propagation(options, context),
    )
    .map_err(failed)?;
    if mapped {
        map_ids(tree.as_fd(), mount, options, field, context)?;
    }
    Ok(MountKind::Bind {
        source: Source::Tree(tree),
        attr,
        recursive,
    })
}

/// The path from the root file system on, if it names something there. Where that is the host's
/// own root, paths are the host's.
fn below_root<'a>(path: &'a Path, rootfs: &Path) -> Option<&'a str> {
    let clean = !path.components().any(|part| part == Component::ParentDir);
    (clean && rootfs != Path::new("/"))
        .then(|| path.strip_prefix(rootfs).ok()?.to_str())
        .flatten()
}

/// A bind mount has no file system options of its own: flags of the file system, and values such as
/// `size=1k`, are told to mean nothing, as runc's callers pass them. A misspelt `ro` must not make it
/// writable, so a word that is no option of mounts is refused.
fn check_bind_options(mount: &Mount, options: &Options, field: &str) -> Result<(), Error> {
    let mut data = options.data.split(',').filter(|option| !option.is_empty());
    if let Some(word) = data.find(|option| !option.contains('=')) {
        let reason = format!("{word:?} is no option of a bind mount");
        return Err(Error::invalid(field, reason));
    }
    if options.copy_up {
        return Err(Error::invalid(field, "tmpcopyup is for tmpfs"));
    }
    if options.flags & options::OF_FILE_SYSTEM != 0 || !options.data.is_empty() {
        log::warn!(
            "config.json: {field}: of the options {:?}, those of the file system mean nothing \
             for a bind mount",
            mount.options.join(",")
        );
    }
    Ok(())
}

fn tree_propagation(options: &Options, context: &MountContext<'_>) -> u64 {
    if options.propagation.is_empty() {
        context.tree_propagation
    } else {
        0
    }
}

/// Attributes of the tree's root, propagation of all of it.
fn set_tree(
    tree: BorrowedFd<'_>,
    attributes: MountAttr,
    recursive: bool,
    propagation: u64,
) -> carrack_sys::Result<()> {
    let whole = MountAttr {
        propagation,
        ..MountAttr::default()
    };
    if !recursive {
        let both = MountAttr {
            propagation,
            ..attributes
        };
        return if both == MountAttr::default() {
            Ok(())
        } else {
            mount_setattr(tree, false, &both)
        };
    }
    if propagation != 0 {
        mount_setattr(tree, true, &whole)?;
    }
    if attributes == MountAttr::default() {
        Ok(())
    } else {
        mount_setattr(tree, false, &attributes)
    }
}

fn map_ids(
    tree: BorrowedFd<'_>,
    mount: &Mount,
    options: &Options,
    field: &str,
    context: &MountContext<'_>,
) -> Result<(), Error> {
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let (uids, gids) = if own {
        (&mount.uid_mappings[..], &mount.gid_mappings[..])
    } else {
        (context.uid_mappings, context.gid_mappings)
    };
    let namespace: OwnedFd = match context.user_namespace {
        Some(path) if !own => open_namespace(path)?,
        _ if uids.is_empty() || gids.is_empty() => {
            let reason =
                "an idmapped mount needs uidMappings and gidMappings, its own or the container's";
            return Err(Error::invalid(field, reason));
        }
        _ => crate::userns::namespace_with(uids, gids)?,
    };
    let attr = MountAttr {
        set: attr::IDMAP,
        userns_fd: std::os::fd::AsRawFd::as_raw_fd(&namespace) as u64,
        ..MountAttr::default()
    };
    mount_setattr(tree, options.idmap == Some(true), &attr).map_err(|e| {
        let hint = "the kernel refuses an idmapped mount (does its file system support them?)";
        Error::system(format!("config.json: {field}: {hint}"), e)
    })
}

fn open_namespace(path: &str) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::system(format!("cannot open the user namespace {path}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MountPlan, Error> {
        plan_as(false, json)
    }

    fn plan_as(privileged: bool, json: &str) -> Result<MountPlan, Error> {
        let mount: Mount = serde_json::from_str(json).unwrap();
        let context = MountContext {
            bundle: Path::new("/bundle"),
            rootfs: Path::new("/bundle/rootfs"),
            privileged,
            tree_propagation: 0,
            mount_label: "",
            label_option: "context",
            uid_mappings: &[],
            gid_mappings: &[],
            user_namespace: None,
            remounted: Vec::new(),
        };
        mount_plan(&mount, 3, &context)
    }

    #[test]
    fn destinations_stay_inside() {
        assert_eq!(inside("/a//b/./../c/"), "a/c");
        assert_eq!(inside("../../etc"), "etc");
        assert_eq!(inside("/"), "");
    }

    #[test]
    fn a_relative_bind_source_is_in_the_bundle() {
        let plan =
            plan(r#"{"destination":"/data","source":"vol","options":["rbind","ro"]}"#).unwrap();
        let MountKind::Bind {
            source: Source::Path(path),
            attr,
            recursive,
        } = plan.kind
        else {
            panic!()
        };
        assert_eq!(path.as_c_str(), c"/bundle/vol");
        assert_eq!((attr.set, recursive), (attr::RDONLY, true));
    }

    #[test]
    fn a_source_below_the_root_is_left_for_its_turn() {
        let inside = |source: &str| {
            let json = format!(r#"{{"destination":"/d","source":"{source}","options":["bind"]}}"#);
            match plan_as(true, &json).map(|plan| plan.kind) {
                Ok(MountKind::Bind {
                    source: Source::Inside(path),
                    ..
                }) => Some(path.into_string().unwrap()),
                _ => None,
            }
        };
        assert_eq!(inside("rootfs/a/b").as_deref(), Some("a/b"));
        assert_eq!(inside("/bundle/rootfs//a").as_deref(), Some("a"));
        assert_eq!(inside("/bundle/rootfs").as_deref(), Some(""));
        assert_eq!(inside("rootfs/../missing"), None);
        assert_eq!(inside("rootfs-of-another/missing"), None);
    }

    #[test]
    fn a_readonly_tmpfs_becomes_readonly_last() {
        let plan = plan(
            r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["ro","mode=755"]}"#,
        )
        .unwrap();
        assert!(plan.late_readonly && plan.hold);
        let MountKind::FileSystem { flags, data, .. } = plan.kind else {
            panic!()
        };
        assert_eq!((flags, data.as_deref()), (0, Some(c"mode=755")));
    }

    #[test]
    fn options_of_a_tmpfs_are_told_apart() {
        let plan = plan(
            r#"{"destination":"/t","type":"tmpfs","options":["tmpcopyup","size=1m","mpol=bind:0,1","context=\"a:b,c\"","nodev","ro"]}"#,
        )
        .unwrap();
        let MountKind::FileSystem {
            detached: Some(detached),
            ..
        } = plan.kind
        else {
            panic!()
        };
        let words: Vec<String> = detached
            .options
            .iter()
            .map(|(name, value)| format!("{name:?} {value:?}"))
            .collect();
        assert_eq!(
            words,
            [
                r#""size" Some("1m")"#,
                r#""mpol" Some("bind:0,1")"#,
                r#""context" Some("a:b,c")"#
            ]
        );
        assert_eq!(detached.attr, attr::NODEV);
    }

    #[test]
    fn contradictions_name_the_mount() {
        for json in [
            r#"{"destination":""}"#,
            r#"{"destination":"/x"}"#,
            r#"{"destination":"/","type":"tmpfs"}"#,
            r#"{"destination":"/x","type":"bind"}"#,
            r#"{"destination":"/x","type":"bind","source":"/tmp","options":["readonly"]}"#,
            r#"{"destination":"/x","source":"/tmp","options":["rbind","sise"]}"#,
            r#"{"destination":"/x","source":"/tmp","options":["rbind","tmpcopyup"]}"#,
            r#"{"destination":"/proc/sys","type":"bind","source":"/tmp"}"#,
            r#"{"destination":"/x","type":"ext4","options":["tmpcopyup"]}"#,
            r#"{"destination":"/x","type":"tmpfs","uidMappings":[{"size":1}]}"#,
        ] {
            let error = plan(json).unwrap_err().to_string();
            assert!(error.contains("mounts[3]"), "{json}: {error}");
        }
    }
}
