//! `linux.netDevices`: network devices moved into the container and renamed.
//!
//! The device goes by rtnetlink from the caller's network namespace to the
//! child's. Its addresses of global scope, which the kernel drops on the way,
//! are put back, and it is brought up again (`config-linux.md`, "Network Devices").
//! When the container does not come to life, its devices go back: the kernel would
//! delete a virtual one together with the namespace.

use crate::error::Error;
use carrack_spec::runtime::{Linux, NamespaceKind};
use carrack_sys::clone::{self, Cloned, Parentage, ns};
use carrack_sys::netif::{Request, Route, index};
use carrack_sys::{Errno, pidfd};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// Length of `struct ifaddrmsg`.
const IFADDRMSG_BYTES: usize = 8;

/// An address to put back: family, prefix length, attributes 1 (address) and 2 (local).
#[derive(Clone)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The devices that a container has got, to be given back when it does not come to life.
#[derive(Default)]
pub struct Moved {
    /// The caller's network namespace and the container's.
    namespaces: Option<(OwnedFd, OwnedFd)>,
    devices: Vec<Device>,
}

/// A device as it was.
struct Device {
    host: CString,
    name: CString,
    up: bool,
    addresses: Vec<Address>,
}

impl Moved {
    /// Gives every device back, as it was.
    pub fn give_back(&self) {
        let Some((own, target)) = &self.namespaces else {
            return;
        };
        for device in self.devices.iter().rev() {
            if let Err(error) = give_back(device, own.as_fd(), target.as_fd()) {
                log::warn!(
                    "cannot give the network device {:?} back: {error}",
                    device.host
                );
            }
        }
    }
}

/// Moves every device of the configuration into the network namespace of `pid`, and notes them.
pub fn move_devices(
    linux: &Linux,
    proc: BorrowedFd<'_>,
    pid: i32,
    moved: &mut Moved,
) -> Result<(), Error> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::openat(proc, c"thread-self/ns/net", flags, Mode::empty())
        .map_err(|e| Error::system("cannot open the runtime's network namespace", e))?;
    let target = target_namespace(linux, proc, pid)?;
    let (_, target) = moved.namespaces.insert((own, target));
    for (host, device) in &linux.net_devices {
        let name = if device.name.is_empty() {
            host
        } else {
            &device.name
        };
        let failed = |e: Errno| {
            let hint = match e {
                Errno::NODEV => " (there is no such device)",
                Errno::EXIST => " (the name is taken in the container)",
                _ => "",
            };
            Error::system(
                format!("linux.netDevices: cannot move {host} to {name}{hint}"),
                e,
            )
        };
        move_device(host, name, target.as_fd(), &mut moved.devices).map_err(failed)?;
    }
    Ok(())
}

fn target_namespace(linux: &Linux, proc: BorrowedFd<'_>, pid: i32) -> Result<OwnedFd, Error> {
    let network = |n: &&carrack_spec::runtime::Namespace| n.kind == NamespaceKind::Network;
    let path = linux
        .namespaces
        .iter()
        .find(network)
        .map_or("", |namespace| &namespace.path);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = match path {
        "" => rustix::fs::openat(proc, format!("{pid}/ns/net"), flags, Mode::empty()),
        path => rustix::fs::open(path, flags, Mode::empty()),
    };
    opened.map_err(|e| Error::system("cannot open the container's network namespace", e))
}

fn move_device(
    host: &str,
    name: &str,
    target: BorrowedFd<'_>,
    moved: &mut Vec<Device>,
) -> carrack_sys::Result<()> {
    let text = |name: &str| CString::new(name).map_err(|_| Errno::INVAL);
    let route = Route::open()?;
    let from = text(host)?;
    let old = index(&from)?;
    let device = Device {
        up: is_up(&route, old)?,
        addresses: addresses(&route, old)?,
        host: from,
        name: text(name)?,
    };
    send(&route, old, target, &device.name)
        // Of a name that is taken the kernel tells when it has moved the device already.
        .inspect_err(|_| moved.push(device.as_it_was()))?;
    let set_up = in_namespace(target, || {
        set_up(&Route::open()?, index(&device.name)?, &device.addresses)
    });
    moved.push(device);
    set_up
}

impl Device {
    /// In the container under the name that it has here.
    fn as_it_was(&self) -> Self {
        Self {
            host: self.host.clone(),
            name: self.host.clone(),
            up: self.up,
            addresses: self.addresses.clone(),
        }
    }
}

/// Moves a device into another namespace, with a new name.
fn send(route: &Route, index: u32, target: BorrowedFd<'_>, name: &CStr) -> carrack_sys::Result<()> {
    let request = Request::new(RTM_NEWLINK, NLM_F_REQUEST_ACK, &link_header(index, 0, 0))
        .attribute(IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes())
        .attribute(IFLA_IFNAME, name.to_bytes_with_nul());
    route.call(request, |_, _| {})
}

