//! Flags of the verbs that speak to registries.

use crate::progress::{Direction, Progress};
use carrack_engine::Compression;
use carrack_engine::images::{AccessOptions, ManifestFormat, PushOptions, parse_pair};
use carrack_spec::image::Platform;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of every connection to a registry.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsFlags {
    /// Directory with ca.crt, client.cert and client.key for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Check certificates; false also accepts registries without TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
}

/// Flags of every verb that speaks to a registry.
#[derive(Debug, Clone, Default, Args)]
pub struct AccessFlags {
    /// Credentials for the registry, in place of those that are kept
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// File of credentials [default: $REGISTRY_AUTH_FILE, podman's and docker's]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Configuration of registries [default: /etc/containers/registries.conf and its drop-ins]
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
}

impl AccessFlags {
    /// These flags, where others do not say otherwise.
    fn or(&self, others: Self) -> Self {
        Self {
            creds: others.creds.or_else(|| self.creds.clone()),
            authfile: others.authfile.or_else(|| self.authfile.clone()),
            tls: TlsFlags {
                cert_dir: others.tls.cert_dir.or_else(|| self.tls.cert_dir.clone()),
                tls_verify: others.tls.tls_verify.or(self.tls.tls_verify),
            },
            registries_conf: self.registries_conf.clone(),
        }
    }

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
            tls_verify: self.tls.tls_verify,
            cert_dir: self.tls.cert_dir.clone(),
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

/// What is told, and how much.
#[derive(Debug, Clone, Copy, Args)]
pub struct TellFlags {
    /// Print ids or digests only
    #[arg(short, long)]
    pub quiet: bool,
    /// How to tell what goes on
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub progress: ProgressMode,
}

impl TellFlags {
    /// Tells of a transfer until it is dropped.
    pub fn progress(self, direction: Direction) -> Progress {
        Progress::new(direction, self.progress, self.quiet)
    }
}

/// Flags of verbs that push from the store.
#[derive(Debug, Args)]
pub struct SendFlags {
    /// Compress layers of images of the store so [default: any form that the registry has, else gzip]
    #[arg(
        long,
        visible_alias = "compression-format",
        value_enum,
        value_name = "METHOD"
    )]
    pub compression: Option<Method>,
    /// Compress layers anew with this level: 1 to 9 for gzip, 1 to 19 for zstd
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<i32>,
    /// Format of the manifests of images of the store, and of a list [default: the images' own; a list's is oci]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Write the digest of what was pushed to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    #[command(flatten)]
    pub tell: TellFlags,
}

impl SendFlags {
    /// The engine's form of these flags.
    pub fn options(&self, all: bool) -> PushOptions {
        PushOptions {
            compression: self.compression.map(Method::compression),
            level: self.compression_level,
            all,
            format: self.format.map(Format::manifest),
        }
    }
}

/// Flags of `pull`.
#[derive(Debug, Args)]
pub struct PullFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Machine that the images are for, for example linux/arm64 [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Pull every tag of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    #[command(flatten)]
    pub tell: TellFlags,
    /// Images: names in registries, or oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME], dir:DIR
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `push`.
#[derive(Debug, Args)]
pub struct PushFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Push the image for every machine, and their index: those that are not here are copied from where this one was pulled
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub send: SendFlags,
    /// Image or manifest list, by name or id
    pub image: String,
    /// Where to: a name in a registry, or oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME], dir:DIR
    /// [default: where its name says]
    pub destination: Option<String>,
}

/// Flags of `image copy`.
#[derive(Debug, Args)]
pub struct CopyFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    #[command(flatten)]
    pub src: SourceFlags,
    #[command(flatten)]
    pub dest: DestinationFlags,
    /// Copy the image for every machine, and the index
    #[arg(short, long, conflicts_with_all = ["multi_arch", "platform"])]
    pub all: bool,
    /// What of an image for several machines to copy
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "platform")]
    pub multi_arch: Option<MultiArch>,
    /// Copy the image for that machine, for example linux/arm64 [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Fail rather than change a digest; digests are never changed, so this says nothing new
    #[arg(long)]
    pub preserve_digests: bool,
    /// Write the digest of what was copied to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    #[command(flatten)]
    pub tell: TellFlags,
    /// From where: docker://NAME, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME], dir:DIR
    pub source: String,
    /// To where, in the same forms
    pub destination: String,
}

