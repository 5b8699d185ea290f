//! The cgroup of a container, as its record names it.

use crate::error::Error;
use crate::record::Record;
use carrack_cgroup::{Driver, Group, Layout, Request};
use carrack_spec::runtime::Spec;

/// Makes the container's cgroup from what the record says; also how a killed create is cleaned up.
pub fn create(layout: &Layout, record: &Record, spec: &Spec) -> Result<Group, Error> {
    const PREFIX: &str = "org.systemd.property.";
    let properties: Vec<(&str, &str)> = spec
        .annotations
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    let request = Request {
        id: &record.id,
        path: &record.carrack.cgroups_path,
        driver: driver(record),
        rootless: record.carrack.rootless_cgroups,
        properties: &properties,
    };
    Ok(Group::create(layout, &request)?)
}

/// Who made the container's cgroup.
pub fn driver(record: &Record) -> Driver {
    match record.carrack.systemd {
        true => Driver::Systemd {
            user: record.carrack.systemd_user,
        },
        false => Driver::Cgroupfs,
    }
}
