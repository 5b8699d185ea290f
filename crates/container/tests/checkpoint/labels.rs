//! Security labels that a restore gives instead of those of the checkpoint.

use crate::world::{World, null, reap, stop, tell, told};
use carrack_container::RestoreOptions;
use carrack_testkit::{AppArmorProfile, Skip, require, selinux};
use serde_json::json;

fn current(pid: i32) -> String {
    let label = std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    label.trim_end_matches(['\0', '\n']).to_owned()
}

/// Runs it, stores it, restores it with the other labels, and looks at init before and after.
fn restored_with<T>(
    world: &World,
    options: RestoreOptions,
    look: impl Fn(i32) -> T,
) -> Result<[T; 2], Skip> {
    let created = world.run(null());
    let at = world.wait_past(3);
    let before = look(created.container.record().init_process_pid);
    told(created.container.checkpoint(world.dump()));
    reap(&created);
    stop(created.container);
    let restored = match world.runtime().restore(&world.id, options) {
        Err(error) if tell(&error).contains("selinux not supported") => {
            world.assert_nothing_left();
            return Err(Skip::new("this criu was built without SELinux"));
        }
        restored => told(restored),
    };
    world.wait_past(at);
    let after = look(restored.container.record().init_process_pid);
    stop(restored.container);
    world.assert_nothing_left();
    Ok([before, after])
}

#[test]
fn a_restore_may_give_another_apparmor_profile() {
    let first = require!(AppArmorProfile::load(""));
    let second = require!(AppArmorProfile::load(""));
    let mut world = require!(World::counting());
    world
        .bundle
        .set("/process/apparmorProfile", json!(first.name()));
    let options = RestoreOptions {
        lsm_profile: Some(format!("apparmor:{}", second.name())),
        ..world.restore_options(null())
    };
    let labels = require!(restored_with(&world, options, current));
    let wanted = [first, second].map(|profile| format!("{} (enforce)", profile.name()));
    assert_eq!(labels, wanted);
}

#[test]
fn a_restore_may_give_another_selinux_label() {
    let first = require!(selinux::label("ckt_t"));
    let second = format!("{first}:c1,c2");
    let mut world = require!(World::counting());
    world.bundle.set("/process/selinuxLabel", json!(first));
    let options = RestoreOptions {
        lsm_profile: Some(format!("selinux:{second}")),
        ..world.restore_options(null())
    };
    let labels = require!(restored_with(&world, options, current));
    assert_eq!(labels, [first, second]);
}

#[test]
fn a_restore_may_give_mounts_another_selinux_context() {
    let label = require!(selinux::label("ckt_t"));
    let mut world = require!(World::counting());
    let [first, second] = ["", ":c1,c2"].map(|ranges| selinux::file_label("ckt_file_t") + ranges);
    world
        .bundle
        .set("/process/selinuxLabel", json!(label))
        .set("/linux/mountLabel", json!(first))
        .push(
            "/mounts",
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}),
        );
    let options = RestoreOptions {
        lsm_mount_context: Some(second.clone()),
        ..world.restore_options(null())
    };
    let context = |pid| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let data = mounts.lines().find(|line| line.contains(" /data "));
        let data = data.unwrap_or_else(|| panic!("no /data in {mounts}"));
        let (_, context) = data.split_once("context=").expect("a context");
        context.replace('"', "")
    };
    let contexts = require!(restored_with(&world, options, context));
    for (context, wanted) in contexts.iter().zip([first, second]) {
        assert!(context.starts_with(&wanted), "{context} is not {wanted}");
    }
}
