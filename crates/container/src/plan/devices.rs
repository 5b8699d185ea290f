//! Device nodes and device access.

use crate::error::Error;
use carrack_spec::defaults;
use carrack_spec::runtime::{Device, DeviceRule, Spec};
use std::ffi::CString;

/// A node to make.
#[derive(Debug)]
pub struct DevicePlan {
    /// Whole path inside the root.
    pub path: CString,
    /// The directory of the path.
    pub directory: CString,
    /// The last component.
    pub name: CString,
    /// Where the host has it, to bind when it can't be made.
    pub host_path: CString,
    /// Kind and permission bits.
    pub mode: u32,
    /// Device number.
    pub number: u64,
    /// Owner, an id as init sees it.
    pub uid: u32,
    /// Group, an id as init sees it.
    pub gid: u32,
    /// Bind the host's node instead of making one (user namespaces can't make devices).
    pub bind: bool,
}

const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFIFO: u32 = 0o010_000;

/// The rules to put in force: the configuration's, then what every container may use.
pub fn device_rules(configured: &[DeviceRule]) -> Vec<DeviceRule> {
    configured
        .iter()
        .cloned()
        .chain(defaults::device_rules())
        .collect()
}

/// Nodes of the configuration and the defaults it does not name itself.
pub fn device_plans(spec: &Spec, bind: bool) -> Result<Vec<DevicePlan>, Error> {
    let configured = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    let mut plans = Vec::with_capacity(configured.len() + defaults::DEVICES.len());
    for (path, major, minor) in defaults::DEVICES {
        if !configured.iter().any(|device| device.path == path) {
            let device = Device {
                kind: "c".into(),
                path: path.into(),
                major,
                minor,
                ..Device::default()
            };
            plans.push(device_plan(&device, bind, "linux.devices")?);
        }
    }
    for (index, device) in configured.iter().enumerate() {
        plans.push(device_plan(
            device,
            bind,
            &format!("linux.devices[{index}]"),
        )?);
    }
    Ok(plans)
}

fn device_plan(device: &Device, bind: bool, field: &str) -> Result<DevicePlan, Error> {
    let kind = match device.kind.as_str() {
        "c" | "u" => S_IFCHR,
        "b" => S_IFBLK,
        "p" => S_IFIFO,
        other => {
            return Err(Error::invalid(
                field,
                format!("type {other:?} is none of c, u, b, p"),
            ));
        }
    };
    let number = |value: i64, what: &str| {
        u32::try_from(value)
            .map_err(|_| Error::invalid(field, format!("{what} number {value} is out of range")))
    };
    let number = match kind {
        S_IFIFO => 0,
        _ => rustix::fs::makedev(
            number(device.major, "major")?,
            number(device.minor, "minor")?,
        ),
    };
    let path = super::mounts::inside(&device.path);
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if !device.path.starts_with('/') || name.is_empty() || name == ".." {
        return Err(Error::invalid(
            field,
            format!("path {:?} is not an absolute path of a file", device.path),
        ));
    }
    let permissions = device.file_mode.unwrap_or(0o666);
    if permissions & !(0o7777 | 0o170_000) != 0 {
        return Err(Error::invalid(
            field,
            format!("fileMode {permissions:#o} has bits that are no permissions"),
        ));
    }
    let text = |s: &str| super::process::c_string(s, field);
    Ok(DevicePlan {
        directory: text(directory)?,
        name: text(name)?,
        host_path: text(&device.path)?,
        path: text(&path)?,
        mode: kind | permissions & 0o7777,
        number,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
        bind: bind && kind != S_IFIFO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_default_replaces_ours() {
        let spec = Spec::from_json(
            br#"{"linux":{"devices":[{"type":"c","path":"/dev/null","major":1,"minor":3,"fileMode":384,"uid":5}]}}"#,
        )
        .unwrap();
        let plans = device_plans(&spec, false).unwrap();
        assert_eq!(plans.len(), 6);
        let null = plans.iter().find(|p| p.name.as_c_str() == c"null").unwrap();
        assert_eq!((null.mode, null.uid), (S_IFCHR | 0o600, 5));
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        for json in [
            r#"{"type":"x","path":"/dev/a"}"#,
            r#"{"type":"c","path":"dev/a"}"#,
            r#"{"type":"c","path":"/"}"#,
            r#"{"type":"c","path":"/dev/a","major":-1}"#,
        ] {
            let json = format!(r#"{{"linux":{{"devices":[{json}]}}}}"#);
            let spec = Spec::from_json(json.as_bytes()).unwrap();
            let error = device_plans(&spec, false).unwrap_err().to_string();
            assert!(error.contains("linux.devices[0]"), "{error}");
        }
    }
}
