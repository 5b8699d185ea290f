//! Values of the runtime specification, which speaks v1, turned into v2's. Pure.
//!
//! The formulas are interface facts: the kernel defines both ends' ranges, and
//! runc, crun and Kubernetes agree on the mapping between them.

use crate::error::{Error, Result};

/// `cpu.shares` (2 to 262144, default 1024) → `cpu.weight` (1 to 10000, default 100).
///
/// The quadratic-exponent mapping that fits minimum, default and maximum at once,
/// which runc 1.3.2 and crun 1.23 introduced in place of a straight line that
/// turned the default of 1024 into 39. Zero is "not set".
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[allow(clippy::cast_precision_loss)] // below 2^18
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 10000
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

/// `blkio.weight` (10 to 1000) → `io.weight` (1 to 10000), a straight line. Zero is "not set".
pub fn blkio_to_io_weight(weight: u16) -> u64 {
    match weight {
        0 => 0,
        1..=10 => 1,
        1000.. => 10_000,
        w => 1 + (u64::from(w) - 10) * 9999 / 990,
    }
}

/// What to write into `memory.swap.max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapMax {
    /// Nothing was asked for.
    Keep,
    /// No limit.
    Max,
    /// Bytes of swap alone.
    Bytes(u64),
}

/// Memory plus swap (v1's meaning of `memory.swap`) → swap alone (v2's `memory.swap.max`).
///
/// Zero and absent mean "not set", negative means "no limit". An unlimited memory with
/// swap not set makes swap unlimited too, as on v1.
pub fn swap_max(limit: Option<i64>, memory_and_swap: Option<i64>) -> Result<SwapMax> {
    let limit = limit.unwrap_or(0);
    let invalid = |value: i64, reason| {
        Err(Error::Invalid {
            field: "linux.resources.memory.swap".to_owned(),
            value: value.to_string(),
            reason,
        })
    };
    match memory_and_swap.unwrap_or(0) {
        0 if limit < 0 => Ok(SwapMax::Max),
        0 => Ok(SwapMax::Keep),
        ..0 => Ok(SwapMax::Max),
        swap if limit <= 0 => invalid(
            swap,
            "it counts memory and swap together, so it needs memory.limit beside it",
        ),
        swap if swap < limit => invalid(
            swap,
            "it counts memory and swap together, so it may not be below memory.limit",
        ),
        swap => Ok(SwapMax::Bytes((swap - limit).unsigned_abs())),
    }
}

/// Bytes as v2 writes them: negative is `max`.
pub(crate) fn bytes_or_max(value: i64) -> String {
    u64::try_from(value).map_or_else(|_| "max".to_owned(), |n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_map_minimum_default_and_maximum() {
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn block_weights_map_their_ends() {
        for (weight, io) in [
            (0, 0),
            (10, 1),
            (500, 4950),
            (1000, 10_000),
            (u16::MAX, 10_000),
        ] {
            assert_eq!(blkio_to_io_weight(weight), io, "{weight}");
        }
    }

    #[test]
    fn swap_counts_memory_on_the_way_in_only() {
        let mib = 1 << 20;
        for (limit, swap, expect) in [
            (None, None, SwapMax::Keep),
            (Some(-1), None, SwapMax::Max),
            (Some(mib), Some(0), SwapMax::Keep),
            (Some(mib), Some(-1), SwapMax::Max),
            (None, Some(-1), SwapMax::Max),
            (Some(mib), Some(mib), SwapMax::Bytes(0)),
            (Some(mib), Some(3 * mib), SwapMax::Bytes(2 << 20)),
        ] {
            assert_eq!(swap_max(limit, swap).unwrap(), expect, "{limit:?} {swap:?}");
        }
        assert!(swap_max(None, Some(mib)).is_err());
        assert!(swap_max(Some(-1), Some(mib)).is_err());
        assert!(swap_max(Some(mib), Some(1)).is_err());
    }

    proptest! {
        #[test]
        fn weights_stay_in_range_and_keep_their_order(a in 1u64..300_000, b in 1u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!((1..=10_000).contains(&shares_to_weight(low)));
            prop_assert!(shares_to_weight(low) <= shares_to_weight(high));
        }

        #[test]
        fn swap_never_panics(limit in any::<Option<i64>>(), swap in any::<Option<i64>>()) {
            let _ = swap_max(limit, swap);
        }
    }
}
