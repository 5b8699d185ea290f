//! Limits and device rules as unit properties. Pure, but for `/proc/devices`, which names drivers.
//!
//! systemd writes its own idea of the limits again whenever it likes (a
//! `daemon-reload`), so whatever it has a property for must be told to it as
//! well as written to the files. Properties: org.freedesktop.systemd1(5).

use super::wire::Value;
use crate::convert::{SwapMax, blkio_to_io_weight, shares_to_weight, swap_max};
use crate::error::{Error, Result};
use carrack_spec::runtime::{Cpu, DeviceRule, Memory, Resources};
use std::collections::BTreeMap;

/// One property of a unit.
pub(crate) type Property = (String, Value);

/// The array `a(sv)` of a call.
pub(crate) fn array(properties: &[Property]) -> Value {
    let items = properties
        .iter()
        .map(|(name, value)| Value::Struct(vec![Value::str(name), value.clone().variant()]))
        .collect();
    Value::Array("(sv)".into(), items)
}

fn number(list: &mut Vec<Property>, name: &str, value: u64) {
    list.push((name.to_owned(), Value::U64(value)));
}

/// Negative is no limit.
fn or_infinity(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The properties of the limits, for v2 or v1.
pub(crate) fn limits(r: &Resources, v2: bool) -> Result<Vec<Property>> {
    let mut list = Vec::new();
    if let Some(memory) = &r.memory {
        memory_properties(&mut list, memory, v2)?;
    }
    if let Some(cpu) = &r.cpu {
        cpu_properties(&mut list, cpu, v2);
    }
    if let Some(limit) = r.pids.as_ref().and_then(|p| p.limit) {
        number(
            &mut list,
            "TasksMax",
            crate::check::pids_max(limit).unwrap_or(u64::MAX),
        );
    }
    if let Some(weight) = r
        .block_io
        .as_ref()
        .and_then(|io| io.weight)
        .filter(|w| *w != 0)
    {
        if v2 {
            number(&mut list, "IOWeight", blkio_to_io_weight(weight));
        } else {
            number(&mut list, "BlockIOWeight", weight.into());
        }
    }
    for (file, value) in &r.unified {
        let name = match file.as_str() {
            "memory.min" => "MemoryMin",
            "memory.low" => "MemoryLow",
            "memory.high" => "MemoryHigh",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            _ => continue, // systemd has no property for it, so it leaves the file alone
        };
        let value = value.trim();
        if let Some(value) = if value == "max" {
            Some(u64::MAX)
        } else {
            value.parse().ok()
        } {
            number(&mut list, name, value);
        }
    }
    Ok(list)
}

fn memory_properties(list: &mut Vec<Property>, m: &Memory, v2: bool) -> Result<()> {
    if let Some(limit) = m.limit.filter(|l| *l != 0) {
        number(
            list,
            if v2 { "MemoryMax" } else { "MemoryLimit" },
            or_infinity(limit),
        );
    }
    if !v2 {
        return Ok(());
    }
    if let Some(low) = m.reservation.filter(|l| *l != 0) {
        number(list, "MemoryLow", or_infinity(low));
    }
    match swap_max(m.limit, m.swap)? {
        SwapMax::Keep => {}
        SwapMax::Max => number(list, "MemorySwapMax", u64::MAX),
        SwapMax::Bytes(n) => number(list, "MemorySwapMax", n),
    }
    Ok(())
}

fn cpu_properties(list: &mut Vec<Property>, c: &Cpu, v2: bool) {
    if let Some(shares) = c.shares.filter(|s| *s != 0)
        && c.idle != Some(1)
    {
        if v2 {
            number(list, "CPUWeight", shares_to_weight(shares));
        } else {
            number(list, "CPUShares", shares);
        }
    }
    if let Some(period) = c.period.filter(|p| *p != 0) {
        number(list, "CPUQuotaPeriodUSec", period);
    }
    if let Some(quota) = c.quota.filter(|q| *q != 0) {
        number(list, "CPUQuotaPerSecUSec", quota_a_second(quota, c.period));
    }
    if v2 {
        for (name, ids) in [("AllowedCPUs", &c.cpus), ("AllowedMemoryNodes", &c.mems)] {
            if !ids.is_empty()
                && let Some(mask) = bit_mask(ids)
            {
                let bytes = mask.into_iter().map(Value::Byte).collect();
                list.push((name.to_owned(), Value::Array("y".into(), bytes)));
            }
        }
    }
}

/// Microseconds of processor time a second, rounded up to the 10 ms steps systemd keeps.
fn quota_a_second(quota: i64, period: Option<u64>) -> u64 {
    let Ok(quota) = u64::try_from(quota) else {
        return u64::MAX;
    };
    let period = period.filter(|p| *p != 0).unwrap_or(100_000);
    let exact = u128::from(quota) * 1_000_000 / u128::from(period);
    let stepped = exact.div_ceil(10_000) * 10_000;
    u64::try_from(stepped).unwrap_or(u64::MAX)
}

/// `0-2,5` as bytes of a mask, lowest bits first; `None` when it does not parse or is absurd.
fn bit_mask(list: &str) -> Option<Vec<u8>> {
    const IDS_MAX: usize = 8192;
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= IDS_MAX {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        for id in first..=last {
            if let Some(byte) = mask.get_mut(id / 8) {
                *byte |= 1 << (id % 8);
            }
        }
    }
    (!mask.is_empty()).then_some(mask)
}

/// Device rules for v1, where systemd would otherwise open every device again at a reload.
///
/// systemd knows lists of what is allowed only; denials after a permission are left to the
/// lines we write ourselves. Rules that allow everything turn its policy off.
pub(crate) fn devices(rules: &[DeviceRule]) -> Vec<Property> {
    let mut allowed: BTreeMap<String, String> = BTreeMap::new();
    let mut open = false;
    for rule in rules {
        if rule.is_wildcard() {
            allowed.clear();
            open = rule.allow;
            continue;
        }
        let access = if rule.access.is_empty() {
            "rwm"
        } else {
            &rule.access
        };
        for spec in device_specs(rule) {
            if rule.allow {
                let letters = allowed.entry(spec).or_default();
                for letter in access.chars() {
                    if !letters.contains(letter) {
                        letters.push(letter);
                    }
                }
            } else if let Some(letters) = allowed.get_mut(&spec) {
                letters.retain(|c| !access.contains(c));
            }
        }
    }
    let policy = if open { "auto" } else { "strict" };
    // An empty list first takes back what an earlier call allowed.
    let list = |items| ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), items));
    let mut properties = vec![
        ("DevicePolicy".to_owned(), Value::str(policy)),
        list(vec![]),
    ];
    if !open {
        let items = allowed
            .into_iter()
            .filter(|(_, access)| !access.is_empty())
            .map(|(spec, access)| Value::Struct(vec![Value::Str(spec), Value::Str(access)]))
            .collect();
        properties.push(list(items));
    }
    properties
}

