//! Content digests, `sha256:HEX` (image specification, `descriptor.md`, "Digests").
//!
//! A digest becomes a file name in the store, so only registered algorithms with
//! exactly the right number of lower-case hexadecimal digits are accepted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 digits.
    Sha256,
    /// SHA-512, 128 digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hexadecimal digits.
    pub fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest that is known to be well formed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon between algorithm and digits.
    #[error("{0:?} is no digest: expected ALGORITHM:HEX, for example sha256:0123…")]
    NoAlgorithm(String),
    /// The algorithm is not one that can be verified here.
    #[error("digest algorithm {0:?} is not supported; use sha256 or sha512")]
    UnknownAlgorithm(String),
    /// Wrong number of digits, or a character that is no lower-case hexadecimal digit.
    #[error("{0:?} does not have the {1} lower-case hexadecimal digits of its algorithm")]
    Digits(String, usize),
}

impl Digest {
    /// The SHA-256 digest with these 32 bytes.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
        let hex = bytes
            .iter()
            .flat_map(|b| [digit(b >> 4), digit(b & 15)])
            .collect();
        Self {
            algorithm: Algorithm::Sha256,
            hex,
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits; safe as a file name.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits, as listings show them.
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let clipped = || s.chars().take(160).collect::<String>();
        let (name, hex) = s
            .split_once(':')
            .ok_or_else(|| DigestError::NoAlgorithm(clipped()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => {
                return Err(DigestError::UnknownAlgorithm(
                    name.chars().take(40).collect(),
                ));
            }
        };
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != algorithm.digits() || !hex.bytes().all(lower_hex) {
            return Err(DigestError::Digits(clipped(), algorithm.digits()));
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_what_is_well_formed() {
        let text = format!("sha256:{}", "0a".repeat(32));
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest, Digest::from_sha256([0x0a; 32]));
        assert_eq!(digest.short(), "0a0a0a0a0a0a");
    }

    #[test]
    fn refuses_what_could_not_be_a_file_name_or_be_verified() {
        let good = "a".repeat(64);
        for bad in [
            String::new(),
            good.clone(),
            format!("md5:{}", "a".repeat(32)),
            format!("sha256:{}", &good[1..]),
            format!("sha256:{}A", &good[1..]),
            format!("sha256:../{}", &good[3..]),
            format!("sha512:{good}"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
