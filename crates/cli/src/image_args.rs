//! Flags of the verbs that are about images.

use crate::registry_args::{AccessFlags, CopyFlags, PullFlags, PushFlags, TagsFlags};
use carrack_spec::Reference;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Show everything about images, as JSON
    Inspect(InspectFlags),
    /// Show how an image was made
    History(HistoryFlags),
    /// Show the layers of images, and which images share them
    Tree(TreeFlags),
    /// Show what an image changes in the image below, or in another one
    Diff(DiffFlags),
    /// Give an image more names
    Tag(TagFlags),
    /// Take names from an image
    Untag(UntagFlags),
    /// Remove images
    Rm(RemoveFlags),
    /// Remove images that nothing uses
    Prune(PruneFlags),
    /// Load images from an OCI image layout or a docker archive
    Load(LoadFlags),
    /// Save images to an archive
    Save(SaveFlags),
    /// Make an image of one layer from a tar file
    Import(ImportFlags),
    /// Show an image's files in a directory, read-only
    Mount(MountFlags),
    /// End what mount began
    #[command(visible_alias = "umount")]
    Unmount(UnmountFlags),
    /// List the tags of a repository in its registry
    Tags(TagsFlags),
    /// Pull images from registries, layouts and archives
    Pull(PullFlags),
    /// Push an image to a registry, a layout or an archive
    Push(PushFlags),
    /// Copy an image from one place to another, byte for byte, past the store
    #[command(visible_alias = "cp")]
    Copy(Box<CopyFlags>),
}

/// What to do with everything.
#[derive(Debug, Subcommand)]
pub enum SystemVerb {
    /// Show what is on the disk
    Df(DfFlags),
    /// Remove what nothing uses: containers that ended, images, layers
    Prune(SystemPruneFlags),
    /// See whether everything is as it should be
    Check(CheckFlags),
}

/// Flags of `system df`.
#[derive(Debug, Args)]
pub struct DfFlags {
    /// Show every image and container
    #[arg(short, long)]
    pub verbose: bool,
    /// json, or text with fields such as {{.Type}} {{.TotalCount}} {{.Size}} {{.Reclaimable}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
}

/// Flags of `system prune`.
#[derive(Debug, Args)]
pub struct SystemPruneFlags {
    /// Remove every image that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Select images: until=TIME (24h, 2024-05-06), label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Flags of `system check`.
#[derive(Debug, Args)]
pub struct CheckFlags {
    #[command(flatten)]
    pub access: AccessFlags,
    /// Only look whether everything is there, not at contents
    #[arg(long)]
    pub quick: bool,
    /// Take away what is damaged, and pull it again
    #[arg(short, long)]
    pub repair: bool,
    /// Print problems only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `image ls`.
#[derive(Debug, Args)]
pub struct ListFlags {
    /// Show all images; those without a name are shown anyway
    #[arg(short, long)]
    pub all: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// Select: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME, id=ID
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// json, or text with fields such as {{.Repository}} {{.Tag}} {{.ID}} {{.Digest}} {{.CreatedSince}} {{.Size}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// No heading
    #[arg(short, long)]
    pub noheading: bool,
    /// Only images with this name, where * stands for any text
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Flags of `image inspect`.
#[derive(Debug, Args)]
pub struct InspectFlags {
    /// json, or text with fields such as {{.Id}} {{.Config.Env}} {{json .RootFS}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub struct HistoryFlags {
    /// json, or text with fields such as {{.ID}} {{.CreatedSince}} {{.CreatedBy}} {{.Size}} {{.Comment}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show whole commands and ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Sizes and times for people; false gives bytes and dates
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub human: bool,
    /// Image, by name or id
    pub image: String,
}

/// Flags of `image tree`.
#[derive(Debug, Args)]
pub struct TreeFlags {
    /// Only this image and those that stand on its layers, or that it stands on
    pub image: Option<String>,
}

/// Flags of `image diff`.
#[derive(Debug, Args)]
pub struct DiffFlags {
    /// Output as JSON
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    pub format: Option<String>,
    /// Image, by name or id
    pub image: String,
    /// What it is compared with [default: the image without its highest layer]
    pub other: Option<String>,
}

/// Flags of `tag`.
#[derive(Debug, Args)]
pub struct TagFlags {
    /// Image, by name or id
    pub image: String,
    /// New names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<Reference>,
}

/// Flags of `untag`.
#[derive(Debug, Args)]
pub struct UntagFlags {
    /// Image, by name or id
    pub image: String,
    /// Names to take away [default: all of them]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// Flags of `rmi`.
#[derive(Debug, Args)]
pub struct RemoveFlags {
    /// Remove all images
    #[arg(short, long, conflicts_with = "images")]
    pub all: bool,
    /// Remove an image with all its names, and one that containers use
    #[arg(short, long)]
    pub force: bool,
    /// An image that is not there is no failure
    #[arg(short, long)]
    pub ignore: bool,
    /// Images, by name or id
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `image prune`.
#[derive(Debug, Args)]
pub struct PruneFlags {
    /// Remove every image that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Select: until=TIME (24h, 2024-05-06), label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Flags of `load`.
#[derive(Debug, Args)]
pub struct LoadFlags {
    /// Archive or directory [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Name for the image, in place of those in the archive
    #[arg(short, long)]
    pub name: Option<Reference>,
    /// Machine that the images are for, for example linux/arm64 [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<carrack_spec::image::Platform>,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `save`.
#[derive(Debug, Args)]
pub struct SaveFlags {
    /// File or directory [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write; docker-archive can be read as oci-archive as well
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: SaveFormat,
    /// Compress layers with gzip
    #[arg(long)]
    pub compress: bool,
    /// Several images may go into one archive; they always may
    #[arg(short, long)]
    pub multi_image_archive: bool,
    /// No word of what was done
    #[arg(short, long)]
    pub quiet: bool,
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// What `save` writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SaveFormat {
    /// What docker load reads
    #[default]
    DockerArchive,
    /// A tar file with an OCI image layout
    OciArchive,
    /// A directory with an OCI image layout
    OciDir,
    /// A directory of plain files, as skopeo writes it; one image
    DockerDir,
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub struct ImportFlags {
    /// Set a default of containers: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// A word for the history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Machine that the image is for [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<carrack_spec::image::Platform>,
    /// Print the id only
    #[arg(short, long)]
    pub quiet: bool,
    /// Tar file, perhaps compressed; - is standard input
    pub file: PathBuf,
    /// Name of the image
    pub name: Option<Reference>,
}

/// Flags of `image mount`.
#[derive(Debug, Args)]
pub struct MountFlags {
    /// Images, by name or id; without one, what is mounted is listed
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Flags of `image unmount`.
#[derive(Debug, Args)]
pub struct UnmountFlags {
    /// Everything that is mounted
    #[arg(short, long, conflicts_with = "images")]
    pub all: bool,
    /// Images, by name or id
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    pub images: Vec<String>,
}
