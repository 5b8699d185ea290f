//! The systemd driver: a transient scope, asked for over D-Bus.

use crate::error::{Error, Result};
use crate::group::{Driver, Group, Node, Request};
use crate::layout::Layout;
use carrack_spec::runtime::{DeviceRule, Resources};

/// The scope of a group.
#[derive(Debug)]
pub(crate) struct Scope {
    started: bool,
}

impl Scope {
    pub fn is_started(&self) -> bool {
        self.started
    }
}

pub(crate) fn plan(_layout: &Layout, request: &Request<'_>, _user: bool) -> Result<Group> {
    Err(Error::Path {
        path: request.path.to_owned(),
        reason: "the systemd driver is not available in this build",
    })
}

pub(crate) fn reopen(_layout: &Layout, _driver: Driver, _nodes: &[Node]) -> Option<Scope> {
    None
}

pub(crate) fn start(_group: &Group, _scope: &Scope, _pid: i32) -> Result<()> {
    Ok(())
}

/// True when the limits are kept for later.
pub(crate) fn apply(_group: &Group, scope: &Scope, _resources: &Resources) -> Result<bool> {
    Ok(!scope.started)
}

/// True when the rules are kept for later.
pub(crate) fn apply_devices(_group: &Group, scope: &Scope, _rules: &[DeviceRule]) -> Result<bool> {
    Ok(!scope.started)
}

pub(crate) fn stop(_scope: &Scope) {}
