//! The machine that an image is made for, and which image of several fits one.

use crate::image::{Descriptor, Index};
use crate::runtime::null_default;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The machine that an image is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `GOARCH`, for example `amd64`.
    pub architecture: String,
    /// `GOOS`, for example `linux`.
    pub os: String,
    /// For example `v7`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Version of the operating system, for Windows.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// What the image needs of the operating system.
    #[serde(
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub os_features: Vec<String>,
    /// What the image needs of the processor, as docker's manifest lists have it.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub features: Vec<String>,
}

impl Platform {
    /// The platform of this build.
    pub fn native() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            ..Self::default()
        }
    }

    /// The platform in the words that `GOARCH` and registries use: `aarch64` is `arm64`,
    /// `arm` without a variant is `v7`, and the variants that say nothing are left out.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut platform = self.clone();
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "7" | "") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("arm", "5") => ("arm", "v5"),
            other => other,
        };
        platform.architecture = architecture.to_owned();
        platform.variant = variant.to_owned();
        platform
    }

    /// How well a machine of this platform runs an image for `made_for`: none for not
    /// at all, else the smaller the better.
    ///
    /// A machine runs what was made for older variants of its architecture
    /// (`arm/v7` runs on `arm/v8`, `amd64` on `amd64/v3`), the nearest best.
    pub fn distance(&self, made_for: &Platform) -> Option<u32> {
        let (host, image) = (self.normalised(), made_for.normalised());
        if host.os != image.os || host.architecture != image.architecture {
            return None;
        }
        let level = |platform: &Platform| {
            let lowest = if platform.architecture == "arm64" {
                80
            } else {
                10
            };
            let text = platform.variant.strip_prefix('v').unwrap_or("");
            let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
            match (
                platform.variant.as_str(),
                major.parse::<u32>(),
                minor.parse::<u32>(),
            ) {
                ("", _, _) => Some(lowest),
                (_, Ok(major), Ok(minor)) if major < 100 && minor < 10 => Some(major * 10 + minor),
                _ => None,
            }
        };
        match (level(&host), level(&image)) {
            (Some(host), Some(image)) => host.checked_sub(image),
            // Variants that have no order must be the same.
            _ => (host.variant == image.variant).then_some(0),
        }
    }

    /// Same operating system and architecture, whatever the variants.
    pub fn runs_on(&self, host: &Platform) -> bool {
        let (image, host) = (self.normalised(), host.normalised());
        image.os == host.os && image.architecture == host.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no platform: write OS/ARCHITECTURE[/VARIANT], for example linux/arm64")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    /// `OS/ARCHITECTURE[/VARIANT]`, or an architecture alone.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let word = |part: &&str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            !part.is_empty() && part.bytes().all(fits)
        };
        let parts: Vec<&str> = s.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] => ("linux", *architecture, ""),
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            _ => return Err(PlatformError(s.chars().take(80).collect())),
        };
        if !parts.iter().all(word) {
            return Err(PlatformError(s.chars().take(80).collect()));
        }
        let platform = Self {
            architecture: architecture.to_ascii_lowercase(),
            os: os.to_ascii_lowercase(),
            variant: variant.to_ascii_lowercase(),
            ..Self::default()
        };
        Ok(platform.normalised())
    }
}

impl Index {
    /// The manifest that fits a machine best: the nearest variant, the first of equals.
    ///
    /// A single manifest that does not say what it is made for fits every machine;
    /// its configuration says more.
    pub fn choose(&self, host: &Platform) -> Option<&Descriptor> {
        let fitting = self.manifests.iter().filter_map(|manifest| {
            let distance = host.distance(manifest.platform.as_ref()?)?;
            Some((distance, manifest))
        });
        let nearest = fitting.min_by_key(|(distance, _)| *distance);
        nearest
            .map(|(_, manifest)| manifest)
            .or_else(|| match self.manifests.as_slice() {
                [only] if only.platform.is_none() => Some(only),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().zip(0u8..).map(|(text, at)| {
            let mut descriptor = Descriptor::new("m", Digest::from_sha256([at; 32]), 1);
            descriptor.platform = (!text.is_empty()).then(|| platform(text));
            descriptor
        });
        Index::new(manifests.collect())
    }

    #[test]
    fn the_nearest_variant_is_chosen() {
        for (host, platforms, wanted) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
                Some(1),
            ),
            ("linux/amd64", &["linux/amd64/v2"], None),
            (
                "linux/arm/v7",
                &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
                Some(1),
            ),
            ("linux/arm", &["linux/arm/v7"], Some(0)),
            ("linux/arm64", &["linux/arm64/v8"], Some(0)),
            ("linux/arm64", &["linux/arm64/v9", "linux/arm64"], Some(1)),
            ("linux/arm64", &["linux/arm/v7"], None),
            ("linux/amd64", &["windows/amd64"], None),
            ("linux/amd64", &["unknown/unknown"], None),
            ("linux/amd64", &[""], Some(0)),
            ("linux/amd64", &["", ""], None),
            ("linux/aarch64", &["linux/arm64"], Some(0)),
        ] {
            let index = index(platforms);
            let chosen = index.choose(&platform(host));
            let wanted = wanted.and_then(|at: usize| index.manifests.get(at));
            assert_eq!(chosen, wanted, "{host} {platforms:?}");
        }
    }

    #[test]
    fn platforms_are_read_as_people_type_them() {
        assert_eq!(platform("arm64").to_string(), "linux/arm64");
        assert_eq!(platform("Linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/arm/v6").to_string(), "linux/arm/v6");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }
}
