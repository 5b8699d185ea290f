//! The systemd driver: the cgroup is that of a transient scope, made on request over D-Bus.
//!
//! ```text
//! plan     slice:prefix:name → slice, unit, the cgroup it will have       (no scope yet)
//! apply    limits and device rules are kept with the plan
//! start    StartTransientUnit(unit, PIDs=[pid], Delegate=yes, limits…), wait for its job;
//!          on v1 the cgroups of the other hierarchies are made and entered by us;
//!          then the limits are written to the files too
//! apply    SetUnitProperties, then the files                              (from now on)
//! stop     StopUnit, wait, ResetFailedUnit
//! ```
//!
//! A scope cannot be empty, so it begins with its first process. A unit of the
//! same name that failed earlier is reset and the start tried once more; one
//! that runs is an error. A connection is made for each of these steps and closed after it.

mod bus;
mod name;
mod props;
pub(crate) mod wire;

pub use bus::BusError;

use crate::error::{Error, Result};
use crate::group::{Driver, Group, Node, Request};
use crate::layout::{Layout, Mode, Version};
use bus::Bus;
use carrack_spec::runtime::{DeviceRule, Resources};
use name::UnitPath;
use props::Property;
use std::sync::Mutex;
use wire::Value;

/// The scope of a group.
#[derive(Debug)]
pub(crate) struct Scope {
    unit: String,
    slice: String,
    id: String,
    user: bool,
    properties: Vec<Property>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// What was asked for before the start.
    Planned {
        resources: Option<Box<Resources>>,
        devices: Option<Vec<DeviceRule>>,
    },
    Started,
}

impl Scope {
    pub fn is_started(&self) -> bool {
        matches!(*self.lock(), State::Started)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic cannot leave the state half changed: it is replaced in one step.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str) -> impl Fn(BusError) -> Error + '_ {
        move |source| Error::Systemd {
            what,
            unit: self.unit.clone(),
            source,
        }
    }
}

/// Names the unit and its cgroups; makes nothing.
pub(crate) fn plan(layout: &Layout, request: &Request<'_>, user: bool) -> Result<Group> {
    let path = UnitPath::parse(request.path, request.id, user)?;
    let properties = request
        .properties
        .iter()
        .map(|(name, text)| props::from_text(name, text))
        .collect::<Result<Vec<_>>>()?;
    let scope = Scope {
        unit: path.unit.clone(),
        slice: path.slice.clone(),
        id: request.id.to_owned(),
        user,
        properties,
        state: Mutex::new(State::Planned {
            resources: None,
            devices: None,
        }),
    };
    let mut relative = path.cgroup()?;
    if user {
        let manager =
            user_manager_cgroup().map_err(scope.failed("ask for the manager's cgroup of"))?;
        relative = format!("{}/{relative}", manager.trim_matches('/'));
    }
    let nodes: Vec<Node> = layout
        .hierarchies()
        .iter()
        .map(|h| Node {
            version: h.version,
            controllers: h.controllers.clone(),
            mountpoint: h.mountpoint.clone(),
            dir: crate::path::below(&h.mountpoint, &relative),
        })
        .collect();
    for node in &nodes {
        crate::group::refuse_in_use(node)?;
    }
    Ok(Group {
        mode: layout.mode(),
        nodes,
        scope: Some(scope),
        rootless: request.rootless,
        tasks: Default::default(),
    })
}