/// Brings a device up and gives it its addresses.
fn set_up(route: &Route, index: u32, addresses: &[Address]) -> carrack_sys::Result<()> {
    let header = link_header(index, IFF_UP, IFF_UP);
    let up = Request::new(RTM_NEWLINK, NLM_F_REQUEST_ACK, &header);
    route.call(up, |_, _| {})?;
    addresses
        .iter()
        .try_for_each(|address| add_address(route, index, address))
}

fn give_back(
    device: &Device,
    own: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
) -> carrack_sys::Result<()> {
    if index(&device.host).is_ok() {
        // It never left.
        return Ok(());
    }
    in_namespace(target, || {
        send(&Route::open()?, index(&device.name)?, own, &device.host)
    })?;
    let (route, index) = (Route::open()?, index(&device.host)?);
    if device.up {
        return set_up(&route, index, &device.addresses);
    }
    device
        .addresses
        .iter()
        .try_for_each(|address| add_address(&route, index, address))
}

/// Whether an interface is up.
fn is_up(route: &Route, index: u32) -> carrack_sys::Result<bool> {
    let mut up = false;
    let request = Request::new(RTM_GETLINK, NLM_F_REQUEST_ACK, &link_header(index, 0, 0));
    route.call(request, |kind, body| {
        // `ifi_flags` of `struct ifinfomsg`.
        if let (RTM_NEWLINK, Some(&[a, b, c, d])) = (kind, body.get(8..12)) {
            up = u32::from_ne_bytes([a, b, c, d]) & IFF_UP != 0;
        }
    })?;
    Ok(up)
}

/// `struct ifinfomsg` of `linux/rtnetlink.h`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Addresses of global scope of an interface.
fn addresses(route: &Route, index: u32) -> carrack_sys::Result<Vec<Address>> {
    let mut found = Vec::new();
    let request = Request::new(RTM_GETADDR, 0x1 | NLM_F_DUMP, &[0; IFADDRMSG_BYTES]);
    route.call(request, |kind, body| {
        if kind == RTM_NEWADDR
            && let Some(address) = parse_address(body, index)
        {
            found.push(address);
        }
    })?;
    Ok(found)
}

fn parse_address(body: &[u8], index: u32) -> Option<Address> {
    let (header, mut rest) = body.split_at_checked(IFADDRMSG_BYTES)?;
    let of = u32::from_ne_bytes(header.get(4..8)?.try_into().ok()?);
    if of != index || *header.get(3)? != RT_SCOPE_UNIVERSE {
        return None;
    }
    let mut attributes = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if matches!(kind, IFA_ADDRESS | IFA_LOCAL) {
            attributes.push((kind, value.to_vec()));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(Address {
        family: *header.first()?,
        prefix: *header.get(1)?,
        attributes,
    })
}

fn add_address(route: &Route, index: u32, address: &Address) -> carrack_sys::Result<()> {
    let mut header = [0; IFADDRMSG_BYTES];
    header[0] = address.family;
    header[1] = address.prefix;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(RTM_NEWADDR, NLM_F_REQUEST_ACK | NLM_F_CREATE, &header);
    for (kind, value) in &address.attributes {
        request = request.attribute(*kind, value);
    }
    match route.call(request, |_, _| {}) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Runs `work` in a network namespace, in a child process: the caller stays where it is.
fn in_namespace(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> carrack_sys::Result<()>,
) -> carrack_sys::Result<()> {
    match clone::clone_process(0, Parentage::Child, None)? {
        Cloned::Child => {
            let result = clone::setns(namespace, ns::NET).and_then(|()| work());
            clone::exit(
                result
                    .err()
                    .map_or(0, |errno| errno.raw_os_error().min(255)),
            )
        }
        Cloned::Parent { pidfd, .. } => match pidfd::wait(pidfd.as_fd(), true)? {
            Some(pidfd::Exit::Code(0)) => Ok(()),
            Some(pidfd::Exit::Code(code)) => Err(Errno::from_raw_os_error(code)),
            _ => Err(Errno::CHILD),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_addresses_are_skipped() {
        assert!(parse_address(&[], 1).is_none());
        assert!(parse_address(&[2, 24, 0, 0, 1, 0, 0, 0, 99, 0, 1, 0], 1).is_none());
        let good = [2, 24, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1];
        let address = parse_address(&good, 1).unwrap();
        assert_eq!(address.attributes, [(2, vec![10, 0, 0, 1])]);
        assert!(parse_address(&good, 2).is_none());
    }
}
