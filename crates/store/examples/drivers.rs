//! Measures a storage driver on an archive of an image, as root:
//!
//! ```text
//! drivers DRIVER ROOT load ARCHIVE       into the store at ROOT: time and peak memory
//! drivers DRIVER ROOT mount TIMES        a container's file system: median time of a mount
//! drivers DRIVER ROOT read COMMAND       runs COMMAND in the mounted image: wall time
//! drivers DRIVER ROOT remove             the image: time
//! ```

use carrack_spec::ContainerId;
use carrack_store::{DriverKind, ImageRecord, LoadOptions, Store};
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let [driver, root, verb, rest @ ..] = words.as_slice() else {
        return Err("usage: drivers DRIVER ROOT load|mount|read|remove …".into());
    };
    let driver: DriverKind = driver.parse()?;
    let store = Store::open_with(root, Some(driver))?;
    let begun = Instant::now();
    match (*verb, rest) {
        ("load", [archive]) => {
            store.load(&LoadOptions {
                path: Some(archive.into()),
                ..LoadOptions::default()
            })?;
        }
        ("mount", [times]) => return mounts(&store, times.parse()?),
        ("read", [command]) => return read(&store, command),
        ("remove", []) => {
            let image = image(&store)?;
            store.remove_image(&image.name(), true)?;
        }
        _ => return Err("load ARCHIVE, mount TIMES, read COMMAND or remove".into()),
    }
    println!("{verb} {:.1} ms, {} KiB", ms(begun), peak_kib());
    Ok(())
}

fn image(store: &Store) -> Result<ImageRecord, Box<dyn Error>> {
    store
        .images()?
        .pop()
        .ok_or_else(|| "the store has no image".into())
}

fn mounts(store: &Store, times: usize) -> Result<(), Box<dyn Error>> {
    let image = image(store)?;
    let id: ContainerId = "measured".parse()?;
    let snapshot = store.create_snapshot(&id, &image, Path::new("/measured"))?;
    let mut taken = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        let mount = snapshot.mount(false, None)?;
        taken.push(ms(begun));
        drop(mount);
    }
    std::fs::remove_dir_all(store.snapshot_path(&id))?;
    taken.sort_by(f64::total_cmp);
    let at = |part: usize| taken[(taken.len() - 1) * part / 100];
    let layers = image.layers.len();
    println!(
        "mount of {layers} layers: median {:.2} ms, 10 % {:.2}, 90 % {:.2}",
        at(50),
        at(10),
        at(90)
    );
    Ok(())
}

fn read(store: &Store, command: &str) -> Result<(), Box<dyn Error>> {
    let mount = store.mount_image(&image(store)?)?;
    rustix::process::fchdir(&mount)?;
    let begun = Instant::now();
    let status = Command::new("sh").args(["-c", command]).status()?;
    println!("read {:.1} ms, {status}", ms(begun));
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
