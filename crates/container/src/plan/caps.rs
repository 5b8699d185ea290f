//! Capabilities: what a process' five sets mean for this machine.

use crate::error::Error;
use carrack_spec::capability;
use carrack_spec::runtime::Capabilities;
use carrack_sys::cred::{CapBits, CapSets};

/// Capability changes of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapPlan {
    /// To drop from the bounding set.
    pub bounding_drop: Vec<u32>,
    /// Effective, permitted and inheritable.
    pub sets: CapSets,
    /// To raise in the ambient set.
    pub ambient: Vec<u32>,
}

/// What of `caps` can be given when only `available` is there (the caller's
/// permitted set, or everything in a new user namespace). A known capability
/// that is not available is dropped with a warning, or refused in strict mode;
/// so is a name that is not known, and one that another set would have to hold too.
pub fn cap_plan(caps: &Capabilities, available: CapBits, strict: bool) -> Result<CapPlan, Error> {
    let mut dropped = Vec::new();
    let mut unknown = Vec::new();
    let mut set = |names: &[String]| {
        let mut bits: CapBits = 0;
        for name in names {
            match capability::number(name) {
                Some(cap) if available & bit(cap) != 0 => bits |= bit(cap),
                Some(_) if !dropped.contains(name) => dropped.push(name.clone()),
                Some(_) => {}
                None if !unknown.contains(name) => unknown.push(name.clone()),
                None => {}
            }
        }
        bits
    };
    let bounding = set(&caps.bounding);
    let sets = CapSets {
        effective: set(&caps.effective),
        permitted: set(&caps.permitted),
        inheritable: set(&caps.inheritable),
    };
    let ambient = set(&caps.ambient);
    let names_of = |bits| -> Vec<String> {
        let names = numbers(bits).into_iter();
        names
            .filter_map(|cap| capability::NAMES.get(cap as usize))
            .map(|name| (*name).to_owned())
            .collect()
    };
    for (names, what) in [
        (dropped, "the runtime does not hold them"),
        (unknown, "they are not known"),
        (
            names_of(sets.effective & !sets.permitted),
            "they are effective, but not permitted",
        ),
    ] {
        if names.is_empty() {
            continue;
        }
        let reason = format!("cannot give the capabilities {}: {what}", names.join(", "));
        if strict {
            return Err(Error::invalid("process.capabilities", reason));
        }
        log::warn!("process.capabilities: {reason}; the process starts without them");
    }
    let raised = ambient & sets.permitted & sets.inheritable;
    let missed = ambient & !raised;
    let names = (0..).zip(capability::NAMES);
    for (_, name) in names.filter(|&(cap, _)| missed & bit(cap) != 0) {
        let reason = format!(
            "can't raise ambient capability {name}: it is not both permitted and inheritable"
        );
        if strict {
            return Err(Error::invalid("process.capabilities", reason));
        }
        log::warn!("process.capabilities: {reason}; the process starts without it");
    }
    Ok(CapPlan {
        bounding_drop: numbers(!bounding),
        // The kernel refuses an effective or ambient capability outside of the permitted set.
        sets: CapSets {
            effective: sets.effective & sets.permitted,
            ..sets
        },
        ambient: numbers(raised),
    })
}

fn bit(cap: u32) -> CapBits {
    1 << cap
}

fn numbers(bits: CapBits) -> Vec<u32> {
    (0..capability::NAMES.len() as u32)
        .filter(|&cap| bits & bit(cap) != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(names: &[&str]) -> Capabilities {
        let list: Vec<String> = names.iter().map(|s| s.to_string()).collect();
        Capabilities {
            bounding: list.clone(),
            effective: list.clone(),
            permitted: list.clone(),
            inheritable: Vec::new(),
            ambient: list,
        }
    }

    #[test]
    fn a_set_that_another_would_have_to_hold_too_is_strictly_refused() {
        for set in ["effective", "ambient"] {
            let json = format!(r#"{{"bounding":["CAP_CHOWN"],"{set}":["CAP_CHOWN"]}}"#);
            let caps: Capabilities = serde_json::from_str(&json).unwrap();
            let plan = cap_plan(&caps, 1, false).unwrap();
            assert_eq!((plan.sets.effective, plan.ambient.len()), (0, 0));
            let error = cap_plan(&caps, 1, true).unwrap_err().to_string();
            assert!(
                error.contains("CAP_CHOWN") && error.contains(set),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_available_is_dropped_or_refused() {
        let wanted = caps(&["CAP_KILL", "CAP_SYS_RESOURCE", "CAP_NOVEL"]);
        let plan = cap_plan(&wanted, bit(5), false).unwrap();
        assert_eq!(plan.sets.permitted, bit(5));
        assert_eq!(plan.bounding_drop.len(), 40);
        assert!(!plan.bounding_drop.contains(&5));
        assert!(plan.ambient.is_empty(), "not inheritable, so not ambient");
        let error = cap_plan(&wanted, bit(5), true).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
        let error = cap_plan(&caps(&["CAP_KILL"]), bit(5), true).unwrap_err();
        assert!(
            error.to_string().contains("ambient capability CAP_KILL"),
            "{error}"
        );
    }
}