/// What of an image for several machines is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MultiArch {
    /// The manifest for this machine
    System,
    /// The index and everything it names
    All,
    /// The index alone
    IndexOnly,
}

/// `--src-…`.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceFlags {
    /// As --creds, for the source alone
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub src_creds: Option<String>,
    /// As --tls-verify, for the source alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub src_tls_verify: Option<bool>,
    /// As --cert-dir, for the source alone
    #[arg(long, value_name = "DIR")]
    pub src_cert_dir: Option<PathBuf>,
    /// As --authfile, for the source alone
    #[arg(long, value_name = "FILE")]
    pub src_authfile: Option<PathBuf>,
}

/// `--dest-…`.
#[derive(Debug, Clone, Default, Args)]
pub struct DestinationFlags {
    /// As --creds, for the destination alone
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub dest_creds: Option<String>,
    /// As --tls-verify, for the destination alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dest_tls_verify: Option<bool>,
    /// As --cert-dir, for the destination alone
    #[arg(long, value_name = "DIR")]
    pub dest_cert_dir: Option<PathBuf>,
    /// As --authfile, for the destination alone
    #[arg(long, value_name = "FILE")]
    pub dest_authfile: Option<PathBuf>,
}

impl CopyFlags {
    /// Who we are to the source.
    ///
    /// # Errors
    /// As [`AccessFlags::options`].
    pub fn source_options(&self) -> anyhow::Result<AccessOptions> {
        let own = &self.src;
        let overlay = AccessFlags {
            creds: own.src_creds.clone(),
            authfile: own.src_authfile.clone(),
            tls: TlsFlags {
                cert_dir: own.src_cert_dir.clone(),
                tls_verify: own.src_tls_verify,
            },
            registries_conf: None,
        };
        self.access.or(overlay).options()
    }

    /// Who we are to the destination.
    ///
    /// # Errors
    /// As [`AccessFlags::options`].
    pub fn destination_options(&self) -> anyhow::Result<AccessOptions> {
        let own = &self.dest;
        let overlay = AccessFlags {
            creds: own.dest_creds.clone(),
            authfile: own.dest_authfile.clone(),
            tls: TlsFlags {
                cert_dir: own.dest_cert_dir.clone(),
                tls_verify: own.dest_tls_verify,
            },
            registries_conf: None,
        };
        self.access.or(overlay).options()
    }
}

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// What everything can read
    Gzip,
    /// Smaller and faster
    Zstd,
    /// Not at all
    None,
}

impl Method {
    /// The engine's word for it.
    pub fn compression(self) -> Compression {
        match self {
            Self::Gzip => Compression::Gzip,
            Self::Zstd => Compression::Zstd,
            Self::None => Compression::None,
        }
    }
}

/// Formats of manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// OCI's
    Oci,
    /// Docker's, schema 2
    #[value(alias = "v2s2")]
    Docker,
}

impl Format {
    /// The engine's word for it.
    pub fn manifest(self) -> ManifestFormat {
        match self {
            Self::Oci => ManifestFormat::Oci,
            Self::Docker => ManifestFormat::Docker,
        }
    }
}

/// Flags of `search`.
#[derive(Debug, Args)]
pub struct SearchFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// List the tags of the repository that is named instead
    #[arg(long)]
    pub list_tags: bool,
    /// Most results [default: 25, of a catalogue 1000]
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// json, or text with fields such as {{.Name}} {{.Description}} {{.Stars}}, {{.Tag}} with --list-tags
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show whole descriptions
    #[arg(long)]
    pub no_trunc: bool,
    /// What to look for, perhaps with a registry before it: HOST/TERM; HOST/ lists the registry's catalogue
    pub term: String,
}

/// Flags of `image tags`.
#[derive(Debug, Args)]
pub struct TagsFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Most tags
    #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
    pub limit: usize,
    /// json, or text with the fields {{.Name}} and {{.Tag}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Repository
    pub name: String,
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
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Print who is logged in, and do nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub get_login: bool,
    /// Registry, or a part of its names: HOST/TEAM
    #[arg(default_value = "docker.io")]
    pub registry: String,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub struct LogoutFlags {
    /// File that the credential is in [default: $REGISTRY_AUTH_FILE, ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Forget every login of that file
    #[arg(short, long, conflicts_with = "registry")]
    pub all: bool,
    /// Registry, or a part of its names: HOST/TEAM
    #[arg(default_value = "docker.io")]
    pub registry: String,
}