/// `/user.slice/user-1000.slice/user@1000.service`
fn user_manager_cgroup() -> Result<String, BusError> {
    let value = Bus::connect(true)?.manager_property("ControlGroup")?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

/// The scope of a group that was found again from its saved paths.
pub(crate) fn reopen(driver: Driver, nodes: &[Node]) -> Option<Scope> {
    let Driver::Systemd { user } = driver else {
        return None;
    };
    let node = nodes
        .iter()
        .find(|n| n.version == Version::V2 || n.has("name=systemd"))
        .or_else(|| nodes.first())?;
    Some(Scope {
        unit: node.dir.file_name()?.to_string_lossy().into_owned(),
        slice: String::new(),
        id: String::new(),
        user,
        properties: Vec::new(),
        state: Mutex::new(State::Started),
    })
}

/// Starts the scope with its first process, then writes what was kept.
pub(crate) fn start(group: &Group, scope: &Scope, pid: i32) -> Result<()> {
    let (resources, devices) = match &*scope.lock() {
        State::Planned { resources, devices } => (resources.clone(), devices.clone()),
        State::Started => (None, None),
    };
    let mut bus =
        Bus::connect(scope.user).map_err(scope.failed("reach the service manager for"))?;
    let properties = start_properties(group, scope, pid, resources.as_deref(), devices.as_deref())?;
    start_unit(&mut bus, scope, &properties).map_err(scope.failed("start"))?;
    *scope.lock() = State::Started;
    let outcome = enter(group, pid, resources.as_deref(), devices.as_deref());
    if outcome.is_err() {
        // The process goes with its scope: half limited it must not run.
        stop(scope);
    }
    outcome
}

fn enter(
    group: &Group,
    pid: i32,
    resources: Option<&Resources>,
    devices: Option<&[DeviceRule]>,
) -> Result<()> {
    if group.mode != Mode::Unified {
        // systemd makes the cgroup in its own hierarchy and in those its properties need.
        group.make_missing()?;
        group.attach(pid)?;
    }
    if let Some(devices) = devices {
        group.write_devices(devices)?;
    }
    if let Some(resources) = resources {
        group.write_limits(resources)?;
    }
    Ok(())
}

fn start_properties(
    group: &Group,
    scope: &Scope,
    pid: i32,
    resources: Option<&Resources>,
    devices: Option<&[DeviceRule]>,
) -> Result<Vec<Property>> {
    let v2 = group.mode == Mode::Unified;
    let text = |name: &str, value: &str| (name.to_owned(), Value::str(value));
    let on = |name: &str| (name.to_owned(), Value::Bool(true));
    let mut list = vec![
        text("Description", &format!("container {}", scope.id)),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        text("CollectMode", "inactive-or-failed"),
        on("MemoryAccounting"),
        on("CPUAccounting"),
        on("TasksAccounting"),
        on(if v2 {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        }),
    ];
    if scope.unit.ends_with(".slice") {
        let slices = vec![Value::str(&scope.slice)];
        list.push(("Wants".to_owned(), Value::Array("s".into(), slices)));
    } else {
        list.push(text("Slice", &scope.slice));
        list.push(on("Delegate"));
        let pids = vec![Value::U32(pid.unsigned_abs())];
        list.push(("PIDs".to_owned(), Value::Array("u".into(), pids)));
    }
    if let Some(resources) = resources {
        list.extend(props::limits(resources, v2)?);
    }
    if let Some(devices) = devices
        && !v2
    {
        list.extend(props::devices(devices));
    }
    list.extend(scope.properties.iter().cloned());
    Ok(list)
}

fn start_unit(bus: &mut Bus, scope: &Scope, properties: &[Property]) -> Result<(), BusError> {
    bus.subscribe()?;
    let start = |bus: &mut Bus| {
        bus.manager(
            "StartTransientUnit",
            vec![
                Value::str(&scope.unit),
                Value::str("replace"),
                props::array(properties),
                Value::Array("(sa(sv))".into(), vec![]),
            ],
        )
    };
    let answer = match start(bus) {
        Err(BusError::Call { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {
            // A failed unit of that name may be in the way; a running one still is after this.
            let _ = bus.manager("ResetFailedUnit", vec![Value::str(&scope.unit)]);
            start(bus)?
        }
        other => other?,
    };
    wait(bus, &scope.unit, &answer)
}

fn wait(bus: &mut Bus, unit: &str, answer: &[Value]) -> Result<(), BusError> {
    match answer.first().and_then(Value::as_str) {
        Some(job) => bus.wait_job(unit, job),
        None => Err(wire::Malformed("a job is an object path").into()),
    }
}

/// True when the limits are kept for the start; otherwise systemd was told, and the files follow.
pub(crate) fn apply(group: &Group, scope: &Scope, resources: &Resources) -> Result<bool> {
    let v2 = group.mode == Mode::Unified;
    let properties = props::limits(resources, v2)?;
    if let State::Planned {
        resources: kept, ..
    } = &mut *scope.lock()
    {
        *kept = Some(Box::new(resources.clone()));
        return Ok(true);
    }
    tell(scope, &properties)?;
    Ok(false)
}

/// The same for device rules. On v2 systemd has no part in them: its policy stays `auto`, and our
/// program on the delegated cgroup is not touched by it.
pub(crate) fn apply_devices(group: &Group, scope: &Scope, rules: &[DeviceRule]) -> Result<bool> {
    if let State::Planned { devices, .. } = &mut *scope.lock() {
        *devices = Some(rules.to_vec());
        return Ok(true);
    }
    if group.mode != Mode::Unified {
        tell(scope, &props::devices(rules))?;
    }
    Ok(false)
}

fn tell(scope: &Scope, properties: &[Property]) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let mut bus =
        Bus::connect(scope.user).map_err(scope.failed("reach the service manager for"))?;
    let body = vec![
        Value::str(&scope.unit),
        Value::Bool(true), // until the unit ends, not on disk
        props::array(properties),
    ];
    bus.manager("SetUnitProperties", body)
        .map(drop)
        .map_err(scope.failed("change"))
}

/// Ends the unit, which is not an error when it has ended already.
pub(crate) fn stop(scope: &Scope) {
    if !scope.is_started() {
        return;
    }
    let outcome = Bus::connect(scope.user).and_then(|mut bus| {
        bus.subscribe()?;
        let unit = Value::str(&scope.unit);
        let stopped = match bus.manager("StopUnit", vec![unit.clone(), Value::str("replace")]) {
            Ok(answer) => wait(&mut bus, &scope.unit, &answer),
            Err(BusError::Call { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            Err(e) => Err(e),
        };
        let _ = bus.manager("ResetFailedUnit", vec![unit]);
        stopped
    });
    if let Err(e) = outcome {
        log::warn!("cannot stop {}: {e}", scope.unit);
    }
}
