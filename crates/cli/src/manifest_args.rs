//! Flags of the verbs that are about manifest lists.

use crate::registry_args::{AccessFlags, SendFlags};
use carrack_engine::images::MemberOptions;
use carrack_spec::Reference;
use clap::{Args, Subcommand};

/// What to do with manifest lists: images for several machines under one name.
#[derive(Debug, Subcommand)]
pub enum ManifestVerb {
    /// Make a manifest list
    Create(CreateFlags),
    /// Add images to a manifest list
    Add(Box<AddFlags>),
    /// Say for which machine an image of a list is, or more about it
    Annotate(AnnotateFlags),
    /// Take an image out of a manifest list
    Remove(RemoveFlags),
    /// Push a manifest list and its images
    Push(Box<ManifestPushFlags>),
    /// Show a manifest list, or the index or manifest of an image, as JSON
    Inspect(ManifestInspectFlags),
    /// Say by the exit code whether there is such a manifest list
    Exists(ExistsFlags),
    /// List manifest lists
    #[command(visible_alias = "list")]
    Ls(ListsFlags),
    /// Remove manifest lists
    Rm(RmListsFlags),
}

/// Flags of `manifest create`.
#[derive(Debug, Args)]
pub struct CreateFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Add an image for several machines with all of them, not only the one for this machine
    #[arg(long)]
    pub all: bool,
    /// Add to the list when it is there already
    #[arg(short, long)]
    pub amend: bool,
    /// Name of the list
    #[arg(value_name = "LIST")]
    pub list: Reference,
    /// Images of the store or of a registry, or oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME], dir:DIR
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// What a list says of an image.
#[derive(Debug, Args)]
pub struct MachineFlags {
    /// Processor architecture, for example arm64
    #[arg(long)]
    pub arch: Option<String>,
    /// Operating system, for example linux
    #[arg(long)]
    pub os: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub os_version: Option<String>,
    /// What the image needs of the operating system
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub os_features: Vec<String>,
    /// Variant of the architecture, for example v7
    #[arg(long)]
    pub variant: Option<String>,
    /// What the image needs of the processor
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub features: Vec<String>,
    /// Annotation of the image in the list
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_annotation)]
    pub annotation: Vec<(String, String)>,
}

impl MachineFlags {
    /// The engine's form of these flags.
    pub fn options(&self) -> MemberOptions {
        MemberOptions {
            os: self.os.clone(),
            architecture: self.arch.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            features: self.features.clone(),
            annotations: self.annotation.clone(),
        }
    }
}

/// Flags of `manifest add`.
#[derive(Debug, Args)]
pub struct AddFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Add an image for several machines with all of them
    #[arg(long, conflicts_with_all = ["arch", "os", "os_version", "variant"])]
    pub all: bool,
    /// In place of what the image says; they also choose from an image for several machines
    #[command(flatten)]
    pub machine: MachineFlags,
    /// List, by name or id
    pub list: String,
    /// Images of the store or of a registry, or oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME], dir:DIR
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `manifest annotate`.
#[derive(Debug, Args)]
pub struct AnnotateFlags {
    #[command(flatten)]
    pub machine: MachineFlags,
    /// Annotate the list itself
    #[arg(long, conflicts_with_all = ["image", "arch", "os", "os_version", "os_features", "variant", "features"])]
    pub index: bool,
    /// List, by name or id
    pub list: String,
    /// Image of the list, by digest or by the name it was added under
    #[arg(required_unless_present = "index")]
    pub image: Option<String>,
}

/// Flags of `manifest remove`.
#[derive(Debug, Args)]
pub struct RemoveFlags {
    /// List, by name or id
    pub list: String,
    /// Image of the list, by digest or by the name it was added under
    pub image: String,
}

/// Flags of `manifest push`.
#[derive(Debug, Args)]
pub struct ManifestPushFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Push the images too; false pushes the list alone, whose images must be there
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub all: bool,
    /// Remove the list when it is pushed
    #[arg(short, long, visible_alias = "rm")]
    pub purge: bool,
    #[command(flatten)]
    pub send: SendFlags,
    /// List, by name or id
    pub list: String,
    /// Where to: a name in a registry, or oci:DIR[:REF], oci-archive:FILE[:REF], dir:DIR [default: where its name says]
    pub destination: Option<String>,
}

/// Flags of `manifest inspect`.
#[derive(Debug, Args)]
pub struct ManifestInspectFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// A list, an image of the store or of a registry; docker://NAME asks the registry in any case
    pub name: String,
}

/// Flags of `manifest exists`.
#[derive(Debug, Args)]
pub struct ExistsFlags {
    /// List, by name or id
    pub list: String,
}

/// Flags of `manifest ls`.
#[derive(Debug, Args)]
pub struct ListsFlags {
    /// json, or text with the fields {{.Name}} {{.ID}} {{.Platforms}} {{.Changed}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `manifest rm`.
#[derive(Debug, Args)]
pub struct RmListsFlags {
    /// A list that is not there is no failure
    #[arg(short, long)]
    pub ignore: bool,
    /// Lists, by name or id
    #[arg(required = true, value_name = "LIST")]
    pub lists: Vec<String>,
}

fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
