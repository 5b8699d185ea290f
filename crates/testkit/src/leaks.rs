//! What one container left on the machine, found by its id and its bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::temp::mount_points;

/// Time the kernel may take to finish an exit or to let go of a cgroup.
const SETTLE: Duration = Duration::from_secs(3);

/// Mounts below `dir`, and cgroups and processes of cgroups named after `id`, once the machine
/// had time to settle. Empty is what a test wants.
pub fn of(id: &str, dir: &Path) -> Vec<String> {
    let until = Instant::now() + SETTLE;
    loop {
        let found = now(id, dir);
        if found.is_empty() || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same without waiting.
pub fn now(id: &str, dir: &Path) -> Vec<String> {
    let mounts = mount_points()
        .into_iter()
        .filter(|point| Path::new(point).starts_with(dir));
    let mut found: Vec<String> = mounts.map(|point| format!("mount {point}")).collect();
    found.extend(
        cgroups(id)
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    found.extend(processes(id).iter().map(|pid| format!("process {pid}")));
    found
}

/// Directories of all cgroup hierarchies whose own name holds `id`.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), id, &mut found);
    found
}

fn walk(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if names(&entry.file_name().to_string_lossy(), id) {
                found.push(entry.path());
            }
            walk(&entry.path(), id, found);
        }
    }
}

/// Removes a cgroup and those below it; goes on after a failure. Podman also makes directories in
/// the place of a hierarchy that is not mounted, with plain files in them: those go as well.
pub fn remove_cgroup(dir: &Path) {
    let plain = !is_hierarchy(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_cgroup(&entry.path()),
            _ if plain => drop(fs::remove_file(entry.path())),
            _ => {}
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Whether a directory lies in a cgroup file system, and not in the tmpfs around those of v1.
pub fn is_hierarchy(dir: &Path) -> bool {
    const V1: i64 = 0x0027_e0eb;
    const V2: i64 = 0x6367_7270;
    #[allow(clippy::unnecessary_cast)] // its type differs by architecture
    rustix::fs::statfs(dir).is_ok_and(|s| matches!(s.f_type as i64, V1 | V2))
}

/// Whether `name` is about `id` and not about a longer id that begins with it.
fn names(name: &str, id: &str) -> bool {
    name.match_indices(id).any(|(at, _)| {
        let after = name
            .get(at + id.len()..)
            .and_then(|rest| rest.chars().next());
        !after.is_some_and(|c| c.is_ascii_digit())
    })
}

/// Host pids of processes in a cgroup named after `id`. One that has ended and waits for
/// process 1 to reap it is nobody's fault but that one's.
pub fn processes(id: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok())
        .filter(|pid| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            names(&groups, id) && !is_left_to_init(*pid)
        })
        .collect()
}

fn is_left_to_init(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before may hold anything.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with("Z 1 "))
}

#[cfg(test)]
mod tests {
    use super::{names, remove_cgroup};

    #[test]
    fn what_looks_like_a_cgroup_and_is_none_goes_with_its_files() {
        let dir = crate::TempDir::new();
        let group = dir.path().join("hugetlb");
        std::fs::create_dir_all(group.join("ckt-1-1/conmon")).unwrap();
        std::fs::write(group.join("ckt-1-1/conmon/tasks"), "7").unwrap();
        remove_cgroup(&group);
        assert!(!group.exists());
    }

    #[test]
    fn an_id_is_not_mistaken_for_a_longer_one() {
        assert!(names("ckt-7-1", "ckt-7-1"));
        assert!(names("carrack-ckt-7-1.scope", "ckt-7-1"));
        assert!(!names("ckt-7-12", "ckt-7-1"));
    }
}
