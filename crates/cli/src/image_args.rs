//! Flags of the verbs that are about images.

use crate::registry_args::{CopyFlags, PullFlags, PushFlags};
use clap::Subcommand;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Pull images from registries, layouts and archives
    Pull(PullFlags),
    /// Push an image to a registry, a layout or an archive
    Push(PushFlags),
    /// Copy an image from one place to another, byte for byte, past the store
    #[command(visible_alias = "cp")]
    Copy(Box<CopyFlags>),
}