fn device_specs(rule: &DeviceRule) -> Vec<String> {
    let kinds: &[&str] = match rule.kind.as_str() {
        "b" => &["block"],
        "c" => &["char"],
        _ => &["block", "char"],
    };
    let number = |n: Option<i64>| n.filter(|n| *n >= 0);
    kinds
        .iter()
        .filter_map(|kind| match (number(rule.major), number(rule.minor)) {
            (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
            (None, None) => Some(format!("{kind}-*")),
            // A whole driver goes by its name, which /proc/devices has; numbers work as a glob of it.
            (Some(major), None) => driver_name(kind, major).map(|name| format!("{kind}-{name}")),
            (None, Some(_)) => None, // systemd has no way to say it
        })
        .collect()
}

/// The driver behind a major number (`pts` for 136), as `/proc/devices` names it.
fn driver_name(kind: &str, major: i64) -> Option<String> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    let header = if kind == "block" {
        "Block devices:"
    } else {
        "Character devices:"
    };
    text.lines()
        .skip_while(|l| *l != header)
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.trim().split_once(' '))
        .find(|(number, _)| number.parse() == Ok(major))
        .map(|(_, name)| name.to_owned())
}

/// A property given as text (`org.systemd.property.NAME` = GVariant text).
///
/// Understood: `true`, `'text'`, numbers (int32), a type word before a number (`uint64 5`), and
/// lists of one of these. `…Sec` properties are the bus's `…USec`, in microseconds.
pub(crate) fn from_text(name: &str, text: &str) -> Result<Property> {
    let invalid = || Error::Invalid {
        field: format!("annotation org.systemd.property.{name}"),
        value: text.to_owned(),
        reason: "GVariant text: true, 'text', 5, uint64 5, or a list of one of these",
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(invalid());
    }
    let value = parse_text(text.trim()).ok_or_else(invalid)?;
    if let Some(stem) = name.strip_suffix("Sec")
        && !name.ends_with("USec")
    {
        let seconds = match value {
            Value::I32(n) => u64::try_from(n).ok(),
            Value::I64(n) => u64::try_from(n).ok(),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            _ => None,
        };
        let micro = seconds
            .and_then(|s| s.checked_mul(1_000_000))
            .ok_or_else(invalid)?;
        return Ok((format!("{stem}USec"), Value::U64(micro)));
    }
    Ok((name.to_owned(), value))
}

