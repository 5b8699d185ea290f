//! Flags of the verbs that speak to registries.

use carrack_engine::images::{AccessOptions, parse_pair};
use carrack_spec::image::Platform;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of every verb that speaks to a registry.
#[derive(Debug, Clone, Default, Args)]
pub struct AccessFlags {
    /// Credentials for the registry, in place of those that are kept
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// File of credentials [default: $REGISTRY_AUTH_FILE, podman's and docker's]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Directory with ca.crt, client.cert and client.key for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Check certificates; false also accepts registries without TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Configuration of registries [default: /etc/containers/registries.conf and its drop-ins]
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
}

impl AccessFlags {
    /// The engine's form of these flags.
    ///
    /// # Errors
    /// `--creds` without a user.
    pub fn options(&self) -> anyhow::Result<AccessOptions> {
        let credential = match &self.creds {
            None => None,
            Some(pair) => Some(
                parse_pair(pair)
                    .ok_or_else(|| anyhow::anyhow!("--creds needs USER or USER:PASSWORD"))?,
            ),
        };
        Ok(AccessOptions {
            credential,
            authfile: self.authfile.clone(),
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.clone(),
            registries_conf: self.registries_conf.clone(),
            mirrors_get_credentials: false,
        })
    }
}

/// How to tell what goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Bars
    Tty,
    /// Lines
    Plain,
    /// One JSON document a line
    Json,
    /// Nothing
    None,
}

/// Flags of `pull`.
#[derive(Debug, Args)]
pub struct PullFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Machine that the images are for, for example linux/arm64 [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parse_platform)]
    pub platform: Option<Platform>,
    /// Pull every tag of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// How to tell what goes on
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub progress: ProgressMode,
    /// Images, by name
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `login`.
#[derive(Debug, Args)]
pub struct LoginFlags {
    /// User name; asked for when absent
    #[arg(short, long)]
    pub username: Option<String>,
    /// Password; asked for when absent. Other users of this machine can see it: prefer --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// File to keep the credential in [default: $REGISTRY_AUTH_FILE, ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Directory with ca.crt, client.cert and client.key for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Check certificates; false also accepts registries without TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Registry
    #[arg(default_value = "docker.io")]
    pub registry: String,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub struct LogoutFlags {
    /// File that the credential is in [default: $REGISTRY_AUTH_FILE, ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Registry
    #[arg(default_value = "docker.io")]
    pub registry: String,
}

/// `OS/ARCH[/VARIANT]`, or `ARCH` alone.
fn parse_platform(text: &str) -> Result<Platform, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        [architecture] => ("linux", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant] => (*os, *architecture, *variant),
        _ => ("", "", ""),
    };
    if os.is_empty() || architecture.is_empty() {
        return Err("expected OS/ARCH or OS/ARCH/VARIANT, for example linux/arm64/v8".to_owned());
    }
    Ok(Platform {
        os: os.to_owned(),
        architecture: match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        variant: variant.to_owned(),
        ..Platform::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_two_or_three_parts() {
        let shown = |text| parse_platform(text).map(|p| p.to_string());
        assert_eq!(shown("linux/arm64"), Ok("linux/arm64".to_owned()));
        assert_eq!(shown("linux/arm/v7"), Ok("linux/arm/v7".to_owned()));
        assert_eq!(shown("x86_64"), Ok("linux/amd64".to_owned()));
        for bad in ["", "/", "linux/", "a/b/c/d"] {
            assert!(shown(bad).is_err(), "{bad:?}");
        }
    }
}