fn parse_text(text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        let items = split_list(inner)?
            .into_iter()
            .map(|item| parse_text(item.trim()))
            .collect::<Option<Vec<_>>>()?;
        let signature = items.first()?.signature();
        return items
            .iter()
            .all(|i| i.signature() == signature)
            .then_some(Value::Array(signature, items));
    }
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote) {
            return Some(Value::str(
                inner.strip_suffix(quote).filter(|s| !s.contains(quote))?,
            ));
        }
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    match text.split_once(' ') {
        None => text.parse().ok().map(Value::I32),
        Some(("byte", n)) => n.parse().ok().map(Value::Byte),
        Some(("int32", n)) => n.parse().ok().map(Value::I32),
        Some(("uint32", n)) => n.parse().ok().map(Value::U32),
        Some(("int64", n)) => n.parse().ok().map(Value::I64),
        Some(("uint64", n)) => n.parse().ok().map(Value::U64),
        Some(_) => None,
    }
}

/// Splits at commas outside quotes.
fn split_list(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut quote = None;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, ',') => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    quote.is_none().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(list: &'a [Property], name: &str) -> Option<&'a Value> {
        list.iter().rfind(|(n, _)| n == name).map(|(_, v)| v)
    }

    #[test]
    fn limits_have_their_properties_on_both_versions() {
        let r: Resources = serde_json::from_str(
            r#"{"memory":{"limit":100,"swap":150,"reservation":50},"cpu":{"shares":1024,"quota":15000,"period":100000,"cpus":"0,9"},
                "pids":{"limit":-1},"blockIO":{"weight":10},"unified":{"memory.high":"max","io.max":"x"}}"#,
        )
        .unwrap();
        let v2 = limits(&r, true).unwrap();
        for (name, value) in [
            ("MemoryMax", 100),
            ("MemorySwapMax", 50),
            ("MemoryLow", 50),
            ("CPUWeight", 100),
            ("CPUQuotaPerSecUSec", 150_000),
            ("TasksMax", u64::MAX),
            ("IOWeight", 1),
            ("MemoryHigh", u64::MAX),
        ] {
            assert_eq!(get(&v2, name), Some(&Value::U64(value)), "{name}");
        }
        let mask = vec![Value::Byte(1), Value::Byte(2)];
        assert_eq!(
            get(&v2, "AllowedCPUs"),
            Some(&Value::Array("y".into(), mask))
        );
        let v1 = limits(&r, false).unwrap();
        assert_eq!(get(&v1, "MemoryLimit"), Some(&Value::U64(100)));
        assert_eq!(get(&v1, "CPUShares"), Some(&Value::U64(1024)));
        assert_eq!(get(&v1, "MemoryMax"), None);
    }

    #[test]
    fn quotas_are_rounded_up_to_what_systemd_keeps() {
        for (quota, period, expect) in [
            (-1, None, u64::MAX),
            (50_000, None, 500_000),
            (1_000, Some(100_000), 10_000),
            (1_001, Some(100_000), 20_000),
            (i64::MAX, Some(1), u64::MAX),
        ] {
            assert_eq!(quota_a_second(quota, period), expect);
        }
    }

    #[test]
    fn device_rules_become_an_allow_list() {
        let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
            allow,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        };
        let list = devices(&[
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", Some(1), Some(3), "rw"),
            rule(true, "c", Some(1), Some(3), "m"),
            rule(true, "c", Some(1), Some(5), "r"),
            rule(false, "c", Some(1), Some(5), "r"),
            rule(true, "b", None, None, "m"),
        ]);
        assert_eq!(get(&list, "DevicePolicy"), Some(&Value::str("strict")));
        let pair = |a: &str, b: &str| Value::Struct(vec![Value::str(a), Value::str(b)]);
        let expect = vec![pair("/dev/char/1:3", "rwm"), pair("block-*", "m")];
        assert_eq!(
            get(&list, "DeviceAllow"),
            Some(&Value::Array("(ss)".into(), expect))
        );
        let open = devices(&[rule(true, "a", None, None, "")]);
        assert_eq!(get(&open, "DevicePolicy"), Some(&Value::str("auto")));
    }

    #[test]
    fn property_texts_are_read_and_seconds_converted() {
        for (name, text, expect) in [
            ("KillMode", "'mixed'", Value::str("mixed")),
            ("Delegate", "true", Value::Bool(true)),
            ("TasksMax", "uint64 5", Value::U64(5)),
            ("X", "-3", Value::I32(-3)),
            (
                "After",
                "['a.service', \"b,c\"]",
                Value::Array("s".into(), vec![Value::str("a.service"), Value::str("b,c")]),
            ),
        ] {
            assert_eq!(from_text(name, text).unwrap(), (name.to_owned(), expect));
        }
        assert_eq!(
            from_text("TimeoutStopSec", "uint64 2").unwrap(),
            ("TimeoutStopUSec".into(), Value::U64(2_000_000))
        );
        for (name, text) in [
            ("A", ""),
            ("A", "'x"),
            ("A", "[1, 'x']"),
            ("a b", "1"),
            ("A", "[]"),
            ("TimeoutStopSec", "'x'"),
        ] {
            assert!(from_text(name, text).is_err(), "{name} {text}");
        }
    }
}
